"""A batch of events is on the topic whole or not at all, and never behind the back of a newer owner of the shard.

One transactional id a shard: starting a producer fences all earlier ones at the broker (KIP-98), so a relay that was
paused and replaced cannot write once it wakes. A batch whose outcome is unknown is sent again after a new start.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata

from producer_admin.metrics import PUBLISH_FAILURES, PUBLISH_SECONDS, PUBLISHED
from producer_admin.outbox import OutboxRow, Receipt
from runtime.kafka import TRANSACTION_TIMEOUT_MS, transactional_producer
from schemas.events import EVENT_ID_HEADER, REVISION_HEADER, EventType

COMMIT_SECONDS: Final = 0.9 * TRANSACTION_TIMEOUT_MS / 1000
"""aiokafka waits for a commit without limit; past this the broker is about to abort the transaction anyway."""
START_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0


class ShardPublisher:
    """Writes one shard's events to one partition. Open it after claiming the shard, and only then read the outbox."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, shard: int) -> None:
        self._producer = producer
        self._topic = topic
        self._shard = shard

    @classmethod
    async def open(cls, bootstrap_servers: str, topic: str, shard: int) -> "ShardPublisher":
        """Start the shard's producer, which fences every earlier one.

        Raises:
            aiokafka.errors.KafkaError: the broker is away or refuses.
            TimeoutError: no answer within START_SECONDS.
        """
        producer = transactional_producer(bootstrap_servers, f"{topic}.relay-{shard}")
        publisher = cls(producer, topic, shard)
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
        try:
            with PUBLISH_SECONDS.time():
                async with asyncio.timeout(COMMIT_SECONDS):
                    receipts = await self._transaction(rows)
        except BaseException:
            for row in rows:
                PUBLISH_FAILURES.labels(row.event_type).inc()
            raise
        for row in rows:
            PUBLISHED.labels(row.event_type).inc()
        return receipts

    async def close(self) -> None:
        """Let go of the producer. An open transaction is left to the next start, or to the broker's time-out."""
        with contextlib.suppress(TimeoutError, Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._producer.stop()

    async def _transaction(self, rows: Sequence[OutboxRow]) -> list[Receipt]:
        await self._producer.begin_transaction()
        events, tombstones = [], []
        for row in rows:
            events.append(await self._send(row, row.payload))
            if row.event_type == EventType.DELETED:
                tombstones.append(await self._send(row, None))
        written = await asyncio.gather(*events)
        await asyncio.gather(*tombstones)
        await self._producer.commit_transaction()
        return [Receipt(row.outbox_id, record.offset) for row, record in zip(rows, written, strict=True)]

    async def _send(self, row: OutboxRow, value: bytes | None) -> asyncio.Future[RecordMetadata]:
        return await self._producer.send(  # type: ignore[no-any-return]
            self._topic,
            value=value,
            key=str(row.file_id).encode(),
            partition=self._shard,
            timestamp_ms=row.occurred_at_ms,
            headers=[
                (REVISION_HEADER, str(row.revision).encode()),
                (EVENT_ID_HEADER, str(row.event_id).encode()),
            ],
        )
