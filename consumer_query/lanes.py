"""Each record that a lane passes by is in the rows or among the dead letters before its partition's position moves.

    take  →  read  →  fold  →  dead letters acknowledged  →  one transaction: rows and positions  →  offsets are due

A lane owns a connection, and whole partitions for as long as one batch takes. While Postgres works for one lane, Python
works for another, so that both cores of a small machine are used; for one at a time, so that its batch is ready early
and a fresh record waits for one slice at each turn, not for one of each lane. What fails stays in its buffer and is
taken again.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import asyncpg
import structlog

from consumer_query import positions, read_model
from consumer_query.batch_spans import traced
from consumer_query.breaker import Breaker
from consumer_query.buffers import Record, Take
from consumer_query.dead_letters import DeadLetterWriter, letter_of
from consumer_query.errors import PositionMovedError, QueryError
from consumer_query.faults import Fault, fault_of
from consumer_query.generations import hold_live
from consumer_query.metrics import APPLIED, RECEIVED, SYNC_SECONDS
from consumer_query.points import Point, Watch
from consumer_query.projection import FileState, Fold
from consumer_query.read_model import Row, Write
from consumer_query.records import SURPASSED, BadRecordError, Reason, RecordReader, claim_of
from consumer_query.usual_rows import usual
from runtime.postgres import Connection
from runtime.tracing import BatchSpans
from schemas.codec import UnknownSchemaError
from schemas.registry import RegistryError

SLICE: Final = 20
"""Records worked on before the express lane gets its turn: about a millisecond. A fresh record needs a dozen turns."""
STALE_SHARE: Final = 0.3
"""When more of a batch than this was in the rows already, the next one is compared with them first."""

_log = structlog.get_logger()


class SystemicFaultError(QueryError):
    """Too many of the last records are bad for the records to be to blame."""


class Refused(NamedTuple):
    """A record that cannot be applied, and why."""

    record: Record
    reason: Reason
    error: Exception


class Held(NamedTuple):
    """A partition whose next record has to wait for its schema."""

    take: Take
    error: Exception


@dataclass
class Batch:
    """What became of the records that a lane took."""

    takes: Sequence[Take]
    take: int = 0
    """Which of them is being read."""
    place: int = 0
    """How many records of it have been."""
    fold: Fold[FileState | Row, Record] = field(default_factory=Fold)
    stale: set[int] = field(default_factory=set)
    """Records that need not be read, by identity: a generation has their files at their revisions or beyond."""
    surpassed: int = 0
    """How many of those were passed over."""
    rows: list[Row] = field(default_factory=list)
    """The newest of each file, ready to be written."""
    refused: list[Refused] = field(default_factory=list)
    seen: int = 0
    """How many of them were put aside, or were there already."""
    to_note: int = 0
    """Records that the breaker has not counted yet."""
    held: list[Held] = field(default_factory=list)
    records: int = 0
    compared_with: int | None = None
    """The generation that was asked what it holds already."""
    changed: int = 0
    """Rows."""
    events: Counter[str] = field(default_factory=Counter)
    """How many of each event type could be read."""

    def refuse(self, file_id: str, reason: Reason, error: Exception) -> Row | None:
        """Put a file's newest state aside; the newest of the others that can be written, if any."""
        origins, following = self.fold.refuse(file_id)
        self.refused.extend(Refused(record, reason, error) for record in origins)
        return following and self.row_of(following)

    def row_of(self, state: FileState | Row) -> Row | None:
        """The newest state of a file, ready to be written; states that cannot be are put aside."""
        try:
            return state if isinstance(state, Row) else read_model.row_of(state)
        except BadRecordError as error:
            return self.refuse(state.file_id, error.reason, error)

    async def write(self, write: Write, connection: Connection, generation: int) -> int:
        """Write the rows within the caller's transaction; those that Postgres refuses are put aside."""
        changed, rows = 0, self.rows
        while rows:
            written, refused = await read_model.write_around_bad_ones(write, connection, generation, rows)
            changed += written
            following = [self.refuse(row.file_id, Reason.REFUSED_BY_DATABASE, error) for row, error in refused]
            rows = [row for row in following if row is not None]
        return changed


class Lane:
    """Applies batches over a connection.

    Args:
        topic: where the records come from
        group: the consumer group, named in dead letters
        reader: shared by all lanes
        dead_letters: where refused records go
        breaker: shared by all lanes
        watch: called at each point
        generation: says which generation to write into; called in each transaction
        spans: told of each batch; None while nothing is traced
        desk: the lane that has it reads or makes rows, the others of these wait; None for a lane that waits for nobody
    """

    def __init__(
        self,
        topic: str,
        group: str,
        reader: RecordReader,
        dead_letters: DeadLetterWriter,
        breaker: Breaker,
        watch: Watch,
        generation: Callable[[Connection], Awaitable[int]] = hold_live,
        spans: BatchSpans | None = None,
        desk: asyncio.Lock | None = None,
    ) -> None:
        self._topic = topic
        self._group = group
        self._reader = reader
        self._dead_letters = dead_letters
        self._breaker = breaker
        self._watch = watch
        self._generation = generation
        self._spans = spans
        self._desk: AbstractAsyncContextManager[None] = nullcontext() if desk is None else desk
        self._compare_first = False

    async def apply(self, connection: Connection, takes: Sequence[Take]) -> Batch:
        """Apply what was taken. Takes are cut short before a record whose schema is unknown.

        Raises:
            PositionMovedError: another projector has one of the partitions.
            SystemicFaultError: too much of it is bad; nothing was put aside.
            Exception: of Postgres or of Kafka; nothing was applied, or all of it was and only the answer is missing.
        """
        batch = Batch(takes)
        began = 0 if self._spans is None else time.time_ns()
        if self._compare_first:
            await self._compare(connection, batch)
        newest = await self._prepare(batch)
        self._watch(Point.PREPARED)
        # Before the transaction, whose locks would wait for Kafka; only what Postgres refuses has to go within it.
        await self._put_aside(batch)
        with SYNC_SECONDS.time():
            try:
                changed = await self._write(connection, batch)
            except asyncpg.PostgresError as error:
                if fault_of(error) is not Fault.BAD_RECORD:
                    raise
                changed = await self._write_around_bad_ones(connection, batch)
        APPLIED.inc(changed)
        batch.changed = changed
        if batch.to_note:
            self._breaker.note(batch.to_note, 0)
        stale = batch.surpassed + len(newest) - changed
        self._compare_first = stale > STALE_SHARE * (batch.surpassed + len(newest))
        self._watch(Point.APPLIED)
        if self._spans is not None:
            refused = {id(one.record) for one in batch.refused}
            await self._spans.done(began, time.time_ns(), traced(takes, batch.stale, refused), batch.records)
        return batch

    async def _compare(self, connection: Connection, batch: Batch) -> None:
        """Leave out what a generation holds already: on a replay nearly all, and reading costs ten times as much."""
        generation = await self._generation(connection)
        claims = [[claim_of(one.key, one.value, one.headers) for one in take.records] for take in batch.takes]
        files = {claim[0] for of_take in claims for claim in of_take if claim is not None}
        known = await read_model.revisions(connection, generation, list(files))
        batch.compared_with = generation
        batch.stale = {
            id(record)
            for take, of_take in zip(batch.takes, claims, strict=True)
            for record, claim in zip(take.records, of_take, strict=True)
            if claim is not None and claim[1] <= known.get(claim[0], 0)
        }

    async def _prepare(self, batch: Batch) -> Sequence[FileState | Row]:
        """Read and fold all records, and make rows of the newest states, which are returned.

        Takes end before a record whose schema cannot be had. The desk is kept until the rows are made, but for asking
        a registry.
        """
        while True:
            async with self._desk:
                if (unknown := await self._read(batch)) is None:
                    newest = batch.fold.newest()
                    await self._make_rows(batch, newest)
                    return newest
            try:
                await self._reader.learn(unknown)
            except (UnknownSchemaError, RegistryError) as error:
                take = batch.takes[batch.take]
                take.cut(batch.place)
                batch.held.append(Held(take, error))

    async def _read(self, batch: Batch) -> UnknownSchemaError | None:
        """Read on, in slices: the schema that has to be learned before it goes further, if any."""
        while batch.take < len(batch.takes):
            take = batch.takes[batch.take]
            while batch.place < len(take.records):
                if batch.place:
                    await asyncio.sleep(0)
                for record in take.records[batch.place : batch.place + SLICE]:
                    try:
                        self._read_one(batch, record)
                    except UnknownSchemaError as unknown:
                        return unknown
                    batch.place += 1
            batch.records += len(take.records)
            batch.take, batch.place = batch.take + 1, 0
        batch.to_note = 0 if any(take.buffer.put_aside for take in batch.takes) else batch.records
        for event_type, count in batch.events.items():
            RECEIVED.labels(event_type).inc(count)
        return None

    def _read_one(self, batch: Batch, record: Record) -> None:
        if id(record) in batch.stale:
            batch.surpassed += 1
            batch.events[SURPASSED] += 1
            return
        if (found := usual(record.key, record.value)) is not None:
            batch.fold.offer(found.row, record)
            batch.events[found.event_type] += 1
            return
        # Nobody looks at the headers of a record that has a value.
        headers = {} if record.value is not None else dict(record.headers)
        try:
            state = self._reader.state_of(record.key, record.value, headers)
        except BadRecordError as error:
            batch.refused.append(Refused(record, error.reason, error))
        else:
            batch.fold.offer(state, record)
            batch.events[state.event_type] += 1

    async def _make_rows(self, batch: Batch, states: Sequence[FileState | Row]) -> None:
        """Make rows of states, in slices."""
        for start in range(0, len(states), SLICE):
            if start:
                await asyncio.sleep(0)
            made = map(batch.row_of, states[start : start + SLICE])
            batch.rows += [row for row in made if row is not None]

    async def _write(self, connection: Connection, batch: Batch) -> int:
        """One transaction for all of it."""
        async with connection.transaction():
            generation = await self._hold(connection, batch)
            changed = await read_model.apply(connection, generation, batch.rows) if batch.rows else 0
            await self._finish(connection, generation, batch)
        return changed

    async def _write_around_bad_ones(self, connection: Connection, batch: Batch) -> int:
        """The same, finding the rows that Postgres refuses by halving, and writing all others."""
        async with connection.transaction():
            generation = await self._hold(connection, batch)
            changed = await batch.write(read_model.apply, connection, generation)
            await self._finish(connection, generation, batch)
        return changed

    async def _hold(self, connection: Connection, batch: Batch) -> int:
        generation = await self._generation(connection)
        if batch.compared_with not in (None, generation):
            raise PositionMovedError(f"Generation {generation} has taken the place of {batch.compared_with}.")
        return generation

    async def _finish(self, connection: Connection, generation: int, batch: Batch) -> None:
        """Within the transaction that wrote the rows: put aside what Postgres refused, then move the positions."""
        self._watch(Point.ROWS_WRITTEN)
        await self._put_aside(batch)
        await positions.move(
            connection,
            generation,
            self._topic,
            {take.buffer.partition.partition: take.move for take in batch.takes if take.upto > take.buffer.applied},
        )
        self._watch(Point.MOVED)

    async def _put_aside(self, batch: Batch) -> None:
        """Send what was refused since the last time to the dead letters, and wait until Kafka has it.

        Raises:
            SystemicFaultError: it is too much.
        """
        known = {take.buffer.partition.partition: take.buffer.put_aside for take in batch.takes}
        refused = [one for one in batch.refused[batch.seen :] if one.record.offset not in known[one.record.partition]]
        if refused:
            first = refused[0].record
            if self._breaker.is_systemic(batch.to_note, len(refused)):
                raise SystemicFaultError(
                    f"{len(refused)} of {batch.records} records are bad, beginning with offset {first.offset} of "
                    f"partition {first.partition}: {refused[0].error}"
                )
            letters = [letter_of(*one, self._group) for one in refused]
            await self._dead_letters.put(letters)
            self._breaker.note(batch.to_note, len(refused))
            batch.to_note = 0
            for one in refused:
                known[one.record.partition].add(one.record.offset)
            _log.warning(
                "records put aside",
                count=len(refused),
                reasons=sorted({one.reason for one in refused}),
                **letters[0].named,  # of the first; the topic has them all
            )
            self._watch(Point.DEAD_LETTERS_SENT)
        batch.seen = len(batch.refused)
