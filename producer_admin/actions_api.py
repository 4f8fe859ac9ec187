"""What operators did, over REST."""

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import actions
from runtime.auth import Guarded, Scope, needs
from runtime.http import PROBLEM_RESPONSE

MAX_LIMIT: Final = 500
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {422: PROBLEM_RESPONSE, 503: PROBLEM_RESPONSE}


class ActionView(BaseModel):
    """One act of an operator."""

    model_config = ConfigDict(from_attributes=True)

    action_id: int
    at: datetime
    actor: str
    action: str
    subject: str = Field(description="To what: a storage element, a source, files.")
    detail: dict[str, Any]


class ActionList(BaseModel):
    """Some acts, the newest first."""

    actions: list[ActionView]


def actions_router(engine: AsyncEngine) -> APIRouter:
    """Routes under /api/v1/admin."""
    router = APIRouter(prefix="/api/v1/admin", tags=["audit"], route_class=Guarded)

    @router.get("/actions", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def newest(
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = 50,
        before: Annotated[
            int, Query(ge=0, le=actions.AFTER_ALL, description="Below this action_id: the last one of a page.")
        ] = actions.AFTER_ALL,
    ) -> ActionList:
        """What operators did to storage elements and the outbox, newest first. Files have histories of their own."""
        async with engine.connect() as connection:
            found = await actions.newest(connection, limit, before)
        return ActionList(actions=[ActionView.model_validate(one) for one in found])

    return router
