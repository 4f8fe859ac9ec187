"""Our side of a comparison: the live generation of the cache, or any table of the same columns; read, never written.

Each answer is as of one moment. A full answer reads the table once, about a second for a million files.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg

from consumer_query import generations, positions
from consumer_query.generations import table_name
from consumer_query.reconcile import PIECES, Listed, Page, Seen, even_step
from runtime.postgres import Connection
from schemas import digests
from schemas.digests import MOST_FILES, PROBE, Range, Span, Sum

EXISTS: Final = "NOT {table}.deleted"
SECONDS: Final = 300.0
"""One statement. Twenty million files take about 20 s."""

# The first ids of pieces with as many files each. Walks the primary key, and looks at the rows for `deleted`.
CUTS: Final = """
SELECT file_id FROM (
    SELECT file_id, row_number() OVER (ORDER BY file_id) - 1 AS place
    FROM {table} WHERE file_id BETWEEN $1 AND $2 AND NOT deleted
) AS placed WHERE place % $3 = 0 AND place > 0 ORDER BY file_id LIMIT $4
"""

OpenTable = Callable[[], AbstractAsyncContextManager[tuple[Connection, str]]]
"""Gives a connection in a transaction of one snapshot, and the name of the table."""


class TableSide:
    """A table with the columns of a generation."""

    def __init__(self, open_table: OpenTable) -> None:
        self._open = open_table

    async def probe(self) -> int:
        """The digest of the constant row."""
        async with self._open() as (connection, _):
            found: int = await connection.fetchval(PROBE)
            return found

    async def sums(self, spans: Sequence[Span]) -> list[list[Sum]]:
        """Of each span, piece by piece."""
        found = []
        async with self._open() as (connection, table):
            statement = digests.sums_of(table, EXISTS.format(table=table))
            for span in spans:
                rows = await connection.fetch(statement, *span.range, list(span.cuts), timeout=SECONDS)
                found.append(digests.filled(len(span.cuts) + 1, [(row[0], row[1], row[2]) for row in rows]))
        return found

    async def listing(self, ranges: Sequence[Range]) -> Page:
        """Files that exist in ranges that rise, at most MOST_FILES."""
        rows: list[asyncpg.Record] = []
        async with self._open() as (connection, table):
            statement = digests.listing_of(table, EXISTS.format(table=table))
            for one in ranges:
                rows += await connection.fetch(statement, *one, MOST_FILES + 1 - len(rows), timeout=SECONDS)
                if len(rows) > MOST_FILES:
                    break
        upto = rows.pop()["file_id"] if len(rows) > MOST_FILES else None
        return Page([Listed(*row) for row in rows], upto)

    async def cut(self, pieces: Sequence[tuple[Range, int]]) -> list[Span]:
        """Cut ranges with so many files into pieces with as many each."""
        found = []
        async with self._open() as (connection, table):
            statement = CUTS.format(table=table)
            for piece, files in pieces:
                rows = await connection.fetch(statement, *piece, even_step(files), PIECES - 1, timeout=SECONDS)
                found.append(Span(piece, tuple(row["file_id"] for row in rows)))
        return found

    async def states(self, file_ids: Collection[UUID]) -> Mapping[UUID, Seen]:
        """What is known of files, deleted ones too; the others are absent."""
        async with self._open() as (connection, table):
            return await states(connection, table, file_ids)


@dataclass(frozen=True)
class Standing:
    """The cache at one moment."""

    positions: Mapping[int, int]
    """By partition: all records below are in the rows."""
    states: Mapping[UUID, Seen]
    """Of the files that were asked for."""


class CacheSide(TableSide):
    """The live generation, whichever it is at the moment."""

    def __init__(self, pool: asyncpg.Pool, topic: str) -> None:
        super().__init__(self._live)
        self._pool = pool
        self._topic = topic

    async def standing(self, file_ids: Collection[UUID]) -> Standing:
        """Positions and files, both as of one moment and of one generation.

        Raises:
            WrongShapeError: the live generation is not ours to read.
        """
        async with self._snapshot() as connection:
            generation = await generations.live(connection)
            return Standing(
                await positions.stored(connection, generation, self._topic),
                await states(connection, table_name(generation), file_ids),
            )

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[tuple[Connection, str]]:
        async with self._snapshot() as connection:
            yield connection, table_name(await generations.live(connection))

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Connection]:
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            await set_up(connection)
            yield connection


async def set_up(connection: Connection) -> None:
    """Let a transaction plan statements over many rows well."""
    for statement in digests.SETTINGS:
        await connection.execute(statement)


async def states(connection: Connection, table: str, file_ids: Collection[UUID]) -> Mapping[UUID, Seen]:
    """What a table says of files, deleted ones too; those that are not in it are absent."""
    if not file_ids:
        return {}
    statement = digests.states_of(table, EXISTS.format(table=table))
    rows = await connection.fetch(statement, list(file_ids), timeout=SECONDS)
    return {row["file_id"]: Seen(row["revision"], row["digest"]) for row in rows}
