"""One file over REST, as search sees it now or once it is as new as the caller knows it to be."""

from typing import Annotated, Any, Final
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query

from consumer_query import read_model
from consumer_query.errors import FileNotInCacheError
from consumer_query.freshness import Token, parse_wait, wait_for
from consumer_query.search_values import MAX_BIGINT, Wait
from runtime.auth import Guarded, Scope, needs
from runtime.http import PROBLEM_RESPONSE
from schemas.file_view import FileView

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = dict.fromkeys((404, 422, 503, 504), PROBLEM_RESPONSE)


def files_router(pool: asyncpg.Pool) -> APIRouter:
    """Routes under /api/v1/files."""
    router = APIRouter(prefix="/api/v1/files", tags=["files"], route_class=Guarded)

    @router.get("/{file_id}", responses=_RESPONSES)
    @needs(Scope.READ)
    async def get(
        file_id: UUID,
        at_least: Annotated[
            int | None,
            Query(
                ge=1, le=MAX_BIGINT, description="Answer only once this revision or a later one is there.", examples=[3]
            ),
        ] = None,
        wait: Annotated[
            Wait | None, Query(description="How long to wait for at_least, such as 2s or 500ms.", examples=["2s"])
        ] = None,
    ) -> FileView:
        """One file as search sees it now. 404 until its upload has been applied."""
        if at_least is not None:
            await wait_for(pool, [Token(file_id, at_least)], 0.0 if wait is None else parse_wait(wait))
        row = await read_model.get(pool, file_id)
        if row is None:
            raise FileNotInCacheError(f"There is no file {file_id} in the cache.")
        return FileView.model_validate(row)

    return router
