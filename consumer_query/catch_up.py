"""A generation that is not live is brought to an offset and not beyond, by the lanes and the fence of the live one.

So two generations can be compared, and swapped, at equal positions. A bad record that a projector has passed by is
among the dead letters already; only what none has come to yet is put there from here.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import Final

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer_query import generations, positions
from consumer_query.breaker import Breaker
from consumer_query.buffers import Buffer, Take
from consumer_query.dead_letters import DeadLetter, DeadLetterWriter
from consumer_query.lanes import Lane
from consumer_query.points import unwatched
from consumer_query.read_model import teach
from consumer_query.records import RecordReader
from runtime.brokers import AnyBrokers
from runtime.kafka import REQUEST_TIMEOUT_MS, plain_consumer
from runtime.postgres import Connection
from runtime.whole_topic import STALL_SECONDS

BATCH: Final = 2_000
"""Records in one transaction at most, of each partition."""
POLL_MS: Final = 200
FETCH_WAIT_MS: Final = 10
NEAR: Final = 10_000
"""Offsets before the log's end within which the live generation is taken to be followed by projectors."""


class BeyondLive:
    """A writer of dead letters that leaves out what projectors have put there.

    Args:
        letters: the real one
        asked: says where the live generation stands
        topic: of file events
    """

    def __init__(self, letters: DeadLetterWriter, asked: asyncpg.Pool | Connection, topic: str) -> None:
        self._letters = letters
        self._asked = asked
        self._topic = topic
        self.count = 0
        """Letters that were new."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Write those that are new. Raises as the real one does, and what Postgres raises."""
        live = await self._asked.fetchval(generations.LIVE)
        applied = await positions.stored(self._asked, live, self._topic)
        if new := [one for one in letters if one.offset >= applied.get(one.partition, 0)]:
            await self._letters.put(new)
            self.count += len(new)

    async def close(self) -> None:
        """Close the real one."""
        await self._letters.close()


def goal(own: Mapping[int, int], live: Mapping[int, int], ends: Mapping[int, int]) -> dict[int, int]:
    """Where a generation should be brought to: where the live one is, or to the log's end when that one lags.

    Never back. Beyond the live one, projectors would have to read again what lies between at the swap.

    Args:
        own: its positions
        live: positions of the live generation; a partition it never applied is absent
        ends: last stable offsets
    """
    targets = {}
    for partition, at in own.items():
        end = ends[partition]
        followed = live.get(partition, end)
        targets[partition] = max(at, followed if end - NEAR <= followed <= end else end)
    return targets


def distance(own: Mapping[int, int], targets: Mapping[int, int]) -> int:
    """Offsets that lie between; gaps count."""
    return sum(targets[partition] - at for partition, at in own.items())


class Follower:
    """Applies the topic to one generation; made by `follower`."""

    def __init__(self, pool: asyncpg.Pool, consumer: AIOKafkaConsumer, lane: Lane, buffers: dict[int, Buffer]) -> None:
        self._pool = pool
        self._consumer = consumer
        self._lane = lane
        self._buffers = buffers

    @property
    def positions(self) -> dict[int, int]:
        """Everything below these offsets is in the generation."""
        return {number: buffer.applied for number, buffer in self._buffers.items()}

    async def ends(self) -> dict[int, int]:
        """The log's last stable offsets now.

        Raises:
            aiokafka.errors.KafkaError: the broker is away.
            TimeoutError: it does not answer.
        """
        async with asyncio.timeout(STALL_SECONDS):
            ends = await self._consumer.end_offsets([one.partition for one in self._buffers.values()])
        return {partition.partition: end for partition, end in ends.items()}

    async def follow(self, targets: Mapping[int, int]) -> None:
        """Apply every partition up to its target, which is not beyond the last stable offset.

        Raises:
            Exception: of Kafka, Postgres or the registry; positions and rows agree all the same.
        """
        async with self._pool.acquire() as connection:
            await teach(connection)
            while due := [one for number, one in self._buffers.items() if one.applied < targets[number]]:
                if hungry := [one for one in due if not one.records and one.fetched <= one.applied]:
                    async with asyncio.timeout(STALL_SECONDS):
                        await self._fetch(hungry)
                takes = [_take(one, targets[one.partition.partition]) for one in due if one.has_work]
                if takes:
                    await self._apply(connection, takes)

    async def _fetch(self, hungry: Sequence[Buffer]) -> None:
        """Wait until at least one of them has something, if only markers."""
        while all(one.fetched <= one.applied for one in hungry):
            fetched = await self._consumer.getmany(*(one.partition for one in hungry), timeout_ms=POLL_MS)
            for one in hungry:
                at = await self._consumer.position(one.partition)
                one.add(fetched.get(one.partition, ()), at, at)

    async def _apply(self, connection: Connection, takes: Sequence[Take]) -> None:
        batch = await self._lane.apply(connection, takes)
        for take in takes:
            take.buffer.drop(len(take.records), take.upto)
        if batch.held:
            raise batch.held[0].error


@asynccontextmanager
async def follower(
    pool: asyncpg.Pool,
    bootstrap_servers: AnyBrokers,
    topic: str,
    group: str,
    generation: int,
    reader: RecordReader,
    letters: DeadLetterWriter,
    bad_share: float,
) -> AsyncIterator[Follower]:
    """A started follower of one generation, from its stored positions. Its pool's connections have to be taught."""

    async def into(_connection: Connection) -> int:
        return generation

    lane = Lane(topic, group, reader, BeyondLive(letters, pool, topic), Breaker(bad_share), unwatched, generation=into)
    # A question about the log's ends waits behind a fetch on the same connection, and projectors may wait for it.
    consumer = plain_consumer(bootstrap_servers, request_timeout_ms=REQUEST_TIMEOUT_MS, fetch_max_wait_ms=FETCH_WAIT_MS)
    try:
        async with asyncio.timeout(STALL_SECONDS):
            await consumer.start()
            await consumer.topics()
        numbers = consumer.partitions_for_topic(topic) or set()
        stored = await _stored(pool, generation, topic, numbers)
        buffers = {number: Buffer(TopicPartition(topic, number), at, at, at) for number, at in stored.items()}
        consumer.assign([one.partition for one in buffers.values()])
        for one in buffers.values():
            consumer.seek(one.partition, one.applied)
        yield Follower(pool, consumer, lane, buffers)
    finally:
        await consumer.stop()


async def _stored(pool: asyncpg.Pool, generation: int, topic: str, partitions: Iterable[int]) -> Mapping[int, int]:
    """Positions of a generation; what it never applied a record of begins at the beginning."""
    stored = await positions.stored(pool, generation, topic)
    if missing := {number: 0 for number in partitions if number not in stored}:
        async with pool.acquire() as connection:
            await positions.take(connection, generation, topic, missing)
    return {**stored, **missing}


def _take(buffer: Buffer, target: int) -> Take:
    """What is buffered below the target; up to the target itself when nothing below it is left."""
    waiting = list(takewhile(lambda record: record.offset < target, buffer.records))
    if len(waiting) > BATCH:
        return Take(buffer, waiting[:BATCH], waiting[BATCH].offset)
    return Take(buffer, waiting, min(buffer.fetched, target))
