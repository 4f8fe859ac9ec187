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

    def batch(self, partition: int, frame: Callable[[bytes], bytes] = bytes) -> Batch:
        events = [created() for _ in range(RECORDS)]
        buffer = Buffer(TopicPartition("t", partition), 0, 0, 0)
        keys = [str(event.file_id).encode() for event in events]
        self.partitions |= dict.fromkeys(keys, partition)
        buffer.add(
            [
                ConsumerRecord("t", partition, number, 0, 0, key, frame(encode(event)), None, 36, 300, ())
                for number, (key, event) in enumerate(zip(keys, events, strict=True))
            ],
            RECORDS,
            RECORDS,
        )
        return Batch([take(buffer, RECORDS)])

    def lane(self, desk: asyncio.Lock | None) -> Lane:
        nobody = cast("DeadLetterWriter", None)
        return Lane("t", "group", self, nobody, Breaker(2.0), unwatched, desk=desk)


async def test_lanes_with_a_backlog_read_one_after_the_other() -> None:
    reader, desk = Noting(), asyncio.Lock()
    await asyncio.gather(*(reader.lane(desk)._read(reader.batch(number)) for number in range(3)))
    assert [(number, len(list(some))) for number, some in groupby(reader.read_of)] == [
        (number, RECORDS) for number in range(3)
    ]


async def test_the_express_lane_reads_after_a_slice_of_one_other_lane() -> None:
    reader, desk = Noting(), asyncio.Lock()
    backlogs = [asyncio.create_task(reader.lane(desk)._read(reader.batch(number))) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    await reader.lane(None)._read(reader.batch(0))
    await asyncio.gather(*backlogs)
    last = len(reader.read_of) - reader.read_of[::-1].index(0)
    # Between each two of its own slices there was one of another lane.
    assert last <= 2 * RECORDS + SLICE
    assert set(reader.read_of[:last]) == {0, 1}


async def test_while_a_registry_is_asked_the_other_lanes_go_on() -> None:
    reader, desk = Noting(), asyncio.Lock()
    framed = reader.batch(1, lambda value: b"\0" + (7).to_bytes(4, "big") + value[len(NEWEST.header) :])
    waiting = asyncio.create_task(reader.lane(desk)._read(framed))
    await reader.asked.wait()
    async with asyncio.timeout(10):
        await reader.lane(desk)._read(reader.batch(2))
    assert not waiting.done()
    reader.answers.set()
    await waiting
    assert (framed.records, framed.held) == (RECORDS, [])
