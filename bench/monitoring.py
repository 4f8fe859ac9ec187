"""What it costs the projector to be watched: a backlog is applied alone, and beside all that looks at it, in turn.

Watched, a Query API beside it looks at the group every two seconds as it always does, and the metrics of both are read
as often as an impatient Prometheus would. All of that counts as monitoring, the idle API process too.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from statistics import median
from typing import Final

import httpx

from bench import projecting
from bench.projector import Input, given_topic
from bench.report import Figure, turned
from bench.servers import Servers, Tell
from local.health import unreadiness
from local.ports import LOOPBACK, free_ports

SCRAPE_SECONDS: Final = 5.0
READY_SECONDS: Final = 60.0
ALONE: Final = "alone"
WATCHED: Final = "watched"


async def measure(servers: Servers, rows: int, rounds: int, tell: Tell) -> list[Figure]:
    """Apply `rows` events in each round, alone and watched.

    Returns:
        Events a second of both, and what being watched costs in percent: of each round, and of their medians.
    """
    async with given_topic(servers, rows, tell) as given:
        for number, order in enumerate(turned([ALONE, WATCHED], rounds + 1)):
            for name in order:
                tell(f"Round {number} of {rounds}, {name}" if number else f"Warming up, {name}")
                await _project(given, name, f"monitoring-{number}-{name}")
            if not number:
                given.rates.clear()
    alone, watched = (tuple(given.rates[name]) for name in (ALONE, WATCHED))
    costs = tuple(100 * (1 - one / other) for one, other in zip(watched, alone, strict=True))
    return [
        Figure(ALONE, "events/s", alone, "alone_events_per_s"),
        Figure(WATCHED, "events/s", watched, "watched_events_per_s"),
        Figure("cost, by round", "%", costs, "cost_percent"),
        Figure("cost, of the medians", "%", (100 * (1 - median(watched) / median(alone)),), "cost_of_medians_percent"),
    ]


async def _project(given: Input, name: str, group: str) -> None:
    async with given.servers.database() as url:
        await projecting.prepare(url)
        await given.servers.checkpoint()
        if name == ALONE:
            run, _ = await projecting.project(given.servers, url, given.log, group)
        else:
            projector_port, api_port, management_port = free_ports(3)
            ports = {"QUERY_API_PORT": str(api_port), "QUERY_API_MANAGEMENT_PORT": str(management_port)}
            topic, servers = given.log.topic, given.servers
            with projecting.process(servers, "api", url, topic, KAFKA_CONSUMER_GROUP=group, **ports) as child:
                health = f"http://{LOOPBACK}:{management_port}/health/ready"
                await asyncio.to_thread(child.wait_until, lambda: unreadiness(health) is None, READY_SECONDS)
                own_port = {"QUERY_PROJECTOR_MANAGEMENT_PORT": str(projector_port)}
                async with _scraped(projector_port, management_port):
                    run, _ = await projecting.project(servers, url, given.log, group, **own_port)
        given.note(name, given.log.records, run.seconds)


@asynccontextmanager
async def _scraped(*ports: int) -> AsyncIterator[None]:
    """Read the metrics of processes now and then."""

    async def scrape() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                for port in ports:
                    with suppress(httpx.TransportError):  # the projector may not listen yet
                        (await client.get(f"http://{LOOPBACK}:{port}/metrics")).raise_for_status()
                await asyncio.sleep(SCRAPE_SECONDS)

    scraping = asyncio.create_task(scrape())
    try:
        yield
    finally:
        scraping.cancel()
        await asyncio.wait([scraping])
