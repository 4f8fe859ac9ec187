"""How soon a SELECT on the view of the cache sees what was appended to the topic.

Appends are an `open_loop`, seen as `visible` says. The projector runs as a real process; so do the Admin API and the
relay where an upload is what is timed, from its 2xx. The table has all its indexes. Deletions are appended and applied
like the rest, but not timed: the view does not show them.

Beside it, at the lower rate, the design that this one replaces, `redis_streams`: its loop in a process of its own too.
Only the first event of a file is timed there, because that design keeps no revisions to tell the others by.
"""

import asyncio
import gc
import multiprocessing
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
import httpx
import uvloop
from aiokafka import AIOKafkaProducer, TopicPartition
from redis.asyncio import Redis

from bench import full_table, redis_streams, samples
from bench.changes import ADMIN_SIDE, FILES, prepared, processes
from bench.open_loop import Append, Record, Timed, open_loop
from bench.report import Figure
from bench.servers import Servers, Tell, until
from bench.visible import Watch, watching
from consumer_query.migrations import run_migrate
from consumer_query.settings import QueryDatabaseSettings
from local.services import admin_url
from local.settings import StackSettings
from producer_admin.outbox import SHARDS
from runtime.kafka import admin_client, plain_consumer

PROJECTOR: Final = frozenset({"query-projector"})

VISIBLE_SECONDS: Final = 120.0
QUIET_PARTITION: Final = 0
"""Has no backlog while the others have."""
SEEN_IN_REDIS_CACHE: Final = f"""
SELECT file_id, {2**63 - 1} AS revision FROM {redis_streams.TABLE} WHERE file_id = ANY($1::uuid[])
"""  # noqa: S608 - a constant
"""Any revision will do: there are none."""
LOOK_AT_LAG_SECONDS: Final = 0.2
UPLOADED_BYTES: Final = 1000
SEEDS_OF_A_ROUND: Final = 1000
"""Seeds of one round are this far from those of the next."""


class Rates(NamedTuple):
    """What is asked of the projector."""

    low: float = 200.0
    high: float = 2000.0
    uploads: float = 25.0


RATES: Final = Rates()


async def measure(
    servers: Servers, rows: int, seconds: float, rounds: int, tell: Tell, *, redis: bool = True, rates: Rates = RATES
) -> list[Figure]:
    """Run all scenes in all rounds, on one topic and one table that grows.

    Args:
        servers: where to run
        rows: events of the backlog
        seconds: of each scene but the backlog, which lasts as long as it is drained
        rounds: how many are reported; one more, shorter, goes before them
        tell: told what is being done
        redis: whether the design that this one replaces is measured too
        rates: appends and uploads a second
    """
    settings = await prepared(servers)
    database = servers.postgres.url("artstore_query")
    await run_migrate(QueryDatabaseSettings(query_database_url=database))
    found: dict[str, list[Timed]] = {}
    drained: list[float] = []
    for number in range(rounds + 1):
        part = "Warming up" if not number else f"Round {number} of {rounds}"
        length, backlog = (seconds, rows) if number else (min(seconds, 5.0), min(rows, 20_000))
        scene = Scene(servers, settings, database, SEEDS_OF_A_ROUND * number)
        timed = {}
        await servers.checkpoint()
        with processes(servers, settings, PROJECTOR):
            for rate in (rates.low, rates.high):
                tell(f"{part}: {rate:g} appends/s")
                timed[f"{rate:g}/s"] = await scene.appends(rate, length)
            with processes(servers, settings, ADMIN_SIDE):
                tell(f"{part}: {rates.uploads:g} uploads/s")
                timed["upload"] = await scene.uploads(rates.uploads, length)
        tell(f"{part}: a backlog of {backlog:,}")
        timed["beside a backlog"], speed = await scene.beside_backlog(rates.low, backlog)
        if redis:
            tell(f"{part}: Redis Streams, {rates.low:g} appends/s")
            timed["redis"] = await scene.redis_streams(rates.low, length)
        if number:
            drained.append(speed)
            for name, one in timed.items():
                found.setdefault(name, []).append(one)
    return [*_figures(found, rates), Figure("backlog drained meanwhile", "events/s", tuple(drained), "backlog_per_s")]


def _figures(found: dict[str, list[Timed]], rates: Rates) -> Iterator[Figure]:
    names = {
        f"{rates.low:g}/s": (f"append to visible at {rates.low:g}/s", f"append_{rates.low:g}"),
        f"{rates.high:g}/s": (f"append to visible at {rates.high:g}/s", f"append_{rates.high:g}"),
        "upload": ("2xx of an upload to visible", "upload"),
        "beside a backlog": (f"append to visible at {rates.low:g}/s beside a backlog", "backlog"),
        "redis": (f"append to visible at {rates.low:g}/s, Redis Streams", "redis_streams"),
    }
    for scene, runs in found.items():
        name, key = names[scene]
        for part in ("p50", "p99", "slowest"):
            yield Figure(f"{name}, {part}", "ms", tuple(getattr(one, part) for one in runs), f"{key}_{part}_ms")
        yield Figure("  asked again after", "ms", tuple(one.asking for one in runs), f"{key}_asking_ms")
        yield Figure("  appended late, p99", "ms", tuple(one.late for one in runs), f"{key}_late_p99_ms")


@dataclass
class Scene:
    """What one round does to a running projector."""

    servers: Servers
    settings: StackSettings
    database: str
    seed: int

    async def appends(self, rate: float, seconds: float) -> Timed:
        """`rate` appends a second for `seconds`, over all partitions."""
        records = self._records(int(rate * seconds))
        async with watching(self.database) as watch, self._producer() as append:
            late = await open_loop(append, records, rate, watch)
            await until(watch.all_seen, VISIBLE_SECONDS)
        return Timed.of(watch, late)

    async def uploads(self, rate: float, seconds: float) -> Timed:
        """`rate` small uploads a second for `seconds`; timed from the answer."""
        late: list[float] = []
        async with (
            watching(self.database) as watch,
            httpx.AsyncClient(base_url=admin_url(self.settings) + FILES, timeout=60) as admin,
        ):
            begin = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for number in range(int(rate * seconds)):
                    due = begin + number / rate
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    late.append(time.perf_counter() - due)
                    group.create_task(_upload(admin, number, watch))
            await until(watch.all_seen, VISIBLE_SECONDS)
        return Timed.of(watch, late)

    async def beside_backlog(self, rate: float, count: int) -> tuple[Timed, float]:
        """`rate` appends a second to the quiet partition while the projector drains `count` events of the others.

        Appending begins when the first of the backlog is committed, and ends when a twentieth of it is left.

        Returns:
            What was timed, and how many events a second of the backlog were drained meanwhile.
        """
        records = self._records(count + count // (SHARDS - 1))
        quiet = [record for record in records if record.partition == QUIET_PARTITION]
        async with self._producer() as append:
            waiting = [await append(record) for record in records if record.partition != QUIET_PARTITION]
            await asyncio.gather(*waiting)
            async with self._left() as left, watching(self.database) as watch:
                total = await left()

                async def begun() -> bool:
                    return await left() < total

                async def over() -> bool:
                    return await left() == 0

                with processes(self.servers, self.settings, PROJECTOR):
                    await until(begun, VISIBLE_SECONDS)
                    enough = asyncio.Event()
                    drained = asyncio.create_task(_drained(left, total // 20, enough))
                    late = await open_loop(append, quiet, rate, watch, enough)
                    speed = await drained
                    await until(watch.all_seen, VISIBLE_SECONDS)
                    # Else the next scene would be beside what is left of it.
                    await until(over, VISIBLE_SECONDS, LOOK_AT_LAG_SECONDS)
        return Timed.of(watch, late), speed

    async def redis_streams(self, rate: float, seconds: float) -> Timed:
        """The same as `appends` for a stream of Redis and the loop that reads it."""
        first, *records = _first_of_each_file(self._records(int(rate * seconds) + 1))
        async with self.servers.database() as database:
            connection = await asyncpg.connect(database)
            await full_table.make(connection, redis_streams.TABLE, full_table.GENERATED)
            await connection.close()
            with redis_streams.redis_server(self.servers.folder / "redis", _unheard) as url:
                await redis_streams.publish(url, [first.event])
                # It ends once it has applied all; the seed's service is a process of its own.
                loop = multiprocessing.get_context("spawn").Process(
                    target=_read_stream, args=(url, database, len(records) + 1), daemon=True
                )
                loop.start()
                try:
                    async with watching(database, SEEN_IN_REDIS_CACHE) as watch, Redis.from_url(url) as redis:

                        async def append(one: Record) -> Awaitable[object]:
                            return asyncio.ensure_future(redis_streams.add(redis, one.event))

                        watch.expect(first.event.file_id, first.event.revision, time.perf_counter())
                        await until(watch.all_seen, VISIBLE_SECONDS)
                        watch.delays.clear()
                        late = await open_loop(append, records, rate, watch)
                        await until(watch.all_seen, VISIBLE_SECONDS)
                finally:
                    loop.kill()
                    loop.join()
        return Timed.of(watch, late)

    @asynccontextmanager
    async def _left(self) -> AsyncIterator[Callable[[], Awaitable[int]]]:
        """How many records the group has not committed of all partitions but the quiet one, as they end now."""
        topic, group = self.settings.file_events_topic, self.settings.kafka_consumer_group
        others = [TopicPartition(topic, number) for number in range(SHARDS) if number != QUIET_PARTITION]
        async with plain_consumer(self.servers.bootstrap_servers) as reader:
            ends = await reader.end_offsets(others)
        async with admin_client(self.servers.bootstrap_servers) as admin:

            async def left() -> int:
                committed = await admin.list_consumer_group_offsets(group, partitions=others)
                return sum(ends[one] - committed[one].offset for one in others)

            yield left

    def _records(self, count: int) -> list[Record]:
        """`count` records of events that no other scene has."""
        self.seed += 1
        found = [Record.of(event) for event in samples.events(count, self.seed)]
        # They live for the whole scene: walking them at each collection would hold up the generator.
        gc.collect()
        gc.freeze()
        return found

    @asynccontextmanager
    async def _producer(self) -> AsyncIterator[Append]:
        topic = self.settings.file_events_topic
        async with AIOKafkaProducer(
            bootstrap_servers=self.servers.bootstrap_servers, acks="all", max_batch_size=64 * 1024
        ) as producer:

            async def append(one: Record) -> Awaitable[object]:
                acknowledged: Awaitable[object] = await producer.send(
                    topic, one.value, one.key, partition=one.partition, headers=one.headers
                )
                return acknowledged

            yield append


async def _upload(admin: httpx.AsyncClient, number: int, watch: Watch) -> None:
    answer = await admin.post("/upload", files={"file": (f"договор {number}.pdf", b"x" * UPLOADED_BYTES)})
    now = time.perf_counter()
    answer.raise_for_status()
    made = answer.json()
    watch.expect(UUID(made["file_id"]), made["revision"], now)


async def _drained(left: Callable[[], Awaitable[int]], rest: int, enough: asyncio.Event) -> float:
    """Events a second until only `rest` are left, which is then told."""
    begin, before = time.perf_counter(), await left()
    while (now := await left()) > rest:  # noqa: ASYNC110 - nothing to wait on
        await asyncio.sleep(LOOK_AT_LAG_SECONDS)
    enough.set()
    return (before - now) / (time.perf_counter() - begin)


def _first_of_each_file(records: Iterable[Record]) -> Iterator[Record]:
    """The same records; of each file only the first is timed."""
    known: set[UUID] = set()
    for record in records:
        yield record._replace(shows=record.shows and record.event.file_id not in known)
        known.add(record.event.file_id)


def _read_stream(url: str, database: str, count: int) -> None:
    uvloop.run(redis_streams.one_by_one(url, database, count))


def _unheard(_: str) -> None:
    """The line is about this scene already."""
