"""Lanes do not wait for the disk; the group's offsets do.

Postgres answers the projector's commits before they are on disk (`synchronous_commit` is off in its sessions), so a
fresh record does not wait until a backlog beside it is written. A crash of Postgres takes back the last half second of
them at most, rows together with their positions. So offsets are committed only for positions that a transaction which
did wait for the disk has found; where one is missing, the partition is read again from the stored one.
"""

from collections.abc import Mapping
from typing import Final

import asyncpg

from consumer_query import positions
from consumer_query.generations import LIVE

UNHURRIED: Final = {"synchronous_commit": "off"}
"""Of a session."""
# All that was committed before is on disk with it. A transaction that wrote nothing would not wait.
WAIT_FOR_DISK: Final = """
SET LOCAL synchronous_commit = on;
SELECT pg_logical_emit_message(true, 'artstore', 'offsets')
"""


async def taken_back(pool: asyncpg.Pool, topic: str, applied: Mapping[int, int]) -> set[int]:
    """Wait until what was applied survives a crash.

    Args:
        pool: of the Query database
        topic: of the positions
        applied: positions by partition

    Returns:
        Partitions whose stored position is not there yet, or not any more.
    """
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(WAIT_FOR_DISK)
        stored = await positions.stored(connection, await connection.fetchval(LIVE), topic)
    return {partition for partition, position in applied.items() if stored.get(partition, -1) < position}
