"""How far search is behind, over REST: what the watch saw last, and when."""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from consumer_query.errors import QueryError
from consumer_query.lag import Status
from consumer_query.lag_watch import LagWatch, Point, Report
from runtime.auth import Guarded, Scope, needs
from runtime.http import PROBLEM_RESPONSE

_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {503: PROBLEM_RESPONSE}

Seconds = Annotated[float, Field(description="Age of the oldest record that was not applied; 0 when there is none.")]


class LagUnknownError(QueryError):
    """Nobody has told yet how far the group is behind."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Lag not known"
    retryable: ClassVar[bool] = True


class PartitionView(BaseModel):
    """One partition."""

    model_config = ConfigDict(from_attributes=True)

    partition: int
    committed: int | None = Field(description="The next offset that the group will read; null: it never committed.")
    end: int = Field(description="The last stable offset.")
    events: int = Field(description="Offsets between them; 0 when there are only transaction markers.")
    seconds: Seconds
    status: Status


class PointView(BaseModel):
    """The whole group at one look."""

    model_config = ConfigDict(from_attributes=True)

    at: datetime
    events: int
    seconds: float


class LagView(BaseModel):
    """How far the group is behind the log."""

    group: str
    status: Status = Field(
        description="Of the worst partition. ok; warn: it falls behind; rewind: its position went back; stall: it "
        "commits and does not move; stop: it does not commit, or has no members."
    )
    state: str = Field(description="Of the group, as the broker calls it.")
    members: int = Field(description="Projectors that are in the group.")
    events: int = Field(description="Of all partitions together.")
    seconds: Seconds
    partitions: list[PartitionView]
    history: list[PointView] = Field(description="The looks before, from the oldest; some minutes.")
    looked_at: datetime = Field(description="When the broker told this.")
    looked_seconds_ago: float
    trouble: str | None = Field(description="Why it could not be asked since then; null when all is well.")

    @classmethod
    def of(cls, group: str, report: Report, history: list[Point], trouble: str | None) -> "LagView":
        """What is told of a report."""
        lag = report.group
        return cls(
            group=group,
            status=lag.status,
            state=lag.state,
            members=lag.members,
            events=lag.events,
            seconds=lag.seconds,
            partitions=[PartitionView.model_validate(one) for one in lag.partitions],
            history=[PointView.model_validate(one) for one in history],
            looked_at=report.at,
            looked_seconds_ago=max(0.0, (datetime.now(UTC) - report.at).total_seconds()),
            trouble=trouble,
        )


def lag_router(watch: LagWatch | None) -> APIRouter:
    """The route for the lag; it refuses where nobody watches."""
    router = APIRouter(prefix="/api/v1/admin", tags=["lag"], route_class=Guarded)

    @router.get("/lag", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def lag() -> LagView:
        """Tell how far the projectors are behind the topic, as seen from outside their group.

        The answer is what a look found that was made a moment ago. While the broker is away it stays as it was;
        `trouble` then says why, and `looked_seconds_ago` how old it is.
        """
        if watch is None:
            raise LagUnknownError("KAFKA_BOOTSTRAP_SERVERS is not set for this API.")
        if watch.report is None:
            raise LagUnknownError(f"No broker has told of the group {watch.group} yet: {watch.trouble}.")
        return LagView.of(watch.group, watch.report, list(watch.history), watch.trouble)

    return router
