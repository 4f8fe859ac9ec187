"""What the Query side compares itself with: read, never written, each answer as of one moment.

What it costs is bounded: ranges and files of one answer, the time of its statements, and how many are answered at once
(the routes see to that). The digests of a million files take a core of this database about a second, and read the table
once; everything else goes by the primary key. Whether an event waits is found by reading the outbox once, which is
short unless the relay is away.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin.errors import SyncTooSlowError
from producer_admin.outbox import shard_of
from schemas import digests
from schemas.digests import MOST_FILES, Range, Span, Sum

STATEMENT_SECONDS: Final = 25
"""Shorter than the connection's own limit, so that the answer says what happened."""
BEGIN: Final = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
    f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'",
    *digests.SETTINGS,
)
EXISTS: Final = "files.deleted_at IS NULL"
SUMS: Final = digests.sums_of("files", EXISTS)
LISTING: Final = digests.listing_of("files", EXISTS)
STATES: Final = digests.states_of("files", EXISTS)
WAITING: Final = "SELECT DISTINCT file_id FROM outbox WHERE file_id = ANY($1::uuid[])"
CANCELLED: Final = "57014"
"""SQLSTATE query_canceled: the statement's time was over."""


@dataclass(frozen=True)
class Known:
    """What the truth says of one file."""

    file_id: UUID
    revision: int | None
    """None when there never was such a file, as far as is known."""
    digest: int | None
    """None unless it exists."""
    waiting: bool
    """An event of it is in the outbox."""

    @property
    def deleted(self) -> bool:
        """Whether it is remembered as deleted."""
        return self.revision is not None and self.digest is None

    @property
    def partition(self) -> int:
        """Of the topic."""
        return shard_of(self.file_id)


@dataclass(frozen=True)
class Listing:
    """Files that exist in some ranges, by id."""

    probe: int
    files: Sequence[Known]
    upto: UUID | None
    """Files below this id are listed; None means all."""


async def sums(engine: AsyncEngine, spans: Sequence[Span]) -> tuple[int, list[list[Sum]]]:
    """The probe, and the sums of each span piece by piece.

    Raises:
        SyncTooSlowError: a statement took longer than it may.
    """
    async with _snapshot(engine) as connection:
        found = []
        for span in spans:
            rows = await _rows(connection, SUMS, *span.range, list(span.cuts))
            found.append(digests.filled(len(span.cuts) + 1, rows))
        return await _probe(connection), found


async def listing(engine: AsyncEngine, ranges: Sequence[Range], most: int = MOST_FILES) -> Listing:
    """Files that exist in ranges that rise, at most so many.

    Raises:
        SyncTooSlowError: a statement took longer than it may.
    """
    async with _snapshot(engine) as connection:
        rows: list[Any] = []
        for one in ranges:
            rows += await _rows(connection, LISTING, *one, most + 1 - len(rows))
            if len(rows) > most:
                break
        upto = rows.pop().file_id if len(rows) > most else None
        waiting = await _waiting(connection, [row.file_id for row in rows])
        files = [Known(row.file_id, row.revision, row.digest, row.file_id in waiting) for row in rows]
        return Listing(await _probe(connection), files, upto)


async def states(engine: AsyncEngine, file_ids: Sequence[UUID]) -> Listing:
    """These files, deleted and unknown ones too, each once.

    Raises:
        SyncTooSlowError: a statement took longer than it may.
    """
    wanted = sorted(set(file_ids))
    async with _snapshot(engine) as connection:
        known = {row.file_id: row for row in await _rows(connection, STATES, wanted)}
        waiting = await _waiting(connection, wanted)
        files = [
            Known(one, known[one].revision, known[one].digest, one in waiting)
            if one in known
            else Known(one, None, None, one in waiting)
            for one in wanted
        ]
        return Listing(await _probe(connection), files, None)


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
        raise SyncTooSlowError(
            f"Comparing took longer than {STATEMENT_SECONDS} s: the database is busy, or reads from a slow disk."
        ) from error


async def _rows(connection: AsyncConnection, statement: str, *values: Any) -> Sequence[Any]:
    return (await connection.exec_driver_sql(statement, values)).all()


async def _waiting(connection: AsyncConnection, file_ids: Sequence[UUID]) -> set[UUID]:
    return {row.file_id for row in await _rows(connection, WAITING, list(file_ids))} if file_ids else set()


async def _probe(connection: AsyncConnection) -> int:
    found: int = (await connection.exec_driver_sql(digests.PROBE)).scalar_one()
    return found
