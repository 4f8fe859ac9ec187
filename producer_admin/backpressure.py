"""Whoever writes events by the thousand waits while too many wait already, and says so: the outbox stays short.

A long outbox loses nothing, but it keeps the events of people's uploads waiting behind a repair. While a relay holds
publishing on purpose nobody waits: it would be for ever, and the outbox is there to hold.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin.backlog import HELD, IS_HELD

POLL_SECONDS: Final = 0.5
STILL_SECONDS: Final = 10.0
"""A relay that has sent nothing for so long is probably not there."""

# Counts at most one row more than may wait.
IS_FULL: Final = text("SELECT count(*) > :limit FROM (SELECT FROM outbox LIMIT :limit + 1) AS waiting")
# Of those that wait now, only the relay takes away: uploads meanwhile do not hide that it stands still.
WAITING: Final = text(
    "SELECT count(*) AS events, count(*) FILTER (WHERE outbox_id <= :mark) AS old, max(outbox_id) AS mark FROM outbox"
)


async def wait_for_room(engine: AsyncEngine, limit: int, say: Callable[[str], None]) -> None:
    """Return once at most `limit` events wait for the topic, or publishing is held.

    Args:
        engine: of the Admin database
        limit: events; 0 is no limit
        say: told what is being waited for, again and again
    """
    if not limit:
        return
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        if not (await connection.execute(IS_FULL, {"limit": limit})).scalar_one():
            return
        mark, old = 2**63 - 1, -1
        moved = time.monotonic()
        while True:
            events, still, newest = (await connection.execute(WAITING, {"mark": mark})).one()
            if events <= limit or await _is_held(connection):
                return
            if still != old:
                moved, mark = time.monotonic(), newest
                old = events
            say(_reason(events, time.monotonic() - moved))
            await asyncio.sleep(POLL_SECONDS)


async def _is_held(connection: AsyncConnection) -> bool:
    return bool((await connection.exec_driver_sql(IS_HELD, (HELD,))).scalar_one())


def _reason(events: int, seconds: float) -> str:
    if seconds < STILL_SECONDS:
        return f"Waiting for the relay: {events:,} events are in the outbox"
    return (
        f"Waiting for the relay, which has sent nothing for {seconds:.0f} s: {events:,} events are in the outbox. "
        "Does it run, and does its broker answer?"
    )
