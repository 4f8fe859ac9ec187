"""Every process is restarted in turn while clients change and search: nobody notices more than a moment's wait.

Two of each kind, as a roll-out leaves them; clients are sent on to the other where one refuses, as a Service would.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from bench.report import percentile
from bench.visible import Watch, watching
from local.process import Child
from runtime.postgres import open_pool
from runtime.topics import ensure_topic
from schemas.topics import RESOLUTIONS, cards, topic_name
from tests.agreement import require_agreement
from tests.e2e.admin_side import AdminSide
from tests.e2e.mending import START_SECONDS, new_admin
from tests.e2e.query_side import Scene
from tests.e2e.test_full_sync import differences
from tests.waiting import eventually, settles

FILES: Final = "/api/v1/files"
SEARCHABLE_SECONDS: Final = 5.0
"""How long 99 of 100 changes may take from their answer until a search sees them, over the whole roll-out."""
END_SECONDS: Final = 20.0
"""How long a process may take to end when all that it needs is there."""
FIXED: Final = 10
"""Files that no client changes, and as many that are deleted before it begins."""
CHANGERS: Final = 3
SEARCHERS: Final = 2
NAMES: Final = [
    f"{kind}-{number}" for kind in ("api", "relay", "search", "projector", "maintenance") for number in (1, 2)
]
SEARCH_EVERY_SECONDS: Final = 0.02
CHANGE_EVERY_SECONDS: Final = 0.05
UNOWNED: Final = "SELECT count(*) FROM relay_shards WHERE owner IS NULL OR lease_until < clock_timestamp()"


@dataclass
class Service:
    """Two APIs behind one name: where one refuses, or hangs up before it answers, the other is asked."""

    urls: Callable[[], Iterable[str]]
    client: httpx.AsyncClient
    sent_on: int = 0
    turn: Iterator[int] = field(default_factory=itertools.count)

    async def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The answer of the first that gives one.

        Raises:
            httpx.TransportError: neither does, twice.
        """
        turn = next(self.turn)
        for attempt in range(4):
            # Anew each time: another may have taken its place by now.
            urls = sorted(self.urls())
            try:
                url = urls[(turn + attempt) % len(urls)]
                return await self.client.request(method, f"{url}{FILES}{path}", **request)
            except httpx.TransportError:
                if attempt == 3:
                    raise
                self.sent_on += 1
        raise AssertionError("unreachable")


@dataclass
class Clients:
    """Who changes and searches all the time."""

    admin: Service
    query: Service
    watch: Watch
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Files that stay as they are, by a word that only their names have."""
    gone: list[str] = field(default_factory=list)
    """Words of files that were deleted before it began."""
    answers: Counter[str] = field(default_factory=Counter)
    searched: list[float] = field(default_factory=list)
    stopping: bool = False

    async def prepare(self) -> None:
        """Make the files that searches ask for."""
        words = [f"rolling{uuid4().hex[:12]}" for _ in range(2 * FIXED)]
        made = [await self._upload(f"{word}.txt") for word in words]
        self.fixed = {word: one["file_id"] for word, one in zip(words[:FIXED], made[:FIXED], strict=True)}
        self.gone = words[FIXED:]
        for one in made[FIXED:]:
            await self._change("DELETE", f"/{one['file_id']}", 204)
        for word in words:
            await settles(partial(self._found, word), self._due(word), 30)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(CHANGERS):
                group.create_task(self._changes(number))
            for number in range(SEARCHERS):
                group.create_task(self._searches(number))

    async def _changes(self, number: int) -> None:
        for turn in itertools.count():
            if self.stopping:
                return
            made = await self._upload(f"{number}-{turn}.txt")
            if turn % 4 == 0:
                # Not timed: a file that is deleted before a search could see it is never seen.
                await self._change("DELETE", f"/{made['file_id']}", 204)
            else:
                self._expect(made)
                changed = await self._change("PATCH", f"/{made['file_id']}", 200, json={"description": f"turn {turn}"})
                self._expect(changed.json())
            await asyncio.sleep(CHANGE_EVERY_SECONDS)

    async def _upload(self, name: str) -> dict[str, Any]:
        answer = await self._change("POST", "/upload", 201, files={"file": (name, b"x" * 1000)})
        made: dict[str, Any] = answer.json()
        return made

    async def _change(self, method: str, path: str, status: int, **request: Any) -> httpx.Response:
        """A change under a key of its own, so that one whose answer was lost can be sent again."""
        key = {"Idempotency-Key": uuid4().hex}

        async def answered() -> httpx.Response | None:
            answer = await self.admin.ask(method, path, headers=key, **request)
            self.answers[f"{method} {answer.status_code}"] += 1
            # The one that was cut off may still be under way, or is being undone.
            return None if answer.headers.get("retry-after") else answer

        answer = await eventually(answered, 60, f"{method} {path}")
        assert answer is not None
        assert answer.status_code == status, answer.text
        return answer

    def _expect(self, made: Mapping[str, Any]) -> None:
        self.watch.expect(UUID(made["file_id"]), made["revision"], time.perf_counter())

    async def _searches(self, number: int) -> None:
        words = itertools.cycle((*self.fixed, *self.gone))
        for word in itertools.islice(words, number, None):
            if self.stopping:
                return
            begin = time.perf_counter()
            assert await self._found(word) == self._due(word)
            self.searched.append(time.perf_counter() - begin)
            await asyncio.sleep(SEARCH_EVERY_SECONDS)

    def _due(self, word: str) -> list[str]:
        return [self.fixed[word]] if word in self.fixed else []

    async def _found(self, word: str) -> list[str]:
        answer = await self.query.ask("GET", "/search", params={"query": word})
        assert answer.status_code == 200, answer.text
        return [hit["file_id"] for hit in answer.json()["results"]]


@dataclass
class Fleet:
    """Both sides, two processes of each kind."""

    scene: Scene
    admin: AdminSide
    pool: asyncpg.Pool
    """Of the Admin database."""
    searching: dict[str, str] = field(default_factory=dict)
    """URLs of the search APIs, by name."""

    async def start(self, name: str) -> None:
        """Start a process by the kind that its name begins with, and wait until it is ready."""
        kind = name.partition("-")[0]
        if kind in ("api", "relay"):
            await asyncio.to_thread(self.admin.start, name, kind, FILE_EVENTS_TOPIC=self.scene.topic)
            return
        # Sessions as in service: none of these is killed.
        start = {
            "projector": lambda: self.scene.start(name, KAFKA_SESSION_TIMEOUT_MS="10000"),
            "search": lambda: self.scene.start_api(name),
            "maintenance": lambda: self.scene.start_worker(name, SYNC_INTERVAL_SECONDS="0"),
        }[kind]
        started = await asyncio.to_thread(start)
        await eventually(lambda: self._is_ready(name), START_SECONDS, f"{name} is ready")
        if kind == "search":
            self.searching[name] = str(started)

    async def _is_ready(self, name: str) -> bool:
        self.scene.require_alive()
        return await self.scene.unready(name) is None

    async def stop(self, name: str) -> float:
        """SIGTERM. Returns how many seconds it took to end in order."""
        processes = self.admin.processes if name in self.admin.processes else self.scene.processes
        child: Child = processes.pop(name)
        begin = time.perf_counter()
        assert await asyncio.to_thread(child.stop, END_SECONDS), f"{name} has not ended in {END_SECONDS:g} s"
        assert child.exit_code() == 0, child.died()
        return time.perf_counter() - begin

    async def all_owned(self) -> bool:
        """Whether each shard has a relay."""
        return not await self.pool.fetchval(UNOWNED)


@asynccontextmanager
async def fleet(scene: Scene) -> AsyncIterator[Fleet]:
    await ensure_topic(
        scene.side.kafka.bootstrap_servers, cards()[RESOLUTIONS], name=topic_name(RESOLUTIONS, scene.topic)
    )
    admin = await new_admin(scene)
    try:
        async with await open_pool(admin.database, "tests") as pool:
            found = Fleet(scene, admin, pool)
            async with asyncio.TaskGroup() as group:
                for name in NAMES:
                    group.create_task(found.start(name))
            yield found
    finally:
        await asyncio.to_thread(admin.stop)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("times", [pytest.param(1, id="once"), pytest.param(10, id="10 times", marks=pytest.mark.soak)])
async def test_while_every_process_is_restarted_in_turn_no_read_fails_and_no_change_is_lost_doubled_or_late(
    scene: Scene, times: int
) -> None:
    async with (
        fleet(scene) as all_of_them,
        watching(scene.database) as watch,
        httpx.AsyncClient(timeout=30, trust_env=False) as client,
        await open_pool(scene.database, "tests") as cache,
    ):
        clients = Clients(
            Service(lambda: (url for name, url in all_of_them.admin.urls.items() if name.startswith("api")), client),
            Service(all_of_them.searching.values, client),
            watch,
        )
        await clients.prepare()
        load = asyncio.create_task(clients.run())
        ends: dict[str, list[float]] = {}
        slowest: dict[str, float] = {}
        for name in NAMES * times:
            kind, before = name.partition("-")[0], len(watch.delays)
            begin = time.perf_counter()
            ends.setdefault(kind, []).append(await all_of_them.stop(name))
            if kind == "relay":
                await eventually(all_of_them.all_owned, 30, "the other relay has all shards")
                ends.setdefault("hand-over", []).append(time.perf_counter() - begin)
            await all_of_them.start(name)
            assert not load.done(), load.exception()
            slowest[kind] = max([slowest.get(kind, 0.0), *watch.delays[before:]])
        clients.stopping = True
        await load
        await eventually(watch.all_seen, 30, "every change is seen")
        await settles(lambda: differences(all_of_them.pool, cache), set(), 30)
        await require_agreement(all_of_them.pool, {"se-01": all_of_them.admin.files})
        report(clients, ends, slowest)
        assert {one.partition(" ")[2] for one in clients.answers} <= {"200", "201", "204", "409"}, clients.answers
        assert len(watch.delays) > 100 * times, "there was load"
        assert percentile(watch.delays, 0.99) < SEARCHABLE_SECONDS


def report(clients: Clients, ends: Mapping[str, Sequence[float]], slowest: Mapping[str, float]) -> None:
    delays = clients.watch.delays
    print(
        f"{len(delays)} changes, searchable after their answer: p50 {percentile(delays, 0.5):.3f} s, "
        f"p99 {percentile(delays, 0.99):.2f} s, slowest {max(delays):.2f} s; "
        f"{len(clients.searched)} searches, slowest {max(clients.searched):.2f} s; "
        f"sent on to the other: {clients.admin.sent_on} changes, {clients.query.sent_on} searches; "
        f"answers {dict(clients.answers)}"
    )
    print("slowest while these were restarted:", {kind: f"{one:.2f} s" for kind, one in slowest.items()})
    print("from SIGTERM to the end, at most:", {kind: f"{max(all_):.2f} s" for kind, all_ in ends.items()})
