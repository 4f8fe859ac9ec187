"""A job that is asked for is worked on by one worker until it ends, whichever worker that is.

The lease is renewed and the operator is heard beside the work. What passes is tried again and told meanwhile; a worker
that is told to stop gives its job back, and one that has lost it touches nothing more.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from consumer_query import generations, rebuild_jobs
from consumer_query.lanes import SystemicFaultError
from consumer_query.rebuild import CannotRebuildError, Rebuilder
from consumer_query.rebuild_jobs import ENDS, Job, JobLostError, Loaded, Phase, Wish
from runtime.health import Condition
from runtime.postgres import AWAY
from runtime.retries import backoff, pause

LOOK_SECONDS: Final = 1.0
"""Between looks for a job, and for what is wished of the one in hand."""
TIDY_SECONDS: Final = 60.0
LONGEST_BACKOFF_SECONDS: Final = 30.0

_log = structlog.get_logger()


class RebuildWorker:
    """Works on the jobs that are asked for, one at a time.

    Args:
        rebuilder: knows how
        pool: of the Query database; one connection is needed
        keep: how long a generation that is not live any more is kept
        told: called with a job each second that it is worked on, and when it ends
    """

    def __init__(
        self,
        rebuilder: Rebuilder,
        pool: asyncpg.Pool,
        keep: timedelta,
        told: Callable[[Job, Loaded], None] = lambda _job, _loaded: None,
    ) -> None:
        self._rebuilder = rebuilder
        self._pool = pool
        self._keep = keep
        self._told = told

    async def run(self, stopping: asyncio.Event) -> None:
        """Take up jobs until `stopping`; then give back the one in hand, for the next worker to go on with."""
        waits = backoff(LONGEST_BACKOFF_SECONDS)
        tidy_at = 0.0
        looking = Condition()
        while not stopping.is_set():
            try:
                if _now() >= tidy_at:
                    await self._tidy()
                    tidy_at = _now() + TIDY_SECONDS
                claimed = await rebuild_jobs.claim(self._pool)
                if claimed is not None:
                    await self._attend(*claimed, stopping)
                waits = backoff(LONGEST_BACKOFF_SECONDS)
                looking.met()
            except Exception as error:  # noqa: BLE001 - whatever it is, the job stays and is taken up again
                reason = f"{type(error).__name__}: {error}"
                if looking.unmet(reason):
                    _log.warning("no look at rebuild jobs", error=reason)
                await pause(next(waits), stopping)
            await pause(LOOK_SECONDS, stopping)

    async def _tidy(self) -> None:
        for generation in await generations.drop_expired(self._pool, self._keep):
            _log.info("previous generation removed", generation=generation)

    async def _attend(self, job: Job, token: UUID, stopping: asyncio.Event) -> None:
        """Work on a job, renew its lease, and heed what is wished of it."""
        _log.info("rebuild taken up", job=str(job.job_id), kind=job.kind, phase=job.phase, starts=job.starts)
        work = asyncio.create_task(self._work(job, token))
        try:
            while not work.done() and not stopping.is_set() and job.wish is Wish.RUN:
                await asyncio.wait([work], timeout=LOOK_SECONDS)
                if work.done():
                    break
                try:
                    job = await rebuild_jobs.renew(self._pool, job.job_id, token)
                    self._told(job, await rebuild_jobs.loaded(self._pool, job.job_id))
                except (*AWAY, OSError) as error:
                    _log.debug("lease not renewed", error=str(error))  # the work itself says it
        except JobLostError as error:
            _log.warning("rebuild given up", error=str(error))
        finally:
            work.cancel()
            await asyncio.wait([work])
        if not work.cancelled() and (left := work.exception()) is not None:
            _log.warning("rebuild left", error=f"{type(left).__name__}: {left}")
        if job.wish is Wish.CANCEL and work.cancelled():
            try:
                await self._rebuilder.end(job, token, Phase.CANCELLED, None)
            except JobLostError as error:
                _log.warning("too late to cancel", error=str(error))
        await rebuild_jobs.let_go(self._pool, job.job_id, token)
        self._told(await rebuild_jobs.get(self._pool, job.job_id), await rebuild_jobs.loaded(self._pool, job.job_id))

    async def _work(self, job: Job, token: UUID) -> None:
        """Go through the phases; what passes is tried again, and told meanwhile.

        Raises:
            JobLostError: another worker has it.
        """
        waits = backoff(LONGEST_BACKOFF_SECONDS)
        while job.phase not in ENDS:
            try:
                await self._rebuilder.step(job, token)
                waits = backoff(LONGEST_BACKOFF_SECONDS)
            except (SystemicFaultError, CannotRebuildError) as error:
                _log.error("rebuild failed", job=str(job.job_id), phase=job.phase, error=str(error))
                await self._rebuilder.end(job, token, Phase.FAILED, str(error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the job stays and is tried again
                trouble = f"{type(error).__name__}: {error}"
                _log.warning("rebuild held up, trying again", job=str(job.job_id), phase=job.phase, error=trouble)
                try:
                    await rebuild_jobs.tell(self._pool, job.job_id, token, trouble)
                except (*AWAY, OSError, asyncpg.PostgresError):
                    pass  # told in the log; the database is what is away
                await asyncio.sleep(next(waits))
            job = await self._heard(job, token)
            _log.info("rebuild", job=str(job.job_id), phase=job.phase, generation=job.generation)

    async def _heard(self, job: Job, token: UUID) -> Job:
        """The job as its row says now.

        Raises:
            JobLostError: another worker has it.
        """
        waits = backoff(LONGEST_BACKOFF_SECONDS)
        while True:
            try:
                now = await rebuild_jobs.get(self._pool, job.job_id)
                return now if now.phase in ENDS else await rebuild_jobs.renew(self._pool, job.job_id, token)
            except (*AWAY, OSError, asyncpg.PostgresError) as error:
                _log.warning("rebuild held up by the database", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(next(waits))


def _now() -> float:
    return asyncio.get_running_loop().time()
