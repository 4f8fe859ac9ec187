"""The Admin side of a file's trace over REST: asked by the Query side, which knows the rest of the way."""

from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin.trace import trace
from runtime.auth import Guarded, Scope, needs
from runtime.http import PROBLEM_RESPONSE
from schemas.trace_views import AdminTrace

_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {422: PROBLEM_RESPONSE, 503: PROBLEM_RESPONSE}


def trace_router(engine: AsyncEngine) -> APIRouter:
    """The route under /api/v1/files."""
    router = APIRouter(prefix="/api/v1/files", tags=["trace"], route_class=Guarded)

    @router.get("/{file_id}/trace", responses=_PROBLEMS)
    @needs(Scope.READ)
    async def of_file(file_id: UUID) -> AdminTrace:
        """How far the changes of a file have come until they are on the topic.

        Of a file that nobody knows, too: its revision is null then. The whole way is at the Query API's route of the
        same path.
        """
        return await trace(engine, file_id)

    return router
