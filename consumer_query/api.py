"""The Query REST API: files are found here, soon after they were uploaded."""

import time
from typing import Annotated, Any
from uuid import UUID

import asyncpg
from fastapi import APIRouter
from fastapi import Query as QueryParameter
from pydantic import AfterValidator, BaseModel

from consumer_query import read_model
from consumer_query.errors import FileNotInCacheError
from consumer_query.search import Cursor, search
from runtime.http import PROBLEM_RESPONSE
from schemas.file_view import FileView

MAX_QUERY = 1_000
MAX_LIMIT = 200
_RESPONSES: dict[int | str, dict[str, Any]] = {422: PROBLEM_RESPONSE, 503: PROBLEM_RESPONSE}


def _words(value: str) -> str:
    if "\x00" in value:
        raise ValueError("holds a NUL character")
    if not value.strip():
        raise ValueError("is empty")
    return value


class Hit(FileView):
    """A file that was found, and how well it matches."""

    rank: float


class SearchAnswer(BaseModel):
    """One page of hits."""

    query: str
    results: list[Hit]
    total: int
    next_cursor: str | None
    took_ms: float


def files_router(pool: asyncpg.Pool) -> APIRouter:
    """Routes under /api/v1/files."""
    router = APIRouter(prefix="/api/v1/files", tags=["files"])

    @router.get("/search", responses=_RESPONSES)
    async def find(
        query: Annotated[
            str,
            QueryParameter(max_length=MAX_QUERY, description='Words, "phrases", -excluded, OR; or a file name.'),
            AfterValidator(_words),
        ],
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)] = 20,
        cursor: Annotated[str | None, QueryParameter(max_length=1_000, description="next_cursor of a page.")] = None,
    ) -> SearchAnswer:
        """Find files by name, tags, description or uploader, in Russian and English.

        Files of exactly that name come first, then better matches, then newer files.
        """
        begun = time.perf_counter()
        page = await search(pool, query, limit, Cursor.decoded(cursor) if cursor else None)
        return SearchAnswer(
            query=query,
            results=[Hit.model_validate(hit) for hit in page.hits],
            total=page.total,
            next_cursor=page.next_cursor and page.next_cursor.encoded(),
            took_ms=round((time.perf_counter() - begun) * 1000, 2),
        )

    @router.get("/{file_id}", responses=_RESPONSES | {404: PROBLEM_RESPONSE})
    async def get(file_id: UUID) -> FileView:
        """One file as search sees it now. 404 until its upload has been applied."""
        row = await read_model.get(pool, file_id)
        if row is None:
            raise FileNotInCacheError(f"There is no file {file_id} in the cache.")
        return FileView.model_validate(row)

    return router
