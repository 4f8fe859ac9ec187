"""The scrub names what differs between the database and a storage element, and removes only what nobody refers to."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import scrub as station
from producer_admin.elements import Mode, register
from producer_admin.errors import StorageError
from producer_admin.marks import MARK
from producer_admin.scrub import Difference, Finding, Options, Scrub, Totals
from producer_admin.storage import FoundObject, StorageElement, object_name, open_storage
from tests.object_stores import s3

OLD = timedelta(0)
"""A grace that nothing is too young for."""


@dataclass
class Scene:
    """Files uploaded through the API onto one element, and a scrub of it."""

    client: httpx.AsyncClient
    engine: AsyncEngine
    pool: asyncpg.Pool
    folder: Path
    storage: StorageElement
    found: list[Finding] = field(default_factory=list)

    async def upload(self, content: bytes = b"hello") -> tuple[UUID, str]:
        """A new file: its id and its object's key."""
        answer = await self.client.post("/upload", files={"file": ("a.txt", content)})
        assert answer.status_code == 201
        file_id = UUID(answer.json()["file_id"])
        row = await self.pool.fetchrow("SELECT storage_path, storage_filename FROM files WHERE file_id = $1", file_id)
        assert row is not None
        return file_id, f"{row['storage_path']}/{row['storage_filename']}"

    async def put(self, key: str | None = None, content: bytes = b"nobody's") -> str:
        """An object that nothing refers to."""
        key = key or object_name(uuid4(), uuid4(), datetime.now(UTC)).key
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return key

    async def begin_saga(self, key: str, role: str = "created", state: str = "running") -> None:
        """A saga that names an object."""
        detail = {"created": None, "doomed": None, role: {"element_id": "se-01", "key": key}}
        await self.pool.execute(
            "INSERT INTO sagas (saga_id, kind, file_id, state, step, detail, actor, attempts, lease_until)"
            " VALUES ($1, 'upload', $2, $3, 'x', $4, 'x', 0, now())",
            uuid4(),
            uuid4(),
            state,
            json.dumps(detail),
        )

    async def scrub(
        self,
        storage: StorageElement | None = None,
        *,
        verify: bool = False,
        reclaim: bool = False,
        grace: timedelta = OLD,
    ) -> Totals:
        self.found = []
        options = Options(verify, reclaim, grace)
        return await Scrub(self.engine, "se-01", storage or self.storage, options, self.found.append).run()

    def differences(self) -> list[tuple[Difference, str]]:
        return sorted((one.difference, one.key) for one in self.found)


@pytest.fixture
async def scene(
    admin: httpx.AsyncClient, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool, storage_folder: Path
) -> Scene:
    return Scene(admin, admin_engine, admin_pool, storage_folder, open_storage(storage_folder.as_uri()))


async def test_files_with_their_objects_are_in_order(scene: Scene) -> None:
    for number in range(5):
        await scene.upload(b"x" * number)
    deleted, _ = await scene.upload()
    await scene.client.delete(f"/{deleted}")
    totals = await scene.scrub(verify=True)
    assert (scene.found, totals.clean) == ([], True)
    assert (totals.files, totals.objects, totals.object_bytes, totals.verified_bytes) == (5, 5, 10, 10)


async def test_each_kind_of_difference_is_named(scene: Scene) -> None:
    missing_id, missing = await scene.upload()
    (scene.folder / missing).unlink()
    _, short = await scene.upload()
    (scene.folder / short).write_bytes(b"hell")
    _, rotten = await scene.upload()
    (scene.folder / rotten).write_bytes(b"jello")
    orphan = await scene.put()
    staged = await scene.put(f"{object_name(uuid4(), uuid4(), datetime.now(UTC)).key}#1")
    check = await scene.put("health/0123")
    foreign = await scene.put("somebody/else's")

    totals = await scene.scrub(verify=True)
    assert scene.differences() == sorted(
        [
            (Difference.MISSING, missing),
            (Difference.WRONG_SIZE, short),
            (Difference.WRONG_CHECKSUM, rotten),
            (Difference.ORPHAN, orphan),
            (Difference.STAGED, staged),
            (Difference.STAGED, check),
        ]
    )
    assert not totals.clean
    assert (totals.foreign, totals.foreign_files) == (1, 0)
    [named] = [one for one in scene.found if one.difference is Difference.MISSING]
    assert (named.file_id, named.size) == (missing_id, 5)
    assert (scene.folder / foreign).exists()


async def test_other_bytes_of_the_same_size_are_found_by_reading_alone(scene: Scene) -> None:
    _, rotten = await scene.upload()
    (scene.folder / rotten).write_bytes(b"jello")
    assert (await scene.scrub()).clean
    assert not (await scene.scrub(verify=True)).clean


async def test_reclaiming_takes_what_nobody_refers_to_and_nothing_else(scene: Scene) -> None:
    _, kept = await scene.upload()
    foreign = await scene.put("somebody/else's")
    orphan, staged = await scene.put(), await scene.put(f"{kept}#1", b"half")
    totals = await scene.scrub(reclaim=True)
    assert scene.differences() == sorted([(Difference.ORPHAN, orphan), (Difference.STAGED, staged)])
    assert all(one.reclaimed for one in scene.found)
    assert (totals.reclaimed, totals.reclaimed_bytes) == (2, len(b"nobody's") + len(b"half"))
    left = {str(path.relative_to(scene.folder)) for path in scene.folder.rglob("*") if path.is_file()}
    assert left == {kept, foreign, MARK}
    assert (await scene.scrub(verify=True)).clean


async def test_without_reclaim_nothing_is_removed(scene: Scene) -> None:
    orphan = await scene.put()
    await scene.scrub()
    assert (scene.folder / orphan).exists()


async def test_what_an_unfinished_saga_names_is_left_alone(scene: Scene) -> None:
    names = {state: await scene.put() for state in ("running", "recorded", "compensating", "done", "compensated")}
    for state, key in names.items():
        await scene.begin_saga(key, "doomed" if state == "recorded" else "created", state)
    unfinished = await scene.put(f"{names['running']}#1")
    finished = await scene.put(f"{names['done']}#1")
    await scene.scrub(reclaim=True)
    assert scene.differences() == sorted(
        [
            (Difference.ORPHAN, names["done"]),
            (Difference.ORPHAN, names["compensated"]),
            (Difference.STAGED, finished),
        ]
    )
    assert all((scene.folder / key).exists() for key in (*list(names.values())[:3], unfinished))


async def test_what_is_younger_than_the_grace_is_counted_and_left_alone(scene: Scene) -> None:
    young, old = await scene.put(), await scene.put()
    day_ago = time.time() - 25 * 3600
    os.utime(scene.folder / old, (day_ago, day_ago))
    totals = await scene.scrub(reclaim=True, grace=timedelta(hours=24))
    assert scene.differences() == [(Difference.ORPHAN, old)]
    assert totals.too_young == 1
    assert (scene.folder / young).exists()


async def test_an_object_of_a_file_on_another_element_is_an_orphan_here(scene: Scene) -> None:
    file_id, key = await scene.upload()
    await scene.pool.execute("UPDATE files SET storage_element_id = 'se-02' WHERE file_id = $1", file_id)
    await scene.scrub()
    assert scene.differences() == [(Difference.ORPHAN, key)]


async def test_a_taken_over_files_object_is_foreign_and_compared_all_the_same(scene: Scene) -> None:
    file_id, key = await scene.upload()
    (scene.folder / "old").mkdir()
    (scene.folder / key).rename(scene.folder / "old/report.pdf")
    await scene.pool.execute(
        "UPDATE files SET storage_path = 'old', storage_filename = 'report.pdf' WHERE file_id = $1", file_id
    )
    totals = await scene.scrub(verify=True, reclaim=True)
    assert (scene.found, totals.foreign, totals.foreign_files) == ([], 1, 1)
    assert (scene.folder / "old/report.pdf").exists()


@dataclass
class Meddled:
    """A storage element on which something happens at a certain moment."""

    element: StorageElement
    after_listing: Callable[[str], Awaitable[object]] | None = None
    after_finding: Callable[[str], Awaitable[object]] | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self.element, name)

    async def list(self, prefix: str = "") -> AsyncIterator[FoundObject]:
        async for found in self.element.list(prefix):
            if self.after_listing:
                await self.after_listing(found.key)
            yield found

    async def find(self, key: str) -> FoundObject | None:
        found = await self.element.find(key)
        if self.after_finding:
            await self.after_finding(key)
        return found


async def test_a_file_that_changes_while_it_is_looked_at_is_no_difference(scene: Scene) -> None:
    for change in ("delete", "move"):
        file_id, key = await scene.upload()
        (scene.folder / key).unlink()

        async def meddle(_: str, file_id: UUID = file_id, change: str = change) -> None:
            await scene.pool.execute(
                "UPDATE files SET deleted_at = now() WHERE file_id = $1"
                if change == "delete"
                else "UPDATE files SET storage_filename = 'elsewhere' WHERE file_id = $1",
                file_id,
            )

        await scene.scrub(Meddled(scene.storage, after_finding=meddle))  # type: ignore[arg-type]
        assert scene.found == []


async def test_an_object_that_is_recorded_after_it_was_listed_is_no_orphan(scene: Scene) -> None:
    file_id, key = await scene.upload()
    await scene.pool.execute("UPDATE files SET deleted_at = now() WHERE file_id = $1", file_id)

    async def record(_: str) -> None:
        await scene.pool.execute("UPDATE files SET deleted_at = NULL WHERE file_id = $1", file_id)

    totals = await scene.scrub(Meddled(scene.storage, after_listing=record), reclaim=True)  # type: ignore[arg-type]
    assert (scene.found, totals.objects) == ([], 1)
    assert (scene.folder / key).exists()


async def test_an_object_that_is_recorded_in_the_moment_of_removal_is_not_removed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for _ in range(2):
        file_id, key = await scene.upload()
        await scene.pool.execute("UPDATE files SET deleted_at = now() WHERE file_id = $1", file_id)
        keys.append(key)
    ask = Scrub._referred
    asked: list[list[str]] = []

    async def asks_and_then_all_are_recorded(scrub: Scrub, page: list[str]) -> object:
        referred = await ask(scrub, page)
        asked.append(page)
        await scene.pool.execute("UPDATE files SET deleted_at = NULL")
        return referred

    monkeypatch.setattr(Scrub, "_referred", asks_and_then_all_are_recorded)
    totals = await scene.scrub(reclaim=True)
    assert sorted(asked[0]) == sorted(keys)
    assert totals.reclaimed == 0
    assert all((scene.folder / key).exists() for key in keys)
    assert scene.found == []


async def test_pages_end_anywhere_and_miss_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(station, "PAGE", 3)
    for number in range(7):
        _, key = await scene.upload()
        if number % 2:
            (scene.folder / key).unlink()
        await scene.put()
    totals = await scene.scrub()
    assert (totals.files, totals.objects) == (7, 11)
    assert totals.found == {Difference.MISSING: 3, Difference.ORPHAN: 7}


async def test_an_element_that_does_not_answer_is_no_list_of_missing_files(scene: Scene) -> None:
    await scene.upload()
    scene.folder.rename(scene.folder.with_name("away"))
    with pytest.raises(StorageError):
        await scene.scrub()
    assert scene.found == []


async def test_an_object_that_cannot_be_read_is_a_finding_and_not_the_end(scene: Scene) -> None:
    _, key = await scene.upload()
    _, rotten = await scene.upload()
    (scene.folder / rotten).write_bytes(b"jello")
    (scene.folder / key).unlink()
    (scene.folder / key).symlink_to(scene.folder / key)
    await scene.scrub(verify=True)
    assert scene.differences() == sorted([(Difference.UNREADABLE, key), (Difference.WRONG_CHECKSUM, rotten)])


@pytest.fixture
def bucket() -> Iterator[str]:
    with s3() as running:
        yield running.bucket()


async def test_a_bucket_is_scrubbed_as_a_disk_is(scene: Scene, bucket: str) -> None:
    storage = open_storage(bucket)

    async def content() -> AsyncIterator[bytes]:
        yield b"hello"

    _, lost = await scene.upload()
    _, kept = await scene.upload()
    await storage.write(kept, content())
    orphan = object_name(uuid4(), uuid4(), datetime.now(UTC)).key
    await storage.write(orphan, content())
    # An S3 tells times in whole seconds.
    await scene.scrub(storage, verify=True, reclaim=True, grace=timedelta(seconds=-2))
    assert scene.differences() == sorted([(Difference.MISSING, lost), (Difference.ORPHAN, orphan)])
    assert [found.key async for found in storage.list()] == [kept]


async def test_the_verb_prints_differences_and_says_by_its_exit_code_whether_there_were_any(
    scene: Scene, admin_database: str
) -> None:
    async def scrub(*arguments: str) -> tuple[int | None, list[str], str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "producer_admin", "scrub"),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "ADMIN_DATABASE_URL": admin_database},
        )
        out, err = await process.communicate()
        return process.returncode, out.decode().splitlines(), err.decode()

    await scene.upload()
    code, lines, _ = await scrub()
    assert (code, lines) == (0, ["se-01: 1 files, 1 objects of 5 bytes", "  no difference"])

    orphan = await scene.put()
    code, lines, _ = await scrub("--json", "--verify", "--reclaim", "--grace-hours", "0", "--element", "se-01")
    finding, totals = map(json.loads, lines)
    assert (code, finding["difference"], finding["key"], finding["reclaimed"]) == (1, "orphan", orphan, True)
    assert (totals["totals"]["clean"], totals["totals"]["verified_bytes"]) == (False, 5)
    assert (await scrub("--grace-hours", "0"))[0] == 0

    code, _, err = await scrub("--element", "se-09")
    assert (code, "no storage element se-09" in err) == (1, True)
    async with scene.engine.begin() as connection:
        await register(connection, "se-01", scene.folder.as_uri(), Mode.OFFLINE)
    code, _, err = await scrub("--element", "se-01")
    assert (code, "offline" in err) == (1, True)
    assert (await scrub())[0] == 0
