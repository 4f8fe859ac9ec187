"""The audit log keeps a day in a partition: days to come have one in time, days whose time is over go whole.

Nothing here touches `outbox`, so an event that waits cannot be dropped, however old it is. Inserts into the log never
wait long: whatever needs a strong lock gives up after LOCK_TIMEOUT and is tried again at the next round.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Final

import asyncpg
import structlog

from runtime.postgres import AWAY, Connection
from runtime.retries import pause

DAYS_AHEAD: Final = 7
"""So many days may pass without a round before rows fall into the default partition, which is safe but not as quick."""
ROUND_SECONDS: Final = 3600.0
LOCK_TIMEOUT: Final = "500ms"
DELETE_AT_ONCE: Final = 10_000

ONE_AT_A_TIME: Final = 7_291_005
"""Advisory lock: any number will do, as long as every relay uses the same."""

PARTITIONS: Final = """
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'outbox_sent'::regclass AND relname != 'outbox_sent_default'
"""
# A day of which rows lie in the default partition cannot get one of its own. They stay there; so does the rest of it.
IN_DEFAULT: Final = "SELECT EXISTS (SELECT FROM outbox_sent_default WHERE sent_at >= $1 AND sent_at < $2)"
# Functions of the log's owner, which this role is not. To attach takes a weaker lock on the log than to create the
# partition in its place: inserts go on.
ADD: Final = "SELECT outbox_sent_add_day($1)"
DROP: Final = "SELECT outbox_sent_drop_day($1)"
# Scans the default partition, which is empty unless no relay ran for days.
DELETE_FROM_DEFAULT: Final = "SELECT outbox_sent_thin_default($1, $2)"

_PREFIX: Final = "outbox_sent_"
_FORMAT: Final = "%Y%m%d"
_log = structlog.get_logger()


async def keep_partitions(pool: asyncpg.Pool, days: int) -> bool:
    """Make the partitions of today and the days ahead, and drop what is older than `days` days, by UTC.

    Safe to run twice, and twice at once: the second does nothing. What cannot be had without waiting is left to the
    next round.

    Returns:
        False when another process is at it, or something was left.
    """
    async with pool.acquire() as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", ONE_AT_A_TIME):
            return False
        try:
            return await _round(connection, days)
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", ONE_AT_A_TIME)


async def keep_partitions_hourly(pool: asyncpg.Pool, days: int, stopping: asyncio.Event) -> None:
    """Keep the partitions until `stopping`, beginning at once."""
    while not stopping.is_set():
        try:
            await keep_partitions(pool, days)
        except (*AWAY, asyncpg.PostgresError, OSError) as error:
            _log.warning("audit log's partitions are not kept, trying again in an hour", error=str(error))
        await pause(ROUND_SECONDS, stopping)


async def _round(connection: Connection, days: int) -> bool:
    now: datetime = await connection.fetchval("SELECT now()")
    today = now.astimezone(UTC).date()
    found = {name: _day(name) for (name,) in await connection.fetch(PARTITIONS)}
    complete = True
    for day in (today + timedelta(number) for number in range(DAYS_AHEAD + 1)):
        if day not in found.values():
            complete &= await _make(connection, day)
    oldest = today - timedelta(days)
    for day in sorted(day for day in found.values() if day is not None and day < oldest):
        complete &= await _drop(connection, day)
    while await connection.fetchval(DELETE_FROM_DEFAULT, _begin(oldest), DELETE_AT_ONCE):
        pass
    return complete


async def _make(connection: Connection, day: date) -> bool:
    begin, end = _begin(day), _begin(day + timedelta(1))
    if await connection.fetchval(IN_DEFAULT, begin, end):
        return True
    try:
        async with _short_locks(connection):
            await connection.execute(ADD, day)
    except (asyncpg.LockNotAvailableError, asyncpg.CheckViolationError) as error:
        # Violated when a row of that day came into the default partition since it was looked at.
        _log.info("partition of the audit log not made yet", day=str(day), error=str(error))
        return False
    return True


async def _drop(connection: Connection, day: date) -> bool:
    try:
        async with _short_locks(connection):
            await connection.execute(DROP, day)
    except asyncpg.LockNotAvailableError as error:
        _log.info("partition of the audit log not dropped yet", day=str(day), error=str(error))
        return False
    _log.info("dropped a partition of the audit log", day=str(day))
    return True


@asynccontextmanager
async def _short_locks(connection: Connection) -> AsyncIterator[None]:
    """A transaction that gives up rather than let inserts queue behind its wait for a lock."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        yield


def _day(name: str) -> date | None:
    """The day of a partition that was made here; None for one that an operator attached."""
    try:
        return datetime.strptime(name.removeprefix(_PREFIX), _FORMAT).replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _begin(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
