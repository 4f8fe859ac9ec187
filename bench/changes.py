"""How many metadata-only changes a second go through API, outbox and topic, and how soon each is on the topic.

The Admin API and the relay run as real processes. Each client changes files of its own, one after the other, and waits
for each answer (a closed loop). A reader of committed records, in this process, sees when each change is on the topic.
The time from commit to topic is counted from the client's answer, which comes a little after the commit; a record that
is seen before its answer counts as 0.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final
from uuid import UUID

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.report import Figure, percentile
from bench.servers import Servers, Tell, until
from local.health import unreadiness
from local.kafka import EmbeddedKafka
from local.process import Child, Command
from local.services import admin_url, environment, services
from local.settings import CHECKOUT, StackSettings
from local.state import Home
from producer_admin.migrations import run_migrate
from producer_admin.settings import AdminDatabaseSettings
from runtime.kafka import plain_consumer
from runtime.topics import ensure_topic
from schemas.events import REVISION_HEADER
from schemas.topics import FILE_EVENTS, cards

FILES_OF_A_CLIENT: Final = 20
READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0
SEEN_SECONDS: Final = 30.0
FILES: Final = "/api/v1/files"
ADMIN_SIDE: Final = frozenset({"admin-api", "admin-relay"})

Change = tuple[UUID, int]
"""File and revision."""


async def measure(servers: Servers, clients: int, seconds: float, rounds: int, tell: Tell) -> list[Figure]:
    """Run `rounds` rounds of `seconds` s with `clients` clients.

    Returns:
        Changes a second, and percentiles of the time from answer to topic, of each round.
    """
    settings = await prepared(servers)
    tell("Starting Admin API and relay")
    with processes(servers, settings):
        async with (
            httpx.AsyncClient(
                base_url=admin_url(settings) + FILES, timeout=60, limits=httpx.Limits(max_connections=clients)
            ) as admin,
            _seen(servers, settings.file_events_topic) as seen,
        ):
            tell("Making files")
            files = [await _files(admin) for _ in range(clients)]
            speeds, halves, tails = [], [], []
            for number in range(rounds + 1):
                tell(f"Round {number} of {rounds}" if number else "Warming up")
                begin = time.perf_counter()
                answered: dict[Change, float] = {}
                until = begin + seconds
                await asyncio.gather(*(_client(admin, own, until, answered) for own in files))
                took = time.perf_counter() - begin
                delays = await _delays(answered, seen)
                if number:
                    speeds.append(len(answered) / took)
                    halves.append(1000 * percentile(delays, 0.5))
                    tails.append(1000 * percentile(delays, 0.99))
    name = f"changes by {clients} client{'s' if clients > 1 else ''}"
    return [
        Figure(name, "changes/s", tuple(speeds)),
        Figure("answer to topic, p50", "ms", tuple(halves)),
        Figure("answer to topic, p99", "ms", tuple(tails)),
    ]


async def prepared(servers: Servers) -> StackSettings:
    """Settings of an Admin side whose database is migrated and whose topic is made."""
    settings = StackSettings.on_free_ports(servers.folder / "home")
    await run_migrate(AdminDatabaseSettings(admin_database_url=servers.postgres.url("artstore_admin")))
    await ensure_topic(servers.bootstrap_servers, cards()[FILE_EVENTS], name=settings.file_events_topic)
    return settings


@contextmanager
def processes(servers: Servers, settings: StackSettings, names: Collection[str] = ADMIN_SIDE) -> Iterator[None]:
    """Processes of the stack, by their names in `local.services`, ready."""
    home = Home(settings.artstore_home)
    home.files.mkdir(parents=True, exist_ok=True)
    kafka = EmbeddedKafka(servers.folder, int(servers.bootstrap_servers.rpartition(":")[2]))
    variables = environment(settings, home, kafka, servers.postgres)
    wanted = [service for service in services(settings) if service.name in names]
    children: list[Child] = []
    try:
        for service in wanted:
            log = servers.folder / f"{service.name}.log"
            children.append(Child(Command(name=service.name, argv=service.argv, log=log, cwd=CHECKOUT, env=variables)))
        for service, child in zip(wanted, children, strict=True):
            url = service.ready_url
            child.wait_until(lambda url=url: unreadiness(url) is None, READY_SECONDS)  # type: ignore[misc]
        yield
    finally:
        for child in children:
            child.stop(STOP_SECONDS)


async def _files(admin: httpx.AsyncClient) -> list[UUID]:
    made = []
    for number in range(FILES_OF_A_CLIENT):
        answer = await admin.post("/upload", files={"file": (f"{number}.txt", b"x")})
        answer.raise_for_status()
        made.append(UUID(answer.json()["file_id"]))
    return made


async def _client(admin: httpx.AsyncClient, own: Sequence[UUID], until: float, answered: dict[Change, float]) -> None:
    number = 0
    while time.perf_counter() < until:
        file_id = own[number % len(own)]
        answer = await admin.patch(f"/{file_id}", json={"description": f"{until} {number}"})
        answer.raise_for_status()
        answered[file_id, answer.json()["revision"]] = time.perf_counter()
        number += 1


async def _delays(answered: dict[Change, float], seen: dict[Change, float]) -> list[float]:
    """Seconds from each answer to its record, once all are there."""

    async def all_seen() -> bool:
        return answered.keys() <= seen.keys()

    await until(all_seen, SEEN_SECONDS)
    return [max(0.0, seen[change] - moment) for change, moment in answered.items()]


@asynccontextmanager
async def _seen(servers: Servers, topic: str) -> AsyncIterator[dict[Change, float]]:
    """When each change was first seen on the topic; goes on by itself."""
    found: dict[Change, float] = {}
    async with plain_consumer(servers.bootstrap_servers, fetch_max_wait_ms=100) as consumer:
        consumer.assign([TopicPartition(topic, number) for number in range(cards()[FILE_EVENTS].partitions)])
        reading = asyncio.create_task(_read(consumer, found))
        try:
            yield found
        finally:
            reading.cancel()


async def _read(consumer: AIOKafkaConsumer, found: dict[Change, float]) -> None:
    async for record in consumer:
        assert record.key is not None  # noqa: S101 - the topic is compacted
        change = UUID(record.key.decode()), int(dict(record.headers)[REVISION_HEADER])
        found.setdefault(change, time.perf_counter())
