"""Offsets are committed only after the transaction that holds their rows, and never past a record that is not in them.

    getmany  →  decode  →  fold  →  one transaction: rows and positions  →  commit the same positions

Nothing is applied from a partition before it was seeked to its start for this assignment. A batch in hand at a
rebalance is finished first; if the partition was taken all the same, the position's compare-and-set drops the batch.
Whatever fails is tried again from the stored positions, with backoff: this loop skips nothing.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import asyncpg
import structlog
from aiokafka import (
    AIOKafkaConsumer,
    ConsumerRebalanceListener,
    ConsumerRecord,
    OffsetAndMetadata,
    TopicPartition,
)
from aiokafka.errors import KafkaError

from consumer_query import positions, read_model
from consumer_query.errors import PositionMovedError, UnreadableRecordError
from consumer_query.metrics import APPLIED, FAILURES, PARTITIONS, RECEIVED, SYNC_SECONDS
from consumer_query.positions import Move, start_of
from consumer_query.projection import FileState, newest
from runtime.health import Condition
from runtime.retries import backoff, pause
from schemas.codec import CodecError, Decoder, UnknownSchemaError
from schemas.events import REVISION_HEADER
from schemas.registry import fetch_schema

POLL_MS: Final = 200
"""How long a poll waits for records; also how soon a stop is noticed."""
IDLE_MOVE_SECONDS: Final = 1.0
"""How soon an idle partition's position follows over transaction markers, so that its lag reads 0."""
COMMIT_SECONDS: Final = 5.0
TOMBSTONE: Final = "tombstone"

_log = structlog.get_logger()
Batch = Mapping[TopicPartition, Sequence[ConsumerRecord[bytes, bytes]]]


class Projector(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of the consumer group."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        consumer: AIOKafkaConsumer,
        topic: str,
        batch_size: int,
        registry_url: str | None = None,
    ) -> None:
        self._pool = pool
        self._consumer = consumer
        self._topic = topic
        self._batch_size = batch_size
        self._registry_url = registry_url
        self._decoder = Decoder()
        self._unseeded: set[TopicPartition] = set()
        self._applied: dict[TopicPartition, int] = {}
        self._assigned = asyncio.Event()
        # Held while a batch is applied and committed; a rebalance waits for it.
        self._batch_in_hand = asyncio.Lock()
        self._idle_moves_at = 0.0
        self.condition = Condition("waiting for partitions")

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Finish the batch in hand, then forget the assignment. Called by the consumer."""
        async with self._batch_in_hand:
            self._unseeded.clear()
            self._applied.clear()
            self._assigned.clear()
            PARTITIONS.set(0)
        _log.info("partitions revoked", partitions=sorted(one.partition for one in revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take note of the assignment; the loop seeks. Called by the consumer, which would swallow an error here."""
        self._unseeded = set(assigned)
        self._assigned.set()
        PARTITIONS.set(len(self._unseeded))
        _log.info("partitions assigned", partitions=sorted(one.partition for one in self._unseeded))

    async def run(self, stopping: asyncio.Event) -> None:
        """Apply until `stopping`, then leave the group."""
        self._consumer.subscribe([self._topic], listener=self)
        waits = backoff()
        while not stopping.is_set():
            try:
                await self._consumer.start()
                break
            except KafkaError as error:
                self.condition.unmet(f"broker: {error}")
                _log.warning("broker away, trying again", error=str(error))
                await pause(next(waits), stopping)
        try:
            while not stopping.is_set():
                try:
                    await self._seed()
                    await self._step(stopping)
                    waits = backoff()
                except Exception as error:  # noqa: BLE001 - whatever it is, nothing is skipped: try again
                    await self._retry_later(error, next(waits), stopping)
        finally:
            await self._consumer.stop()

    async def _seed(self) -> None:
        """Seek every partition that is new in this assignment to its start."""
        unseeded = sorted(self._unseeded)
        if not unseeded:
            return
        async with self._pool.acquire() as connection:
            stored = await positions.stored(connection, self._topic, [one.partition for one in unseeded])
            begins = await self._consumer.beginning_offsets(unseeded)
            ends = await self._consumer.end_offsets(unseeded)
            starts = {}
            for one in unseeded:
                committed = await self._consumer.committed(one)
                start = start_of(stored.get(one.partition), committed, begins[one], ends[one])
                if start.warning:
                    _log.warning(start.warning, partition=one.partition)
                starts[one] = start.position
            async with self._batch_in_hand:
                if not self._unseeded.issuperset(unseeded):
                    return
                await positions.take(connection, self._topic, {one.partition: at for one, at in starts.items()})
                for one, position in starts.items():
                    self._consumer.seek(one, position)
                self._applied.update(starts)
                self._unseeded.difference_update(unseeded)
        self.condition.met()

    async def _step(self, stopping: asyncio.Event) -> None:
        """Read and apply one batch, or wait a moment for one."""
        if not self._applied:
            if self._assigned.is_set():
                self.condition.met()  # more projectors than partitions: this one stands by
            await pause(POLL_MS / 1000, stopping if self._assigned.is_set() else self._assigned)
            return
        batch = await self._consumer.getmany(*self._applied, timeout_ms=POLL_MS, max_records=self._batch_size)
        async with self._batch_in_hand:
            moves = await self._moves(batch)
            if moves:
                await self._apply(batch, moves)
        self.condition.met()

    async def _moves(self, batch: Batch) -> dict[TopicPartition, Move]:
        """How far this batch takes each partition; idle ones follow over markers from time to time."""
        now = asyncio.get_running_loop().time()
        idle_too = now - self._idle_moves_at >= IDLE_MOVE_SECONDS
        if idle_too:
            self._idle_moves_at = now
        moves = {}
        for partition, expected in self._applied.items():
            since = expected
            if (records := batch.get(partition)) and records[0].offset < expected:
                since = await self._begin_anew(partition, expected, records[0].offset)
            if partition in batch or idle_too:
                upto = await self._consumer.position(partition)
                if upto > since:
                    moves[partition] = Move(since, upto)
        return moves

    async def _begin_anew(self, partition: TopicPartition, expected: int, first: int) -> int:
        """The log is shorter than what was applied of it, so the client went back to its beginning: apply all of it."""
        _log.warning("the log began anew", partition=partition.partition, expected=expected, first=first)
        async with self._pool.acquire() as connection:
            await positions.take(connection, self._topic, {partition.partition: first})
        return first

    async def _apply(self, batch: Batch, moves: Mapping[TopicPartition, Move]) -> None:
        """Write a batch and its positions in one transaction, then commit the positions to the group."""
        records = [record for partition in moves for record in batch.get(partition, ())]
        states = [await self._state(record) for record in records]
        with SYNC_SECONDS.time():
            folded = newest(states)
            async with self._pool.acquire() as connection, connection.transaction():
                changed = await read_model.apply(connection, folded) if folded else 0
                await positions.move(connection, self._topic, {one.partition: move for one, move in moves.items()})
        APPLIED.inc(changed)
        self._applied.update({one: move.upto for one, move in moves.items()})
        await self._commit({one: OffsetAndMetadata(move.upto, "") for one, move in moves.items()})

    async def _commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit explicit offsets. A failure costs nothing: the rows' own positions decide where to start."""
        try:
            async with asyncio.timeout(COMMIT_SECONDS):
                await self._consumer.commit(dict(offsets))
        except (KafkaError, TimeoutError) as error:
            _log.warning("offsets not committed; the stored positions hold", error=f"{type(error).__name__}: {error}")

    async def _state(self, record: ConsumerRecord[bytes, bytes]) -> FileState:
        """What a record says of its file.

        Raises:
            UnreadableRecordError: it breaks the contract.
            UnknownSchemaError: its schema has to be deployed or registered first.
            RegistryError: the registry did not answer.
        """
        try:
            if record.value is None:
                RECEIVED.labels(TOMBSTONE).inc()
                return FileState.of_tombstone(record.key, dict(record.headers).get(REVISION_HEADER))
            try:
                event = self._decoder.decode(record.value)
            except UnknownSchemaError as unknown:
                if not unknown.in_registry or self._registry_url is None:
                    raise
                self._decoder.learn(unknown.schema, await fetch_schema(self._registry_url, unknown.schema))
                event = self._decoder.decode(record.value)
        except UnknownSchemaError:
            raise
        except (CodecError, ValueError) as error:
            place = f"{record.topic}[{record.partition}] at offset {record.offset}"
            raise UnreadableRecordError(f"The record {place} is no file event: {error}") from error
        RECEIVED.labels(event.event_type).inc()
        return FileState.of(event)

    async def _retry_later(self, error: Exception, seconds: float, stopping: asyncio.Event) -> None:
        """Go back to the stored positions and wait."""
        reason = f"{type(error).__name__}: {error}"
        FAILURES.labels(type(error).__name__).inc()
        self.condition.unmet(reason)
        _log.warning("batch not applied, trying again", error=reason)
        async with self._batch_in_hand:
            if isinstance(error, PositionMovedError):
                self._unseeded.update(self._applied)
                self._applied.clear()
            assigned: Any = self._consumer.assignment()
            for partition, position in self._applied.items():
                if partition in assigned:
                    self._consumer.seek(partition, position)
        await pause(seconds, stopping)
