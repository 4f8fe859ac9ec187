"""How fast the projector turns a topic into rows, beside what else people would plug in, in the same run.

All fill full tables (`full_table`) from the same events, and every row is compared after each round. Speeds are in
events, whatever number of records a contender reads for them.

- ours: the real process on the topic that the real relay has written, from when it has seeked to the last record
- `floor`: one connection to Postgres, nothing to read or decode
- `redis_streams`: the design that this one replaces, as written and in batches
- `connect_sink`: Kafka Connect with Debezium's JDBC sink, with one task and with two

Besides: all records again when all of them are stale, and reading and decoding alone.
"""

import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import asyncpg

from bench import connect_sink, filled_table, floor, full_table, projecting, redis_streams, samples
from bench.backlog import Waiting, relayed, send_in_batches
from bench.full_table import Expected
from bench.projecting import Log
from bench.report import Figure, ratio, turned
from bench.servers import Servers, Tell
from runtime.kafka import idempotent_producer
from schemas.events import FileEvent

ONE_BY_ONE_SHARE: Final = 10
"""The design as written handles this fraction of the events: a rate is looked for, and it would take minutes."""
LEAST_ONE_BY_ONE: Final = 2000


class Peer(StrEnum):
    """What is set up on demand only."""

    REDIS = "redis"
    DEBEZIUM = "debezium"


OURS: Final = "projector"
FLOOR: Final = "floor: one connection, nothing to read"
STALE: Final = "projector, all stale"
DECODE: Final = "read and decode only"
REDIS: Final = "Redis Streams as designed"
REDIS_BATCHED: Final = "Redis Streams in batches"
SINK_ONE: Final = "Debezium's sink, 1 task"
SINK_TWO: Final = "Debezium's sink, 2 tasks"
KEYS: Final = {
    OURS: "events_per_s",
    FLOOR: "floor_events_per_s",
    STALE: "stale_events_per_s",
    DECODE: "decode_only_events_per_s",
    REDIS: "redis_streams_events_per_s",
    REDIS_BATCHED: "redis_batched_events_per_s",
    SINK_ONE: "debezium_1_task_events_per_s",
    SINK_TWO: "debezium_2_tasks_events_per_s",
}


@dataclass
class Input:
    """The same events for all."""

    servers: Servers
    events: Sequence[FileEvent]
    expected: Expected
    log: Log
    rates: dict[str, list[float]] = field(default_factory=dict)
    """Events a second, by contender."""
    most_rss_mib: list[float] = field(default_factory=list)

    def note(self, name: str, events: int, seconds: float) -> None:
        """One round of a contender."""
        self.rates.setdefault(name, []).append(events / seconds)


Contender = Callable[[], Awaitable[None]]


async def measure(servers: Servers, rows: int, rounds: int, peers: Sequence[Peer], tell: Tell) -> list[Figure]:
    """Run all contenders in all rounds.

    Returns:
        Events a second of each, our multiples of theirs, and the most memory that our process held.
    """
    async with AsyncExitStack() as stack:
        given = await stack.enter_async_context(given_topic(servers, rows, tell))
        contenders: dict[str, Contender] = {OURS: lambda: _ours(given), FLOOR: lambda: _floor(given)}
        if Peer.REDIS in peers:
            url = stack.enter_context(redis_streams.redis_server(servers.folder / "redis", tell))
            contenders["Redis Streams"] = lambda: _redis(given, url)
        if Peer.DEBEZIUM in peers:
            worker = stack.enter_context(connect_sink.connect_worker(servers, servers.folder / "connect", tell))
            topic = await stack.enter_async_context(_flat_topic(given))
            contenders["Debezium's sink"] = lambda: _debezium(given, worker, topic)
        # The samples live for the whole run: walking them at each collection would slow down whoever allocates most.
        gc.collect()
        gc.freeze()
        tell("Warming up")
        if Peer.DEBEZIUM in peers:
            await _debezium(given, worker, topic)
        given.rates.clear()
        for number, order in enumerate(turned(list(contenders), rounds), 1):
            for name in order:
                tell(f"Round {number} of {rounds}, {name}")
                await contenders[name]()
        return _figures(given)


async def sizes(servers: Servers, rows: int, rounds: int, tables: Sequence[int], tell: Tell) -> list[Figure]:
    """The projector alone, into tables that hold `tables` files already.

    Returns:
        Events a second at each size, and each size's share of the first one's.
    """
    async with given_topic(servers, rows, tell) as given:
        names = {size: f"{OURS}, {size:,} files in the table" for size in tables}
        for number, order in enumerate(turned(list(tables), rounds), 1):
            for size in order:
                tell(f"Round {number} of {rounds}, {names[size]}")
                async with servers.database() as url:
                    await projecting.prepare(url)
                    await filled_table.fill(servers, given.log, url, size)
                    await servers.checkpoint()
                    run, _ = await projecting.project(servers, url, given.log)
                    given.note(names[size], rows, run.seconds)
    figures = {size: Figure(names[size], "events/s", tuple(given.rates[names[size]]), f"at_{size}") for size in tables}
    first = figures[tables[0]]
    others = [ratio(f"{one.name} / {first.name}", one, first) for one in figures.values() if one is not first]
    return [*figures.values(), *others]


@asynccontextmanager
async def given_topic(servers: Servers, rows: int, tell: Tell) -> AsyncIterator[Input]:
    """A topic that the real relay has written."""
    tell("Making events")
    events = list(samples.events(rows))
    async with servers.topic() as topic:
        tell("Writing the topic through the relay")
        await relayed(servers, topic, [Waiting.of(event) for event in events])
        log, _ = await projecting.read(servers, topic)
        yield Input(servers, events, await Expected.of(servers, events), log)


async def _ours(given: Input) -> None:
    servers, log = given.servers, given.log
    async with servers.database() as url:
        await projecting.prepare(url)
        await servers.checkpoint()
        fresh, group = await projecting.project(servers, url, log)
        await _compare_ours(given, url)
        await projecting.go_back(servers, url, log, group)
        await servers.checkpoint()
        stale, _ = await projecting.project(servers, url, log, group)
        await _compare_ours(given, url)
    _, decoded = await projecting.read(servers, log.topic)
    given.note(OURS, len(given.events), fresh.seconds)
    given.note(STALE, len(given.events), stale.seconds)
    given.note(DECODE, len(given.events), decoded)
    given.most_rss_mib.append(max(fresh.most_rss_mib, stale.most_rss_mib))


async def _compare_ours(given: Input, url: str) -> None:
    connection = await asyncpg.connect(url)
    full_table.compare(OURS, await full_table.files(connection, projecting.VIEW), given.expected.files)
    full_table.compare(OURS, await full_table.deletions(connection, projecting.TABLE), given.expected.deletions)
    await connection.close()


async def _floor(given: Input) -> None:
    rows = [full_table.plain(event) for event in given.events]
    async with given.servers.database() as url:
        connection = await asyncpg.connect(url)
        await full_table.make(connection, floor.TABLE, full_table.WITH_DELETIONS)
        await given.servers.checkpoint()
        given.note(FLOOR, len(rows), await floor.write(connection, rows))
        await connection.execute(floor.FILES)
        full_table.compare(FLOOR, await full_table.files(connection, "floor_files"), given.expected.files)
        full_table.compare(FLOOR, await full_table.deletions(connection, floor.TABLE), given.expected.deletions)
        await connection.close()


async def _redis(given: Input, redis: str) -> None:
    few = given.events[: max(LEAST_ONE_BY_ONE, len(given.events) // ONE_BY_ONE_SHARE)]
    expected_of_few = await Expected.of(given.servers, few)
    for name, write, events, expected in (
        (REDIS, redis_streams.one_by_one, few, expected_of_few),
        (REDIS_BATCHED, redis_streams.in_batches, given.events, given.expected),
    ):
        await redis_streams.publish(redis, events)
        async with given.servers.database() as url:
            connection = await asyncpg.connect(url)
            await full_table.make(connection, redis_streams.TABLE, full_table.GENERATED)
            await given.servers.checkpoint()
            given.note(name, len(events), await write(redis, url, len(events)))
            found = await full_table.files(connection, redis_streams.TABLE, with_revision=False)
            full_table.compare(name, found, expected.files_without_revision)
            await connection.close()


async def _debezium(given: Input, worker: connect_sink.Worker, topic: str) -> None:
    for name, tasks in ((SINK_ONE, 1), (SINK_TWO, 2)):
        async with given.servers.database() as url:
            connection = await asyncpg.connect(url)
            await full_table.make(connection, connect_sink.TABLE, full_table.GENERATED)
            await given.servers.checkpoint()
            async with worker.sink(topic, given.events, url, tasks) as rate:
                given.rates.setdefault(name, []).append(rate)
                # Deletions may still be on their way.
                found = await full_table.settled(connection, connect_sink.TABLE, given.expected.files)
            full_table.compare(name, found, given.expected.files)
            await connection.close()


@asynccontextmanager
async def _flat_topic(given: Input) -> AsyncIterator[str]:
    async with given.servers.topic() as topic:
        async with idempotent_producer(given.servers.bootstrap_servers, "bench") as producer:
            await send_in_batches(producer, topic, connect_sink.records(given.events))
        yield topic


def _figures(given: Input) -> list[Figure]:
    figures = {
        name: Figure(name, "events/s", tuple(given.rates[name]), key)
        for name, key in KEYS.items()
        if name in given.rates
    }
    ours = figures[OURS]
    ratios = [ratio("projector / floor", ours, figures[FLOOR], "ratio_floor")]
    ratios.append(ratio("all stale / read and decode only", figures[STALE], figures[DECODE], "ratio_decode_only"))
    if REDIS in figures:
        ratios.append(ratio("projector / Redis Streams as designed", ours, figures[REDIS], "ratio_redis_streams"))
        ratios.append(
            ratio("projector / Redis Streams in batches", ours, figures[REDIS_BATCHED], "ratio_redis_batched")
        )
    if SINK_ONE in figures:
        best = max((figures[SINK_ONE], figures[SINK_TWO]), key=lambda one: one.median)
        ratios.append(ratio(f"projector / {best.name}, the better", ours, best, "ratio_debezium"))
    memory = Figure("projector, most memory", "MiB", tuple(given.most_rss_mib), "projector_rss_mib")
    return [*figures.values(), *ratios, memory]
