"""One owner a shard: a lease by the database's clock, under a token that no other claim shares.

The lease keeps two relays from working on one shard for long; it does not keep a paused one from waking up. That is
the broker's part: whoever starts the shard's transactional id last fences all before it (`publisher`).
"""

from collections.abc import Set as AbstractSet
from typing import Final
from uuid import UUID

import asyncpg

from runtime.postgres import Connection

LEASE_SECONDS: Final = 15
"""Longer than the transaction time-out: when a lease has run out, its holder's open transaction is dead too."""
RENEW_SECONDS: Final = 5

PREPARE: Final = """
INSERT INTO relay_shards (shard, owner, lease_until)
SELECT shard, NULL, '-infinity' FROM generate_series(0, $1 - 1) AS shard
ON CONFLICT DO NOTHING
"""
CLAIM: Final = """
UPDATE relay_shards SET owner = $1, lease_until = clock_timestamp() + make_interval(secs => $2)
WHERE shard IN (
    SELECT shard FROM relay_shards
    WHERE owner = $1 OR owner IS NULL OR lease_until < clock_timestamp()
    ORDER BY shard FOR UPDATE SKIP LOCKED
)
RETURNING shard
"""
HOLDS: Final = "SELECT FROM relay_shards WHERE shard = $1 AND owner = $2 AND lease_until > clock_timestamp()"
CHANNEL: Final = "relay_shards"
"""Notified when shards are given back."""
RELEASE: Final = """
WITH released AS (
    UPDATE relay_shards SET owner = NULL, lease_until = '-infinity' WHERE owner = $1 RETURNING shard
)
SELECT pg_notify($2, '') WHERE EXISTS (SELECT FROM released)
"""


async def prepare(pool: asyncpg.Pool, count: int) -> None:
    """Make the rows of `count` shards, once."""
    await pool.execute(PREPARE, count)


async def claim(connection: Connection, owner: UUID) -> AbstractSet[int]:
    """Renew what `owner` holds and take what is free. Returns all that it holds now."""
    return {row["shard"] for row in await connection.fetch(CLAIM, owner, LEASE_SECONDS)}


async def holds(pool: asyncpg.Pool, owner: UUID, shard: int) -> bool:
    """Whether `owner` still holds `shard`, by the database's clock."""
    return await pool.fetchrow(HOLDS, shard, owner) is not None


async def release(pool: asyncpg.Pool, owner: UUID) -> None:
    """Give back all, and say so: a successor waits neither for the lease to run out nor for its own next claim."""
    await pool.execute(RELEASE, owner, CHANNEL)
