"""No file without its event, no event without its file: the event is a row of the file's own transaction.

The relay reads what is unsent, never "what came after the last id": ids are given before the transactions that hold
them commit, so a smaller id can appear later. On one file ids do follow revisions, because the next change of the
file waits for the row's lock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg
from aiokafka.partitioner import murmur2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.postgres import Connection
from schemas.codec import encode
from schemas.events import FileEvent
from schemas.topics import FILE_EVENTS, cards

CHANNEL: Final = "outbox"
"""NOTIFY channel; the payload is the shard."""

SHARDS: Final = cards()[FILE_EVENTS].partitions

ADD: Final = text(
    """
    WITH row AS (
        INSERT INTO outbox (shard, file_id, revision, event_id, event_type, payload, occurred_at)
        VALUES (:shard, :file_id, :revision, :event_id, :event_type, :payload, :occurred_at)
    )
    SELECT pg_notify('outbox', CAST(CAST(:shard AS integer) AS text))
    """
)

# At most one revision of a file in a batch: a batch that is sent again after a crash then repeats a revision
# instead of going back to an older one. Walks index outbox_unsent.
UNSENT: Final = """
SELECT outbox_id, file_id, revision, event_id, event_type, payload, occurred_at
FROM (
    SELECT *, row_number() OVER (PARTITION BY file_id ORDER BY outbox_id) AS turn
    FROM (
        SELECT outbox_id, file_id, revision, event_id, event_type, payload, occurred_at
        FROM outbox WHERE shard = $1 AND sent_at IS NULL
        ORDER BY outbox_id LIMIT $2
    ) AS oldest
) AS numbered
WHERE turn = 1
ORDER BY outbox_id
"""

# Only the shard's owner may say what was sent.
MARK_SENT: Final = """
UPDATE outbox SET sent_at = clock_timestamp(), record_offset = receipt.record_offset
FROM unnest($1::bigint[], $2::bigint[]) AS receipt (outbox_id, record_offset)
WHERE outbox.outbox_id = receipt.outbox_id
  AND EXISTS (SELECT FROM relay_shards WHERE shard = $3 AND owner = $4)
"""

BACKLOG: Final = """
SELECT count(*) AS unsent, coalesce(extract(epoch FROM clock_timestamp() - min(occurred_at)), 0)::float8 AS age
FROM outbox WHERE sent_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One event that is waiting for the topic."""

    outbox_id: int
    file_id: UUID
    revision: int
    event_id: UUID
    event_type: str
    payload: bytes
    occurred_at_ms: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The broker has committed this row's record at this offset."""

    outbox_id: int
    record_offset: int


def shard_of(file_id: UUID) -> int:
    """The Kafka partition of a file's key, as every Kafka client computes it (murmur2 of the key)."""
    return int(murmur2(str(file_id).encode()) & 0x7FFFFFFF) % SHARDS


async def add(connection: AsyncConnection, event: FileEvent) -> None:
    """Put `event` into the outbox within the caller's transaction; wakes the relay when that commits."""
    await connection.execute(
        ADD,
        {
            "shard": shard_of(event.file_id),
            "file_id": event.file_id,
            "revision": event.revision,
            "event_id": event.event_id,
            "event_type": event.event_type,
            "payload": encode(event),
            "occurred_at": event.occurred_at,
        },
    )


async def unsent(pool: asyncpg.Pool, shard: int, limit: int) -> list[OutboxRow]:
    """The oldest unsent rows of a shard, at most one a file, at most `limit`."""
    return [
        OutboxRow(
            row["outbox_id"],
            row["file_id"],
            row["revision"],
            row["event_id"],
            row["event_type"],
            row["payload"],
            int(row["occurred_at"].timestamp() * 1000),
        )
        for row in await pool.fetch(UNSENT, shard, limit)
    ]


async def mark_sent(pool: asyncpg.Pool, shard: int, owner: UUID, receipts: Sequence[Receipt]) -> bool:
    """Note what the broker has committed.

    Returns:
        False when the shard has another owner by now; nothing was noted then.
    """
    ids = [receipt.outbox_id for receipt in receipts]
    offsets = [receipt.record_offset for receipt in receipts]
    status: str = await pool.execute(MARK_SENT, ids, offsets, shard, owner)
    return status == f"UPDATE {len(receipts)}"


async def backlog(connection: Connection) -> tuple[int, float]:
    """How many events wait for the topic, and for how many seconds the oldest has."""
    row = await connection.fetchrow(BACKLOG)
    assert row is not None  # noqa: S101 - an aggregate always has a row
    return row["unsent"], max(0.0, row["age"])
