"""The newest record of each file goes into a table without indexes, a chunk a transaction, and none goes in twice.

    keys and revisions  →  which are newest  →  those are read  →  one transaction: rows, and how far the partition is
    for keys whose newest record is bad: all their records  →  the newest good one  →  the partition is loaded

How far is written by compare-and-set under the worker's token: a reader that outlived its worker changes nothing. A
reader is a process of its own, with one partition at a time, so that more than one core reads.
"""

import asyncio
import os
import signal
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from typing import Final
from uuid import UUID

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer_query import read_model
from consumer_query.breaker import Breaker
from consumer_query.buffers import Record
from consumer_query.catch_up import BeyondLive
from consumer_query.dead_letters import DeadLetterWriter, TopicDeadLetters, letter_of
from consumer_query.errors import QueryError
from consumer_query.lanes import Batch, Refused, SystemicFaultError
from consumer_query.newest import Newest
from consumer_query.read_model import Row
from consumer_query.rebuild_jobs import JobLostError, Wish
from consumer_query.records import BadRecordError, RecordReader, revision_in
from consumer_query.settings import MaintenanceSettings
from consumer_query.usual_rows import usual
from runtime.kafka import REQUEST_TIMEOUT_MS, plain_consumer
from runtime.postgres import Connection, open_pool
from runtime.process import collect_seldom
from runtime.whole_topic import upto
from schemas.topics import DEAD_LETTERS, topic_name

CHUNK: Final = 2_000
"""Rows in one transaction at most."""
MOST_RECORDS: Final = 50_000
"""Passed by in one transaction at most, when few of them are the newest."""
SLICE: Final = 20
"""Rows worked on before what waits for Postgres is handed over."""
KEPT_BYTES: Final = 96 * 1024 * 1024
"""Of values. While the newest records of a partition are fewer, they are kept and not read a second time."""
NO_KEY: Final = b""
"""Stands for records without a key, which are all bad."""

# By the primary key. The job's row is only looked at: a worker that takes the job over does not wait for readers.
HOW_FAR: Final = """
SELECT first_offset, next_offset, target_offset, refused FROM rebuild_partitions WHERE job_id = $1 AND partition = $2
"""
MOVE: Final = """
UPDATE rebuild_partitions AS loading
SET next_offset = $4, records = records + $5, rows = rows + $6, refused = refused || $7,
    loaded_at = CASE WHEN $8 THEN clock_timestamp() END
FROM rebuild_jobs AS job
WHERE loading.job_id = $1 AND loading.partition = $2 AND loading.next_offset = $3 AND loading.loaded_at IS NULL
  AND job.job_id = $1 AND job.owner = $9 AND job.generation = $10 AND job.finished_at IS NULL
RETURNING job.wish, job.rows_per_second
"""


class ReaderError(QueryError):
    """A reader could not go on; what it has loaded stays."""


@dataclass(frozen=True)
class Orders:
    """Which partition is loaded, for which job and into what."""

    job_id: UUID
    token: UUID
    generation: int
    partition: int


@dataclass
class _Chunk:
    """What goes into one transaction."""

    rows: list[Row]
    refused: list[bytes]
    since: int
    upto: int
    records: int = 0


def load_partition(settings: MaintenanceSettings, orders: Orders) -> int:
    """Load one partition in this process, from where it stands. Returns early when the job is to pause or to end.

    May be killed at any time. What there is to log is the worker's to say: this process has no output.

    Returns:
        How many records were put aside.

    Raises:
        JobLostError: another worker has the job, or another reader has been at work on this partition.
        SystemicFaultError: too much of it is bad.
        ReaderError: whatever else, in words: not every error can go from one process to another.
    """
    _be_reader(os.getppid())
    try:
        return uvloop.run(_load(settings, orders))
    except (JobLostError, SystemicFaultError):
        raise
    except Exception as error:  # noqa: BLE001 - see ReaderError
        raise ReaderError(f"partition {orders.partition}: {type(error).__name__}: {error}") from None


@cache
def _be_reader(parent: int) -> None:
    """Make this process a reader that ends with its parent, and leaves signals of the terminal to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    collect_seldom()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


async def _load(settings: MaintenanceSettings, orders: Orders) -> int:
    url = settings.query_database_url.get_secret_value()
    partition = TopicPartition(settings.file_events_topic, orders.partition)
    letters = TopicDeadLetters(settings.brokers, topic_name(DEAD_LETTERS, settings.file_events_topic))
    # A crash of Postgres takes rows and how far they are together, so nothing has to wait for its disk.
    bounded = {"synchronous_commit": "off"}
    async with (
        await open_pool(url, "query-rebuild", max_size=1, settings=bounded) as pool,
        pool.acquire() as connection,
    ):
        consumer = plain_consumer(settings.brokers, request_timeout_ms=REQUEST_TIMEOUT_MS)
        try:
            await consumer.start()
            consumer.assign([partition])
            await read_model.teach(connection)
            return await _Loader(settings, orders, connection, consumer, partition, letters).run()
        finally:
            await consumer.stop()
            await letters.close()


class _Loader:
    def __init__(
        self,
        settings: MaintenanceSettings,
        orders: Orders,
        connection: Connection,
        consumer: AIOKafkaConsumer,
        partition: TopicPartition,
        letters: DeadLetterWriter,
    ) -> None:
        self._readers = settings.rebuild_readers
        self._group = settings.kafka_consumer_group
        self._orders = orders
        self._connection = connection
        self._consumer = consumer
        self._partition = partition
        self._letters = BeyondLive(letters, connection, partition.topic)
        self._reader = RecordReader(settings.schema_registry_url)
        self._breaker = Breaker(settings.dead_letter_max_share)
        self._newest = Newest()
        self._kept: dict[bytes, Record] | None = {}
        """The newest records themselves; None when they are too many."""
        self._offsets = array("q")
        """Of all records that were read while those were kept."""
        self._wish = Wish.RUN
        self._rate: float | None = None
        """Rows a second for this reader; None is no limit."""
        self._first = self._next = self._target = 0
        self._refused: set[bytes] = set()

    async def run(self) -> int:
        """See `load_partition`."""
        row = await self._connection.fetchrow(HOW_FAR, self._orders.job_id, self._orders.partition)
        if row is None:
            raise JobLostError(f"The rebuild {self._orders.job_id} is gone.")
        self._first, self._next, self._target = row["first_offset"], row["next_offset"], row["target_offset"]
        self._refused = set(row["refused"])
        # Nothing is written yet: hear first whether this job is still ours, and what is wished.
        await self._write(_Chunk([], [], self._next, self._next), done=False)
        if self._next < self._target:
            await self._learn()
            await self._load()
        if self._next >= self._target and self._wish is Wish.RUN:
            return await self._finish()
        return 0

    async def _read(self, begin: int) -> AsyncIterator[list[Record]]:
        self._consumer.seek(self._partition, begin)
        async for records in upto(self._consumer, self._partition, self._target):
            yield records

    async def _learn(self) -> None:
        """Which records are the newest."""
        kept, kept_bytes = self._kept, 0
        known_bad = frozenset(self._refused)
        async for records in self._read(self._first):
            bad = len(self._refused)
            for record in records:
                key = NO_KEY if record.key is None else record.key
                revision = revision_in(record.headers)
                if key == NO_KEY or revision is None:
                    self._refused.add(key)
                elif self._newest.offer(key, revision, record.offset) and kept is not None:
                    known = kept.get(key)
                    kept_bytes += record.serialized_value_size - (known.serialized_value_size if known else 0)
                    kept[key] = record
            self._note_bad(len(records), len(self._refused) - bad)
            if kept is not None:
                self._offsets.extend(record.offset for record in records)
            if kept_bytes > KEPT_BYTES:
                kept, kept_bytes = None, 0
                del self._offsets[:]
        self._kept = kept
        self._newest.forget(self._refused)
        # Written down before any of them is passed by.
        await self._write(_Chunk([], list(self._refused - known_bad), self._next, self._next), done=False)

    async def _candidates(self) -> AsyncIterator[list[Record]]:
        """The records among which the newest are that have not been loaded, in the order of their offsets."""
        if self._kept is None:
            async for records in self._read(self._next):
                yield records
            return
        left = sorted(
            (one for key, one in self._kept.items() if one.offset >= self._next and key not in self._refused),
            key=lambda record: record.offset,
        )
        self._kept = None
        for place in range(0, len(left), CHUNK):
            yield left[place : place + CHUNK]

    async def _load(self) -> None:
        """Read the newest ones and write them; while Postgres works on a chunk, the next one is made ready."""
        writing: asyncio.Task[None] | None = None
        chunk = _Chunk([], [], self._next, self._next)
        begun = time.monotonic()
        try:
            async for records in self._candidates():
                for place, record in enumerate(records):
                    if place % SLICE == 0:
                        await asyncio.sleep(0)
                    await self._take(chunk, record)
                    if len(chunk.rows) >= self._most() or chunk.records >= MOST_RECORDS:
                        if writing is not None:
                            await writing
                        if self._wish is not Wish.RUN:
                            return
                        writing = asyncio.create_task(self._write(chunk, done=False))
                        if self._rate is not None:
                            await writing
                            await asyncio.sleep(begun + len(chunk.rows) / self._rate - time.monotonic())
                            begun = time.monotonic()
                        chunk = _Chunk([], [], chunk.upto, chunk.upto)
            if writing is not None:
                await writing
            if self._wish is Wish.RUN:
                chunk.upto = self._target  # over markers and what compaction has removed
                await self._write(chunk, done=False)
        finally:
            if writing is not None and not writing.done():
                writing.cancel()

    def _most(self) -> int:
        return CHUNK if self._rate is None else max(1, min(CHUNK, int(self._rate)))

    async def _take(self, chunk: _Chunk, record: Record) -> None:
        """Make a row of a record if it is the newest of its key."""
        chunk.upto = record.offset + 1
        chunk.records += 1
        key = NO_KEY if record.key is None else record.key
        if not self._newest.is_newest(key, record.offset):
            return
        try:
            row = await self._row_of(key, record)
        except BadRecordError:
            self._refuse(chunk, key)
            return
        # The header has decided so far; where the record says another revision, all records of the key decide.
        if row.revision == self._newest.revision(key):
            chunk.rows.append(row)
        else:
            self._refuse(chunk, key)

    async def _row_of(self, key: bytes, record: Record) -> Row:
        if (found := usual(key, record.value)) is not None:
            return found.row
        return read_model.row_of(await self._reader.read(key, record.value, dict(record.headers)))

    def _refuse(self, chunk: _Chunk, key: bytes) -> None:
        self._refused.add(key)
        chunk.refused.append(key)
        self._newest.forget([key])

    async def _write(self, chunk: _Chunk, *, done: bool) -> None:
        """One transaction for a chunk, then hear what is wished.

        Raises:
            JobLostError: see `load_partition`.
        """
        generation = self._orders.generation
        async with self._connection.transaction():
            written = 0
            if chunk.rows:
                written, refused = await read_model.write_around_bad_ones(
                    read_model.load, self._connection, generation, chunk.rows
                )
                for row, _ in refused:
                    self._refuse(chunk, row.file_id.encode())
            await self._move(chunk, written, done=done)
        self._next = chunk.upto
        if chunk.rows:
            self._note_bad(len(chunk.rows), len(chunk.refused))

    async def _move(self, chunk: _Chunk, written: int, *, done: bool) -> None:
        if self._offsets:
            chunk.records = bisect_left(self._offsets, chunk.upto) - bisect_left(self._offsets, chunk.since)
        heard = await self._connection.fetchrow(
            MOVE,
            self._orders.job_id,
            self._orders.partition,
            chunk.since,
            chunk.upto,
            chunk.records,
            written,
            list(set(chunk.refused)),
            done,
            self._orders.token,
            self._orders.generation,
        )
        if heard is None:
            raise JobLostError(f"Another reader has partition {self._orders.partition} of the rebuild.")
        self._wish = Wish(heard["wish"])
        rate = heard["rows_per_second"]
        self._rate = None if rate is None else rate / self._readers

    def _note_bad(self, records: int, bad: int) -> None:
        if self._breaker.is_systemic(records, bad):
            raise SystemicFaultError(f"{bad} of {records} records of partition {self._orders.partition} are bad")
        self._breaker.note(records, bad)

    async def _finish(self) -> int:
        """For keys whose newest record is bad, write the newest good one; what is bad is among the dead letters.

        Returns:
            How many records were put there by us.
        """
        batch = Batch(())
        if self._refused:
            async for records in self._read(self._first):
                for record in records:
                    if (record.key or NO_KEY) in self._refused:
                        await self._offer(batch, record)
            batch.rows = [row for state in batch.fold.newest() if (row := batch.row_of(state)) is not None]
        async with self._connection.transaction():
            written = await batch.write(read_model.load, self._connection, self._orders.generation)
            await self._letters.put([letter_of(*one, self._group) for one in batch.refused])
            await self._move(_Chunk([], [], self._target, self._target), written, done=True)
        return self._letters.count

    async def _offer(self, batch: Batch, record: Record) -> None:
        try:
            batch.fold.offer(await self._reader.read(record.key, record.value, dict(record.headers)), record)
        except BadRecordError as error:
            batch.refused.append(Refused(record, error.reason, error))
