"""A batch of events is on the topic whole or not at all, and never behind the back of a newer owner of the shard.

One transactional id a shard: starting a producer fences all earlier ones at the broker (KIP-98), so a relay that was
paused and replaced cannot write once it wakes. A batch whose outcome is unknown is sent again after a new start.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Self

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from opentelemetry.trace import SpanKind

from producer_admin.metrics import PUBLISH_FAILURES, PUBLISH_SECONDS, PUBLISHED
from producer_admin.outbox import OutboxRow, Receipt
from runtime.brokers import AnyBrokers
from runtime.kafka import TRANSACTION_TIMEOUT_MS, abandon, transactional_producer
from runtime.tracing import BatchSpans, Traced, of_batches
from schemas.events import EventType, record_headers

COMMIT_SECONDS: Final = 0.9 * TRANSACTION_TIMEOUT_MS / 1000
"""aiokafka waits for a commit without limit; past this the broker is about to abort the transaction anyway."""
START_SECONDS: Final = 10.0
UNKNOWN_OFFSET: Final = -1


def spans_of_sending(topic: str) -> BatchSpans | None:
    """What tells of transactions, and of each traced event in them; None while nothing is traced."""
    shared = {"messaging.system": "kafka", "messaging.operation.type": "send", "messaging.destination.name": topic}
    return of_batches("send batch", "send file event", SpanKind.PRODUCER, shared)


class ShardPublisher:
    """Writes one shard's events to one partition. Open it after claiming the shard, and only then read the outbox."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, shard: int, spans: BatchSpans | None = None) -> None:
        self._producer = producer
        self._topic = topic
        self._shard = shard
        self._spans = spans

    @classmethod
    async def open(cls, bootstrap_servers: AnyBrokers, topic: str, shard: int, spans: BatchSpans | None = None) -> Self:
        """Start the shard's producer, which fences every earlier one.

        Args:
            bootstrap_servers: where the broker is
            topic: to write to
            shard: its partition
            spans: told of each transaction

        Raises:
            aiokafka.errors.KafkaError: the broker is away or refuses.
            TimeoutError: no answer within START_SECONDS.
        """
        producer = transactional_producer(bootstrap_servers, f"{topic}.relay-{shard}")
        publisher = cls(producer, topic, shard, spans)
        try:
            async with asyncio.timeout(START_SECONDS):
                await producer.start()
        except BaseException:
            await publisher.close()
            raise
        return publisher

    async def publish(self, rows: Sequence[OutboxRow]) -> list[Receipt]:
        """Send `rows` in order, in one transaction. A deletion is followed by its tombstone.

        Raises:
            aiokafka.errors.KafkaError: fenced, refused or away. Close this publisher; nothing that it sent may count.
            TimeoutError: the outcome is unknown. Close this publisher and send the rows again with the next.
        """
        kinds = Counter(row.event_type for row in rows)
        began = 0 if self._spans is None else time.time_ns()
        try:
            with PUBLISH_SECONDS.time():
                async with asyncio.timeout(COMMIT_SECONDS):
                    await self._producer.begin_transaction()
                    receipts = await self._write(rows)
                    await self._producer.commit_transaction()
        except BaseException as error:
            for kind, count in kinds.items():
                PUBLISH_FAILURES.labels(kind).inc(count)
            if self._spans is not None and any(row.traceparent for row in rows):
                self._spans.failed(began, time.time_ns(), len(rows), error)
            raise
        for kind, count in kinds.items():
            PUBLISHED.labels(kind).inc(count)
        if self._spans is not None:
            await self._spans.done(began, time.time_ns(), self._traced(rows, receipts), len(rows))
        return receipts

    async def close(self) -> None:
        """Let go at once. An open transaction is left to the next start, or to the broker's time-out."""
        await abandon(self._producer)

    def _traced(self, rows: Sequence[OutboxRow], receipts: Sequence[Receipt]) -> Iterator[Traced]:
        for row, receipt in zip(rows, receipts, strict=True):
            if row.traceparent is not None:
                attributes: dict[str, str | int] = {
                    "messaging.destination.partition.id": str(self._shard),
                    "messaging.kafka.offset": receipt.record_offset,
                    "artstore.file_id": str(row.file_id),
                    "artstore.revision": row.revision,
                }
                yield Traced(row.traceparent, attributes)

    async def _write(self, rows: Sequence[OutboxRow]) -> list[Receipt]:
        receipts: list[Receipt] = []
        for batch, events in self._batches(rows):
            receipts += await self._send(batch, events)
        return receipts

    async def _send(self, batch: BatchBuilder, events: Sequence[tuple[int, int]]) -> list[Receipt]:
        """Send one batch; `events` are outbox ids and where in the batch their records stand."""
        written = await (await self._producer.send_batch(batch, self._topic, partition=self._shard))
        base = written.offset
        if base < 0:
            # A repeat that the broker recognises, but no longer remembers the place of.
            return [Receipt(outbox_id, UNKNOWN_OFFSET) for outbox_id, _ in events]
        return [Receipt(outbox_id, base + place) for outbox_id, place in events]

    def _batches(self, rows: Sequence[OutboxRow]) -> Iterator[tuple[BatchBuilder, list[tuple[int, int]]]]:
        """All records of `rows`, built: a future for each would cost more than all the rest."""
        batch = self._producer.create_batch()
        events: list[tuple[int, int]] = []
        place = 0
        for row in rows:
            key = str(row.file_id).encode()
            headers = record_headers(row.revision, row.event_id, row.traceparent)
            timestamp = row.occurred_at_ms
            for value in (row.payload, None) if row.event_type == EventType.DELETED else (row.payload,):
                if batch.append(timestamp=timestamp, key=key, value=value, headers=headers) is None:
                    yield batch, events
                    batch, events, place = self._producer.create_batch(), [], 0
                    # An empty batch takes a record of any size; whether it is too large is for the broker to say.
                    batch.append(timestamp=timestamp, key=key, value=value, headers=headers)
                if value is not None:
                    events.append((row.outbox_id, place))
                place += 1
        yield batch, events
