"""A relay in a process of its own that stops itself at a named point, once, after it has noted what it had done.

    python -P -m tests.zombie_relay '{"database": …, "bootstrap_servers": …, "topic": …, "notes": …, "halt": …, …}'

It is as dangerous a zombie as can be: nothing but the broker tells it that its time is over, because it asks for its
lease only once.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aiokafka.producer.message_accumulator import BatchBuilder

from producer_admin import shards
from producer_admin.batches import Limits
from producer_admin.outbox import OutboxRow, Receipt
from producer_admin.publisher import ShardPublisher
from producer_admin.relay import Relay
from runtime.brokers import AnyBrokers
from runtime.kafka import idempotent_producer
from runtime.postgres import open_pool
from runtime.tracing import BatchSpans

CLAIMED = "claimed, producer not started"
FIRST_PRODUCED = "first request of the transaction produced"
ALL_PRODUCED = "all of the transaction produced, not committed"


@dataclass(frozen=True)
class Orders:
    """What the process is told."""

    database: str
    bootstrap_servers: str
    topic: str
    notes: str
    halt: str
    transactional: bool = True


class Zombie:
    """Notes what happens, and stops the process when told."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self._halts = True

    def note(self, event: str, **fields: Any) -> None:
        with Path(self.orders.notes).open("a") as file:
            file.write(json.dumps({"event": event, **fields}) + "\n")

    def halt(self, point: str, **fields: Any) -> None:
        """SIGSTOP, at the first time that this point is reached."""
        if self._halts and point == self.orders.halt:
            self._halts = False
            self.note("halted", point=point, **fields)
            os.kill(os.getpid(), signal.SIGSTOP)
            self.note("woken")

    async def open_publisher(self, shard: int) -> "HaltingPublisher":
        self.halt(CLAIMED)
        kind = HaltingPublisher if self.orders.transactional else UnfencedPublisher
        publisher = await kind.open(self.orders.bootstrap_servers, self.orders.topic, shard)
        publisher.zombie = self
        return publisher


class HaltingPublisher(ShardPublisher):
    """The real one, with an eye on each produce request."""

    zombie: Zombie

    async def publish(self, rows: Sequence[OutboxRow]) -> list[Receipt]:
        try:
            receipts = await super().publish(rows)
        except BaseException as error:
            self.zombie.note("not published", rows=len(rows), error=type(error).__name__)
            raise
        self.zombie.note("published", rows=len(rows))
        return receipts

    async def close(self) -> None:
        await super().close()
        if hasattr(self, "zombie"):
            self.zombie.note("closed")

    async def _write(self, rows: Sequence[OutboxRow]) -> list[Receipt]:
        receipts = await super()._write(rows)
        self.zombie.halt(ALL_PRODUCED, produced=len(receipts), of=len(rows))
        return receipts

    async def _send(self, batch: BatchBuilder, events: Sequence[tuple[int, int]]) -> list[Receipt]:
        receipts = await super()._send(batch, events)
        self.zombie.halt(FIRST_PRODUCED, produced=len(receipts))
        return receipts


class UnfencedPublisher(HaltingPublisher):
    """The mutation: an idempotent producer without a transactional id, so without a fence."""

    @classmethod
    async def open(cls, bootstrap_servers: AnyBrokers, topic: str, shard: int, spans: BatchSpans | None = None) -> Self:
        producer = idempotent_producer(bootstrap_servers, f"unfenced-{shard}")
        await producer.start()
        return cls(producer, topic, shard, spans)

    async def publish(self, rows: Sequence[OutboxRow]) -> list[Receipt]:
        receipts = await self._write(rows)
        self.zombie.note("published", rows=len(rows))
        return receipts


async def main(orders: Orders) -> None:
    vars(shards)["RENEW_SECONDS"] = 3600
    zombie = Zombie(orders)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with await open_pool(orders.database, "zombie") as pool:
        await Relay(pool, zombie.open_publisher, Limits(rows=1000, payload_bytes=2**23), count=1).run(stopping)
    zombie.note("ended")


if __name__ == "__main__":
    asyncio.run(main(Orders(**json.loads(sys.argv[1]))))
