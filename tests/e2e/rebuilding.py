"""Rebuilds under load: projectors, writers and somebody who searches; workers die at named points, and others go on."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
import psutil

from consumer_query import rebuild_jobs
from consumer_query.generations import table_name
from consumer_query.points import RebuildPoint
from consumer_query.rebuild_jobs import Job, Kind, Loaded
from local.process import Child
from schemas.codec import encode
from tests.e2e.newer_schema import encode_newer, registry
from tests.e2e.onlooker import Onlooker
from tests.e2e.poison import plain, write
from tests.e2e.query_side import AWAY, Scene
from tests.e2e.writers import Writers
from tests.mortal_projector import Orders
from tests.running import running, served
from tests.samples import created
from tests.waiting import eventually, settles

PROJECTORS: Final = ("first", "second", "third")
WORD: Final = "незыблемый"
FIXED: Final = 200
"""Files that nobody changes, all found by one word."""
RATE: Final = 200.0
POISON: Final = 0.01
READY_SECONDS: Final = 120.0
LIFE_SECONDS: Final = 120.0
"""How long it may take until a process has reached the point at which it dies."""
END_SECONDS: Final = 180.0

LEASE_IS_OVER: Final = "UPDATE rebuild_jobs SET leased_until = clock_timestamp() WHERE finished_at IS NULL"
TARGETS: Final = "SELECT partition, target_offset FROM rebuild_partitions WHERE job_id = $1"
HALVES: Final = """
SELECT count(*) FROM rebuild_partitions WHERE job_id = $1 AND next_offset > first_offset AND loaded_at IS NULL
"""
ROWS: Final = "SELECT file_id, revision, ctid::text, xmin::text FROM {table}"


class Place(NamedTuple):
    """Where a row stands and who wrote it: another one in its place would have another of these."""

    revision: int
    ctid: str
    xmin: str


@dataclass
class Rebuilding:
    """A scene in which a rebuild goes on."""

    scene: Scene
    pool: asyncpg.Pool
    writers: Writers
    onlooker: Onlooker
    environment: dict[str, str]
    deaths: int = 0
    notes: list[str] = field(default_factory=list)

    async def ask(self, kind: Kind = Kind.REBUILD, **how: Any) -> Job:
        """Ask for a job."""
        return await rebuild_jobs.request(self.pool, kind, requested_by="tests", reason="a test", **how)

    async def job(self, job: Job) -> Job:
        """As it is now, however long the database is away."""

        async def look() -> Job | None:
            try:
                return await rebuild_jobs.get(self.pool, job.job_id)
            except AWAY:
                return None

        found = await eventually(look, READY_SECONDS, "the job's row")
        assert found is not None
        return found

    async def loaded(self, job: Job) -> Loaded:
        """How far loading has come."""
        return await rebuild_jobs.loaded(self.pool, job.job_id)

    async def is_half_loaded(self, job: Job, rows: int) -> Loaded:
        """Wait until so many rows are loaded, and some partition is begun and not done."""

        async def look() -> bool:
            try:
                halves = await self.pool.fetchval(HALVES, job.job_id)
                return bool(halves) and (await self.loaded(job)).rows >= rows
            except AWAY:
                return False

        await eventually(look, LIFE_SECONDS, f"{rows} rows loaded, and a partition half")
        return await self.loaded(job)

    async def hurry(self, job: Job) -> None:
        """Take the throttle away."""
        await rebuild_jobs.wish(self.pool, job.job_id, set_throttle=True)

    def start(self, point: RebuildPoint | None = None, signal: str = "SIGKILL") -> str:
        """Start a worker, that ends or stops itself at a point if one is named: its name."""
        self.deaths += 1
        name = f"worker-{self.deaths}"
        orders = None if point is None else Orders(point.name, 1, str(self._notes(name)), signal)
        self.scene.start_worker(name, orders, **self.environment)
        return name

    async def dies(self, name: str, point: RebuildPoint) -> None:
        """Wait until a worker has died at its point, and until its lease has run out."""
        child = self.scene.processes[name]

        async def has_ended() -> bool:
            return child.exit_code() is not None

        await eventually(has_ended, LIFE_SECONDS, f"{name} has come to {point!r}")
        del self.scene.processes[name]
        assert child.exit_code() == -9, child.died()
        assert self._notes(name).read_text().split() == [point.name]
        await self.end_lease()

    async def stands_still(self, name: str, point: RebuildPoint) -> None:
        """Wait until a worker has stopped itself at its point."""
        process = psutil.Process(self.scene.processes[name].pid)

        async def has_stopped() -> bool:
            return process.status() == psutil.STATUS_STOPPED

        await eventually(has_stopped, LIFE_SECONDS, f"{name} has come to {point!r}")
        assert self._notes(name).read_text().split() == [point.name]

    async def end_lease(self) -> None:
        """Of a dead worker: the next one need not wait for it."""
        await self.pool.execute(LEASE_IS_OVER)

    async def places(self, job: Job) -> dict[UUID, Place]:
        """All rows of the generation that a job fills."""
        generation = (await self.job(job)).generation
        assert generation is not None
        rows = await self.pool.fetch(ROWS.format(table=table_name(generation)))
        return {row["file_id"]: Place(row["revision"], row["ctid"], row["xmin"]) for row in rows}

    async def ended(self, job: Job) -> Job:
        """The job when it is over."""

        async def look() -> Job | None:
            now = await self.job(job)
            return now if now.finished_at is not None else None

        found = await eventually(look, END_SECONDS, "the end of the rebuild")
        assert found is not None
        return found

    async def require_each_loaded_once(self, job: Job) -> None:
        """As many rows were loaded as there were good files in the log, however often loading was interrupted."""
        rows = await self.pool.fetch(TARGETS, job.job_id)
        targets = {row["partition"]: row["target_offset"] for row in rows}
        keys = {one.key for one in await self.scene.events.records() if one.offset < targets[one.partition]}
        good = sum(UUID((key or b"").decode()) in self.writers.truth for key in keys)
        assert (await self.loaded(job)).rows == good

    def _notes(self, name: str) -> Path:
        return self.scene.side.folder / f"{self.scene.topic}-{name}.notes"


def readers(worker: Child) -> list[psutil.Process]:
    """The processes that load for a worker."""
    return psutil.Process(worker.pid).children(recursive=True)


def require_not_loaded_again(before: Mapping[UUID, Place], after: Mapping[UUID, Place]) -> None:
    """Rows that were there stand where they stood, unless a newer revision has come."""
    assert before, "nothing had been loaded"
    again = {
        one: (place, after.get(one))
        for one, place in before.items()
        if one not in after or (after[one] != place and after[one].revision <= place.revision)
    }
    assert not again, f"{len(again)} of {len(before)} rows were written again: {next(iter(again.items()))}"


@asynccontextmanager
async def rebuilding(scene: Scene, seed: int, files: int, rate: float = RATE) -> AsyncIterator[Rebuilding]:
    """Three projectors that have applied so many files, writers of two versions, and an onlooker. Exact at the end."""
    servers = scene.side.kafka.bootstrap_servers
    fixed = [created(description=WORD) for _ in range(FIXED)]
    others = [created(description=f"груз {number}") for number in range(files - FIXED)]
    await write(servers, scene.topic, plain(*fixed, *others))
    async with served(registry()) as url, asyncpg.create_pool(scene.database, min_size=0, max_size=4) as pool:
        environment = {"SCHEMA_REGISTRY_URL": url}
        for name in PROJECTORS:
            await asyncio.to_thread(scene.start, name, None, **environment)
        await settles(scene.unread, 0, READY_SECONDS)
        writers = Writers(servers, scene.topic, seed, rate, POISON, encodings=(encode, encode_newer))
        writers.truth |= {event.file_id: event for event in (*fixed, *others)}
        onlooker = Onlooker(scene.database, WORD, FIXED)
        one = Rebuilding(scene, pool, writers, onlooker, environment)
        async with running(onlooker), running(writers):
            yield one
        scene.require_alive()
        onlooker.require_nothing_missed(writers.truth)
        await scene.require_exact(writers.truth, READY_SECONDS)
