"""What Postgres does for a search: EXPLAIN (ANALYZE, BUFFERS) of the very statements that the product sends.

They are noted while a question is answered, and run again with their arguments, so that nothing is explained that is
not run, and the other way round.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from bench.search import Asking, asking, filled
from bench.search_pools import Kind
from bench.servers import Servers, Tell
from consumer_query.search import Searches
from consumer_query.search_parameters import SearchAsked
from runtime.postgres import Connection, open_pool

EXPLAIN: Final = "EXPLAIN (ANALYZE, BUFFERS, SUMMARY) {statement}"
LEAST_MS: Final = 0.2
"""Statements that take less, with the way there and back, are only named."""


class Sent(NamedTuple):
    """A statement as the product sent it, and how long its answer took."""

    statement: str
    arguments: Sequence[Any]
    milliseconds: float


async def explained(servers: Servers, rows: int, tell: Tell) -> str:
    """One question of each class with the plans of its statements, as text.

    Args:
        servers: where to run
        rows: of the table
        tell: told what is being done

    Raises:
        WrongAnswersError: what search answered is not what is in the table.
    """
    async with filled(servers, rows, tell) as (database, table), asking(servers, database, table, tell) as ready:
        return await plans(ready, database)


async def plans(ready: Asking, database: str) -> str:
    """The same over a database that answers already. Each question is asked before, to be warm."""
    parts = []
    async with await open_pool(database, "bench", max_size=1) as pool:
        searches = Searches(pool)
        for kind in Kind:
            question = ready.next(kind)
            request = SearchAsked(**question.asked).request()
            await searches.page(request)
            sent: list[Sent] = []

            def note(record: Any, into: list[Sent] = sent) -> None:
                into.append(Sent(record.query, record.args, 1000 * record.elapsed))

            # The pool has this one connection only, and it keeps its loggers.
            async with pool.acquire() as connection:
                connection.add_query_logger(note)
            await searches.page(request)
            async with pool.acquire() as connection:
                connection.remove_query_logger(note)
                asked = {name: value for name, value in question.asked.items() if name != "cursor"}
                parts.append(f"{kind}: {asked}")
                # What a pool sends to reset a connection is several commands.
                parts += [await _plan(connection, one) for one in sent if ";" not in one.statement]
    return "\n\n".join(parts)


async def _plan(connection: Connection, sent: Sent) -> str:
    told = f"{sent.milliseconds:.2f} ms: {' '.join(sent.statement.split())[:90]}"
    if sent.milliseconds < LEAST_MS or not sent.statement.lstrip().startswith(("SELECT", "WITH")):
        return told
    lines = await connection.fetch(EXPLAIN.format(statement=sent.statement), *sent.arguments)
    return "\n".join([told, *(line[0] for line in lines)])
