"""A doubt stays until its generation is gone: nothing that is applied afterwards takes back what was missed.

It is written in the transaction that would else erase its evidence: the one that moves a position, or renews the time
at which the log's end was reached.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from consumer_query.guards import Doubt, Reason
from runtime.postgres import Connection

# All go by the key (generation, reason); there are at most a handful of rows.
NOTE: Final = """
INSERT INTO cache_doubts (generation, reason, detail) VALUES ($1, $2, $3)
ON CONFLICT (generation, reason) DO NOTHING
"""
OF: Final = "SELECT reason, detail, since, rebuild FROM cache_doubts WHERE generation = $1 ORDER BY since"
ASKED: Final = "UPDATE cache_doubts SET rebuild = $2 WHERE generation = $1 AND rebuild IS NULL"
# Another shape stays another shape, however equal the files are.
DISPEL: Final = "DELETE FROM cache_doubts WHERE generation = $1 AND since < $2 AND reason <> 'other_shape'"


@dataclass(frozen=True)
class Noted:
    """A doubt as it was written down."""

    reason: Reason
    detail: str
    since: datetime
    rebuild: UUID | None
    """The job that was asked for because of it."""


async def note(connection: Connection, generation: int, doubts: Iterable[Doubt]) -> list[Doubt]:
    """Write doubts down within the caller's transaction: those whose reason was not there yet."""
    return [
        doubt
        for doubt in doubts
        if await connection.execute(NOTE, generation, doubt.reason, doubt.detail) == "INSERT 0 1"
    ]


async def of(connection: Connection | asyncpg.Pool, generation: int) -> list[Noted]:
    """The doubts about a generation, oldest first."""
    rows = await connection.fetch(OF, generation)
    return [Noted(Reason(row["reason"]), row["detail"], row["since"], row["rebuild"]) for row in rows]


async def asked(connection: Connection | asyncpg.Pool, generation: int, rebuild: UUID) -> None:
    """Write down which rebuild was asked for."""
    await connection.execute(ASKED, generation, rebuild)


async def dispel(connection: Connection | asyncpg.Pool, generation: int, before: datetime) -> None:
    """Forget what was doubted before a comparison with the Admin module began that left no difference."""
    await connection.execute(DISPEL, generation, before)
