"""Every contender fills a table with the same columns for the same searches; every row is compared afterwards.

The peers get a table as a team that uses them would make it, with six indexes: the primary key, GIN on the vector
and on the tags, B-trees on the columns that searches filter by; Postgres generates the search vector and the array of
tags. The product keeps its own five: its search vector holds the tags and what else is filtered by.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from bench.servers import Servers, until
from runtime.postgres import Connection
from schemas.events import FileEvent

_COLUMNS: Final = """
    file_id uuid PRIMARY KEY,
    revision bigint,
    storage_element_id text,
    original_filename text,
    storage_filename text,
    file_size bigint,
    mime_type text,
    created_at timestamptz,
    updated_at timestamptz,
    created_by_username text,
    created_by_fullname text,
    description text,
    version text,
    storage_path text,
    checksum text,
    retention_expires_at timestamptz
"""
WITH_DELETIONS: Final = f"CREATE TABLE {{table}} ({_COLUMNS}, tags text[], deleted boolean NOT NULL, search tsvector)"
"""A deletion is a row, as in the product; the writer computes the search vector."""

TAG_SEPARATOR: Final = "\x1f"
"""Between the tags where they are one text, because the stock sink's arrays of arrays do not reach Postgres."""
GENERATED: Final = f"""
CREATE TABLE {{table}} (
    {_COLUMNS},
    tags_text text,
    tags text[] GENERATED ALWAYS AS (string_to_array(tags_text, E'\\x1f')) STORED,
    search tsvector GENERATED ALWAYS AS (
        to_tsvector('russian', coalesce(original_filename, '') || ' ' || replace(coalesce(tags_text, ''), E'\\x1f', ' ')
                    || ' ' || coalesce(description, ''))
        || to_tsvector('simple', coalesce(original_filename, '') || ' ' || coalesce(created_by_username, '') || ' '
                       || coalesce(created_by_fullname, ''))
    ) STORED
)
"""
"""A deletion removes the row."""

SEARCH_INDEX: Final = "CREATE INDEX ON {table} USING gin (search)"
OTHER_INDEXES: Final = (
    "CREATE INDEX ON {table} USING gin (tags)",
    "CREATE INDEX ON {table} (created_at)",
    "CREATE INDEX ON {table} (mime_type)",
)

REVISION: Final = "revision"
_STATE: Final = (
    "file_id", "storage_element_id", "original_filename", "storage_filename", "file_size", "mime_type", "created_at",
    "updated_at", "created_by_username", "created_by_fullname", "description", "version", "tags", "storage_path",
    "checksum", "retention_expires_at",
)  # fmt: skip
SETTLE_SECONDS: Final = 20.0
_SUM: Final = "SELECT count(*), sum(hashtextextended(row({columns})::text, 0)) FROM {table}"
"""A sum does not depend on the order of the rows."""


@dataclass(frozen=True)
class Sums:
    """What a table holds: how many rows, and a number that any other value in any of them would change."""

    rows: int
    checksum: int


class WrongRowsError(Exception):
    """A contender has not written what the events say; its speed means nothing."""


async def make(connection: Connection, table: str, shape: str) -> None:
    """Make an empty full table of one of the two shapes."""
    for statement in (shape, SEARCH_INDEX, *OTHER_INDEXES):
        await connection.execute(statement.format(table=table))


async def files(connection: Connection, table: str, *, with_revision: bool = True) -> Sums:
    """The files that exist: all columns that search shows."""
    await connection.execute("SET TIME ZONE 'UTC'")
    columns = ", ".join((*_STATE, REVISION) if with_revision else _STATE)
    return await _sums(connection, columns, table)


async def deletions(connection: Connection, table: str) -> Sums:
    """The files that are remembered as deleted, in a table that has a column `deleted`."""
    columns, rows = f"file_id, {REVISION}", f"{table} WHERE deleted"
    return await _sums(connection, columns, rows)


async def _sums(connection: Connection, columns: str, table: str) -> Sums:
    [found] = await connection.fetch(_SUM.format(columns=columns, table=table))
    return Sums(int(found[0]), int(found[1] or 0))


@dataclass(frozen=True)
class Expected:
    """What the events of one topic leave behind."""

    files: Sums
    files_without_revision: Sums
    deletions: Sums

    @classmethod
    async def of(cls, servers: Servers, events: Iterable[FileEvent]) -> "Expected":
        """Fold the events here, in the plainest way, and let the same Postgres sum them up."""
        newest = {event.file_id: event for event in events}
        rows = [row(event) for event in newest.values()]
        async with servers.database() as url:
            connection = await asyncpg.connect(url)
            await connection.execute(WITH_DELETIONS.format(table="expected"))
            await connection.copy_records_to_table("expected", records=rows, columns=ROW_COLUMNS)
            await connection.execute("CREATE VIEW expected_files AS SELECT * FROM expected WHERE NOT deleted")
            found = cls(
                await files(connection, "expected_files"),
                await files(connection, "expected_files", with_revision=False),
                await deletions(connection, "expected"),
            )
            await connection.close()
        return found


ROW_COLUMNS: Final = ("revision", "deleted", *_STATE)


def row(event: FileEvent) -> tuple[Any, ...]:
    """The columns above of an event's state."""
    metadata = event.metadata
    if metadata is None:
        return (event.revision, True, event.file_id, *[None] * (len(_STATE) - 1))
    return (
        event.revision,
        False,
        event.file_id,
        event.storage_element_id,
        metadata.original_filename,
        metadata.storage_filename,
        metadata.file_size,
        metadata.mime_type,
        metadata.created_at,
        metadata.updated_at,
        metadata.created_by_username,
        metadata.created_by_fullname,
        metadata.description,
        metadata.version,
        list(metadata.tags),
        metadata.storage_path,
        metadata.checksum,
        metadata.retention_expires_at,
    )


def plain(event: FileEvent) -> dict[str, Any]:
    """The same as a JSON object of texts and numbers, times in ISO 8601."""
    values = dict(zip(ROW_COLUMNS, row(event), strict=True))
    return {
        name: value.isoformat() if isinstance(value, datetime) else str(value) if name == "file_id" else value
        for name, value in values.items()
    }


async def settled(connection: Connection, table: str, expected: Sums) -> Sums:
    """The files that exist, looked at until they are as expected or SETTLE_SECONDS are over."""
    with suppress(TimeoutError):
        await until(lambda: _is(connection, table, expected), SETTLE_SECONDS, look_again_seconds=0.2)
    return await files(connection, table)


async def _is(connection: Connection, table: str, expected: Sums) -> bool:
    return await files(connection, table) == expected


def compare(name: str, found: Sums, expected: Sums) -> None:
    """Refuse a round whose rows are wrong.

    Raises:
        WrongRowsError: they are.
    """
    if found != expected:
        raise WrongRowsError(f"{name} wrote {found}, the events say {expected}.")
