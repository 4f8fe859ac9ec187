"""Somebody who searches all the time: what was found once is found until it is deleted, and never at an older revision.

    python -P -m tests.e2e.onlooker '{"database": "postgresql://…", "word": "незыблемый", "count": 300}'

In this process, or in one of its own that says what it saw when it gets SIGTERM: there, nobody else takes its time.
"""

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import asyncpg

from consumer_query.search import Searches, SearchRequest
from runtime.postgres import open_pool
from schemas.events import FileEvent

HITS: Final = 20
WINDOWS: Final = 32
"""Ranges of file ids that are watched file by file."""
WINDOW: Final = 150
"""Files of one of them that are looked at together."""
PAUSE_SECONDS: Final = 0.02
AWAY: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

# By the primary key of the generation behind the view.
WATCHED: Final = """
SELECT file_id, revision FROM file_metadata_cache WHERE file_id >= $1 ORDER BY file_id LIMIT $2
"""


@dataclass
class Onlooker:
    """Searches for a word by which always as many files are found, and watches others come and go."""

    database: str
    word: str
    count: int
    looks: int = 0
    took: list[tuple[float, float]] = field(default_factory=list)
    """When a search was begun, by time.time(), and the seconds that it took."""
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    gone: set[UUID] = field(default_factory=set)
    """No longer found."""
    excused: bool = False
    """While the database is known to be away."""
    _known: list[dict[UUID, int]] = field(default_factory=lambda: [{} for _ in range(WINDOWS)])

    async def run(self, stopping: asyncio.Event) -> None:
        """Look until `stopping`."""
        chance = random.Random(1)
        while not stopping.is_set():
            try:
                async with await open_pool(self.database, "onlooker", max_size=1) as pool:
                    while not stopping.is_set():
                        await self._look(pool, chance.randrange(WINDOWS))
                        await asyncio.sleep(PAUSE_SECONDS)
            except AWAY as error:
                if not self.excused:
                    self.failed.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.1)

    async def _look(self, pool: asyncpg.Pool, window: int) -> None:
        began = time.time(), time.perf_counter()
        page = await Searches(pool).page(SearchRequest(self.word, limit=HITS))
        self.took.append((began[0], time.perf_counter() - began[1]))
        if (page.total, len(page.hits)) != (self.count, min(HITS, self.count)):
            self.wrong.append(f"{page.total} files found, {len(page.hits)} on the page, {self.count} are there")
        first = UUID(int=window * (2**128 // WINDOWS))
        rows = await pool.fetch(WATCHED, first, WINDOW)
        found = {row["file_id"]: row["revision"] for row in rows}
        known = self._known[window]
        last = rows[-1]["file_id"] if rows else None
        self.gone |= {one for one in known if one not in found and (last is None or one <= last or len(rows) < WINDOW)}
        self.wrong += [f"{one} came back" for one in found.keys() & self.gone]
        self.wrong += [
            f"{one} went back from revision {known[one]} to {revision}"
            for one, revision in found.items()
            if revision < known.get(one, 0)
        ]
        self._known[window] = found
        self.looks += 1

    def require_nothing_missed(self, truth: Mapping[UUID, FileEvent]) -> None:
        """No search failed, none was partial, and what is no longer found was deleted."""
        assert self.looks > 20
        assert not self.failed, f"{len(self.failed)} of {self.looks} searches failed, first: {self.failed[0]}"
        assert not self.wrong, f"{len(self.wrong)} wrong answers in {self.looks} looks, first: {self.wrong[0]}"
        vanished = {one for one in self.gone if one not in truth or truth[one].metadata is not None}
        assert not vanished, f"{len(vanished)} of {len(self.gone)} vanished without being deleted: {list(vanished)[:3]}"

    def slowest(self, share: float, since: float, until: float) -> float:
        """Seconds within which such a share of the searches was answered that began in a span of time."""
        took = sorted(seconds for at, seconds in self.took if since <= at < until)
        assert took, "no search in that time"
        return took[min(len(took) - 1, int(share * len(took)))]

    def to_json(self) -> str:
        """What was seen."""
        return json.dumps(
            {
                "looks": self.looks,
                "took": self.took,
                "failed": self.failed,
                "wrong": self.wrong,
                "gone": [str(one) for one in self.gone],
            }
        )

    def learn(self, text: str) -> None:
        """Take over what another one saw."""
        seen: dict[str, Any] = json.loads(text)
        self.looks, self.failed, self.wrong = seen["looks"], seen["failed"], seen["wrong"]
        self.took = [(at, seconds) for at, seconds in seen["took"]]
        self.gone = {UUID(one) for one in seen["gone"]}


async def _look_until_told() -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    one = Onlooker(**json.loads(sys.argv[1]))
    await one.run(stopping)
    sys.stdout.write(one.to_json())


@asynccontextmanager
async def looking_on(database: str, word: str, count: int) -> AsyncIterator[Onlooker]:
    """One in a process of its own; what it saw is known at the end."""
    one = Onlooker(database, word, count)
    orders = json.dumps({"database": database, "word": word, "count": count})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "tests.e2e.onlooker", orders, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield one
        assert process.returncode is None, "the onlooker ended by itself"
        process.terminate()
        told, _ = await process.communicate()
        one.learn(told.decode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    asyncio.run(_look_until_told())
