"""No file without its event, no event without its file: the event is a row of the file's own transaction.

The relay reads what is unsent, never "what came after the last id": ids are given before the transactions that hold
them commit, so a smaller id can appear later. On one file ids do follow revisions, because the next change of the
file waits for the row's lock.
"""

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from runtime.postgres import Connection
from runtime.tracing import traceparent
from schemas.codec import encode
from schemas.events import FileEvent
from schemas.keys import PARTITIONS, partition_of

CHANNEL: Final = "outbox"
"""NOTIFY channel; the payload is the shard."""

SHARDS: Final = PARTITIONS

ADD: Final = text(
    """
    WITH row AS (
        INSERT INTO outbox (shard, file_id, revision, event_id, event_type, actor, payload, occurred_at, traceparent)
        VALUES (:shard, :file_id, :revision, :event_id, :event_type, :actor, :payload, :occurred_at, :traceparent)
    )
    SELECT pg_notify('outbox', CAST(CAST(:shard AS integer) AS text))
    """
)

ADD_MANY: Final = text(
    """
    WITH added AS (
        INSERT INTO outbox (shard, file_id, revision, event_id, event_type, actor, payload, occurred_at, traceparent)
        SELECT shard, file_id, revision, event_id, event_type, :actor, payload, occurred_at, :traceparent
        FROM unnest(
            CAST(:shards AS integer[]), CAST(:file_ids AS uuid[]), CAST(:revisions AS bigint[]),
            CAST(:event_ids AS uuid[]), CAST(:event_types AS text[]), CAST(:payloads AS bytea[]),
            CAST(:moments AS timestamptz[])
        ) AS event (shard, file_id, revision, event_id, event_type, payload, occurred_at)
        RETURNING shard
    )
    SELECT pg_notify('outbox', CAST(shard AS text)) FROM (SELECT DISTINCT shard FROM added) AS woken
    """
)

# The oldest rows of a shard, as many as fit into $4 bytes of payload, at least one; without the files whose oldest
# rows the caller holds already ($2). Walks the primary key. What is left out goes by file, never by id: a row with a
# smaller id can be committed later, but not of the same file.
UNSENT: Final = """
SELECT outbox_id, file_id, revision, event_id, event_type, payload, (date_part('epoch', occurred_at) * 1000)::bigint,
       traceparent
FROM (
    SELECT *, sum(octet_length(payload)) OVER (ORDER BY outbox_id ROWS UNBOUNDED PRECEDING) AS bytes
    FROM (
        SELECT outbox_id, file_id, revision, event_id, event_type, payload, occurred_at, traceparent
        FROM outbox WHERE shard = $1 AND file_id <> ALL($2::uuid[])
        ORDER BY outbox_id LIMIT $3
    ) AS oldest
) AS summed
WHERE bytes <= $4 OR bytes = octet_length(payload)
ORDER BY outbox_id
"""

# A row waits or is in the audit log, never both, never neither. Only the shard's owner may say what was sent.
MARK_SENT: Final = """
WITH sent AS (
    DELETE FROM outbox USING unnest($1::bigint[], $2::bigint[]) AS receipt (outbox_id, record_offset)
    WHERE outbox.shard = $3 AND outbox.outbox_id = receipt.outbox_id
      AND EXISTS (SELECT FROM relay_shards WHERE shard = $3 AND owner = $4)
    RETURNING outbox.*, receipt.record_offset
)
INSERT INTO outbox_sent (outbox_id, shard, file_id, revision, event_id, event_type, actor, payload, occurred_at,
                         sent_at, record_offset, traceparent)
SELECT outbox_id, shard, file_id, revision, event_id, event_type, actor, payload, occurred_at,
       statement_timestamp(), record_offset, traceparent
FROM sent
"""

BACKLOG: Final = """
SELECT count(*) AS unsent, coalesce(extract(epoch FROM clock_timestamp() - min(occurred_at)), 0)::float8 AS age
FROM outbox
"""


class OutboxRow(NamedTuple):
    """One event that is waiting for the topic, in the order of columns of UNSENT."""

    outbox_id: int
    file_id: UUID
    revision: int
    event_id: UUID
    event_type: str
    payload: bytes
    occurred_at_ms: int
    traceparent: str | None = None
    """The trace that the change belongs to, if it is traced."""


class Receipt(NamedTuple):
    """The broker has committed this row's record at this offset."""

    outbox_id: int
    record_offset: int
    """-1 when the broker could not say."""


def shard_of(file_id: UUID) -> int:
    """Whose shard a file is: the Kafka partition of its key."""
    return partition_of(file_id)


async def add(connection: AsyncConnection, event: FileEvent, actor: str) -> None:
    """Put `event` of a change by `actor` into the outbox in the caller's transaction; its commit wakes the relay."""
    await connection.execute(
        ADD,
        {
            "shard": shard_of(event.file_id),
            "file_id": event.file_id,
            "revision": event.revision,
            "event_id": event.event_id,
            "event_type": event.event_type,
            "actor": actor,
            "payload": encode(event),
            "occurred_at": event.occurred_at,
            "traceparent": traceparent(),
        },
    )


async def add_many(connection: AsyncConnection, events: Sequence[FileEvent], actor: str) -> None:
    """As `add`, for many files at once, each file at most once."""
    await connection.execute(
        ADD_MANY,
        {
            "actor": actor,
            "shards": [shard_of(event.file_id) for event in events],
            "file_ids": [event.file_id for event in events],
            "revisions": [event.revision for event in events],
            "event_ids": [event.event_id for event in events],
            "event_types": [str(event.event_type) for event in events],
            "payloads": [encode(event) for event in events],
            "moments": [event.occurred_at for event in events],
            "traceparent": traceparent(),
        },
    )


async def unsent(
    pool: asyncpg.Pool, shard: int, limit: int, max_bytes: int, without: Collection[UUID] = ()
) -> list[OutboxRow]:
    """The oldest unsent rows of a shard in order.

    Args:
        pool: of the Admin database
        shard: whose rows
        limit: rows at most
        max_bytes: of payload at most; one row may be larger by itself
        without: files to leave out
    """
    return list(map(OutboxRow._make, await pool.fetch(UNSENT, shard, list(without), limit, max_bytes)))


async def mark_sent(pool: asyncpg.Pool, shard: int, owner: UUID, receipts: Sequence[Receipt]) -> bool:
    """Move what the broker has committed to the audit log.

    Returns:
        False when the shard has another owner by now; nothing was moved then.
    """
    ids = [receipt.outbox_id for receipt in receipts]
    offsets = [receipt.record_offset for receipt in receipts]
    status: str = await pool.execute(MARK_SENT, ids, offsets, shard, owner)
    return status == f"INSERT 0 {len(receipts)}"


async def backlog(connection: Connection | asyncpg.Pool) -> tuple[int, float]:
    """How many events wait for the topic, and for how many seconds the oldest has."""
    row = await connection.fetchrow(BACKLOG)
    assert row is not None  # noqa: S101 - an aggregate always has a row
    return row["unsent"], max(0.0, row["age"])
