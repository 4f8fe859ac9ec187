"""Three projectors are replaced one by one while events are appended: how long changes wait to be searchable meanwhile.

A partition that nobody applies stands still, and what is appended to it waits: the longest wait of its records is how
long it stood still.
"""

import asyncio
import statistics
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, NamedTuple

from bench import samples
from bench.open_loop import Record, open_loop
from bench.projecting import START_SECONDS, STOP_SECONDS, prepare, process
from bench.report import Figure, percentile, turned
from bench.servers import Servers, Tell, until
from bench.visible import watching
from local.health import unreadiness
from local.ports import LOOPBACK, free_port
from local.process import Child
from producer_admin.outbox import shard_of
from runtime.kafka import idempotent_producer

PROJECTORS: Final = 3
RATE: Final = 120.0
"""Events a second, over all partitions."""
CALM_SECONDS: Final = 2.0
"""Before the first is replaced, and after the last."""
LONGEST_SECONDS: Final = 200.0
"""Of one scene; as many events are at hand."""
VISIBLE_SECONDS: Final = 60.0
SLOW_SECONDS: Final = 10.0
"""A pod that has to be given a place and its image."""
SESSION_SECONDS: Final = 10.0
"""As KAFKA_SESSION_TIMEOUT_MS is unless told."""


class Way(NamedTuple):
    """How a projector is replaced."""

    name: str
    key: str
    surge: bool = False
    """The next is ready before the one before is told to stop."""
    killed: bool = False
    """Instead of told to stop; and one of them only: crashes come alone."""
    named: bool = False
    """Each has a KAFKA_GROUP_INSTANCE_ID, which whoever is started in its place has too."""
    start_seconds: float = 0.0
    """From the end of one until the process of the next is started."""


WAYS: Final = (
    Way("rolled, next before last", "surge", surge=True),
    Way("rolled, last before next", "no_surge"),
    Way("rolled, last before next, slow start", "no_surge_slow", start_seconds=SLOW_SECONDS),
    Way("killed, without a name", "killed", killed=True),
    Way("killed, without a name, slow start", "killed_slow", killed=True, start_seconds=SLOW_SECONDS),
    Way("killed, with its name", "named", killed=True, named=True),
    Way("killed, with its name, slow start", "named_slow", killed=True, named=True, start_seconds=SLOW_SECONDS),
)


class Waits(NamedTuple):
    """Of changes until they were searchable, in seconds."""

    p99: float
    longest: float
    """Of all partitions."""
    median: float
    """The longest of a partition, in the median of the partitions."""


async def measure(servers: Servers, rounds: int, tell: Tell) -> list[Figure]:
    """Replace them in each way in each round, on one topic and one table that grows.

    Args:
        servers: where to run
        rounds: of each way
        tell: told what is being done
    """
    found: dict[str, list[Waits]] = {way.key: [] for way in WAYS}
    async with servers.topic() as topic, servers.database() as database:
        await prepare(database)
        for number, order in enumerate(turned(WAYS, rounds)):
            for way in order:
                tell(f"Round {number + 1} of {rounds}: {way.name}")
                fleet = _Fleet(servers, topic, database, f"{way.key}-{number}", way)
                found[way.key].append(await fleet.replaced(seed=len(WAYS) * number + WAYS.index(way)))
    return [
        Figure(f"{way.name}, {part}", "s", tuple(getattr(one, part) for one in found[way.key]), f"{way.key}_{part}_s")
        for way in WAYS
        for part in Waits._fields
    ]


@dataclass(frozen=True)
class _Fleet:
    """Projectors of one group."""

    servers: Servers
    topic: str
    database: str
    group: str
    way: Way

    async def replaced(self, seed: int) -> Waits:
        """Replace all of them, or kill one, under load."""
        records = [Record.of(event) for event in samples.events(int(RATE * LONGEST_SECONDS), 1_000 + seed)]
        enough = asyncio.Event()
        async with (
            AsyncExitStack() as ends,
            watching(self.database) as watch,
            idempotent_producer(self.servers.bootstrap_servers, "rolling") as producer,
        ):

            async def append(one: Record) -> Awaitable[object]:
                acknowledged: Awaitable[object] = await producer.send(
                    self.topic, one.value, one.key, partition=one.partition, headers=one.headers
                )
                return acknowledged

            names = [f"projector-{number}" for number in range(PROJECTORS)]
            children = await asyncio.gather(*(self._started(name, ends) for name in names))
            loading = asyncio.create_task(open_loop(append, records, RATE, watch, enough))
            await asyncio.sleep(CALM_SECONDS)
            for name, child in list(zip(names, children, strict=True))[: 1 if self.way.killed else None]:
                await self._replace(name, child, ends)
            # What a dead member had stands still until its session is over, however soon its successor is ready.
            await asyncio.sleep(CALM_SECONDS + (SESSION_SECONDS if self.way.killed else 0.0))
            enough.set()
            await loading
            await until(watch.all_seen, VISIBLE_SECONDS)
        longest: dict[int, float] = {}
        for file_id, delay in zip(watch.files, watch.delays, strict=True):
            longest[shard_of(file_id)] = max(longest.get(shard_of(file_id), 0.0), delay)
        return Waits(percentile(watch.delays, 0.99), max(watch.delays), statistics.median(longest.values()))

    async def _replace(self, name: str, child: Child, ends: AsyncExitStack) -> None:
        if self.way.surge:
            await self._started(name, ends)
        if self.way.killed:
            await asyncio.to_thread(child.kill)
        else:
            await asyncio.to_thread(child.stop, STOP_SECONDS)
        if not self.way.surge:
            await asyncio.sleep(self.way.start_seconds)
            await self._started(name, ends)

    async def _started(self, name: str, ends: AsyncExitStack) -> Child:
        """Start one, wait until it is ready, and end it at the end."""
        port = free_port()
        variables = {"KAFKA_CONSUMER_GROUP": self.group, "QUERY_PROJECTOR_MANAGEMENT_PORT": str(port)}
        if self.way.named:
            variables["KAFKA_GROUP_INSTANCE_ID"] = name
        child = ends.enter_context(process(self.servers, "projector", self.database, self.topic, **variables))

        async def ready() -> bool:
            if child.exit_code() is not None:
                raise child.died()
            return await asyncio.to_thread(unreadiness, f"http://{LOOPBACK}:{port}/health/ready") is None

        await until(ready, START_SECONDS, 0.05)
        return child
