"""Files announced anew by whom they concern: a consumer that could not apply a record asks for a newer one here."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin.api_models import read_actor
from producer_admin.republish import ACTOR, republish_files
from runtime.auth import Guarded, Scope, needs
from runtime.http import PROBLEM_RESPONSE, ActorHeader

MOST_FILES: Final = 500
"""One page, one transaction. More is for the verb, which waits for the relay."""
MOST_AT_LEAST: Final = 2**62
"""Half of what a revision can be, so that no request can use revisions up."""
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {422: PROBLEM_RESPONSE, 503: PROBLEM_RESPONSE}


class Republish(BaseModel):
    """Which files to announce anew."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_ids: list[UUID] = Field(min_length=1, max_length=MOST_FILES)
    at_least: int = Field(
        0,
        ge=0,
        le=MOST_AT_LEAST,
        description="New revisions are greater than this: the newest that the asker has seen.",
    )
    seen: dict[UUID, Annotated[int, Field(ge=0, le=MOST_AT_LEAST)]] = Field(
        default={}, max_length=MOST_FILES, description="The same, for some files by their ids."
    )
    deletions: bool = Field(
        default=False,
        description="Files that are unknown here are remembered and announced as deleted. For good: say it only of "
        "files that must not be found.",
    )


class Republished(BaseModel):
    """What was announced; it reaches the topic through the outbox."""

    announced: int = Field(description="Files, deleted ones too. The rest of those asked for are unknown here.")


def republish_router(engine: AsyncEngine) -> APIRouter:
    """Routes under /api/v1/admin."""
    router = APIRouter(prefix="/api/v1/admin", tags=["repair"], route_class=Guarded)

    @router.post("/republish", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def republish(
        wanted: Republish,
        x_actor: ActorHeader = None,
    ) -> Republished:
        """Announce files anew, each under a raised revision, so that whoever missed one has it again."""
        actor = ACTOR if x_actor is None else read_actor(x_actor)
        announced = await republish_files(
            engine, wanted.file_ids, actor, wanted.at_least, wanted.seen, deletions=wanted.deletions
        )
        return Republished(announced=announced)

    return router
