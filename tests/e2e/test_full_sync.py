"""A full sync as a team runs it: real processes on both sides, changes all the time, differences planted."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine

from local.services import python
from producer_admin import files
from producer_admin.files import FileRecord
from runtime.engine import open_engine
from runtime.postgres import open_pool
from tests.e2e.mending import start_admin, start_query_api
from tests.e2e.query_side import Scene
from tests.planted import EACH, plant
from tests.running import run_verb
from tests.samples import metadata
from tests.waiting import eventually, settles

FIXED: Final = 2_000
BUSY: Final = 500
GONE: Final = 50
EACH_WAY: Final = 13
"""Files that are made different in each way: 104 in all."""
RATE: Final = 200.0
"""Changes a second."""

_COLUMNS: Final = (
    "file_id, revision, storage_element_id, original_filename, storage_filename, file_size, mime_type, created_at, "
    "updated_at, created_by_username, created_by_fullname, description, version, tags, storage_path, checksum, "
    "retention_expires_at"
)


@dataclass
class Both:
    """Both sides, and the verbs that compare them."""

    scene: Scene
    engine: AsyncEngine
    admin: asyncpg.Pool
    query: asyncpg.Pool
    url: str
    """Of the Query API."""
    admin_url: str
    changes: int = 0

    async def add(self, count: int) -> list[UUID]:
        records = [FileRecord(uuid4(), 1, "se-01", metadata(description=f"file {number}")) for number in range(count)]
        async with self.engine.begin() as connection:
            await files.take_over(connection, records, "tests")
        return [one.file_id for one in records]

    async def load(self, busy: list[UUID], stopping: asyncio.Event) -> None:
        """Changes, new files and deletions, until it is told to stop."""
        chance = random.Random(7)
        while not stopping.is_set():
            begun = asyncio.get_running_loop().time()
            busy += await self.add(2)
            async with self.engine.begin() as connection:
                for one in sorted(chance.sample(busy, 7)):
                    await files.change(connection, one, {"description": f"changed {chance.random()}"}, "tests")
                await files.delete(connection, busy.pop(chance.randrange(len(busy))), "tests")
            self.changes += 10
            took = asyncio.get_running_loop().time() - begun
            await asyncio.sleep(max(0.0, 10 / RATE - took))

    async def verb(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        command = (*python("cli", "sync"), *arguments, "--url", self.url, "--json")
        code, told, complaint = await run_verb(command)
        assert told, complaint
        return code, json.loads(told)

    async def differences(self) -> set[Any]:
        """Rows that only one side has, all columns compared."""
        return await differences(self.admin, self.query)


async def differences(admin: asyncpg.Pool, query: asyncpg.Pool) -> set[Any]:
    """Rows that only one side has, all columns compared. No file has two: it is the key on both sides."""
    ours = await query.fetch(f"SELECT {_COLUMNS} FROM file_metadata_cache")
    theirs = await admin.fetch(f"SELECT {_COLUMNS} FROM files WHERE deleted_at IS NULL")
    return {tuple(map(str, row)) for row in ours} ^ {tuple(map(str, row)) for row in theirs}


@asynccontextmanager
async def both_sides(scene: Scene) -> AsyncIterator[Both]:
    admin = await start_admin(scene)
    engine = open_engine(admin.database, "tests")
    try:
        for name in ("first", "second"):
            scene.start(name)
        scene.start_worker("maintenance", ADMIN_API_URL=admin.urls["api"], SYNC_INTERVAL_SECONDS="0")
        url = await start_query_api(scene, admin.urls["api"])
        async with (
            await open_pool(admin.database, "tests", max_size=3) as admin_pool,
            await open_pool(scene.database, "tests", max_size=3) as pool,
        ):
            yield Both(scene, engine, admin_pool, pool, url, admin.urls["api"])
    finally:
        await engine.dispose()
        await asyncio.to_thread(admin.stop)


async def test_a_hundred_planted_differences_are_found_and_repaired_under_load_and_nothing_else_is(
    scene: Scene,
) -> None:
    async with both_sides(scene) as both:
        fixed, busy, gone = await both.add(FIXED), await both.add(BUSY), await both.add(GONE)
        async with both.engine.begin() as connection:
            for one in sorted(gone):
                await files.delete(connection, one, "tests")
        await settles(both.differences, set(), 60)
        planted = await plant(both.query, fixed, gone, EACH_WAY)
        assert len(planted) == EACH * EACH_WAY > 100
        stopping = asyncio.Event()
        load = asyncio.create_task(both.load(busy, stopping))
        try:
            code, dry = await both.verb("full", "--dry-run")
            expected = {str(kind): count for kind, count in Counter(planted.values()).items()}
            assert (code, dry["outcome"], dry["findings"]["found"]) == (2, "different", expected)
            assert dry["findings"]["unconfirmed"] == 0
            assert not await both.admin.fetchval("SELECT count(*) FROM outbox_sent WHERE actor = 'full sync'")
            scene.kill("second")
            code, report = await both.verb("full")
            assert (code, report["outcome"], report["findings"]["found"]) == (0, "repaired", expected)
            assert (report["findings"]["left"], report["findings"]["asked"]) == ({}, len(planted))
            code, again = await both.verb("full")
            assert (code, again["outcome"], again["findings"]["found"]) == (0, "equal", {})
            code, topic = await both.verb("topic")
            assert (code, topic["outcome"], topic["findings"]["found"]) == (0, "equal", {})
        finally:
            stopping.set()
            await load
        assert both.changes > 500, "there was load"
        await settles(both.differences, set(), 60)
        told = await _plain(both, "reports")
        assert told.count("equal") == 2
        quiet = (await both.verb("full"))[1]["findings"]
        assert (quiet["requests"], quiet["candidates"]) == (1, 0)


async def _plain(both: Both, *arguments: str) -> str:
    code, told, complaint = await run_verb((*python("cli", "sync"), *arguments, "--url", both.url))
    assert code == 0, complaint
    return told


async def test_a_worker_that_is_killed_in_the_middle_is_replaced_by_another(scene: Scene) -> None:
    async with both_sides(scene) as both:
        await both.add(200)
        await settles(both.differences, set(), 60)
        lost = await both.query.fetchval("SELECT file_id FROM file_metadata_cache LIMIT 1")
        await both.query.execute("DELETE FROM file_metadata_cache_g1 WHERE file_id = $1", lost)
        scene.start_worker("other", ADMIN_API_URL=both.admin_url, SYNC_INTERVAL_SECONDS="0")
        await eventually(lambda: _is_ready(scene, "other"), 60, "another worker waits")
        scene.pause("other")
        # It waits for the projectors, for as long as they stand still.
        for name in ("first", "second"):
            scene.pause(name)
        await both.add(1)
        running = asyncio.create_task(both.verb("full"))

        async def waits() -> bool:
            return bool(await both.query.fetchval("SELECT count(*) FROM sync_reports WHERE stage LIKE '%behind%'"))

        await eventually(waits, 60, "the worker waits for the projectors")
        scene.kill("maintenance")
        await both.query.execute("UPDATE sync_reports SET leased_until = clock_timestamp()")
        for name in ("other", "first", "second"):
            scene.resume(name)
        code, report = await running
        assert (code, report["outcome"], report["findings"]["found"]) == (0, "repaired", {"missing": 1})
        assert await both.query.fetchval("SELECT starts FROM sync_reports") == 2
        await settles(both.differences, set(), 60)


async def _is_ready(scene: Scene, name: str) -> bool:
    return await scene.unready(name) is None
