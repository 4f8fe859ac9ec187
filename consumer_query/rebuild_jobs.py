"""A rebuild is a row before it is work: one at a time, and whoever finds it without a worker goes on where it stands.

A worker holds a job by a token of its own and a lease by the database's clock. Each step that it writes down checks the
token, so a worker that was frozen past its lease can change nothing any more.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import orjson

from consumer_query.errors import QueryError
from runtime.postgres import Connection

LEASE: Final = timedelta(seconds=30)
"""Renewed three times as often. A worker that died is replaced after it."""


class Kind(StrEnum):
    """What a job makes live."""

    REBUILD = "rebuild"
    """A new generation, from the topic."""
    ROLLBACK = "rollback"
    """The previous generation, caught up."""


class Phase(StrEnum):
    """How far a job has come. The last four end it."""

    QUEUED = "queued"
    LOADING = "loading"
    """Reads the newest record of each file and writes it into a table without indexes."""
    INDEXING = "indexing"
    CATCHING_UP = "catching_up"
    """Applies what came to the topic since, as a projector does."""
    VERIFYING = "verifying"
    """Compares with the live generation at equal positions."""
    SWAPPING = "swapping"
    SWAPPED = "swapped"
    REFUSED = "refused"
    """Parity speaks against it."""
    CANCELLED = "cancelled"
    FAILED = "failed"


ENDS: Final = (Phase.SWAPPED, Phase.REFUSED, Phase.CANCELLED, Phase.FAILED)


class Wish(StrEnum):
    """What the operator wants of a job."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


class RebuildRunsError(QueryError):
    """There is one already, and two at once would only take each other's time."""

    status = 409
    title = "A rebuild is under way"


class NoSuchRebuildError(QueryError):
    """There is no such job."""

    status = 404
    title = "No such rebuild"


class RebuildEndedError(QueryError):
    """The job has ended; there is nothing to pause, resume or cancel."""

    status = 409
    title = "This rebuild has ended"


class JobLostError(QueryError):
    """Another worker has this job now."""


@dataclass(frozen=True)
class Job:
    """A rebuild as its row says."""

    job_id: UUID
    kind: Kind
    phase: Phase
    wish: Wish
    force: bool
    rows_per_second: int | None
    requested_by: str
    reason: str
    requested_at: datetime
    started_at: datetime | None
    phase_since: datetime
    finished_at: datetime | None
    generation: int | None
    starts: int
    trouble: str | None
    """What stands in its way, or why it ended without a swap."""
    parity: dict[str, Any] | None
    attended: bool
    """Whether a worker has it now."""

    @property
    def made(self) -> int:
        """The generation that it fills or catches up; there is one from the phase after `queued` on."""
        assert self.generation is not None  # noqa: S101 - see above
        return self.generation


@dataclass(frozen=True)
class Loaded:
    """How far loading has come, over all partitions. Offsets have gaps, so it is a share of the log, not of records."""

    partitions: int
    partitions_loaded: int
    offsets: int
    offsets_done: int
    records: int
    rows: int
    refused: int
    """Keys whose newest record is bad."""
    seconds: float
    """Since the first partition was begun, until the last was loaded or now."""


# All but the list go by the primary key or by the index of the one unfinished job.
REQUEST: Final = """
INSERT INTO rebuild_jobs (job_id, kind, phase, force, rows_per_second, requested_by, reason)
VALUES ($1, $2, 'queued', $3, $4, $5, $6)
RETURNING *, false AS attended
"""
GET: Final = "SELECT *, leased_until > clock_timestamp() AS attended FROM rebuild_jobs WHERE job_id = $1"
NEWEST: Final = """
SELECT *, leased_until > clock_timestamp() AS attended FROM rebuild_jobs ORDER BY requested_at DESC LIMIT $1
"""
UNDER_WAY: Final = """
SELECT *, leased_until > clock_timestamp() AS attended FROM rebuild_jobs WHERE finished_at IS NULL
"""
WISH: Final = """
UPDATE rebuild_jobs SET wish = coalesce($2, wish),
    rows_per_second = CASE WHEN $3 THEN $4 ELSE rows_per_second END
WHERE job_id = $1 AND finished_at IS NULL AND (wish <> 'cancel' OR coalesce($2, 'cancel') = 'cancel')
RETURNING *, leased_until > clock_timestamp() AS attended
"""
CLAIM: Final = """
UPDATE rebuild_jobs
SET owner = $1, leased_until = clock_timestamp() + $2::interval, starts = starts + 1,
    started_at = coalesce(started_at, clock_timestamp())
WHERE finished_at IS NULL AND (leased_until IS NULL OR leased_until < clock_timestamp()) AND wish <> 'pause'
RETURNING *, true AS attended
"""
RENEW: Final = """
UPDATE rebuild_jobs SET leased_until = clock_timestamp() + $3::interval
WHERE job_id = $1 AND owner = $2 AND finished_at IS NULL
RETURNING *, true AS attended
"""
LET_GO: Final = "UPDATE rebuild_jobs SET leased_until = NULL, owner = NULL WHERE job_id = $1 AND owner = $2"
TELL: Final = "UPDATE rebuild_jobs SET trouble = $3 WHERE job_id = $1 AND owner = $2"
ADVANCE: Final = """
UPDATE rebuild_jobs
SET phase = $3, phase_since = clock_timestamp(), generation = coalesce($4, generation),
    parity = coalesce($5::jsonb, parity), trouble = $6,
    finished_at = CASE WHEN $7 THEN clock_timestamp() END
WHERE job_id = $1 AND owner = $2 AND finished_at IS NULL
"""
LOADED: Final = """
SELECT count(*) AS partitions, count(loaded_at) AS partitions_loaded,
    coalesce(sum(target_offset - first_offset), 0)::bigint AS offsets,
    coalesce(sum(next_offset - first_offset), 0)::bigint AS offsets_done,
    coalesce(sum(records), 0)::bigint AS records, coalesce(sum(rows), 0)::bigint AS rows,
    coalesce(sum(cardinality(refused)), 0)::bigint AS refused,
    coalesce(extract(epoch FROM CASE WHEN count(*) = count(loaded_at) THEN max(loaded_at) ELSE clock_timestamp() END
        - min(begun_at)), 0)::float AS seconds
FROM rebuild_partitions WHERE job_id = $1
"""


async def request(
    pool: asyncpg.Pool,
    kind: Kind,
    *,
    requested_by: str,
    reason: str,
    force: bool = False,
    rows_per_second: int | None = None,
) -> Job:
    """Ask for a job; a worker takes it up within a second or two.

    Raises:
        RebuildRunsError: another one has not ended.
    """
    try:
        row = await pool.fetchrow(REQUEST, uuid4(), kind, force, rows_per_second, requested_by, reason)
    except asyncpg.UniqueViolationError as error:
        raise RebuildRunsError("Another rebuild has not ended. Wait for it or cancel it.") from error
    return _job(row)


async def get(pool: asyncpg.Pool, job_id: UUID) -> Job:
    """One job.

    Raises:
        NoSuchRebuildError: there is none of this id.
    """
    row = await pool.fetchrow(GET, job_id)
    if row is None:
        raise NoSuchRebuildError(f"There is no rebuild {job_id}.")
    return _job(row)


async def newest(pool: asyncpg.Pool, most: int) -> list[Job]:
    """The newest jobs first."""
    return [_job(row) for row in await pool.fetch(NEWEST, most)]


async def under_way(pool: asyncpg.Pool) -> Job | None:
    """The one that has not ended, if any."""
    row = await pool.fetchrow(UNDER_WAY)
    return None if row is None else _job(row)


async def wish(
    pool: asyncpg.Pool,
    job_id: UUID,
    wished: Wish | None = None,
    *,
    throttle: int | None = None,
    set_throttle: bool = False,
) -> Job:
    """Pause, resume or cancel a job, or change its throttle (rows a second; None takes it away).

    Raises:
        NoSuchRebuildError: there is none of this id.
        RebuildEndedError: it is over, or is being cancelled, which cannot be taken back.
    """
    row = await pool.fetchrow(WISH, job_id, wished, set_throttle, throttle)
    if row is None:
        found = await get(pool, job_id)
        what = "is being cancelled" if found.finished_at is None else f"ended as {found.phase}"
        raise RebuildEndedError(f"The rebuild {job_id} {what}.")
    return _job(row)


async def loaded(pool: asyncpg.Pool, job_id: UUID) -> Loaded:
    """How far a job's loading has come."""
    row = await pool.fetchrow(LOADED, job_id)
    assert row is not None  # noqa: S101 - an aggregate
    return Loaded(**row)


async def claim(pool: asyncpg.Pool) -> tuple[Job, UUID] | None:
    """Take up the job that waits for a worker, with a new token; None when there is none."""
    token = uuid4()
    row = await pool.fetchrow(CLAIM, token, LEASE)
    return None if row is None else (_job(row), token)


async def renew(pool: asyncpg.Pool, job_id: UUID, token: UUID) -> Job:
    """Keep the lease, and hear what is wished.

    Raises:
        JobLostError: another worker has it.
    """
    row = await pool.fetchrow(RENEW, job_id, token, LEASE)
    if row is None:
        raise JobLostError(f"Another worker has taken up the rebuild {job_id}.")
    return _job(row)


async def let_go(pool: asyncpg.Pool, job_id: UUID, token: UUID) -> None:
    """Give a job back, so that the next worker need not wait for the lease to end."""
    await pool.execute(LET_GO, job_id, token)


async def tell(pool: asyncpg.Pool, job_id: UUID, token: UUID, trouble: str | None) -> None:
    """Note what stands in the way, or that nothing does any more."""
    await pool.execute(TELL, job_id, token, trouble)


async def advance(
    connection: Connection,
    job: Job,
    token: UUID,
    phase: Phase,
    *,
    generation: int | None = None,
    parity: dict[str, Any] | None = None,
    trouble: str | None = None,
) -> None:
    """Note that a job has come to a phase, within the caller's transaction, if any.

    Args:
        connection: of the Query database
        job: the job
        token: of the worker that has it
        phase: where it is now
        generation: the one that it works on from now on; None: the same as before
        parity: what a comparison found
        trouble: why it ended without a swap

    Raises:
        JobLostError: another worker has it; the caller's transaction must not commit.
    """
    status = await connection.execute(
        ADVANCE,
        job.job_id,
        token,
        phase,
        generation,
        None if parity is None else orjson.dumps(parity).decode(),
        trouble,
        phase in ENDS,
    )
    if status != "UPDATE 1":
        raise JobLostError(f"Another worker has taken up the rebuild {job.job_id}.")


def _job(row: asyncpg.Record | None) -> Job:
    assert row is not None  # noqa: S101 - RETURNING of the row that was inserted
    values = dict(row)
    del values["owner"], values["leased_until"]
    values["kind"], values["phase"], values["wish"] = Kind(row["kind"]), Phase(row["phase"]), Wish(row["wish"])
    values["parity"] = None if row["parity"] is None else orjson.loads(row["parity"])
    values["attended"] = row["finished_at"] is None and bool(row["attended"])
    return Job(**values)
