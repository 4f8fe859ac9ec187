"""Every outbox row reaches the topic, in order per file, from one owner of its shard at a time.

    claim the shard  →  start its producer (fences all before)  →  still mine?  →  read unsent  →  transaction  →  mark

On any doubt the producer and all that is in hand are dropped, and the way begins again at the claim. Rows are marked
after the broker has committed, so a crash in between sends a batch again: the same revisions, never older ones.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

import asyncpg
import structlog
from aiokafka.errors import KafkaError

from producer_admin import outbox, shards
from producer_admin.batches import Held, Limits, next_batch
from producer_admin.outbox import OutboxRow, Receipt
from runtime.health import Condition, NotReadyError
from runtime.postgres import AWAY, Connection
from runtime.retries import backoff, pause

POLL_SECONDS: Final = 1.0
"""How long a lost NOTIFY can delay an event."""
LONGEST_WAIT_SECONDS: Final = 1.0
"""Between tries while the broker or the database is away: what waits has to be sent soon after it is back."""

_PASSING: Final = (*AWAY, KafkaError, asyncpg.PostgresError, OSError)
_log = structlog.get_logger()


class Publisher(Protocol):
    """Writes one shard's events to the topic. `publisher.ShardPublisher` says what it has to promise."""

    async def publish(self, rows: Sequence[OutboxRow]) -> list[Receipt]:
        """Put `rows` on the topic in order, whole or not at all, unless another was opened for the shard since."""
        ...

    async def close(self) -> None:
        """Let go, without waiting for anything."""
        ...


OpenPublisher = Callable[[int], Awaitable[Publisher]]
"""Opens a publisher for a shard, and so shuts out all that were opened for it before."""


class Relay:
    """Owns as many shards as are free and sends their events."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        open_publisher: OpenPublisher,
        limits: Limits,
        in_flight: int = outbox.SHARDS,
        count: int = outbox.SHARDS,
    ) -> None:
        """Describe a relay; nothing is claimed yet.

        Args:
            pool: of the Admin database, with at least `in_flight` connections and two more
            open_publisher: see there
            limits: of one transaction
            in_flight: transactions at once at most, over all shards
            count: shards
        """
        self._pool = pool
        self._open_publisher = open_publisher
        self._limits = limits
        self._slots = asyncio.Semaphore(in_flight)
        self._count = count
        self._owner: UUID = uuid4()
        self._senders: dict[int, asyncio.Task[None]] = {}
        self._woken: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._claim_again = asyncio.Event()
        """Set when another relay has given shards back, and when this one is to stop."""
        self._not_sending: dict[int, str] = {}
        self._sending = Condition()
        self.database = Condition()

    @property
    def can_send(self) -> bool:
        """Whether every shard that this relay owns can be sent."""
        return not self._not_sending

    async def broker(self) -> None:
        """Return while every shard that this relay owns can be sent.

        Raises:
            NotReadyError: some cannot; says how many, and why one of them.
        """
        if self._not_sending:
            shard, reason = next(iter(self._not_sending.items()))
            raise NotReadyError(f"{len(self._not_sending)} shards are not sent; shard {shard}: {reason}")

    async def run(self, stopping: asyncio.Event) -> None:
        """Relay until `stopping`, then finish the transactions in hand and give the shards back."""
        waits = backoff(LONGEST_WAIT_SECONDS)
        ending = asyncio.create_task(self._end_claims(stopping))
        try:
            while not stopping.is_set():
                try:
                    await shards.prepare(self._pool, self._count)
                    async with self._pool.acquire() as connection:
                        await connection.add_listener(outbox.CHANNEL, self._on_notify)
                        await connection.add_listener(shards.CHANNEL, self._on_freed)
                        try:
                            waits = backoff(LONGEST_WAIT_SECONDS)
                            await self._keep_claims(connection, stopping)
                        finally:
                            await connection.remove_listener(outbox.CHANNEL, self._on_notify)
                            await connection.remove_listener(shards.CHANNEL, self._on_freed)
                except _PASSING as error:
                    reason = f"{type(error).__name__}: {error}"
                    if self.database.unmet(f"database: {reason}"):
                        _log.warning("relay cannot reach its database", error=reason)
                    await pause(next(waits), stopping)
        finally:
            ending.cancel()
            await self._drain(stopping)
            await self._release()

    async def _keep_claims(self, connection: Connection, stopping: asyncio.Event) -> None:
        """Renew and take shards, and keep a sender on each.

        On the connection that listens, so that its loss is noticed at the next renewal.
        """
        while not stopping.is_set():
            self._claim_again.clear()
            held = await shards.claim(connection, self._owner)
            if self.database.met():
                _log.info("relay claims shards", shards=len(held))
            for shard in self._senders.keys() - held:
                _log.warning("shard has another owner", shard=shard)
                self._senders[shard].cancel()
            for shard in held - self._senders.keys():
                self._not_sending[shard] = "starting"
                task = asyncio.create_task(self._send_shard(shard, stopping), name=f"shard-{shard}")
                self._senders[shard] = task
                task.add_done_callback(partial(self._sender_ended, shard))
            if not stopping.is_set():
                await pause(shards.RENEW_SECONDS, self._claim_again)

    def _sender_ended(self, shard: int, task: asyncio.Task[None]) -> None:
        del self._senders[shard]
        self._not_sending.pop(shard, None)
        if not task.cancelled() and (error := task.exception()):
            self._not_sending[shard] = str(error)
            _log.error("sender failed; it starts again at the next renewal", shard=shard, exc_info=error)

    async def _send_shard(self, shard: int, stopping: asyncio.Event) -> None:
        """Send a shard's events until it is lost or the relay stops."""
        waits = backoff(LONGEST_WAIT_SECONDS)
        while not stopping.is_set():
            try:
                if not await shards.holds(self._pool, self._owner, shard):
                    return
                publisher = await self._open_publisher(shard)
                try:
                    if not await shards.holds(self._pool, self._owner, shard):
                        return
                    self._not_sending.pop(shard, None)
                    if not self._not_sending and self._sending.met():
                        _log.info("all shards can be sent", shards=len(self._senders))
                    waits = backoff(LONGEST_WAIT_SECONDS)
                    if not await self._send_from(publisher, shard, stopping):
                        return
                finally:
                    await publisher.close()
            except _PASSING as error:
                reason = f"{type(error).__name__}: {error}"
                if self._sending.unmet(reason):
                    _log.warning("shard cannot be sent, trying again", shard=shard, error=reason)
                self._not_sending[shard] = reason
                await pause(next(waits), stopping)

    async def _send_from(self, publisher: Publisher, shard: int, stopping: asyncio.Event) -> bool:
        """Send batch after batch. False when the shard has another owner."""
        woken = self._woken[shard]
        held = Held()
        while not stopping.is_set():
            woken.clear()
            async with self._slots:
                batch, held = await self._read(shard, held)
                if batch:
                    receipts = await publisher.publish(batch)
                    if not await outbox.mark_sent(self._pool, shard, self._owner, receipts):
                        _log.warning("shard has another owner", shard=shard)
                        return False
            if not batch:
                await pause(POLL_SECONDS, woken)
        return True

    async def _read(self, shard: int, held: Held) -> tuple[Sequence[OutboxRow], Held]:
        room = held.room(self._limits)
        fresh = await outbox.unsent(self._pool, shard, room.rows, room.payload_bytes, held.files)
        return next_batch((*held.rows, *fresh), self._limits)

    def _on_notify(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self._woken[int(str(payload))].set()

    def _on_freed(self, *_: Any) -> None:
        self._claim_again.set()

    async def _end_claims(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._claim_again.set()

    async def _drain(self, stopping: asyncio.Event) -> None:
        """Let transactions in hand end; whoever has none has nothing to finish."""
        for shard, sender in self._senders.items():
            if shard in self._not_sending or not stopping.is_set():
                sender.cancel()
            self._woken[shard].set()
        await asyncio.gather(*self._senders.values(), return_exceptions=True)

    async def _release(self) -> None:
        try:
            await shards.release(self._pool, self._owner)
        except _PASSING as error:
            _log.warning("shards could not be given back; their lease runs out", error=str(error))
