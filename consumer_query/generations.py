"""Searches read a view; behind it stands one of the tables file_metadata_cache_g<N>, each the whole cache.

Whoever writes into the live one holds the row that names it until its transaction ends; a swap waits for all of them,
and they for the swap. So no write is split between two generations, or lost in the one that was left.

A deletion is a row of the same table with `deleted` set and no payload: an insert that comes late and the deletion
meet on one primary key, and the greater revision wins. The view and the indexes leave such rows out.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from consumer_query.analysis import ANALYZER
from consumer_query.roles import MAINTAIN
from runtime.errors import StartError
from runtime.postgres import Connection
from runtime.roles import BECOME

SHAPE: Final = 3
"""Raised when the columns below or what is written into them change; that asks for a rebuild, never for a migration."""

DELETIONS: Final = """
INSERT INTO {table} AS kept (file_id, revision, deleted)
SELECT file_id, revision, true FROM {live} AS known WHERE deleted AND NOT EXISTS (
    SELECT FROM {table} AS mine WHERE mine.file_id = known.file_id AND mine.revision >= known.revision
)
ON CONFLICT (file_id) DO UPDATE SET
    revision = excluded.revision, deleted = true, storage_element_id = NULL, original_filename = NULL,
    storage_filename = NULL, file_size = NULL, mime_type = NULL, created_at = NULL, updated_at = NULL,
    created_by_username = NULL, created_by_fullname = NULL, description = NULL, version = NULL, tags = NULL,
    storage_path = NULL, checksum = NULL, retention_expires_at = NULL, search = NULL
WHERE excluded.revision > kept.revision
"""
"""The topic forgets a deletion after a while. The rows that remember it fence off what comes late."""

# toast_tuple_target: a row in ten is longer than the 2 kB that there are else. Postgres would compress each one, at
# 3 µs for the average row, and searches would undo it; what a page cannot hold goes as ever.
TABLE: Final = """
CREATE TABLE {table} (
    file_id uuid NOT NULL,
    revision bigint NOT NULL,
    deleted boolean NOT NULL,
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
    tags text[],
    storage_path text,
    checksum text,
    retention_expires_at timestamptz,
    search tsvector
) WITH (toast_tuple_target = 8160)
"""
PRIMARY_KEY: Final = "ALTER TABLE {table} ADD PRIMARY KEY (file_id)"
# Every search goes through this one. `pending_list` keeps its pending list short; each writer's session says how short.
SEARCH_INDEX: Final = """
CREATE INDEX {table}_search ON {table} USING gin (search) WHERE NOT deleted
"""
# Newest first: what many files match is looked for from here until enough are found, and every list begins here.
CREATED_INDEX: Final = "CREATE INDEX {table}_created ON {table} (created_at, file_id) WHERE NOT deleted"
# The same for the other orders, where there are too many hits to sort.
SIZE_INDEX: Final = "CREATE INDEX {table}_size ON {table} (file_size, file_id) WHERE NOT deleted"
NAME_ORDER: Final = "left(lower(original_filename), 100)"
"""Of a name so much decides its place: an index entry has to fit into a third of a page."""
NAME_INDEX: Final = f"CREATE INDEX {{table}}_name ON {{table}} (({NAME_ORDER}), file_id) WHERE NOT deleted"
VIEW: Final = """
CREATE OR REPLACE VIEW file_metadata_cache AS
SELECT file_id, revision, storage_element_id, original_filename, storage_filename, file_size, mime_type, created_at,
       updated_at, created_by_username, created_by_fullname, description, version, tags, storage_path, checksum,
       retention_expires_at, search
FROM {table} WHERE NOT deleted
"""
INDEXES: Final = {
    "pkey": PRIMARY_KEY,
    "search": SEARCH_INDEX,
    "created": CREATED_INDEX,
    "size": SIZE_INDEX,
    "name": NAME_INDEX,
}
"""What a rebuild runs when the table is full, in this order, by the end of the index's name."""

# Waits for whoever holds the row and lets nobody overtake it, which FOR UPDATE would; who only reads is not held up.
TAKE_OVER: Final = "LOCK TABLE cache_generation IN EXCLUSIVE MODE"
LIVE: Final = "SELECT live, shape, analyzer FROM cache_generation"
HOLD: Final = "SELECT live, shape, analyzer FROM cache_generation FOR SHARE"
FIRST: Final = "INSERT INTO cache_generation (live, shape, analyzer) VALUES ($1, $2, $3)"
POINT: Final = "UPDATE cache_generation SET live = $1, shape = $2, analyzer = $3, since = clock_timestamp()"

NOTE_MADE: Final = """
INSERT INTO generations (generation, shape, analyzer)
SELECT greatest((SELECT max(generation) FROM generations), (SELECT live FROM cache_generation), 0) + 1, $1, $2
RETURNING generation
"""
RETIRE: Final = """
UPDATE generations SET retired_at = CASE WHEN generation = $1 THEN NULL ELSE clock_timestamp() END
WHERE generation IN ($1, $2)
"""
PREVIOUS: Final = """
SELECT generation, shape, analyzer, made_at, retired_at FROM generations
WHERE retired_at IS NOT NULL ORDER BY retired_at DESC LIMIT 1
"""
EXPIRED: Final = """
SELECT generation FROM generations
WHERE (retired_at < clock_timestamp() - $1::interval OR retired_at < (SELECT max(retired_at) FROM generations))
  AND generation NOT IN (
      SELECT generation FROM rebuild_jobs WHERE finished_at IS NULL AND generation IS NOT NULL
  )
"""
# A function of the generations' owner, which the API is not: table, positions, doubts and all; not of the live one.
DROP: Final = "SELECT drop_generation($1)"


class WrongShapeError(StartError):
    """The live generation was made by another version of this program; it has to be rebuilt."""


@dataclass(frozen=True)
class Generation:
    """A table of the cache that exists."""

    generation: int
    shape: int
    analyzer: int
    made_at: datetime
    retired_at: datetime | None
    """When it was live for the last time; None when it is live or being filled."""

    @property
    def is_ours(self) -> bool:
        """Whether this program can write into it."""
        return (self.shape, self.analyzer) == (SHAPE, ANALYZER)


def table_name(generation: int) -> str:
    """The table of a generation."""
    return f"file_metadata_cache_g{generation}"


def search_index_name(generation: int) -> str:
    """The index that every search of a generation goes through."""
    return f"{table_name(generation)}_search"


async def ensure_first(connection: Connection) -> None:
    """Make generation 1 and the view, unless there is a live generation. Safe to run twice at once.

    One of another shape is left alone: search goes on from it until a rebuild has made its successor.
    """
    async with connection.transaction():
        await connection.execute(TAKE_OVER)
        if await connection.fetchrow(LIVE) is not None:
            return
        generation = await make(connection)
        for statement in (*INDEXES.values(), VIEW):
            await connection.execute(statement.format(table=table_name(generation)))
        await connection.execute(FIRST, generation, SHAPE, ANALYZER)


async def make(connection: Connection) -> int:
    """Make an empty table without indexes, within the caller's transaction: the number of the new generation.

    It belongs to the role that keeps generations, where there is one; the rest of the transaction runs as that role.
    """
    await connection.execute(BECOME, MAINTAIN)
    generation: int = await connection.fetchval(NOTE_MADE, SHAPE, ANALYZER)
    await connection.execute(TABLE.format(table=table_name(generation)))
    return generation


async def live(connection: Connection | asyncpg.Pool) -> int:
    """The number of the live generation. It may be another one by the time it is used: see `hold_live`.

    Raises:
        WrongShapeError: there is none, or it is not ours to write.
    """
    return _ours(await connection.fetchrow(LIVE))


async def hold_live(connection: Connection) -> int:
    """The number of the live generation, which stays live until the caller's transaction ends.

    Raises:
        WrongShapeError: there is none, or it is not ours to write.
    """
    return _ours(await connection.fetchrow(HOLD))


async def take_over(connection: Connection) -> int:
    """Wait for every writer's transaction, and keep new ones out until the caller's ends: the live generation."""
    await connection.execute(TAKE_OVER)
    found: int = await connection.fetchval(LIVE)
    return found


async def swap(connection: Connection, old: int, new: int) -> None:
    """Let searches and writers go to another generation, within the transaction that took over.

    Raises:
        asyncpg.LockNotAvailableError: a search has not ended within the session's lock_timeout.
    """
    await connection.execute(VIEW.format(table=table_name(new)))
    await connection.execute(POINT, new, SHAPE, ANALYZER)
    await connection.execute(RETIRE, new, old)


async def previous(connection: Connection | asyncpg.Pool) -> Generation | None:
    """The generation that was live before this one, if it is still there."""
    row = await connection.fetchrow(PREVIOUS)
    return None if row is None else Generation(**row)


async def drop(connection: Connection, generation: int) -> None:
    """Remove a generation that is not live, and its positions, within the caller's transaction."""
    await connection.execute(DROP, generation)


async def drop_expired(pool: asyncpg.Pool, keep: timedelta) -> list[int]:
    """Remove generations that have not been live for so long, and all but the last of them: their numbers."""
    async with pool.acquire() as connection, connection.transaction():
        expired = [row["generation"] for row in await connection.fetch(EXPIRED, keep)]
        for generation in expired:
            await drop(connection, generation)
    return expired


def _ours(found: asyncpg.Record | None) -> int:
    if found is None:
        raise WrongShapeError("The query database has no cache yet: run the verb migrate first.")
    if (found["shape"], found["analyzer"]) != (SHAPE, ANALYZER):
        raise WrongShapeError(
            f"The live cache has shape {found['shape']} and analyzer {found['analyzer']}, this program writes {SHAPE} "
            f"and {ANALYZER}. Search goes on from it; a rebuild makes one of the new shape: artstore rebuild."
        )
    live: int = found["live"]
    return live
