"""The saga log as an operator reads it: what is under way, what is stuck and why, what became of one change."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from producer_admin import saga_log
from producer_admin.api_models import SagaPage, SagaView
from producer_admin.pages import Place, read_cursor
from producer_admin.saga_steps import Means
from runtime.auth import Guarded, Scope, needs
from runtime.http import PROBLEM_RESPONSE

MAX_LIMIT = 500
_PROBLEMS: dict[int | str, dict[str, Any]] = {422: PROBLEM_RESPONSE, 503: PROBLEM_RESPONSE}

State = Literal["running", "recorded", "done", "compensating", "compensated"]
Kind = Literal["upload", "replace", "move", "update", "delete"]


def sagas_router(means: Means) -> APIRouter:
    """Routes under /api/v1/sagas."""
    router = APIRouter(prefix="/api/v1/sagas", tags=["sagas"], route_class=Guarded)

    @router.get("", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def newest(
        state: Annotated[list[State] | None, Query(description="Any of these; repeat the parameter.")] = None,
        kind: Kind | None = None,
        file_id: UUID | None = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
        cursor: Annotated[str | None, Query(max_length=1_000, description="next_cursor of a page.")] = None,
    ) -> SagaPage:
        """Sagas, newest first. Those that ended are forgotten after a time."""
        async with means.alone() as connection:
            found = await saga_log.newest(
                connection,
                limit + 1,
                states=None if state is None else set(state),
                kind=kind,
                file_id=file_id,
                behind=read_cursor(cursor),
            )
        last = found[limit - 1] if len(found) > limit else None
        return SagaPage(
            sagas=[SagaView.of(one) for one in found[:limit]],
            next_cursor=last and Place(last.started_at, last.saga_id).cursor,
        )

    @router.get("/{saga_id}", responses=_PROBLEMS | {404: PROBLEM_RESPONSE})
    @needs(Scope.SYNC)
    async def get(saga_id: UUID) -> SagaView:
        """One saga: its step, its objects, its error, and how often it was tried."""
        async with means.alone() as connection:
            return SagaView.of(await saga_log.get(connection, saga_id))

    return router
