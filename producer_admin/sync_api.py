"""The Admin side of comparing: digests of ranges of files, what is known of single ones. Nothing is changed."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import sync
from runtime.auth import Guarded, Scope, needs
from runtime.http import PROBLEM_RESPONSE
from schemas.sync_views import DigestsAnswer, DigestsAsked, FilesAnswer, FilesAsked, SumView, SyncFile

AT_ONCE: Final = 2
"""Answers in work in this process; each may take a core of the database. The others wait."""
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {422: PROBLEM_RESPONSE, 503: PROBLEM_RESPONSE}


def sync_router(engine: AsyncEngine) -> APIRouter:
    """Routes under /api/v1/admin/sync."""
    router = APIRouter(prefix="/api/v1/admin/sync", tags=["compare"], route_class=Guarded)
    room = asyncio.Semaphore(AT_ONCE)

    @router.post("/digests", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def digests(asked: DigestsAsked) -> DigestsAnswer:
        """Of each piece of each range: how many files exist there, and the sum of their digests."""
        async with room:
            probe, found = await sync.sums(engine, [one.span() for one in asked.spans])
        return DigestsAnswer(probe=str(probe), spans=[[SumView.of(one) for one in pieces] for pieces in found])

    @router.post("/files", responses=_PROBLEMS)
    @needs(Scope.SYNC)
    async def files(asked: FilesAsked) -> FilesAnswer:
        """Files that exist in ranges, at most 5000 in one answer; or any files by their ids, as they are known."""
        async with room:
            if asked.ranges is not None:
                found = await sync.listing(engine, [one.range() for one in asked.ranges])
            else:
                found = await sync.states(engine, asked.file_ids or [])
        return FilesAnswer(probe=str(found.probe), files=[_view(one) for one in found.files], upto=found.upto)

    return router


def _view(known: sync.Known) -> SyncFile:
    return SyncFile(
        file_id=known.file_id,
        revision=known.revision,
        deleted=known.deleted,
        digest=None if known.digest is None else str(known.digest),
        waiting=known.waiting,
        partition=known.partition,
    )
