"""The trace of one file over REST: how far its newest change has come, and which station holds it up."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from consumer_query.errors import QueryError
from consumer_query.lag import Status as LagStatus
from consumer_query.resolutions import Status
from consumer_query.trace import Facts, HeldUpBy, Part, judge
from consumer_query.trace_facts import Tracer
from consumer_query.trace_words import Mark, Name, sentence, stations
from runtime.auth import Guarded, Scope, needs
from runtime.http import PROBLEM_RESPONSE
from schemas.trace_views import AdminTrace

_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = dict.fromkeys((404, 422, 503), PROBLEM_RESPONSE)


class FileUnknownError(QueryError):
    """All parts answered, and none knows the file."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "File not found"


class _FromValues(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class StationView(_FromValues):
    """One station of the way."""

    name: Name
    mark: Mark = Field(description="Of the newest change: done with it; here; not_yet there; unclear.")
    told: str = Field(description="For people.")


class RowView(_FromValues):
    """The file in the live cache."""

    revision: int
    deleted: bool


class CachedView(_FromValues):
    """What the cache's database says."""

    generation: int
    row: RowView | None
    position: int | None = Field(description="The next offset of the partition to be applied; null: none ever was.")
    idle: float | None = Field(description="Seconds since the position moved.")


class LogView(_FromValues):
    """What the broker says of the partition."""

    committed: int | None = Field(description="By the projectors' group.")
    end: int = Field(description="The last stable offset.")
    status: LagStatus = Field(description="Of the group on this partition; see /api/v1/admin/lag.")
    members: int
    looked_at: datetime


class LetterView(_FromValues):
    """A dead letter of the file."""

    position: str = Field(description="topic/partition/offset of the record.")
    revision: int | None
    reason: str
    error: str
    status: Status
    at: datetime


class LettersView(_FromValues):
    """The file's dead letters, the oldest first."""

    letters: list[LetterView]
    complete: bool = Field(description="All were looked at; else the newest, as far as there was time.")


class TraceView(BaseModel):
    """How far the newest change of a file has come. A part that is null did not answer: `troubles` says why."""

    file_id: UUID
    held_up_by: HeldUpBy = Field(
        description="nothing: search shows it. saga: it is not recorded. outbox: not sent. topic: not applied. "
        "dead_letter: put aside. cache: nothing is on the way, and search is wrong: compare. unclear: whoever could "
        "tell is silent."
    )
    told: str = Field(description="The same for people.")
    revision: int | None = Field(description="The newest that is known to be recorded.")
    partition: int
    offset: int | None = Field(description="Of its record on the partition, as far as is known.")
    stations: list[StationView]
    admin: AdminTrace | None
    cached: CachedView | None
    log: LogView | None
    log_ends_before_it: bool = Field(description="The topic was made anew, or cut: nobody will ever read the record.")
    dead_letter: LetterView | None = Field(description="That of the newest change, if it was put aside.")
    dead_letters: LettersView | None
    troubles: Mapping[Part, str]

    @classmethod
    def of(cls, facts: Facts, held_up_by: HeldUpBy) -> "TraceView":
        """What is told of a file."""
        return cls(
            file_id=facts.file_id,
            held_up_by=held_up_by,
            told=sentence(facts, held_up_by),
            revision=facts.target,
            partition=facts.partition,
            offset=facts.offset,
            stations=[StationView.model_validate(one) for one in stations(facts, held_up_by)],
            admin=facts.admin,
            cached=None if facts.cached is None else CachedView.model_validate(facts.cached),
            log=None if facts.log is None else LogView.model_validate(facts.log),
            log_ends_before_it=facts.is_beside_the_log,
            dead_letter=None if facts.letter is None else LetterView.model_validate(facts.letter),
            dead_letters=None if facts.letters is None else LettersView.model_validate(facts.letters),
            troubles=facts.troubles,
        )


def trace_router(tracer: Tracer) -> APIRouter:
    """The route under /api/v1/files."""
    router = APIRouter(prefix="/api/v1/files", tags=["trace"], route_class=Guarded)

    @router.get("/{file_id}/trace", responses=_PROBLEMS)
    @needs(Scope.READ)
    async def of_file(file_id: UUID) -> TraceView:
        """Tell how far the newest change of a file has come, and which station holds it up.

        It answers while things are broken, within some seconds: what a part does not tell is left out, and `troubles`
        says why. 404 only when every part has answered, and none knows the file.
        """
        facts = await tracer.facts(file_id)
        held_up_by = judge(facts)
        if held_up_by is HeldUpBy.UNKNOWN:
            raise FileUnknownError(sentence(facts, held_up_by))
        return TraceView.of(facts, held_up_by)

    return router
