"""Events, repeats, poison, redrives, batch boundaries, crashes and rebalances in any order end in the model's rows."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from consumer_query import positions, read_model
from consumer_query.breaker import Breaker
from consumer_query.buffers import Buffer, Record, take
from consumer_query.dead_letters import DeadLetter
from consumer_query.errors import PositionMovedError
from consumer_query.lanes import Lane
from consumer_query.points import Point
from consumer_query.positions import start_of
from consumer_query.records import BadRecordError, RecordReader
from schemas.codec import encode
from schemas.events import FileEvent
from tests.samples import created, deleted, updated

T = TypeVar("T")
TOPIC = "machine"
FILES = tuple(UUID(int=number) for number in range(6))
PARTITIONS = 2
PROJECTORS = (0, 1)


class CrashError(Exception):
    """The process died here."""


class Letters:
    """Dead letters in memory, behind the projector's own port."""

    def __init__(self) -> None:
        self.positions: set[tuple[int, int]] = set()

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        self.positions |= {(one.partition, one.offset) for one in letters}

    async def close(self) -> None:
        return


@dataclass
class World:
    """A database, and a loop to talk to it."""

    loop: asyncio.AbstractEventLoop
    pool: asyncpg.Pool

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(60)


@dataclass
class Log:
    """A partition: records at offsets that have gaps, as markers and compaction leave them."""

    records: list[Record] = field(default_factory=list)
    end: int = 0
    committed: int = 0


class Machine(RuleBasedStateMachine):
    """Two projectors, each with what it believes to have been assigned and read."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.logs = [Log() for _ in range(PARTITIONS)]
        self.revisions = dict.fromkeys(FILES, 0)
        self.gone: set[UUID] = set()
        self.model: dict[UUID, tuple[int, str | None]] = {}
        self.poison: set[tuple[int, int]] = set()
        self.letters = Letters()
        self.crash_at: Point | None = None
        self.lanes = [self.lane() for _ in PROJECTORS]
        self.views: list[dict[int, Buffer]] = [{}, {}]
        self.world.run(self.empty())

    def lane(self) -> Lane:
        return Lane(TOPIC, "group", RecordReader(None), self.letters, Breaker(2.0), self.reached)

    def reached(self, point: Point) -> None:
        if point == self.crash_at:
            self.crash_at = None
            raise CrashError

    async def empty(self) -> None:
        await self.world.pool.execute("TRUNCATE file_metadata_cache_g1, projector_positions")

    def write(self, file_id: UUID, value: bytes | None, gap: int, headers: Sequence[tuple[str, bytes]] = ()) -> int:
        """Append a record; the partition is the file's for ever."""
        partition = file_id.int % PARTITIONS
        log = self.logs[partition]
        offset = log.end + gap
        log.records.append(
            ConsumerRecord(
                TOPIC,
                partition,
                offset,
                0,
                0,
                str(file_id).encode(),
                value,
                None,
                36,
                len(value or b""),
                tuple(headers),
            )
        )
        log.end = offset + 1
        return offset

    def event(self, event: FileEvent, gap: int) -> None:
        self.write(event.file_id, encode(event), gap)

    @rule(file_id=st.sampled_from(FILES), gap=st.integers(0, 3), text=st.sampled_from(["a", "б", "ёж"]))
    def change(self, file_id: UUID, gap: int, text: str) -> None:
        if file_id in self.gone:
            return
        self.revisions[file_id] += 1
        revision = self.revisions[file_id]
        make = created if revision == 1 else updated
        self.event(make(file_id, revision, description=text), gap)
        self.model[file_id] = revision, text

    @rule(file_id=st.sampled_from(FILES), gap=st.integers(0, 3), tombstone=st.booleans())
    def delete(self, file_id: UUID, gap: int, *, tombstone: bool) -> None:
        if self.revisions[file_id] == 0 or file_id in self.gone:
            return
        self.gone.add(file_id)
        self.revisions[file_id] += 1
        self.event(deleted(file_id, self.revisions[file_id]), gap)
        if tombstone:
            self.write(file_id, None, 0, [("revision", str(self.revisions[file_id]).encode())])
        self.model[file_id] = self.revisions[file_id], None

    @precondition(lambda self: any(log.records for log in self.logs))
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """The relay sends a record again; the newest of a key always comes last."""
        old = data.draw(st.sampled_from([one for log in self.logs for one in log.records]))
        file_id = UUID(old.key.decode())
        if (old.partition, old.offset) in self.poison:
            return
        state = RecordReader(None).state_of(old.key, old.value, dict(old.headers))
        if state.revision == self.revisions[file_id]:
            self.write(file_id, old.value, 0, old.headers)

    @precondition(lambda self: any(log.records for log in self.logs))
    @rule(data=st.data())
    def redrive(self, data: st.DataObject) -> None:
        """An old record is applied past the log, at any time."""
        old = data.draw(st.sampled_from([one for log in self.logs for one in log.records]))
        try:
            row = read_model.row_of(RecordReader(None).state_of(old.key, old.value, dict(old.headers)))
        except BadRecordError:
            return

        async def apply() -> None:
            async with self.world.pool.acquire() as connection, connection.transaction():
                await read_model.apply(connection, 1, [row])

        self.world.run(apply())

    @rule(file_id=st.sampled_from(FILES), kind=st.sampled_from(["rubbish", "NUL", "time", "other key"]))
    def poisoned(self, file_id: UUID, kind: str) -> None:
        """A bad record with a revision that is greater than any: it must change nothing."""
        values = {
            "rubbish": b"rubbish",
            "NUL": encode(updated(file_id, 10**6, description="\x00")),
            "time": encode(updated(file_id, 10**6, file_size=-5)),
            "other key": encode(updated(uuid4(), 10**6)),
        }
        offset = self.write(file_id, values[kind], 0)
        self.poison.add((file_id.int % PARTITIONS, offset))

    @rule(projector=st.sampled_from(PROJECTORS), partition=st.integers(0, PARTITIONS - 1), back=st.integers(0, 5))
    def assign(self, projector: int, partition: int, back: int) -> None:
        """A projector is given a partition. The other may not have noticed that it lost it."""
        log = self.logs[partition]
        committed = max(0, log.committed - back)

        async def seek() -> int:
            async with self.world.pool.acquire() as connection:
                stored = await positions.stored(connection, 1, TOPIC)
                start = start_of(stored.get(partition), committed, 0, log.end).position
                await positions.take(connection, 1, TOPIC, {partition: start})
            return start

        start = self.world.run(seek())
        buffer = Buffer(TopicPartition(TOPIC, partition), start, start, log.end)
        self.views[projector][partition] = buffer

    def fetch(self, buffer: Buffer) -> None:
        log = self.logs[buffer.partition.partition]
        buffer.add([one for one in log.records if one.offset >= buffer.fetched], log.end, log.end)

    @rule(
        projector=st.sampled_from(PROJECTORS),
        most=st.integers(1, 6),
        crash=st.none() | st.sampled_from([Point.PREPARED, Point.ROWS_WRITTEN, Point.MOVED, Point.APPLIED]),
    )
    def apply(self, projector: int, most: int, crash: Point | None) -> None:
        """One batch over all partitions that the projector believes to have."""
        view = self.views[projector]
        for buffer in view.values():
            self.fetch(buffer)
        takes = [take(buffer, most) for buffer in view.values() if buffer.has_work]
        self.crash_at = crash

        async def once() -> None:
            async with self.world.pool.acquire() as connection:
                await self.lanes[projector].apply(connection, takes)

        try:
            self.world.run(once())
        except PositionMovedError:
            view.clear()
        except CrashError:
            view.clear()
            self.lanes[projector] = self.lane()
        else:
            for one in takes:
                one.buffer.drop(len(one.records), one.upto)
                log = self.logs[one.buffer.partition.partition]
                log.committed = max(log.committed, one.upto)
        self.crash_at = None
        for buffer in view.values():
            buffer.in_hand = False

    @invariant()
    def committed_offsets_are_covered(self) -> None:
        """All records below a committed offset are in the rows, superseded there, or among the dead letters."""
        rows = self.world.run(self.rows())
        for partition, log in enumerate(self.logs):
            for record in log.records:
                if record.offset >= log.committed:
                    continue
                if (partition, record.offset) in self.poison:
                    assert (partition, record.offset) in self.letters.positions
                    continue
                state = RecordReader(None).state_of(record.key, record.value, dict(record.headers))
                assert rows[UUID(state.file_id)][0] >= state.revision

    def teardown(self) -> None:
        for partition in range(PARTITIONS):
            self.assign(0, partition, 0)
        while any(buffer.applied < self.logs[number].end for number, buffer in self.views[0].items()):
            self.apply(0, 3, None)
        assert self.world.run(self.rows()) == self.model
        assert self.letters.positions == self.poison

    async def rows(self) -> dict[UUID, tuple[int, str | None]]:
        found = await self.world.pool.fetch(
            "SELECT file_id, revision, CASE WHEN deleted THEN NULL ELSE description END FROM file_metadata_cache_g1"
        )
        return {row[0]: (row[1], row[2]) for row in found}


async def test_any_interleaving_ends_in_the_models_rows(query_pool: asyncpg.Pool) -> None:
    class Here(Machine):
        world = World(asyncio.get_running_loop(), query_pool)

    await asyncio.to_thread(
        run_state_machine_as_test,
        Here,
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
