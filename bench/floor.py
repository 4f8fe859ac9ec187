"""The floor: what one connection to Postgres can do when reading and decoding cost nothing. Frozen.

Rows that are decoded beforehand are upserted 2,000 at a time, each batch in one statement that commits by itself.
Postgres computes the search vector in two configurations. This shares nothing with the product, and is not to be made
faster or slower: the product's speed is told as a multiple of it.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg

BATCH: Final = 2000
TABLE: Final = "floor"
FILES: Final = "CREATE VIEW floor_files AS SELECT * FROM floor WHERE NOT deleted"
"""What is compared: the files that exist."""

UPSERT: Final = """
INSERT INTO floor AS cached (
    file_id, revision, deleted, storage_element_id, original_filename, storage_filename, file_size, mime_type,
    created_at, updated_at, created_by_username, created_by_fullname, description, version, tags, storage_path,
    checksum, retention_expires_at, search
)
SELECT
    file_id, revision, deleted, storage_element_id, original_filename, storage_filename, file_size, mime_type,
    created_at, updated_at, created_by_username, created_by_fullname, description, version, tags, storage_path,
    checksum, retention_expires_at,
    CASE WHEN NOT deleted THEN
        to_tsvector('russian', concat_ws(' ', original_filename, array_to_string(tags, ' '), description))
        || to_tsvector('simple', concat_ws(' ', original_filename, created_by_username, created_by_fullname))
    END
FROM json_to_recordset($1::json) AS incoming (
    file_id uuid, revision bigint, deleted boolean, storage_element_id text, original_filename text,
    storage_filename text, file_size bigint, mime_type text, created_at timestamptz, updated_at timestamptz,
    created_by_username text, created_by_fullname text, description text, version text, tags text[],
    storage_path text, checksum text, retention_expires_at timestamptz
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


async def write(connection: asyncpg.Connection, rows: Sequence[Mapping[str, Any]]) -> float:
    """Seconds to bring `rows` into the table `floor`.

    Args:
        connection: nobody else's
        rows: plain values by column, in the order of the events; the newest of a file in each batch is written
    """
    begin = time.perf_counter()
    for start in range(0, len(rows), BATCH):
        newest = {one["file_id"]: one for one in rows[start : start + BATCH]}
        await connection.execute(UPSERT, json.dumps(list(newest.values())))
    return time.perf_counter() - begin
