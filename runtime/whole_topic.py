"""A topic of one partition is read from some offset to the end that it had when the reading began, and no further.

The end is the last stable offset, and positions are compared with it, not records counted: compaction and transaction
markers leave gaps, so the last record need not stand right before the end.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import UnknownTopicOrPartitionError

from runtime.brokers import AnyBrokers
from runtime.kafka import REQUEST_TIMEOUT_MS, plain_consumer

STALL_SECONDS: Final = 10.0
"""aiokafka waits for a broker without limit; so long without any progress is a fault."""
_POLL_MS: Final = 500


async def whole_topic(
    bootstrap_servers: AnyBrokers, topic: str, begin: int = 0
) -> AsyncGenerator["ConsumerRecord[bytes, bytes]", None]:
    """All committed records of partition 0 from offset `begin`, in order. Close it (aclosing) when leaving early.

    Below 0, `begin` is counted from the end.

    Raises:
        aiokafka.errors.KafkaError: the broker is away, or does not know the topic.
        TimeoutError: no progress within STALL_SECONDS.
    """
    partition = TopicPartition(topic, 0)
    consumer = plain_consumer(bootstrap_servers, request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        async with asyncio.timeout(STALL_SECONDS):
            end = await _seek(consumer, partition, begin)
        async for records in upto(consumer, partition, end):
            for record in records:
                yield record
    finally:
        await consumer.stop()


async def upto(
    consumer: AIOKafkaConsumer, partition: TopicPartition, end: int
) -> AsyncGenerator["list[ConsumerRecord[bytes, bytes]]", None]:
    """What a consumer that has been seeked reads of an assigned partition below offset `end`, as it comes.

    Raises:
        aiokafka.errors.KafkaError: the broker is away.
        TimeoutError: no progress within STALL_SECONDS.
    """
    while True:
        async with asyncio.timeout(STALL_SECONDS):
            records = await _next(consumer, partition, end)
        if records and records[-1].offset >= end:
            records = [record for record in records if record.offset < end]
        if not records:
            return
        yield records


async def _seek(consumer: AIOKafkaConsumer, partition: TopicPartition, begin: int) -> int:
    """Start at an offset, or at the log's beginning if that is later; the end of the log."""
    await consumer.start()
    if partition.topic not in await consumer.topics():
        raise UnknownTopicOrPartitionError(partition.topic)  # asked for its offsets, the client would wait for it
    consumer.assign([partition])
    beginning: int = (await consumer.beginning_offsets([partition]))[partition]
    end: int = (await consumer.end_offsets([partition]))[partition]
    consumer.seek(partition, max(begin if begin >= 0 else end + begin, beginning))
    return end


async def _next(
    consumer: AIOKafkaConsumer, partition: TopicPartition, end: int
) -> "list[ConsumerRecord[bytes, bytes]]":
    """Some more records; none when the position has come to the end."""
    while await consumer.position(partition) < end:
        if records := (await consumer.getmany(partition, timeout_ms=_POLL_MS)).get(partition):
            return list(records)
    return []
