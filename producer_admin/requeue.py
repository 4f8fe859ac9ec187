"""An event goes to the topic again only while it is its file's newest, so no revision there ever goes down.

Whether it is the newest is decided under the lock of the file's row: a change that comes later gets a greater revision
and a greater outbox id, and so its place behind. For what the audit log no longer holds there is `republish`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from typing import Final
from uuid import UUID

from producer_admin import actions
from producer_admin.actions import Did
from producer_admin.outbox import SHARDS, shard_of
from producer_admin.saga_steps import ANONYMOUS
from runtime.postgres import Connection

FILES_AT_ONCE: Final = 500
"""Files whose rows are locked at the same time."""

# In the order of their ids, so that two that lock the same files never wait for each other.
LOCK: Final = "SELECT file_id, revision FROM files WHERE file_id = ANY($1) ORDER BY file_id FOR UPDATE"

# One row an event, however often it was sent. Walks outbox_sent_file.
SENT: Final = """
SELECT DISTINCT file_id, revision FROM outbox_sent
WHERE file_id = ANY($1) AND sent_at >= $2 AND sent_at < $3
"""
WAITING: Final = "SELECT file_id, revision FROM outbox WHERE shard = ANY($1) AND file_id = ANY($2)"

AGAIN: Final = """
WITH newest AS (
    SELECT DISTINCT ON (sent.file_id) sent.*
    FROM unnest($1::uuid[], $2::bigint[]) AS wanted (file_id, revision)
    JOIN outbox_sent AS sent ON sent.file_id = wanted.file_id AND sent.revision = wanted.revision
    ORDER BY sent.file_id, sent.outbox_id DESC
), added AS (
    INSERT INTO outbox (shard, file_id, revision, event_id, event_type, actor, payload, occurred_at, traceparent)
    SELECT shard, file_id, revision, event_id, event_type, actor, payload, occurred_at, traceparent FROM newest
    RETURNING shard
)
SELECT pg_notify('outbox', shard::text) FROM (SELECT DISTINCT shard FROM added) AS woken
"""

FILES_SENT: Final = "SELECT DISTINCT file_id FROM outbox_sent WHERE sent_at >= $1 AND sent_at < $2 ORDER BY file_id"

BEGINNING: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
END: Final = datetime.fromisoformat("9999-01-01T00:00:00+00:00")


@dataclass(frozen=True)
class Requeued:
    """What became of the events that were asked for."""

    requeued: int = 0
    """Newest of their files, and in the outbox again."""
    waiting: int = 0
    """Newest of their files, and in the outbox anyway."""
    superseded: int = 0
    """Older than their file's newest revision; left alone."""
    unknown: int = 0
    """Files of which nothing is in the audit log; republish announces those that exist."""

    def __add__(self, other: "Requeued") -> "Requeued":
        return Requeued(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


async def sent_between(connection: Connection, since: datetime, until: datetime) -> list[UUID]:
    """Files of which an event was sent in this time, by the database's clock; `until` itself is not in it."""
    return [row["file_id"] for row in await connection.fetch(FILES_SENT, since, until)]


async def requeue(
    connection: Connection,
    file_ids: Iterable[UUID],
    since: datetime = BEGINNING,
    until: datetime = END,
    *,
    dry_run: bool = False,
    actor: str = ANONYMOUS,
) -> Requeued:
    """Put the newest events of files back into the outbox, unless they were sent outside of the time given.

    Args:
        connection: to the Admin database, in no transaction
        file_ids: whose events
        since: leave alone what was sent before
        until: leave alone what was sent from here on
        dry_run: decide everything, change nothing
        actor: who asks, for the record
    """
    result = Requeued()
    rest = iter(dict.fromkeys(file_ids))
    while chunk := list(islice(rest, FILES_AT_ONCE)):
        transaction = connection.transaction()
        await transaction.start()
        try:
            result += await _requeue(connection, chunk, since, until, actor)
        except BaseException:
            await transaction.rollback()
            raise
        await (transaction.rollback() if dry_run else transaction.commit())
    return result


async def _requeue(
    connection: Connection, file_ids: Sequence[UUID], since: datetime, until: datetime, actor: str
) -> Requeued:
    newest = {row["file_id"]: row["revision"] for row in await connection.fetch(LOCK, file_ids)}
    sent = [(row["file_id"], row["revision"]) for row in await connection.fetch(SENT, file_ids, since, until)]
    shards = list({shard_of(file_id) for file_id in file_ids}) if len(file_ids) < SHARDS else list(range(SHARDS))
    waiting = {(row["file_id"], row["revision"]) for row in await connection.fetch(WAITING, shards, file_ids)}
    wanted = [one for one in sent if newest.get(one[0]) == one[1]]
    again = [one for one in wanted if one not in waiting]
    if again:
        files = [one[0] for one in again]
        await connection.execute(AGAIN, files, [one[1] for one in again])
        await actions.note_plain(connection, actor, Did.REQUEUED, f"{len(files)} files", file_ids=files)
    return Requeued(
        requeued=len(again),
        waiting=len(wanted) - len(again),
        superseded=len(sent) - len(wanted),
        unknown=len(set(file_ids) - {one[0] for one in sent}),
    )
