"""What is asked meets what is stored: words by their stems in Russian and English, whole file names as typed.

Files of exactly the asked name come first, then the better match, then the newer file.
"""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from consumer_query.asking import ask, ask_name
from consumer_query.errors import BadSearchError
from runtime.errors import FieldError

SEARCH: Final = """
WITH asked AS (
    SELECT $1::tsquery AS query, $2::tsquery AS name
), hits AS MATERIALIZED (
    SELECT file_id, created_at, search @@ name AS named, ts_rank(search, query)::float8 AS rank
    FROM file_metadata_cache, asked WHERE search @@ query
), page AS (
    SELECT * FROM hits
    WHERE $3::boolean IS NULL
       OR (NOT named, -rank, -extract(epoch FROM created_at), file_id)
        > (NOT $3::boolean, -$4::float8, -extract(epoch FROM $5::timestamptz), $6::uuid)
    ORDER BY named DESC, rank DESC, created_at DESC, file_id LIMIT $7
)
SELECT cached.file_id, revision, storage_element_id, original_filename, storage_filename, file_size, mime_type,
       cached.created_at, updated_at, created_by_username, created_by_fullname, description, version, tags,
       storage_path, checksum, retention_expires_at, named, rank, (SELECT count(*) FROM hits) AS total
FROM page JOIN file_metadata_cache AS cached USING (file_id)
ORDER BY named DESC, rank DESC, cached.created_at DESC, file_id
"""
COUNT: Final = "SELECT count(*) FROM file_metadata_cache WHERE search @@ $1::tsquery"


@dataclass(frozen=True)
class Cursor:
    """The last hit of a page; the next page begins behind it."""

    named: bool
    rank: float
    created_at: datetime
    file_id: UUID

    def encoded(self) -> str:
        """As the opaque text that a client hands back."""
        parts = [self.named, self.rank, self.created_at.isoformat(), str(self.file_id)]
        return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")

    @classmethod
    def decoded(cls, text: str) -> "Cursor":
        """Read what `encoded` wrote.

        Raises:
            BadSearchError: it is not a cursor of ours.
        """
        try:
            parts = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            named, rank, created_at, file_id = parts
            moment = datetime.fromisoformat(created_at).astimezone(UTC)
            if type(named) is not bool or type(rank) is not float or not math.isfinite(rank):
                raise TypeError
            return cls(named, rank, moment, UUID(file_id))
        except (ValueError, TypeError, AttributeError, OverflowError, binascii.Error) as error:
            problem = FieldError("cursor", "not a cursor that this service gave")
            raise BadSearchError("The cursor cannot be read.", (problem,)) from error


@dataclass(frozen=True)
class Page:
    """Some hits, how many there are in all, and where the next page begins."""

    hits: Sequence[Mapping[str, Any]]
    total: int
    next_cursor: Cursor | None


async def search(pool: asyncpg.Pool, query: str, limit: int, cursor: Cursor | None) -> Page:
    """Answer one page.

    Args:
        pool: connections to the query database
        query: words, "phrases", -excluded, OR; or a file name. Must not hold NUL.
        limit: hits on the page, 1 or more
        cursor: where the page before ended
    """
    name = ask_name(query)
    asked = f"{words} | {name}" if (words := ask(query)) else name
    after = (cursor.named, cursor.rank, cursor.created_at, cursor.file_id) if cursor else (None,) * 4
    rows = await pool.fetch(SEARCH, asked, name, *after, limit + 1)
    hits: list[dict[str, Any]] = [dict(row) for row in rows[:limit]]
    # The total stands on the hits; a page behind the last hit has none to stand on.
    total = hits[0]["total"] if hits else await pool.fetchval(COUNT, asked) if cursor else 0
    last = hits[-1] if len(rows) > limit else None
    following = Cursor(last["named"], last["rank"], last["created_at"], last["file_id"]) if last else None
    return Page(hits, total, following)
