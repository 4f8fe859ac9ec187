"""How far the changes of one file have come on this side: nothing is changed, and all is told as of one moment.

An event is in the outbox or in the audit log, and the file at the revision of its newest event: seen at different
moments, an event on its way could be in neither.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final, NamedTuple
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin.backlog import HELD, IS_HELD
from producer_admin.errors import AdminError
from producer_admin.outbox import shard_of
from producer_admin.publisher import UNKNOWN_OFFSET
from producer_admin.sync import CANCELLED
from schemas.trace_views import AdminTrace, Relaying, SagaTrace, SentTrace, WaitingTrace

STATEMENT_SECONDS: Final = 2
"""Of each: whoever asks waits for little more, and has other things to tell."""
MOST_SAGAS: Final = 10
MOST_WAITING: Final = 100
"""Changes of one file that are told of; the newest."""

BEGIN: Final = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
    f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'",
)
# By the primary key.
FILE: Final = "SELECT revision, deleted_at IS NOT NULL AS deleted FROM files WHERE file_id = $1"
# By sagas_file.
SAGAS: Final = """
SELECT saga_id, kind, state, step, error, attempts, revision,
       greatest(0, extract(epoch FROM clock_timestamp() - updated_at))::float8 AS seconds,
       owner IS NOT NULL AND lease_until > clock_timestamp() AS attended
FROM sagas
WHERE file_id = $1 AND (
    state NOT IN ('done', 'compensated') OR started_at = (SELECT max(started_at) FROM sagas WHERE file_id = $1)
)
ORDER BY started_at DESC LIMIT $2
"""
# By the primary key: what waits on the shard is read once, as the relay reads it.
WAITING: Final = """
SELECT outbox_id, revision, event_type, occurred_at,
       greatest(0, extract(epoch FROM clock_timestamp() - occurred_at))::float8 AS seconds
FROM outbox WHERE shard = $1 AND file_id = $2
ORDER BY outbox_id DESC LIMIT $3
"""
AHEAD: Final = "SELECT count(*) FROM outbox WHERE shard = $1 AND outbox_id < $2"
# By outbox_sent_file, the end of it in each of the audit log's partitions.
SENT: Final = """
SELECT revision, event_type, sent_at, record_offset FROM outbox_sent WHERE file_id = $1
ORDER BY outbox_id DESC LIMIT 1
"""
OWNED: Final = """
SELECT count(*) FROM relay_shards WHERE shard = $1 AND owner IS NOT NULL AND lease_until > clock_timestamp()
"""


class TraceTooSlowError(AdminError):
    """The database did not tell within the time that a trace may take."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Trace took too long"
    retryable: ClassVar[bool] = True


class _File(NamedTuple):
    revision: int | None
    deleted: bool


async def trace(engine: AsyncEngine, file_id: UUID) -> AdminTrace:
    """What is known of a file, of one that never was too.

    Raises:
        TraceTooSlowError: a statement took longer than STATEMENT_SECONDS.
    """
    shard = shard_of(file_id)
    async with _snapshot(engine) as connection:
        waiting = list(reversed(await _rows(connection, WAITING, shard, file_id, MOST_WAITING)))
        file = await _file(connection, file_id)
        return AdminTrace(
            file_id=file_id,
            partition=shard,
            revision=file.revision,
            deleted=file.deleted,
            sagas=[SagaTrace.model_validate(row) for row in await _rows(connection, SAGAS, file_id, MOST_SAGAS)],
            waiting=[WaitingTrace.model_validate(row) for row in waiting],
            ahead=await _value(connection, AHEAD, shard, waiting[0].outbox_id) if waiting else 0,
            relay=await _relaying(connection, shard),
            sent=await _sent(connection, file_id),
        )


@asynccontextmanager
async def _snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.begin() as connection:
            for statement in BEGIN:
                await connection.exec_driver_sql(statement)
            yield connection
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != CANCELLED:
            raise
        raise TraceTooSlowError(f"The Admin database did not answer within {STATEMENT_SECONDS} s.") from error


async def _file(connection: AsyncConnection, file_id: UUID) -> _File:
    found = await _rows(connection, FILE, file_id)
    return _File(found[0].revision, found[0].deleted) if found else _File(None, deleted=False)


async def _sent(connection: AsyncConnection, file_id: UUID) -> SentTrace | None:
    for row in await _rows(connection, SENT, file_id):
        offset = None if row.record_offset == UNKNOWN_OFFSET else row.record_offset
        return SentTrace(revision=row.revision, event_type=row.event_type, sent_at=row.sent_at, offset=offset)
    return None


async def _relaying(connection: AsyncConnection, shard: int) -> Relaying:
    if await _value(connection, OWNED, shard):
        return "sending"
    return "held" if await _value(connection, IS_HELD, HELD) else "nobody"


async def _rows(connection: AsyncConnection, statement: str, *values: Any) -> Sequence[Any]:
    return (await connection.exec_driver_sql(statement, values)).all()


async def _value(connection: AsyncConnection, statement: str, *values: Any) -> Any:
    return (await connection.exec_driver_sql(statement, values)).scalar_one()
