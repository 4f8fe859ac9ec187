"""Differences of every class between cache and truth, made directly in the cache, behind the topic's back."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID, uuid4

import asyncpg

from consumer_query.generations import live, table_name
from consumer_query.reconcile import Class

EACH: Final = 8
"""Ways to be different, see PLANT; each takes as many files."""

_COPY: Final = """
INSERT INTO {table} SELECT ($2::uuid[])[place], 3, false, storage_element_id, original_filename, storage_filename,
    file_size, mime_type, created_at, updated_at, created_by_username, created_by_fullname, description, version, tags,
    storage_path, checksum, retention_expires_at, search
FROM {table}, generate_series(1, cardinality($2::uuid[])) AS place WHERE file_id = $1
ON CONFLICT (file_id) DO UPDATE SET revision = excluded.revision, deleted = false
"""
_PLANT: Final[Sequence[tuple[Class, str]]] = (
    (Class.MISSING, "DELETE FROM {table} WHERE file_id = ANY($1)"),
    (Class.MISSING, "UPDATE {table} SET deleted = true, revision = revision + 3 WHERE file_id = ANY($1)"),
    (Class.STALE, "UPDATE {table} SET revision = revision - 1, description = 'old' WHERE file_id = ANY($1)"),
    (Class.AHEAD, "UPDATE {table} SET revision = revision + 7 WHERE file_id = ANY($1)"),
    (Class.DIFFERS, "UPDATE {table} SET description = description || ' ' WHERE file_id = ANY($1)"),
    # What they have together stays the same: no sum may hide that each has what another should have.
    (
        Class.DIFFERS,
        """
        UPDATE {table} AS cached SET description = other.description
        FROM unnest($1::uuid[], ($1::uuid[])[2:] || ($1::uuid[])[1]) AS pair (file_id, other_id)
        JOIN {table} AS other ON other.file_id = pair.other_id WHERE cached.file_id = pair.file_id
        """,
    ),
)


async def plant(pool: asyncpg.Pool, living: Sequence[UUID], deleted: Sequence[UUID], each: int) -> dict[UUID, Class]:
    """Make `each` files different in each way; what is to be found, by file.

    Args:
        pool: of the Query database
        living: files that exist and that nobody changes, at least 6 * `each` + 1, of different descriptions
        deleted: files that were deleted, at least `each`
        each: at least 2
    """
    planted: dict[UUID, Class] = {}
    async with pool.acquire() as connection, connection.transaction():
        table = table_name(await live(connection))
        left = list(living)
        sample = left.pop()
        for kind, statement in _PLANT:
            some, left = left[:each], left[each:]
            assert len(some) == each
            await connection.execute(statement.format(table=table), some)
            planted |= dict.fromkeys(some, kind)
        ghosts = [*deleted[:each], *(uuid4() for _ in range(each))]
        await connection.execute(_COPY.format(table=table), sample, ghosts)
        planted |= dict.fromkeys(ghosts, Class.GHOST)
    return planted
