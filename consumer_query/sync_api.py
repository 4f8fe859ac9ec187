"""Comparisons with the Admin module over REST: ask for one, and read what it found. The work is the maintenance's."""

from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from consumer_query import sync_reports
from consumer_query.dead_letters_api import Actor
from consumer_query.findings import Findings, Outcome
from consumer_query.sync_reports import Compared, Report
from runtime.auth import Guarded, Scope, needs
from runtime.http import PROBLEM_RESPONSE

PREFIX: Final = "/api/v1/admin/sync"
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {422: PROBLEM_RESPONSE, 503: PROBLEM_RESPONSE}


class SyncRequest(BaseModel):
    """How to compare the cache with the Admin module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dry_run: bool = Field(default=False, description="Find differences, and repair none.")
    force: bool = Field(
        default=False,
        description="Delete even a great many files that the Admin module does not know. For good: an Admin module "
        "that was restored from a backup has merely forgotten them.",
    )


class ReportView(BaseModel):
    """A comparison: under way while outcome is null."""

    model_config = ConfigDict(from_attributes=True)

    report_id: UUID
    side: Compared = Field(description="What is compared with the Admin module.")
    dry_run: bool
    force: bool
    requested_by: str
    requested_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    stage: str = Field(description="What is being done, for people.")
    attended: bool = Field(description="Whether a maintenance process works on it now.")
    outcome: Outcome | None
    trouble: str | None = Field(description="Why it failed.")
    findings: Findings | None


class Reports(BaseModel):
    """Some reports, the newest first."""

    reports: list[ReportView]


def sync_router(pool: asyncpg.Pool) -> APIRouter:
    """Routes under /api/v1/admin/sync."""
    router = APIRouter(prefix=PREFIX, tags=["full sync"], route_class=Guarded)

    def accepted(report: Report, response: Response) -> ReportView:
        response.headers["Location"] = f"{PREFIX}/reports/{report.report_id}"
        return ReportView.model_validate(report)

    @router.post("/full", status_code=202, responses=_PROBLEMS | {409: PROBLEM_RESPONSE})
    @needs(Scope.SYNC)
    async def full(response: Response, actor: Actor, wanted: SyncRequest | None = None) -> ReportView:
        """Compare the cache with the Admin module, and have announced anew what is wrong. 409 while one is under way.

        A maintenance process takes it up within a second or two; the report is where Location says.
        """
        order = wanted or SyncRequest()
        report = await sync_reports.request(
            pool, Compared.CACHE, actor, dry_run=order.dry_run, force=order.force and not order.dry_run
        )
        return accepted(report, response)

    @router.post("/topic", status_code=202, responses=_PROBLEMS | {409: PROBLEM_RESPONSE})
    @needs(Scope.SYNC)
    async def topic(response: Response, actor: Actor) -> ReportView:
        """Read the topic, and compare what it says of every file with the Admin module. Repairs nothing."""
        return accepted(await sync_reports.request(pool, Compared.TOPIC, actor, dry_run=True), response)

    @router.get("/reports", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def newest(limit: Annotated[int, Query(ge=1, le=100)] = 20) -> Reports:
        """The newest reports, of comparisons under way too. They are kept for 30 days."""
        return Reports(reports=[ReportView.model_validate(one) for one in await sync_reports.newest(pool, limit)])

    @router.get("/reports/{report_id}", responses=_PROBLEMS | {404: PROBLEM_RESPONSE})
    @needs(Scope.SYNC)
    async def report(report_id: UUID) -> ReportView:
        """One report."""
        return ReportView.model_validate(await sync_reports.get(pool, report_id))

    return router
