"""When a SELECT first sees a state of a file that somebody waits for.

One connection asks for the states that are still awaited, again and again, a millisecond after each answer; a state is
visible when the answer that shows it has arrived. So each delay holds up to one round of asking, which is kept, and
asking takes its share of the machine, which is the same for all that is compared.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Final
from uuid import UUID

import asyncpg

POLL_SECONDS: Final = 0.001
MOST_ASKED: Final = 1000
"""Awaited states in one question, oldest first; more are awaited only when the projector is far behind."""
VISIBLE: Final = "SELECT file_id, revision FROM file_metadata_cache WHERE file_id = ANY($1::uuid[])"
"""Answered from the primary key."""
BY_KEY: Final = {"enable_seqscan": "off", "enable_bitmapscan": "off", "jit": "off"}
"""For the asking connection: while the table is small or not yet analysed the planner might read all of it."""


@dataclass
class Watch:
    """Waits for states of files to be visible, on one connection."""

    connection: asyncpg.Connection
    question: str = VISIBLE
    delays: list[float] = field(default_factory=list)
    """Seconds, in the order in which states became visible."""
    files: list[UUID] = field(default_factory=list)
    """Whose states, in the same order."""
    rounds: list[float] = field(default_factory=list)
    """Seconds from one answer to the next: what a delay may be too long by."""
    costs: list[float] = field(default_factory=list)
    """Seconds from question to answer."""
    _awaited: dict[UUID, list[tuple[int, float]]] = field(default_factory=dict)

    def expect(self, file_id: UUID, revision: int, since: float) -> None:
        """Time this revision, or a newer one, from `since` (perf_counter)."""
        self._awaited.setdefault(file_id, []).append((revision, since))

    async def all_seen(self) -> bool:
        """Whether nothing is awaited."""
        return not self._awaited

    async def run(self) -> None:
        """Ask until cancelled."""
        before = time.perf_counter()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            asked = list(islice(self._awaited, MOST_ASKED))
            begin = time.perf_counter()
            rows = await self.connection.fetch(self.question, asked)
            now = time.perf_counter()
            if asked:
                self.costs.append(now - begin)
                self.rounds.append(now - before)
            before = now
            for row in rows:
                self._see(row["file_id"], row["revision"], now)

    def _see(self, file_id: UUID, revision: int, now: float) -> None:
        left = []
        for wanted, since in self._awaited.pop(file_id):
            if wanted <= revision:
                self.delays.append(now - since)
                self.files.append(file_id)
            else:
                left.append((wanted, since))
        if left:
            self._awaited[file_id] = left


@asynccontextmanager
async def watching(database: str, question: str = VISIBLE) -> AsyncIterator[Watch]:
    """A watch on this database, asking all the time.

    Raises:
        asyncpg.PostgresError: a question failed; raised at the end.
    """
    connection = await asyncpg.connect(database, server_settings=BY_KEY)
    watch = Watch(connection, question)
    asking = asyncio.create_task(watch.run())
    try:
        yield watch
        if asking.done():
            await asking
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        connection.terminate()
