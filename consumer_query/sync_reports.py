"""A comparison is a row before it is work: one at a time, and whoever finds it without a worker begins it anew.

A worker holds it by a token of its own and a lease by the database's clock; what it writes down checks the token.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final
from uuid import UUID, uuid4

import asyncpg

from consumer_query.errors import QueryError
from consumer_query.findings import Findings, Outcome

LEASE: Final = timedelta(seconds=15)
"""Renewed three times as often."""
KEEP: Final = timedelta(days=30)
MOST_STARTS: Final = 5
"""Workers that may die of it before it is given up."""


class Compared(StrEnum):
    """What is compared with the Admin module."""

    CACHE = "cache"
    TOPIC = "topic"


class SyncRunsError(QueryError):
    """There is one already."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "A comparison is under way"


class NoSuchReportError(QueryError):
    """There is no such report, or it has been pruned."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Report not found"


class ReportLostError(QueryError):
    """Another worker has this one now."""


@dataclass(frozen=True)
class Report:
    """A comparison as its row says."""

    report_id: UUID
    side: Compared
    dry_run: bool
    force: bool
    requested_by: str
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    starts: int
    stage: str
    """What is being done, for people."""
    outcome: Outcome | None
    """None while it has not ended."""
    trouble: str | None
    """Why it failed."""
    findings: Findings | None
    attended: bool
    """Whether a worker has it now."""


_COLUMNS: Final = """
report_id, side, dry_run, force, requested_by, requested_at, started_at, finished_at, starts, stage, outcome, trouble,
findings, coalesce(leased_until > clock_timestamp(), false) AS attended
"""
# All but the lists go by the primary key or by the index of the one that has not ended.
REQUEST: Final = f"""
INSERT INTO sync_reports (report_id, side, dry_run, force, requested_by) VALUES ($1, $2, $3, $4, $5)
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
REQUEST_DUE: Final = """
INSERT INTO sync_reports (report_id, side, dry_run, force, requested_by)
SELECT $1, 'cache', false, false, $2
WHERE NOT EXISTS (
    SELECT FROM sync_reports
    WHERE side = 'cache' AND NOT dry_run AND requested_at > clock_timestamp() - $3::interval
)
ON CONFLICT DO NOTHING
"""
GET: Final = f"SELECT {_COLUMNS} FROM sync_reports WHERE report_id = $1"  # noqa: S608 - constants
NEWEST: Final = f"SELECT {_COLUMNS} FROM sync_reports ORDER BY requested_at DESC LIMIT $1"  # noqa: S608 - constants
LAST_FINDINGS: Final = """
SELECT findings FROM sync_reports
WHERE finished_at IS NOT NULL AND side = 'cache' AND NOT dry_run AND outcome <> 'failed'
ORDER BY requested_at DESC LIMIT 1
"""
CLAIM: Final = f"""
UPDATE sync_reports
SET owner = $1, leased_until = clock_timestamp() + $2::interval, starts = starts + 1, stage = 'started',
    started_at = coalesce(started_at, clock_timestamp())
WHERE finished_at IS NULL AND coalesce(leased_until < clock_timestamp(), true)
RETURNING {_COLUMNS}
"""  # noqa: S608 - constants
RENEW: Final = """
UPDATE sync_reports SET leased_until = clock_timestamp() + $3::interval, stage = $4
WHERE report_id = $1 AND owner = $2 AND finished_at IS NULL
"""
LET_GO: Final = """
UPDATE sync_reports SET leased_until = NULL, owner = NULL, stage = 'queued', starts = starts - 1
WHERE report_id = $1 AND owner = $2 AND finished_at IS NULL
"""
FINISH: Final = """
UPDATE sync_reports
SET finished_at = clock_timestamp(), stage = 'ended', outcome = $3, trouble = $4, findings = $5::jsonb,
    leased_until = NULL
WHERE report_id = $1 AND owner = $2 AND finished_at IS NULL
"""
PRUNE: Final = (
    "DELETE FROM sync_reports WHERE requested_at < clock_timestamp() - $1::interval AND finished_at IS NOT NULL"
)


async def request(pool: asyncpg.Pool, side: Compared, actor: str, *, dry_run: bool, force: bool = False) -> Report:
    """Ask for a comparison; a worker takes it up within a second or two.

    Raises:
        SyncRunsError: another one has not ended.
    """
    try:
        return _report(await pool.fetchrow(REQUEST, uuid4(), side, dry_run, force, actor))
    except asyncpg.UniqueViolationError as error:
        raise SyncRunsError("Another comparison has not ended: see /api/v1/admin/sync/reports.") from error


async def request_due(pool: asyncpg.Pool, actor: str, interval: timedelta) -> bool:
    """Ask for one of the cache, unless one was asked for within `interval` or is under way: whether it did."""
    status: str = await pool.execute(REQUEST_DUE, uuid4(), actor, interval)
    return status == "INSERT 0 1"


async def get(pool: asyncpg.Pool, report_id: UUID) -> Report:
    """One report.

    Raises:
        NoSuchReportError: there is none of this id.
    """
    row = await pool.fetchrow(GET, report_id)
    if row is None:
        raise NoSuchReportError(f"There is no report {report_id}.")
    return _report(row)


async def newest(pool: asyncpg.Pool, most: int) -> list[Report]:
    """The newest reports first."""
    return [_report(row) for row in await pool.fetch(NEWEST, most)]


async def last_findings(pool: asyncpg.Pool) -> Findings | None:
    """Of the last run that was to repair the cache and did not fail."""
    found = await pool.fetchval(LAST_FINDINGS)
    return None if found is None else Findings.model_validate_json(found)


async def claim(pool: asyncpg.Pool) -> tuple[Report, UUID] | None:
    """Take up what waits for a worker, with a new token; None when nothing does."""
    token = uuid4()
    row = await pool.fetchrow(CLAIM, token, LEASE)
    return None if row is None else (_report(row), token)


async def renew(pool: asyncpg.Pool, report_id: UUID, token: UUID, stage: str) -> None:
    """Keep the lease, and note what is being done.

    Raises:
        ReportLostError: another worker has it.
    """
    if await pool.execute(RENEW, report_id, token, LEASE, stage) != "UPDATE 1":
        raise ReportLostError(f"Another worker has taken up the comparison {report_id}.")


async def let_go(pool: asyncpg.Pool, report_id: UUID, token: UUID) -> None:
    """Give it back, so that the next worker need not wait for the lease to end."""
    await pool.execute(LET_GO, report_id, token)


async def finish(
    pool: asyncpg.Pool, report_id: UUID, token: UUID, outcome: Outcome, trouble: str | None, findings: Findings
) -> None:
    """Note how it ended, and forget reports that are older than KEEP.

    Raises:
        ReportLostError: another worker has it.
    """
    status = await pool.execute(FINISH, report_id, token, outcome, trouble, findings.model_dump_json())
    if status != "UPDATE 1":
        raise ReportLostError(f"Another worker has taken up the comparison {report_id}.")
    await pool.execute(PRUNE, KEEP)


def _report(row: asyncpg.Record | None) -> Report:
    assert row is not None  # noqa: S101 - of RETURNING, or looked at before
    values: dict[str, Any] = dict(row)
    values["side"] = Compared(row["side"])
    values["outcome"] = row["outcome"] and Outcome(row["outcome"])
    values["findings"] = row["findings"] and Findings.model_validate_json(row["findings"])
    return Report(**values)
