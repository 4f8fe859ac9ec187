"""Every outbox row reaches the topic, in order per file, from one owner of its shard at a time.

    claim the shard  →  start its producer (fences all before)  →  still mine?  →  read unsent  →  transaction  →  mark

On any doubt the producer and all that is in hand are dropped, and the way begins again at the claim. Rows are marked
after the broker has committed, so a crash in between sends a batch again: the same revisions, never older ones.
"""

import asyncio
from collections import defaultdict
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import structlog
from aiokafka.errors import KafkaError

from producer_admin import outbox, shards
from producer_admin.metrics import OUTBOX_AGE, OUTBOX_UNSENT
from producer_admin.publisher import ShardPublisher
from runtime.health import Condition, NotReadyError
from runtime.postgres import AWAY, Connection
from runtime.retries import backoff, pause

POLL_SECONDS: Final = 1.0
"""How long a lost NOTIFY can delay an event."""

_PASSING: Final = (*AWAY, KafkaError, asyncpg.PostgresError, OSError)
_log = structlog.get_logger()


class Relay:
    """Owns as many shards as are free and sends their events."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        bootstrap_servers: str,
        topic: str,
        batch_size: int,
        count: int = outbox.SHARDS,
    ) -> None:
        self._pool = pool
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._batch_size = batch_size
        self._count = count
        self._owner: UUID = uuid4()
        self._senders: dict[int, asyncio.Task[None]] = {}
        self._woken: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._not_sending: dict[int, str] = {}
        self.database = Condition()

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
        waits = backoff()
        try:
            while not stopping.is_set():
                try:
                    await shards.prepare(self._pool, self._count)
                    async with self._pool.acquire() as connection:
                        await connection.add_listener(outbox.CHANNEL, self._on_notify)
                        try:
                            waits = backoff()
                            await self._keep_claims(connection, stopping)
                        finally:
                            await connection.remove_listener(outbox.CHANNEL, self._on_notify)
                except _PASSING as error:
                    self.database.unmet(f"database: {error or type(error).__name__}")
                    _log.warning("relay cannot reach its database", error=str(error))
                    await pause(next(waits), stopping)
        finally:
            await asyncio.gather(*self._senders.values(), return_exceptions=True)
            await self._release()

    async def _keep_claims(self, connection: Connection, stopping: asyncio.Event) -> None:
        """Renew and take shards, and keep a sender on each.

        On the connection that listens, so that its loss is noticed at the next renewal.
        """
        while not stopping.is_set():
            held = await shards.claim(connection, self._owner)
            self.database.met()
            for shard in held - self._senders.keys():
                self._not_sending[shard] = "starting"
                task = asyncio.create_task(self._send_shard(shard, stopping), name=f"shard-{shard}")
                self._senders[shard] = task
                task.add_done_callback(partial(self._sender_ended, shard))
            unsent, age = await outbox.backlog(connection)
            OUTBOX_UNSENT.set(unsent)
            OUTBOX_AGE.set(age)
            await pause(shards.RENEW_SECONDS, stopping)

    def _sender_ended(self, shard: int, task: asyncio.Task[None]) -> None:
        del self._senders[shard]
        self._not_sending.pop(shard, None)
        if not task.cancelled() and (error := task.exception()):
            self._not_sending[shard] = str(error)
            _log.error("sender failed; it starts again at the next renewal", shard=shard, exc_info=error)

    async def _send_shard(self, shard: int, stopping: asyncio.Event) -> None:
        """Send a shard's events until it is lost or the relay stops."""
        waits = backoff()
        while not stopping.is_set():
            publisher: ShardPublisher | None = None
            try:
                if not await shards.holds(self._pool, self._owner, shard):
                    return
                publisher = await ShardPublisher.open(self._bootstrap_servers, self._topic, shard)
                if not await shards.holds(self._pool, self._owner, shard):
                    return
                self._not_sending.pop(shard, None)
                waits = backoff()
                if not await self._send_from(publisher, shard, stopping):
                    return
            except _PASSING as error:
                reason = f"{type(error).__name__}: {error}"
                self._not_sending[shard] = reason
                _log.warning("shard cannot be sent, trying again", shard=shard, error=reason)
                await pause(next(waits), stopping)
            finally:
                if publisher is not None:
                    await publisher.close()

    async def _send_from(self, publisher: ShardPublisher, shard: int, stopping: asyncio.Event) -> bool:
        """Send batch after batch. False when the shard has another owner."""
        woken = self._woken[shard]
        while not stopping.is_set():
            woken.clear()
            rows = await outbox.unsent(self._pool, shard, self._batch_size)
            if not rows:
                await pause(POLL_SECONDS, woken)
                continue
            receipts = await publisher.publish(rows)
            if not await outbox.mark_sent(self._pool, shard, self._owner, receipts):
                _log.warning("shard has another owner", shard=shard)
                return False
        return True

    def _on_notify(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        self._woken[int(str(payload))].set()

    async def _release(self) -> None:
        try:
            await shards.release(self._pool, self._owner)
        except _PASSING as error:
            _log.warning("shards could not be given back; their lease runs out", error=str(error))
