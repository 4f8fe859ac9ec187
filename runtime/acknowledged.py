"""When `put` returns, the records are on their topic, acknowledged by all replicas in sync; else it raises, in time.

For what is written seldom and matters each time. The relay has its own way, with a fence.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from runtime.brokers import AnyBrokers
from runtime.kafka import abandon, idempotent_producer

PUT_SECONDS: Final = 8.0
"""aiokafka tries without limit; past this the caller decides what to do."""

Headers = tuple[tuple[str, bytes | None], ...]


class NewRecord(NamedTuple):
    """What is to stand on a topic."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None
    """Since 1970; None is now."""


class AcknowledgedTopic:
    """A topic of one partition, written to. The producer is started at first use, and anew after a failure."""

    def __init__(self, bootstrap_servers: AnyBrokers, topic: str, client_id: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._client_id = client_id
        self._producer: AIOKafkaProducer | None = None
        # Callers share this; the failure of one must not take the producer from under another.
        self._alone = asyncio.Lock()

    async def put(self, records: Sequence[NewRecord]) -> None:
        """Write records in order. Takes PUT_SECONDS at most, and what callers before it take.

        Raises:
            aiokafka.errors.KafkaError: refused, or the broker is away. Some may have been written.
            TimeoutError: nobody knows which were written.
        """
        if not records:
            return
        async with self._alone:
            try:
                async with asyncio.timeout(PUT_SECONDS):
                    producer = await self._started()
                    for batch in _batches(producer, records):
                        await (await producer.send_batch(batch, self._topic, partition=0))
            except BaseException:
                await self._drop()
                raise

    async def close(self) -> None:
        """Let go, without waiting for a broker that is away."""
        async with self._alone:
            await self._drop()

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            self._producer = idempotent_producer(self._bootstrap_servers, self._client_id)
            await self._producer.start()
        return self._producer

    async def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await abandon(producer)


def _batches(producer: AIOKafkaProducer, records: Iterable[NewRecord]) -> Iterator[BatchBuilder]:
    """All records, built: so that one larger than the client's own bounds goes, and the broker alone decides on it."""
    batch = producer.create_batch()
    for record in records:
        fields = record._asdict()
        fields["headers"] = list(record.headers)  # aiokafka takes nothing else
        timestamp = fields.pop("timestamp_ms")
        if batch.append(timestamp=timestamp, **fields) is None:
            yield batch
            batch = producer.create_batch()
            batch.append(timestamp=timestamp, **fields)
    yield batch
