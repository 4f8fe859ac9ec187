"""Rebuilds over REST: a request is a row that a worker takes up, so it outlives the call, this process and the worker.

A call changes nothing of what search answers from.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import asyncpg
import structlog
from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from consumer_query import generations, previous_generation, rebuild_jobs
from consumer_query.analysis import ANALYZER
from consumer_query.dead_letters_api import Actor
from consumer_query.generations import SHAPE, Generation
from consumer_query.rebuild_jobs import Job, Kind, Loaded, Phase, RebuildEndedError, Wish
from consumer_query.rebuild_progress import Progress, progress
from runtime.auth import Guarded, Scope, needs
from runtime.http import PROBLEM_RESPONSE
from runtime.postgres import NOW

PREFIX: Final = "/api/v1/admin/rebuild"
LARGEST_RATE: Final = 2**31 - 1
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {422: PROBLEM_RESPONSE, 503: PROBLEM_RESPONSE}
_MISSING: Final[dict[int | str, dict[str, Any]]] = _PROBLEMS | {404: PROBLEM_RESPONSE}
_CONFLICT: Final[dict[int | str, dict[str, Any]]] = _PROBLEMS | {409: PROBLEM_RESPONSE}

# One row.
LIVE: Final = """
SELECT cache.live AS generation, cache.shape, cache.analyzer, made.made_at, cache.since AS live_since,
    extract(epoch FROM clock_timestamp() - cache.since)::float AS live_seconds
FROM cache_generation AS cache LEFT JOIN generations AS made ON made.generation = cache.live
"""

_log = structlog.get_logger()


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds a NUL character")
    return text


Rate = Annotated[int, Field(ge=1, le=LARGEST_RATE)]


class RebuildRequest(BaseModel):
    """What is to be done."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = Field(Kind.REBUILD, description="A new generation from the topic, or back to the previous one.")
    force: bool = Field(default=False, description="Swap even if parity speaks against it. It is logged.")
    rows_per_second: Rate | None = Field(None, description="Throttle of loading; null is none.")
    reason: Annotated[str, AfterValidator(_storable)] = Field("", max_length=1_000, description="Why, for the record.")


class Throttle(BaseModel):
    """Another throttle for a job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows_per_second: Rate | None = Field(description="Of loading, over all readers; null takes it away.")


class RebuildView(BaseModel):
    """A job, and how far it has come."""

    model_config = ConfigDict(from_attributes=True)

    job_id: UUID
    kind: Kind
    phase: Phase
    wish: Wish = Field(description="What was asked of it last; the worker hears it within a second or two.")
    attended: bool = Field(description="Whether a worker has it now.")
    percent: float | None = Field(description="Of the whole job; null when it ended without a swap.")
    eta_seconds: float | None = Field(description="Until the swap, by the average so far; null when it cannot be told.")
    seconds_in_phase: float
    seconds: float = Field(description="Since a worker took it up first, pauses included.")
    partitions: int
    partitions_loaded: int
    records: int = Field(description="Read from the topic.")
    rows: int = Field(description="Loaded: the newest state of each file, deletions too.")
    refused: int = Field(description="Keys whose newest record is bad; their newest good one is loaded.")
    records_per_second: float | None = Field(description="While loading, on average.")
    behind: int | None = Field(description="While catching up: offsets that the live generation is ahead.")
    trouble: str | None = Field(description="What stands in its way, or why it ended without a swap.")
    parity: dict[str, Any] | None = Field(description="What the comparison with the live generation found.")
    generation: int | None = Field(description="The one that it fills or catches up.")
    starts: int = Field(description="How often a worker took it up.")
    force: bool
    rows_per_second: int | None = Field(description="Throttle of loading.")
    requested_by: str
    reason: str
    requested_at: datetime
    started_at: datetime | None
    phase_since: datetime
    finished_at: datetime | None


class GenerationView(BaseModel):
    """A generation of the cache."""

    generation: int
    shape: int
    analyzer: int
    is_current: bool = Field(description="Whether this program writes that shape; if not, a rebuild is due.")
    made_at: datetime | None = Field(description="When it was begun to be filled.")


class LiveView(GenerationView):
    """The one that search answers from."""

    live_since: datetime
    live_seconds: float


class PreviousView(GenerationView):
    """The one that was live before, kept for a rollback."""

    retired_at: datetime
    retired_seconds: float = Field(description="It expires REBUILD_KEEP_HOURS after the swap.")


class Overview(BaseModel):
    """The generations, and the newest jobs first."""

    live: LiveView | None = Field(description="Null before the first migration.")
    previous: PreviousView | None
    under_way: RebuildView | None
    jobs: list[RebuildView]


class Purged(BaseModel):
    """Generations that were removed; none when there was none."""

    generations: list[int]


def rebuild_router(pool: asyncpg.Pool) -> APIRouter:
    """Routes under /api/v1/admin/rebuild."""
    router = APIRouter(prefix=PREFIX, tags=["rebuild"], route_class=Guarded)

    async def view(job: Job) -> RebuildView:
        return _view(job, *await progress(pool, job))

    @router.post("", status_code=202, responses=_CONFLICT)
    @needs(Scope.SYNC)
    async def start(wanted: RebuildRequest, actor: Actor, response: Response) -> RebuildView:
        """Ask for a rebuild, or a rollback. Search goes on from the live generation until the swap.

        409 when another one is under way, or when there is nothing that could be rolled back to.
        """
        if wanted.kind is Kind.ROLLBACK:
            await previous_generation.require(pool)
        job = await rebuild_jobs.request(
            pool,
            wanted.kind,
            requested_by=actor,
            reason=wanted.reason,
            force=wanted.force,
            rows_per_second=wanted.rows_per_second,
        )
        _log.info(
            "rebuild requested", job=str(job.job_id), kind=job.kind, force=job.force, actor=actor, reason=job.reason
        )
        response.headers["Location"] = f"{PREFIX}/{job.job_id}"
        return await view(job)

    @router.get("", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def overview(limit: Annotated[int, Query(ge=1, le=100, description="Jobs at most.")] = 10) -> Overview:
        """The live and the previous generation, the job under way, and the newest jobs."""
        under_way = await rebuild_jobs.under_way(pool)
        return Overview(
            live=await _live(pool),
            previous=await _previous(pool),
            under_way=under_way and await view(under_way),
            jobs=[await view(job) for job in await rebuild_jobs.newest(pool, limit)],
        )

    @router.delete("/previous", responses=_CONFLICT)
    @needs(Scope.SYNC)
    async def purge(actor: Actor) -> Purged:
        """Remove the previous generation. There is no way back to it then.

        409 while a rollback to it is under way.
        """
        removed = await previous_generation.purge(pool)
        _log.info("previous generation purged", generations=removed, actor=actor)
        return Purged(generations=removed)

    @router.get("/{job_id}", responses=_MISSING)
    @needs(Scope.SYNC)
    async def one(job_id: UUID) -> RebuildView:
        """A job, and how far it has come."""
        return await view(await rebuild_jobs.get(pool, job_id))

    @router.patch("/{job_id}", responses=_MISSING | _CONFLICT)
    @needs(Scope.SYNC)
    async def throttle(job_id: UUID, wanted: Throttle) -> RebuildView:
        """Change a job's throttle; it is heeded within a chunk."""
        return await view(await rebuild_jobs.wish(pool, job_id, throttle=wanted.rows_per_second, set_throttle=True))

    @router.post("/{job_id}/pause", status_code=202, responses=_MISSING | _CONFLICT)
    @needs(Scope.SYNC)
    async def pause(job_id: UUID, actor: Actor) -> RebuildView:
        """Have a job stop where it is, for as long as you like. What it has loaded stays."""
        return await view(await _wish(pool, job_id, Wish.PAUSE, actor))

    @router.post("/{job_id}/resume", status_code=202, responses=_MISSING | _CONFLICT)
    @needs(Scope.SYNC)
    async def resume(job_id: UUID, actor: Actor) -> RebuildView:
        """Have a job go on from where it is."""
        return await view(await _wish(pool, job_id, Wish.RUN, actor))

    @router.post("/{job_id}/cancel", status_code=202, responses=_MISSING | _CONFLICT)
    @needs(Scope.SYNC)
    async def cancel(job_id: UUID, actor: Actor) -> RebuildView:
        """Have a job end and what it has made removed. It ends once a worker has heard it."""
        return await view(await _wish(pool, job_id, Wish.CANCEL, actor))

    return router


async def _wish(pool: asyncpg.Pool, job_id: UUID, wished: Wish, actor: str) -> Job:
    """Change what is wished of a job.

    Raises:
        NoSuchRebuildError: there is none of this id.
        RebuildEndedError: it is over, or about to be.
    """
    job = await rebuild_jobs.get(pool, job_id)
    if job.wish is Wish.CANCEL and job.finished_at is None and wished is not Wish.CANCEL:
        raise RebuildEndedError(f"The rebuild {job_id} is being cancelled.")
    job = await rebuild_jobs.wish(pool, job_id, wished)
    _log.info("rebuild told", job=str(job_id), wish=wished, actor=actor)
    return job


async def _live(pool: asyncpg.Pool) -> LiveView | None:
    row = await pool.fetchrow(LIVE)
    return None if row is None else LiveView(**row, is_current=(row["shape"], row["analyzer"]) == (SHAPE, ANALYZER))


async def _previous(pool: asyncpg.Pool) -> PreviousView | None:
    found: Generation | None = await generations.previous(pool)
    if found is None or found.retired_at is None:
        return None
    now: datetime = await pool.fetchval(NOW)
    return PreviousView(
        generation=found.generation,
        shape=found.shape,
        analyzer=found.analyzer,
        is_current=found.is_ours,
        made_at=found.made_at,
        retired_at=found.retired_at,
        retired_seconds=max(0.0, (now - found.retired_at).total_seconds()),
    )


def _view(job: Job, loaded: Loaded, come: Progress) -> RebuildView:
    # `seconds` of both are meant differently; that of the whole job is told.
    return RebuildView.model_validate(asdict(loaded) | asdict(come) | vars(job))
