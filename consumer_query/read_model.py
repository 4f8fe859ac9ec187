"""A batch goes into the live generation in one statement, and no row ever goes back to an older revision.

The fence is the WHERE of the upsert. Redelivery, replay, two projectors at once: the same final rows.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

import asyncpg

from consumer_query import analysis
from consumer_query.generations import LIVE, table_name
from consumer_query.projection import FileState
from runtime.postgres import Connection

# Rows come as one JSON array: of the ways to hand many rows to Postgres the fastest that takes arrays inside rows.
APPLY: Final = """
INSERT INTO {table} AS cached (
    file_id, revision, deleted, storage_element_id, original_filename, storage_filename, file_size, mime_type,
    created_at, updated_at, created_by_username, created_by_fullname, description, version, tags, storage_path,
    checksum, retention_expires_at, search
)
SELECT
    file_id, revision, deleted, storage_element_id, original_filename, storage_filename, file_size, mime_type,
    created_at, updated_at, created_by_username, created_by_fullname, description, version, tags, storage_path,
    checksum, retention_expires_at,
    CASE WHEN NOT deleted THEN
        setweight(to_tsvector('russian', name_words) || to_tsvector('simple', name_words), 'A')
        || setweight(to_tsvector('russian', tag_words), 'B')
        || setweight(to_tsvector('russian', text_words), 'C')
        || setweight(to_tsvector('simple', user_words), 'D')
        || array_to_tsvector(ARRAY[name_term])
    END
FROM json_to_recordset($1::json) AS incoming (
    file_id uuid, revision bigint, deleted boolean, storage_element_id text, original_filename text,
    storage_filename text, file_size bigint, mime_type text, created_at timestamptz, updated_at timestamptz,
    created_by_username text, created_by_fullname text, description text, version text, tags text[],
    storage_path text, checksum text, retention_expires_at timestamptz,
    name_words text, tag_words text, text_words text, user_words text, name_term text
)
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

GET: Final = """
SELECT file_id, revision, storage_element_id, original_filename, storage_filename, file_size, mime_type, created_at,
       updated_at, created_by_username, created_by_fullname, description, version, tags, storage_path, checksum,
       retention_expires_at
FROM file_metadata_cache WHERE file_id = $1
"""


async def apply(connection: Connection, states: Iterable[FileState]) -> int:
    """Write the newest states of files within the caller's transaction, each file at most once.

    Holds the generation's row until the caller's transaction ends, so that a swap waits for it.

    Returns:
        How many rows changed; the rest were at that revision or beyond.
    """
    rows = [_row(state) for state in states]
    live = await connection.fetchval(LIVE)
    status: str = await connection.execute(APPLY.format(table=table_name(live)), json.dumps(rows))
    return int(status.rpartition(" ")[2])


async def get(pool: asyncpg.Pool, file_id: UUID) -> Mapping[str, Any] | None:
    """One file of the cache, or None."""
    row = await pool.fetchrow(GET, file_id)
    return None if row is None else dict(row)


def _row(state: FileState) -> dict[str, Any]:
    row: dict[str, Any] = {
        "file_id": str(state.file_id),
        "revision": state.revision,
        "deleted": state.metadata is None,
    }
    if (metadata := state.metadata) is None:
        return row
    expires = metadata.retention_expires_at
    return row | {
        "storage_element_id": state.storage_element_id,
        "original_filename": metadata.original_filename,
        "storage_filename": metadata.storage_filename,
        "file_size": metadata.file_size,
        "mime_type": metadata.mime_type,
        "created_at": metadata.created_at.isoformat(),
        "updated_at": metadata.updated_at.isoformat(),
        "created_by_username": metadata.created_by_username,
        "created_by_fullname": metadata.created_by_fullname,
        "description": metadata.description,
        "version": metadata.version,
        "tags": metadata.tags,
        "storage_path": metadata.storage_path,
        "checksum": metadata.checksum,
        "retention_expires_at": expires and expires.isoformat(),
        "name_words": analysis.name_words(metadata.original_filename),
        "tag_words": analysis.words(" ".join(metadata.tags)),
        "text_words": analysis.words(metadata.description or ""),
        "user_words": analysis.words(f"{metadata.created_by_username} {metadata.created_by_fullname or ''}"),
        "name_term": analysis.name_term(metadata.original_filename),
    }
