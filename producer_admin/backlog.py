"""What waits for the topic and who works on it, as metrics and for people.

A relay whose publishing is held says so by a shared advisory lock on the database, which ends with its connection
however it ends: so `artstore outbox stats` can tell "held" from "nobody is there".
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from producer_admin import outbox
from producer_admin.metrics import OUTBOX_AGE, OUTBOX_UNSENT, PUBLISHING_HELD
from runtime.health import Condition
from runtime.postgres import AWAY, Connection
from runtime.retries import pause

HELD: Final = 7_291_006
"""Advisory lock, held in shared mode by every relay with EVENT_PUBLISH_ENABLED=false."""

IS_HELD: Final = """
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 0 AND objid = $1::bigint::oid AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""
SHARDS: Final = """
SELECT shard, count(outbox_id) AS waiting, min(occurred_at) AS oldest,
       coalesce(extract(epoch FROM clock_timestamp() - min(occurred_at)), 0)::float8 AS age,
       owner, CASE WHEN owner IS NOT NULL THEN extract(epoch FROM lease_until - clock_timestamp())::float8 END AS lease
FROM generate_series(0, $1 - 1) AS shard LEFT JOIN outbox USING (shard) LEFT JOIN relay_shards USING (shard)
GROUP BY shard, owner, lease_until ORDER BY shard
"""
# Reads at most the partitions of two days.
SENT: Final = """
SELECT count(*) FILTER (WHERE sent_at > now() - interval '1 minute') AS minute, count(*) AS hour
FROM outbox_sent WHERE sent_at > now() - interval '1 hour'
"""

REPORT_SECONDS: Final = 5.0

_PASSING: Final = (*AWAY, asyncpg.PostgresError, OSError)
_log = structlog.get_logger()


@dataclass(frozen=True)
class ShardBacklog:
    """One shard of the outbox."""

    shard: int
    waiting: int
    oldest: datetime | None
    """When the oldest change that waits was made."""
    age: float
    """Seconds since then; 0 when nothing waits."""
    owner: UUID | None
    lease: float | None
    """Seconds for which the owner still holds it; negative when it has run out."""


@dataclass(frozen=True)
class OutboxStats:
    """The outbox at one moment."""

    shards: tuple[ShardBacklog, ...]
    sent_last_minute: int
    sent_last_hour: int
    held: bool
    """A relay runs and was told not to publish."""

    @property
    def waiting(self) -> int:
        """Events over all shards."""
        return sum(one.waiting for one in self.shards)

    @property
    def age(self) -> float:
        """Seconds that the oldest has waited."""
        return max((one.age for one in self.shards), default=0.0)

    @property
    def relayed(self) -> bool:
        """Some relay owns shards now."""
        return any(one.lease is not None and one.lease > 0 for one in self.shards)


async def report_backlog(pool: asyncpg.Pool, stopping: asyncio.Event) -> None:
    """Keep the metrics of what waits until `stopping`. Apart from the claims: counting a large backlog takes long."""
    counting = Condition()
    while not stopping.is_set():
        begin = time.monotonic()
        try:
            unsent, age = await outbox.backlog(pool)
            OUTBOX_UNSENT.set(unsent)
            OUTBOX_AGE.set(age)
            counting.met()
        except _PASSING as error:
            if counting.unmet(str(error)):
                _log.warning("the backlog cannot be counted", error=str(error))
        # At most a tenth of the time goes into counting.
        await pause(max(REPORT_SECONDS, 10 * (time.monotonic() - begin)), stopping)


async def stats(connection: Connection) -> OutboxStats:
    """What waits on each shard, who owns it, and what was sent of late."""
    shards = tuple(ShardBacklog(**row) for row in await connection.fetch(SHARDS, outbox.SHARDS))
    sent = await connection.fetchrow(SENT)
    assert sent is not None  # noqa: S101 - an aggregate always has a row
    return OutboxStats(shards, sent["minute"], sent["hour"], await connection.fetchval(IS_HELD, HELD))


class HeldRelay:
    """What runs in the relay's place while publishing is held: it says so, and is well as long as the database is."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.database = Condition()

    async def run(self, stopping: asyncio.Event) -> None:
        """Hold until `stopping`."""
        _log.warning("EVENT_PUBLISH_ENABLED is false: events wait in the outbox, and nothing is lost")
        PUBLISHING_HELD.set(1)
        while not stopping.is_set():
            try:
                async with self._pool.acquire() as connection:
                    await connection.execute("SELECT pg_advisory_lock_shared($1)", HELD)
                    while not stopping.is_set():
                        await connection.execute("SELECT 1")
                        self.database.met()
                        await pause(REPORT_SECONDS, stopping)
            except _PASSING as error:
                reason = f"{type(error).__name__}: {error}"
                if self.database.unmet(f"database: {reason}"):
                    _log.warning("relay cannot reach its database", error=reason)
                await pause(1.0, stopping)
