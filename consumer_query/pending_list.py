"""Neither a search nor a fresh record pays for the index's pending list: it is emptied beside them.

GIN puts new entries on a list that every search reads through, and the writer that fills it has to sort all of it into
the index, in its own transaction (PostgreSQL, "GIN fast update technique"). In a backlog that is the cheapest way, and
cheaper with a longer list; only the lane of fresh records leaves it to the others. Else the list is emptied here each
second, over a connection of its own.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import asyncpg
import structlog

from consumer_query.generations import LIVE, search_index_name
from runtime.postgres import AWAY

EVERY_SECONDS: Final = 1.0
LONG: Final = {"gin_pending_list_limit": "16MB", "work_mem": "64MB"}
"""Of a session: how long a backlog lets the list become, and in what it is sorted at once. With the 4 MB that Postgres
has for either a row takes it 5 and 7 µs more. The second also keeps the rows of a batch off the disk."""
LEAVE_TO_OTHERS: Final = "SET gin_pending_list_limit = '256MB'"
EMPTY: Final = "SELECT empty_pending_list($1::text::regclass)"

_log = structlog.get_logger()


async def keep_empty(pool: asyncpg.Pool, changed_rows: Callable[[], float], in_backlog: Callable[[], bool]) -> None:
    """Empty the list whenever rows have changed, until cancelled.

    Args:
        pool: of the Query database
        changed_rows: how many have, by now
        in_backlog: whether writers had rather do it themselves
    """
    seen = 0.0
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        changed = changed_rows()
        if changed == seen or in_backlog():
            continue
        try:
            async with pool.acquire() as connection:
                index = search_index_name(await connection.fetchval(LIVE))
                await connection.execute(EMPTY, index)
        except (*AWAY, OSError):
            continue  # the lanes say it
        except asyncpg.PostgresError as error:
            _log.warning("the index's pending list is left to writers and autovacuum", error=str(error))
            return
        seen = changed
