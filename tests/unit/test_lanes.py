"""Of lanes with a backlog one reads at a time, and neither the express lane nor a registry's silence waits for it."""

import asyncio
import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from aiokafka import ConsumerRecord, TopicPartition

import schemas
from consumer_query.breaker import Breaker
from consumer_query.buffers import Buffer, take
from consumer_query.dead_letters import DeadLetterWriter
from consumer_query.lanes import SLICE, Batch, Lane
from consumer_query.points import unwatched
from consumer_query.projection import FileState
from consumer_query.records import RecordReader
from schemas.codec import UnknownSchemaError, encode, versions
from tests.samples import created

RECORDS = 5 * SLICE
NEWEST = versions()[-1]


class Noting(RecordReader):
    """Notes the partition of each record that is read, and answers of schemas when it is told to."""

    def __init__(self) -> None:
        super().__init__(None)
        self.read_of: list[int] = []
        self.partitions: dict[bytes, int] = {}
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    def state_of(self, key: bytes | None, *of_it: Any) -> FileState:
        state = super().state_of(key, *of_it)
        self.read_of.append(self.partitions[key or b""])
        return state

    async def learn(self, unknown: UnknownSchemaError) -> None:
        self.asked.set()
        await self.answers.wait()
        name = f"file_event.v{NEWEST.number}.avsc"
        self._decoder.learn(unknown.schema, json.loads((Path(schemas.__file__).parent / "avro" / name).read_text()))

    def batch(self, *partitions: int, frame: Callable[[bytes], bytes] = bytes) -> Batch:
        return Batch([take(self.buffer(one, frame), RECORDS) for one in partitions])

    def buffer(self, partition: int, frame: Callable[[bytes], bytes]) -> Buffer:
        # With more tags than compiled code takes: it leaves them to the reader.
        events = [created(tags=tuple(map(str, range(33)))) for _ in range(RECORDS)]
        buffer = Buffer(TopicPartition("t", partition), 0, 0, 0)
        keys = [str(event.file_id).encode() for event in events]
        self.partitions |= dict.fromkeys(keys, partition)
        made = [
            ConsumerRecord("t", partition, number, 0, 0, key, frame(encode(event)), None, 36, 300, ())
            for number, (key, event) in enumerate(zip(keys, events, strict=True))
        ]
        buffer.add(made, RECORDS, RECORDS)
        return buffer

    def lane(self, desk: asyncio.Lock | None) -> Lane:
        nobody = cast("DeadLetterWriter", None)
        return Lane("t", "group", self, nobody, Breaker(2.0), unwatched, desk=desk)


async def test_lanes_with_a_backlog_prepare_their_batches_one_after_the_other() -> None:
    reader, desk = Noting(), asyncio.Lock()
    batches = [reader.batch(1, 2), reader.batch(3, 4), reader.batch(5)]
    ready: list[Batch] = []

    async def prepare(batch: Batch) -> None:
        await reader.lane(desk)._prepare(batch)
        # Its rows are there before the next one has been read.
        assert reader.read_of[-1] < 5 or batch is batches[-1]
        ready.append(batch)

    await asyncio.gather(*map(prepare, batches))
    assert [number for number, _ in groupby(reader.read_of)] == [1, 2, 3, 4, 5]
    assert ready == batches
    assert [len(batch.rows) for batch in batches] == [2 * RECORDS, 2 * RECORDS, RECORDS]


async def test_the_express_lane_waits_for_a_slice_of_one_other_lane_at_each_turn() -> None:
    reader, desk = Noting(), asyncio.Lock()
    backlogs = [asyncio.create_task(reader.lane(desk)._prepare(reader.batch(number))) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    await reader.lane(None)._prepare(reader.batch(0))
    await asyncio.gather(*backlogs)
    before_its_last = reader.read_of[: len(reader.read_of) - reader.read_of[::-1].index(0)]
    assert set(before_its_last) == {0, 1}


async def test_while_a_registry_is_asked_the_other_lanes_go_on() -> None:
    reader, desk = Noting(), asyncio.Lock()
    framed = reader.batch(1, frame=lambda value: b"\0" + (7).to_bytes(4, "big") + value[len(NEWEST.header) :])
    waiting = asyncio.create_task(reader.lane(desk)._prepare(framed))
    await reader.asked.wait()
    async with asyncio.timeout(10):
        await reader.lane(desk)._prepare(reader.batch(2))
    assert not waiting.done()
    reader.answers.set()
    await waiting
    assert (framed.records, framed.held, len(framed.rows)) == (RECORDS, [], RECORDS)


async def test_without_its_schema_a_take_ends_before_the_record_and_the_others_are_read() -> None:
    reader = RecordReader(None)
    noting = Noting()
    known, unknown = noting.buffer(1, bytes), noting.buffer(2, lambda value: b"\0\0\0\0\7" + value)
    batch = Batch([take(unknown, RECORDS), take(known, RECORDS)])
    lane = Lane("t", "group", reader, cast("DeadLetterWriter", None), Breaker(2.0), unwatched, desk=asyncio.Lock())
    await lane._prepare(batch)
    assert [len(one.records) for one in batch.takes] == [0, RECORDS]
    assert [one.take for one in batch.held] == [batch.takes[0]]
    assert (batch.records, len(batch.rows)) == (RECORDS, RECORDS)
