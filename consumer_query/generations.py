"""Searches read a view; behind it stands one of the tables file_metadata_cache_g<N>, each the whole cache.

A deletion is a row of the same table with `deleted` set and no payload: an insert that comes late and the deletion
meet on one primary key, and the greater revision wins. The view and the indexes leave such rows out.
"""

from typing import Final

import asyncpg
import structlog

from consumer_query.analysis import ANALYZER
from runtime.errors import StartError

SHAPE: Final = 2
"""Raised when the table below or what is written into it changes; that asks for a rebuild, never for a migration."""

TABLE: Final = """
CREATE TABLE {table} (
    file_id uuid PRIMARY KEY,
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
)
"""
# Every search goes through this one. `pending_list` keeps its pending list short; the limit is Postgres' own default,
# said here so that no server setting makes a backlog slow (below) or a search beside it (above).
SEARCH_INDEX: Final = """
CREATE INDEX {table}_search ON {table} USING gin (search) WITH (gin_pending_list_limit = 4096) WHERE NOT deleted
"""
VIEW: Final = """
CREATE OR REPLACE VIEW file_metadata_cache AS
SELECT file_id, revision, storage_element_id, original_filename, storage_filename, file_size, mime_type, created_at,
       updated_at, created_by_username, created_by_fullname, description, version, tags, storage_path, checksum,
       retention_expires_at, search
FROM {table} WHERE NOT deleted
"""
LOCK_FOR_FIRST: Final = "LOCK TABLE cache_generation IN EXCLUSIVE MODE"
LIVE: Final = "SELECT live FROM cache_generation FOR SHARE"
LIVE_NUMBER: Final = "SELECT live FROM cache_generation"
LIVE_SHAPE: Final = "SELECT shape, analyzer FROM cache_generation"
FIRST: Final = "INSERT INTO cache_generation (live, shape, analyzer) VALUES (1, $1, $2)"

FORGET: Final = """
DROP VIEW file_metadata_cache;
DROP TABLE {table};
DELETE FROM cache_generation;
DELETE FROM projector_positions
"""
_log = structlog.get_logger()


class WrongShapeError(StartError):
    """The live generation was made by another version of this program; it has to be rebuilt."""


def table_name(generation: int) -> str:
    """The table of a generation."""
    return f"file_metadata_cache_g{generation}"


def search_index_name(generation: int) -> str:
    """The index that every search of a generation goes through."""
    return f"{table_name(generation)}_search"


async def ensure_first(connection: asyncpg.Connection) -> None:
    """Make generation 1 and the view, unless there is a live generation of this shape. Safe to run twice at once."""
    async with connection.transaction():
        await connection.execute(LOCK_FOR_FIRST)
        live = await connection.fetchrow(LIVE_SHAPE)
        if live is not None and tuple(live) == (SHAPE, ANALYZER):
            return
        if live is not None:
            # Nobody could write into it any more. The topic fills the new one; until then search finds what is there.
            _log.warning("the cache is made anew", shape=live["shape"], analyzer=live["analyzer"])
            await connection.execute(FORGET.format(table=table_name(await connection.fetchval(LIVE_NUMBER))))
        table = table_name(1)
        for statement in (TABLE, SEARCH_INDEX, VIEW):
            await connection.execute(statement.format(table=table))
        await connection.execute(FIRST, SHAPE, ANALYZER)


async def check_shape(pool: asyncpg.Pool) -> None:
    """Refuse to write into a table of another shape, or of words that another analyzer made.

    Raises:
        WrongShapeError: rebuild, or run the program version that made it.
    """
    live = await pool.fetchrow(LIVE_SHAPE)
    if live is None:
        raise WrongShapeError("The query database has no cache yet: run the verb migrate first.")
    if tuple(live) != (SHAPE, ANALYZER):
        raise WrongShapeError(
            f"The live cache has shape {live['shape']} and analyzer {live['analyzer']}, this program writes "
            f"{SHAPE} and {ANALYZER}. Run the verb migrate: it makes the cache anew, and the topic fills it again."
        )
