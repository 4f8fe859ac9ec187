"""What has outlived its time goes: files whose retention is over, old answers, the log of sagas that ended long ago.

A file goes as any deletion does, through its saga, and only if it is still expired under its row's lock: a retention
that is prolonged in the last moment holds. Every Admin API process sweeps; what another has just done is passed over.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import text

from producer_admin import files
from producer_admin.errors import FileNotFoundInAdminError, NotExpiredError
from producer_admin.metrics import FILES_EXPIRED
from producer_admin.saga import DELETE, run_saga
from producer_admin.saga_steps import Means, Work
from runtime.engine import AWAY
from runtime.retries import pause

ACTOR: Final = "retention"
AT_ONCE: Final = 100
PURGE_ROWS: Final = 5_000

# Those without an answer belong to a saga that is under way, which frees them itself.
PURGE_KEYS: Final = text(
    """
    DELETE FROM idempotency_keys WHERE key IN (
        SELECT key FROM idempotency_keys
        WHERE created_at < now() - make_interval(hours => :hours) AND answer IS NOT NULL
        ORDER BY created_at LIMIT :rows
    )
    """
)
# Walks sagas_newest from its far end.
PURGE_SAGAS: Final = text(
    """
    DELETE FROM sagas WHERE saga_id IN (
        SELECT saga_id FROM sagas
        WHERE started_at < now() - make_interval(days => :days) AND state IN ('done', 'compensated')
        ORDER BY started_at, saga_id DESC LIMIT :rows
    )
    """
)
_log = structlog.get_logger()


@dataclass(frozen=True)
class Keeping:
    """How long things are kept."""

    sweep_seconds: int
    """Between sweeps; an expired file is found by search for as long at most."""
    answer_hours: int
    """A retry under an Idempotency-Key later than this is a new request."""
    saga_days: int
    """Sagas that ended."""


async def sweep(means: Means, keeping: Keeping) -> int:
    """Sweep once. Returns how many files were deleted."""
    deleted, before = 0, -1
    while deleted > before:
        before = deleted
        async with means.alone() as connection:
            expired = await files.expired(connection, AT_ONCE)
        for file_id in expired:
            try:
                await run_saga(DELETE, means, Work(file_id=file_id, actor=ACTOR, only_expired=True))
            except (FileNotFoundInAdminError, NotExpiredError):
                continue
            deleted += 1
            FILES_EXPIRED.inc()
    if deleted:
        _log.info("expired files deleted", files=deleted)
    async with means.alone() as connection:
        await connection.execute(PURGE_KEYS, {"hours": keeping.answer_hours, "rows": PURGE_ROWS})
        await connection.execute(PURGE_SAGAS, {"days": keeping.saga_days, "rows": PURGE_ROWS})
    return deleted


async def sweep_until(means: Means, keeping: Keeping, stopping: asyncio.Event) -> None:
    """Sweep again and again. While the database is away there is nothing to do but wait."""
    while not stopping.is_set():
        try:
            await sweep(means, keeping)
        except AWAY as error:
            _log.warning("nothing can be swept, trying again", error=str(error))
        await pause(keeping.sweep_seconds, stopping)
