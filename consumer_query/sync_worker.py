"""Comparisons that were asked for are made, one at a time, and one is asked for by itself each interval.

A worker that is told to stop gives back what it has in hand; one that died is replaced when its lease is over. Either
way the comparison begins anew: what had been repaired by then is simply no longer different.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

import asyncpg
import structlog
from aiokafka.errors import KafkaError

from consumer_query import doubts, sync_reports
from consumer_query.admin_client import AdminClient, AdminSide
from consumer_query.confirm import Patience
from consumer_query.errors import AdminAwayError, QueryError
from consumer_query.findings import Findings, Outcome
from consumer_query.full_sync import Order, Parties, full_sync
from consumer_query.generations import LIVE
from consumer_query.metrics import note_sync
from consumer_query.sides import CacheSide
from consumer_query.sync_reports import MOST_STARTS, Compared, Report, ReportLostError
from consumer_query.topic_side import TopicReader, compare_topic
from runtime.errors import StartError
from runtime.health import Condition
from runtime.postgres import AWAY
from runtime.retries import backoff, pause

ACTOR: Final = "schedule"
LOOK_SECONDS: Final = 1.0
FIRST_SECONDS: Final = 60.0
"""After the start of this process, before one is asked for by itself: whatever starts beside it is ready by then."""
LONGEST_BACKOFF_SECONDS: Final = 30.0
PAUSES: Final = (1.0, 4.0)
"""Seconds before another try, when something is away: what restarts is back by then."""

_log = structlog.get_logger()


class NotSetUpError(QueryError):
    """This process was not told what a comparison needs; the message names the setting."""


@dataclass
class _Run:
    """One comparison in hand."""

    report: Report
    token: UUID
    findings: Findings = field(default_factory=Findings)
    stage: str = "started"

    def tell(self, stage: str) -> None:
        self.stage = stage


class SyncWorker:
    """Makes comparisons.

    Args:
        pool: of the Query database; three connections are needed at once
        admin: None when it is not known where the Admin API is
        topic: of file events
        interval: between comparisons by itself; None is never
        patience: with what is on its way
        first_seconds: before the first by itself
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        admin: AdminClient | None,
        topic: TopicReader,
        interval: timedelta | None,
        patience: Patience | None = None,
        first_seconds: float = FIRST_SECONDS,
    ) -> None:
        self._pool = pool
        self._admin = admin
        self._topic = topic
        self._interval = interval
        self._patience = patience or Patience()
        self._first_seconds = first_seconds
        self._cache = CacheSide(pool, topic.topic)

    async def run(self, stopping: asyncio.Event) -> None:
        """Make comparisons until `stopping`."""
        if self._interval is not None and self._admin is None:
            _log.warning("the cache is not compared with the Admin module: ADMIN_API_URL is not set")
        waits = backoff(LONGEST_BACKOFF_SECONDS)
        due_at = _now() + self._first_seconds
        looking = Condition()
        while not stopping.is_set():
            try:
                claimed = await sync_reports.claim(self._pool)
                if claimed is not None:
                    await self._attend(_Run(*claimed), stopping)
                elif self._interval is not None and self._admin is not None and _now() >= due_at:
                    await sync_reports.request_due(self._pool, ACTOR, self._interval)
                    due_at = _now() + min(self._interval.total_seconds(), FIRST_SECONDS)
                waits = backoff(LONGEST_BACKOFF_SECONDS)
                looking.met()
            except Exception as error:  # noqa: BLE001 - whatever it is, the row stays and is taken up again
                reason = f"{type(error).__name__}: {error}"
                if looking.unmet(reason):
                    _log.warning("no look at comparisons", error=reason)
                await pause(next(waits), stopping)
            await pause(LOOK_SECONDS, stopping)

    async def _attend(self, run: _Run, stopping: asyncio.Event) -> None:
        """Make one, and keep its lease meanwhile."""
        report = run.report
        _log.info("comparison taken up", report=str(report.report_id), side=report.side, actor=report.requested_by)
        work = asyncio.create_task(self._work(run))
        try:
            while not work.done() and not stopping.is_set():
                await asyncio.wait([work], timeout=LOOK_SECONDS)
                try:
                    await sync_reports.renew(self._pool, report.report_id, run.token, run.stage)
                except (*AWAY, OSError) as error:
                    _log.debug("lease not renewed", error=str(error))  # the work itself says it
        except ReportLostError as error:
            _log.warning("comparison given up", error=str(error))
        finally:
            if not work.done():
                work.cancel()
            await asyncio.wait([work])
        if work.cancelled():
            await sync_reports.let_go(self._pool, report.report_id, run.token)
            return
        trouble = work.result()
        outcome = Outcome.FAILED if trouble is not None else run.findings.outcome
        await sync_reports.finish(self._pool, report.report_id, run.token, outcome, trouble, run.findings)
        ended = await sync_reports.get(self._pool, report.report_id)
        if (
            outcome in (Outcome.EQUAL, Outcome.REPAIRED)
            and report.side is Compared.CACHE
            and report.started_at is not None
        ):
            await doubts.dispel(self._pool, await self._pool.fetchval(LIVE), report.started_at)
        note_sync(ended)
        _tell(ended)

    async def _work(self, run: _Run) -> str | None:
        """Do it, again after faults that pass: why it failed, or None."""
        if run.report.starts > MOST_STARTS:
            return f"Given up: {MOST_STARTS} workers have died of it."
        trouble = ""
        for seconds in (*PAUSES, None):
            try:
                run.findings = Findings()
                await self._compare(run)
            except (QueryError, StartError) as error:
                trouble = str(error)
                if not isinstance(error, AdminAwayError):
                    return trouble
            except (*AWAY, OSError, KafkaError, asyncpg.QueryCanceledError) as error:
                trouble = f"{type(error).__name__}: {error}"
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told in the report
                _log.error("comparison failed", exc_info=error)
                return f"{type(error).__name__}: {error}"
            else:
                return None
            if seconds is not None:
                _log.warning("comparison begun anew", trouble=trouble)
                run.tell(f"beginning anew in a moment: {trouble}")
                await asyncio.sleep(seconds)
        return trouble

    async def _compare(self, run: _Run) -> None:
        if self._admin is None:
            raise NotSetUpError("Set ADMIN_API_URL: the maintenance process was not told where the Admin API is.")
        admin = AdminSide(self._admin, await self._cache.probe())
        if run.report.side is Compared.TOPIC:
            await compare_topic(self._pool, self._topic, admin, run.findings, run.tell, self._patience)
            return
        last = await sync_reports.last_findings(self._pool)
        order = Order(run.report.dry_run, run.report.force, last.in_vain if last is not None else None)
        if run.report.requested_by != ACTOR and not run.report.dry_run:
            # Whoever asks for it has perhaps mended what made a repair vain.
            order = Order(force=run.report.force)
        parties = Parties(self._cache, admin, self._admin, self._topic.ends, self._patience)
        await full_sync(parties, order, run.findings, run.tell)


def _tell(report: Report) -> None:
    findings = report.findings or Findings()
    bad = report.outcome in (Outcome.DIFFERENT, Outcome.FAILED, Outcome.UNCONFIRMED)
    (_log.warning if bad else _log.info)(
        "comparison ended",
        report=str(report.report_id),
        side=report.side,
        outcome=report.outcome,
        found=findings.found,
        left=findings.left,
        unconfirmed=findings.unconfirmed,
        trouble=report.trouble,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
