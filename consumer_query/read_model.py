"""A batch goes into the live generation in one statement, and no row ever goes back to an older revision.

The fence is the WHERE of the upsert. Redelivery, replay, two projectors at once: the same final rows.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg

from consumer_query import analysis
from consumer_query.binary_rows import array_of, record_of
from consumer_query.errors import QueryError
from consumer_query.faults import Fault, fault_of
from consumer_query.generations import table_name
from consumer_query.projection import FileState
from consumer_query.records import BadRecordError, Reason
from consumer_query.terms import terms_of
from runtime.postgres import Connection

PORTION_BYTES: Final = 32 * 1024 * 1024
"""Of rows in one value, and one row more. A batch of usual rows has a tenth."""

# One value for all rows, in the form in which Postgres receives values: that costs it least, whether few or many
# (docs/decisions/0029-rows-are-sent-as-values-of-a-type.md).
LOAD: Final = """
INSERT INTO {table} AS cached (
    file_id, revision, deleted, storage_element_id, original_filename, storage_filename, file_size, mime_type,
    created_at, updated_at, created_by_username, created_by_fullname, description, version, tags, storage_path,
    checksum, retention_expires_at, search
)
SELECT * FROM unnest($1::cache_rows)
"""
APPLY: Final = (
    LOAD
    + """
ON CONFLICT (file_id) DO UPDATE SET
    revision = excluded.revision,
    deleted = excluded.deleted,
    storage_element_id = excluded.storage_element_id,
    original_filename = excluded.original_filename,
    storage_filename = excluded.storage_filename,
    file_size = excluded.file_size,
    mime_type = excluded.mime_type,
    created_at = excluded.created_at,
    updated_at = excluded.updated_at,
    created_by_username = excluded.created_by_username,
    created_by_fullname = excluded.created_by_fullname,
    description = excluded.description,
    version = excluded.version,
    tags = excluded.tags,
    storage_path = excluded.storage_path,
    checksum = excluded.checksum,
    retention_expires_at = excluded.retention_expires_at,
    search = excluded.search
WHERE excluded.revision > cached.revision
"""
)

# By the primary key, a tenth of what writing the same rows costs.
REVISIONS: Final = "SELECT file_id::text, revision FROM {table} WHERE file_id = ANY($1::uuid[])"

GET: Final = """
SELECT file_id, revision, storage_element_id, original_filename, storage_filename, file_size, mime_type, created_at,
       updated_at, created_by_username, created_by_fullname, description, version, tags, storage_path, checksum,
       retention_expires_at
FROM file_metadata_cache WHERE file_id = $1
"""


class NotMigratedError(QueryError):
    """The database has no type for the rows that are to be sent to it."""


class Row(NamedTuple):
    """A file's state, ready to be written."""

    file_id: str
    revision: int
    record: bytes
    """As `binary_rows` makes it."""


Write: TypeAlias = Callable[[Connection, int, Sequence[Row]], Awaitable[int]]
"""`apply` or `load`."""


def row_of(state: FileState) -> Row:
    """Make a state ready to be written.

    Raises:
        BadRecordError: Postgres would refuse it.
    """
    search = None if state.deleted else search_of(state.columns)
    return Row(state.file_id, state.revision, record_of(state.columns, search))


async def teach(connection: Connection) -> None:
    """Let a connection send rows as they are. Whoever is going to write rows over one has to teach it before.

    Again with each error: the database may be another one by then, which was made anew.

    Raises:
        NotMigratedError: the database does not know rows, or not yet.
    """
    try:
        await connection.set_builtin_type_codec("cache_rows", codec_name="bytea", format="binary")
    except ValueError as error:
        raise NotMigratedError(f"{error}: the database has to be migrated: python -m consumer_query migrate") from error


async def apply(connection: Connection, generation: int, rows: Sequence[Row]) -> int:
    """Write the newest states of files within the caller's transaction, each file at most once.

    The connection has to have been taught, and the live generation to be held (`generations.hold_live`).

    Returns:
        How many rows changed; the rest were at that revision or beyond.
    """
    return await _write(connection, APPLY, generation, rows)


async def load(connection: Connection, generation: int, rows: Sequence[Row]) -> int:
    """The same into a table that has no indexes yet and none of these files: how many rows were written."""
    return await _write(connection, LOAD, generation, rows)


async def write_around_bad_ones(
    write: Write, connection: Connection, generation: int, rows: Sequence[Row]
) -> tuple[int, list[tuple[Row, asyncpg.PostgresError]]]:
    """Write what can be written within the caller's transaction, halving around what Postgres refuses.

    Returns:
        What `write` returned in sum, and what was refused.
    """
    try:
        async with connection.transaction():
            return await write(connection, generation, rows), []
    except asyncpg.PostgresError as error:
        if fault_of(error) is not Fault.BAD_RECORD:
            raise
        if len(rows) == 1:
            return 0, [(rows[0], error)]
    middle = len(rows) // 2
    first, first_refused = await write_around_bad_ones(write, connection, generation, rows[:middle])
    second, second_refused = await write_around_bad_ones(write, connection, generation, rows[middle:])
    return first + second, first_refused + second_refused


async def _write(connection: Connection, statement: str, generation: int, rows: Sequence[Row]) -> int:
    return await send(connection, statement.format(table=table_name(generation)), [row.record for row in rows])


async def send(connection: Connection, statement: str, records: Sequence[bytes]) -> int:
    """Run APPLY or LOAD, for a table, over a connection that was taught: how many rows changed.

    In portions within the caller's transaction, if there is much: Postgres needs six times the memory of a value, and
    takes none beyond 1 GiB.
    """
    changed, begin, size = 0, 0, 0
    for end, record in enumerate(records, 1):
        size += len(record)
        if size >= PORTION_BYTES or end == len(records):
            status: str = await connection.execute(statement, array_of(records[begin:end]))
            changed += int(status.rpartition(" ")[2])
            begin, size = end, 0
    return changed


async def revisions(connection: Connection, generation: int, file_ids: Sequence[str]) -> dict[str, int]:
    """The revisions that a generation holds, of deleted files too; unknown files are absent."""
    rows = await connection.fetch(REVISIONS.format(table=table_name(generation)), file_ids)
    return {row[0]: row[1] for row in rows}


async def get(pool: asyncpg.Pool, file_id: UUID) -> Mapping[str, Any] | None:
    """One file of the cache, or None."""
    row = await pool.fetchrow(GET, file_id)
    return None if row is None else dict(row)


def search_of(columns: Mapping[str, Any]) -> bytes:
    """By what a file is found, as Postgres receives a tsvector.

    Raises:
        BadRecordError: it has more words than that holds.
    """
    try:
        return analysis.search_vector(
            columns["original_filename"],
            columns["tags"],
            columns["description"],
            columns["created_by_username"],
            columns["created_by_fullname"],
            terms_of(columns),
        )
    except analysis.TooManyWordsError as error:
        raise BadRecordError(Reason.TOO_MANY_WORDS, str(error)) from error
