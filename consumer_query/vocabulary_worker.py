"""The table of lexemes follows the cache: counted anew soon after a swap, when much has changed, and each interval.

Counting takes a twentieth of one core's time at most, whatever changes how often. What fails is tried again; meanwhile
searches go on from the old counts.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import structlog

from consumer_query import vocabulary
from consumer_query.generations import LIVE
from consumer_query.metrics import note_count
from consumer_query.vocabulary import Counted
from runtime.health import Condition
from runtime.postgres import NOW
from runtime.retries import backoff, pause

LOOK_SECONDS: Final = 5.0
LONGEST_BACKOFF_SECONDS: Final = 60.0
MUCH: Final = 10
"""One in so many files is worth counting for at once."""
REST: Final = 20
"""So many times as long as it took, before it is done again."""

_log = structlog.get_logger()


class VocabularyWorker:
    """Counts lexemes.

    Args:
        pool: of the Query database; one connection is needed
        interval: after which any change is worth counting; None is never to count
        look_seconds: between looks at what has changed
    """

    def __init__(self, pool: asyncpg.Pool, interval: timedelta | None, look_seconds: float = LOOK_SECONDS) -> None:
        self._pool = pool
        self._interval = interval
        self._look_seconds = look_seconds

    async def run(self, stopping: asyncio.Event) -> None:
        """Count when it is due, until `stopping`."""
        waits = backoff(LONGEST_BACKOFF_SECONDS)
        looking = Condition()
        while self._interval is not None and not stopping.is_set():
            try:
                await self._look(self._interval, stopping)
                waits = backoff(LONGEST_BACKOFF_SECONDS)
                looking.met()
            except Exception as error:  # noqa: BLE001 - whatever it is, the old counts stay and it is tried again
                reason = f"{type(error).__name__}: {error}"
                if looking.unmet(reason):
                    _log.warning("lexemes not counted", error=reason)
                await pause(next(waits), stopping)
            await pause(self._look_seconds, stopping)

    async def _look(self, interval: timedelta, stopping: asyncio.Event) -> None:
        live = await self._pool.fetchval(LIVE)
        last = await vocabulary.last_count(self._pool)
        changes = await vocabulary.changes_of(self._pool, live)
        now = await self._pool.fetchval(NOW)
        if last is not None:
            note_count(last)
        if not is_due(last, live, changes, now, interval):
            return
        counting = asyncio.create_task(vocabulary.refresh(self._pool, live))
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait((counting, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Told to stop: nothing is lost, whoever looks next counts anew.
            unfinished = counting.cancel()
            stop.cancel()
            await asyncio.wait((counting, stop))
        if unfinished:
            return
        if (counted := counting.result()) is not None:
            note_count(counted)
            _log.info("lexemes counted", generation=live, files=counted.files, seconds=round(counted.seconds, 1))


def is_due(last: Counted | None, live: int, changes: int, now: datetime, interval: timedelta) -> bool:
    """Whether to count now.

    Args:
        last: the last count, if there was one
        live: the live generation
        changes: rows of it that have been written by now
        now: by the clock of `last`
        interval: after which any change is worth it
    """
    if last is None or last.generation != live:
        return True
    age = now - last.counted_at
    if changes == last.changes or age < timedelta(seconds=last.seconds * REST):
        return False
    # Fewer than before: the statistics were reset.
    return age >= interval or changes - last.changes >= max(1, last.files // MUCH)
