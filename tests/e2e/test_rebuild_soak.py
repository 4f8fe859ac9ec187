"""A rebuild of many files at noon: changes go on, somebody searches all the time, and nobody notices.

REBUILD_SOAK_FILES=100000 makes it a smaller one.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg
import psutil
import pytest
from aiokafka import TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from bench.backlog import Record, send_in_batches
from bench.samples import twice_each
from consumer_query import rebuild_jobs
from consumer_query.generations import table_name
from consumer_query.rebuild_jobs import Job, Kind, Phase
from producer_admin.outbox import shard_of
from runtime.kafka import admin_client, plain_consumer, transactional_producer
from schemas.codec import encode
from schemas.events import FileEvent, record_headers
from tests.e2e.newer_schema import encode_newer, registry
from tests.e2e.onlooker import looking_on
from tests.e2e.poison import plain, write
from tests.e2e.query_side import PARTITIONS, QuerySide, Scene, _columns, expected_row, prepare, query_side
from tests.e2e.rebuilding import FIXED, PROJECTORS, WORD
from tests.e2e.writers import Writers
from tests.running import running, served
from tests.samples import created
from tests.waiting import eventually, settles

FILES: Final = int(os.environ.get("REBUILD_SOAK_FILES", "1000000"))
RATE: Final = 400.0
"""Events a second that writers aim at; each waits for its transactions, and so comes to half of it."""
TRANSACTION: Final = 10_000
"""Events of the fill in one transaction."""
BASELINE_SECONDS: Final = 30.0
MOST_SLOWER: Final = 3.0
"""The p99 of searches while a rebuild goes on, over what it was before."""
HOURS: Final = 4 * 3600.0
CLEANER: Final = {"log.cleaner.backoff.ms": "1000", "log.cleaner.threads": "1"}
BUSY: Final = {
    "cleanup.policy": "compact",
    "compression.type": "producer",
    "segment.ms": "5000",
    "min.cleanable.dirty.ratio": "0.01",
}
DAY_MS: Final = "86400000"
# The first compaction that meets a tombstone writes down when it may go: it has to be told soon by then.
FILLING: Final = BUSY | {"min.compaction.lag.ms": DAY_MS, "delete.retention.ms": DAY_MS}
FORGETTING: Final = BUSY | {"min.compaction.lag.ms": "0", "delete.retention.ms": "1000"}
SERVING: Final = BUSY | {"min.compaction.lag.ms": "0", "delete.retention.ms": DAY_MS}

Sum = tuple[int, int]
"""Revision of a file, and a hash of its row."""


@pytest.fixture
async def side(tmp_path: Path) -> AsyncIterator[QuerySide]:
    with query_side(tmp_path / "query-side", **CLEANER) as made:
        await prepare(made)
        yield made


@dataclass
class Memory:
    """The most that a worker and its readers have held, MiB."""

    pid: int
    worker: float = 0.0
    readers: float = 0.0
    """All of them together."""

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                process = psutil.Process(self.pid)
                self.worker = max(self.worker, process.memory_info().rss / 2**20)
                below = [one.memory_info().rss for one in process.children(recursive=True)]
                self.readers = max(self.readers, sum(below) / 2**20)
            except psutil.NoSuchProcess:
                pass  # a reader that has just ended
            await asyncio.sleep(0.2)


@dataclass
class Phases:
    """When a job was seen to be in which phase."""

    pool: asyncpg.Pool
    job: Job
    begun: dict[Phase, float] = field(default_factory=dict)

    async def ended(self) -> Job:
        async def look() -> Job | None:
            now = await rebuild_jobs.get(self.pool, self.job.job_id)
            self.begun.setdefault(now.phase, time.time())
            return now if now.finished_at is not None else None

        found = await eventually(look, HOURS, "the end of the rebuild")
        assert found is not None
        return found

    def seconds(self) -> dict[str, float]:
        times = list(self.begun.items())
        ends = [at for _, at in times[1:]]
        return {phase.value: round(end - at, 1) for (phase, at), end in zip(times, ends, strict=False)}


@pytest.mark.soak
@pytest.mark.timeout(HOURS)
async def test_nobody_notices_a_rebuild_of_many_files_under_load_and_it_equals_the_truth_row_for_row(
    side: QuerySide,
) -> None:
    async with side.scene() as scene, served(registry()) as url:
        environment = {"SCHEMA_REGISTRY_URL": url}
        await configure(scene, FILLING)
        fixed = [created(description=WORD) for _ in range(FIXED)]
        await write(side.kafka.bootstrap_servers, scene.topic, plain(*fixed))
        begun = time.time()
        truth, gone = await fill(scene)
        truth |= {event.file_id: sum_of(expected_row(event)) for event in fixed}
        say(f"{FILES} files, {2 * FILES} events and {len(gone)} deletions written in {time.time() - begun:.0f} s")
        async with asyncpg.create_pool(scene.database, min_size=0, max_size=3) as pool:
            worker = scene.start_worker("worker", None, **environment)
            first = Phases(pool, await ask(pool))
            assert (await first.ended()).phase is Phase.SWAPPED
            say(f"filled by a rebuild: {first.seconds()}")
            for name in PROJECTORS:
                await asyncio.to_thread(scene.start, name, None, **environment)
            writers = Writers(side.kafka.bootstrap_servers, scene.topic, 1, RATE, encodings=(encode, encode_newer))
            async with looking_on(scene.database, WORD, FIXED) as onlooker:
                async with running(writers):
                    await configure(scene, FORGETTING)
                    await eventually(lambda: are_forgotten(scene, gone), HOURS, "the end of all tombstones of the fill")
                    await configure(scene, SERVING)
                    records = await count_records(scene)
                    say(f"compacted: {records} records are left, none of a deleted file")
                    before = time.time()
                    await asyncio.sleep(BASELINE_SECONDS)
                    during, written = time.time(), writers.written
                    async with running(Memory(worker.pid)) as memory:
                        second = Phases(pool, await ask(pool))
                        ended = await second.ended()
                    after = time.time()
                    assert (ended.phase, ended.trouble) == (Phase.SWAPPED, None)
                    rate = (writers.written - written) / (after - during)
                await settles(scene.unread, 0, 300)
            scene.require_alive()
            onlooker.require_nothing_missed(writers.truth | {event.file_id: event for event in fixed})
            truth |= {one: sum_of(expected_row(event)) for one, event in writers.truth.items()}
            await require_rows(pool, ended, truth, gone)
            loaded = await rebuild_jobs.loaded(pool, ended.job_id)
        slow = [onlooker.slowest(0.99, *span) * 1000 for span in ((before, during), (during, after))]
        say(
            f"rebuilt in {after - during:.0f} s, {second.seconds()}; {loaded.records} records, {loaded.rows} rows; "
            f"{rate:.0f} changes/s meanwhile; {len(onlooker.took)} searches, p99 {slow[0]:.1f} ms before, "
            f"{slow[1]:.1f} ms during; at most {memory.worker:.0f} MiB in the worker, {memory.readers:.0f} in readers"
        )
        assert slow[1] <= MOST_SLOWER * slow[0]


async def ask(pool: asyncpg.Pool) -> Job:
    return await rebuild_jobs.request(pool, Kind.REBUILD, requested_by="tests", reason="a soak")


async def configure(scene: Scene, config: dict[str, str]) -> None:
    async with admin_client(scene.side.kafka.bootstrap_servers) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, scene.topic, config)])


async def fill(scene: Scene) -> tuple[dict[UUID, Sum], set[UUID]]:
    """Write all events in transactions, in the schemas of two versions by turns: what is true, and what was deleted."""
    truth: dict[UUID, Sum] = {}
    gone: set[UUID] = set()
    encodings = cycle((encode, encode_newer))
    async with transactional_producer(scene.side.kafka.bootstrap_servers, f"{scene.topic}.fill") as producer:
        for events in in_transactions(twice_each(FILES)):
            records = []
            for event in events:
                headers = record_headers(event.revision, event.event_id)
                key, partition = str(event.file_id).encode(), shard_of(event.file_id)
                at = int(event.occurred_at.timestamp() * 1000)
                records.append(Record(partition, key, next(encodings)(event), at, headers))
                if event.metadata is None:
                    records.append(Record(partition, key, None, at, headers))
                    gone.add(event.file_id)
                    truth.pop(event.file_id, None)
                else:
                    truth[event.file_id] = sum_of(expected_row(event))
            async with producer.transaction():
                await send_in_batches(producer, scene.topic, records)
    return truth, gone


def in_transactions(events: Iterable[FileEvent]) -> Iterator[list[FileEvent]]:
    some: list[FileEvent] = []
    for event in events:
        some.append(event)
        if len(some) == TRANSACTION:
            yield some
            some = []
    yield some


def sum_of(row: dict[str, Any]) -> Sum:
    """All columns that the cache holds of a file, in little memory: a million of these are compared."""
    return row["revision"], hash(repr(sorted(row.items())))


async def keys(scene: Scene) -> AsyncIterator[bytes]:
    """Of all records of the topic as it is now."""
    partitions = [TopicPartition(scene.topic, number) for number in PARTITIONS]
    async with plain_consumer(scene.side.kafka.bootstrap_servers) as consumer:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(one) < ends[one] for one in partitions]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    assert record.key is not None
                    yield record.key


async def are_forgotten(scene: Scene, gone: set[UUID]) -> bool:
    """Whether the topic holds nothing of deleted files any more, not even their tombstones."""
    await asyncio.sleep(5)
    left = Counter([UUID(key.decode()) in gone async for key in keys(scene)])
    say(f"{left[True]} records of deleted files are left of {left.total()}")
    return left[True] == 0


async def count_records(scene: Scene) -> int:
    return len([key async for key in keys(scene)])


async def require_rows(pool: asyncpg.Pool, job: Job, truth: dict[UUID, Sum], gone: set[UUID]) -> None:
    """Every file that exists is there as it is, and no other; what is deleted is not there, or is there as deleted."""
    assert job.generation is not None
    wrong: list[tuple[UUID, Sum | None, Sum | None]] = []
    missing = truth.copy()
    async with pool.acquire() as connection, connection.transaction():
        async for row in connection.cursor(f"SELECT * FROM {table_name(job.generation)}", prefetch=5_000):
            found = dict(row)
            file_id = found["file_id"]
            expected = missing.pop(file_id, None)
            if file_id in gone and found["deleted"]:
                continue
            if (is_there := sum_of(_columns(found))) != expected:
                wrong.append((file_id, is_there, expected))
    # Deletions that the topic had forgotten before this cache saw them are in no row.
    assert not wrong, f"{len(wrong)} rows are wrong, found and expected: {wrong[0]}"
    assert not missing, f"{len(missing)} files are missing, among them {next(iter(missing))}"


def say(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", flush=True)
