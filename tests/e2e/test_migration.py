"""The way from the older system and back, by the statements of docs/migration.md, from a database of that time.

The older system is its database, its folders, and what it does to both.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid4, uuid5

import asyncpg
import httpx
import pytest

from local.services import python
from runtime.postgres import Connection
from tests.conftest import execute
from tests.e2e.admin_side import AdminSide
from tests.e2e.mending import new_admin, start_query_api
from tests.e2e.query_side import QuerySide, Scene
from tests.running import run_verb
from tests.waiting import eventually, settles

EXAMPLE: Final = Path("tests/examples/storage_element_2026_01.sql").read_text(encoding="utf-8")
PAGE: Final = Path("docs/migration.md").read_text(encoding="utf-8")
STATEMENTS: Final = dict(re.findall(r"```sql\n +-- (\S+)\n(.*?)```", PAGE, flags=re.DOTALL))
"""The SQL of the page, by file name."""
REFUSED: Final = 8
"""Rows of the example that cannot be taken over."""
ADD: Final = """
INSERT INTO file_metadata (
    file_id, storage_element_id, original_filename, storage_filename, file_size, created_at, storage_path, checksum
) VALUES ($1, 'se-01', $2, $3, $4, now() AT TIME ZONE 'UTC', 'files/active', $5)
"""
SEARCH: Final = """
SELECT lower(file_id) FROM file_metadata
WHERE to_tsvector('simple', original_filename || ' ' || coalesce(description, '')) @@ plainto_tsquery('simple', $1)
"""
FILES: Final = "/api/v1/files"
FOUND_SECONDS: Final = 30.0


@dataclass
class Older:
    """The older system."""

    database: Connection
    url: str
    folder: Path

    async def upload(self, name: str) -> str:
        """Keep a file as it did, in one of its Storage Elements. Returns its id."""
        file_id, content = str(uuid5(NAMESPACE_URL, name)), name.encode()
        stored = f"{file_id}_{name}"
        path = self.folder / "se-01" / "files/active" / stored
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        await self.database.execute(ADD, file_id, name, stored, len(content), digest)
        return file_id

    async def search(self, words: str) -> list[str]:
        return [row[0] for row in await self.database.fetch(SEARCH, words)]

    async def content(self, file_id: str) -> bytes:
        """The bytes, from where the row says they are."""
        row = await self.database.fetchrow("SELECT * FROM file_metadata WHERE lower(file_id) = $1", file_id)
        assert row is not None
        place = f"{row['storage_element_id']}/{row['storage_path'].strip('/')}/{row['storage_filename']}"
        content = (self.folder / place).read_bytes()
        assert row["checksum"].removeprefix("sha256:") == hashlib.sha256(content).hexdigest()
        return content


@pytest.fixture
async def older(query_servers: QuerySide, tmp_path: Path) -> AsyncIterator[Older]:
    server, name = query_servers.postgres.url("postgres"), f"older_{uuid4().hex[:12]}"
    await execute(server, f"CREATE DATABASE {name}")
    url = query_servers.postgres.url(name)
    await execute(url, EXAMPLE)
    connection = await asyncpg.connect(url)
    for element in ("se-01", "se-02"):
        (tmp_path / element).mkdir()
    yield Older(connection, url, tmp_path)
    await connection.close()


@dataclass
class Newer:
    """A stack of ours beside the older system."""

    older: Older
    admin: AdminSide
    cache: Connection
    admin_api: httpx.AsyncClient
    query_api: httpx.AsyncClient

    async def set_elements(self, mode: str) -> None:
        for element in ("se-01", "se-02"):
            wanted = {"url": (self.older.folder / element).as_uri(), "mode": mode}
            (await self.admin_api.put(f"/api/v1/storage-elements/{element}", json=wanted)).raise_for_status()

    async def take_over(self, *options: str) -> tuple[int, int, int]:
        """Rows that were new, known, and refused."""
        command = (*python("producer_admin", "backfill"), "--from", self.older.url, "--json", *options)
        code, told, complaint = await run_verb(command, ADMIN_DATABASE_URL=self.admin.database)
        assert code == 1, complaint  # there are refused rows
        totals = json.loads(told)
        return totals["taken"], totals["present"], totals["refused"]

    async def difference(self) -> tuple[set[Any], set[Any]]:
        """Lines that only the older and only the newer side has, without the rows that are refused."""
        theirs = {tuple(row) for row in await self.older.database.fetch(STATEMENTS["older.sql"])}
        ours = {tuple(row) for row in await self.cache.fetch(STATEMENTS["newer.sql"])}
        return {one for one in theirs - ours if not is_bad(one[0])}, ours - theirs

    async def moment(self) -> str:
        """The Admin database's clock."""
        connection = await asyncpg.connect(self.admin.database)
        try:
            return str(await connection.fetchval("SELECT now()::text"))
        finally:
            await connection.close()

    async def changed(self, since: str) -> list[str]:
        """What the page writes out of the Admin database."""
        connection = await asyncpg.connect(self.admin.database)
        try:
            rows = await connection.fetch(STATEMENTS["changed.sql"].replace(":'since'", f"'{since}'"))
        finally:
            await connection.close()
        return [row[0] for row in rows]

    async def search(self, words: str) -> list[str]:
        answer = await self.query_api.get(f"{FILES}/search", params={"query": words})
        return [hit["file_id"] for hit in answer.json()["results"]]

    async def upload(self, name: str) -> httpx.Response:
        return await self.admin_api.post(f"{FILES}/upload", files={"file": (name, name.encode())})


def is_bad(file_id: str) -> bool:
    """Whether this is one of the example's rows that cannot be taken over."""
    return file_id == "not-a-uuid" or file_id.startswith("0a6b2f5e-3c1d-4e8f-9a70-0000000000b")


@asynccontextmanager
async def newer(scene: Scene, older: Older) -> AsyncIterator[Newer]:
    """Consumers are started before producers; the elements are read-only."""
    admin = await new_admin(scene)
    connection = await asyncpg.connect(scene.database)
    try:
        scene.start("projector")
        url = await start_query_api(scene, "http://127.0.0.1:1")
        element = {"STORAGE_ELEMENT_URL": (older.folder / "se-01").as_uri()}
        await asyncio.to_thread(admin.start, "relay", "relay", FILE_EVENTS_TOPIC=scene.topic)
        await asyncio.to_thread(admin.start, "api", "api", **element)
        async with (
            httpx.AsyncClient(base_url=admin.urls["api"], trust_env=False, timeout=60) as admin_api,
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as query_api,
        ):
            side = Newer(older, admin, connection, admin_api, query_api)
            await side.set_elements("read_only")
            yield side
    finally:
        await connection.close()
        await asyncio.to_thread(admin.stop)


async def test_the_older_systems_files_are_found_beside_it_after_the_cut_over_and_in_it_after_going_back(
    query_servers: QuerySide, older: Older
) -> None:
    async with query_servers.scene() as scene, newer(scene, older) as beside:
        changed, deleted = await beside_it(older, beside)
    async with query_servers.scene() as scene, newer(scene, older) as final:
        since = await cut_over(final, changed, deleted)
        made = await go_on(final, changed)
        await back(older, final, since)
        assert set(await older.search("приказ")) == {changed, made}
        assert await older.content(made) == "Приказ 4.txt".encode()
        assert await older.search("действует") == [changed]
        assert await older.search("backup.tar.gz") == []


async def beside_it(older: Older, side: Newer) -> tuple[str, str]:
    """The older system goes on; what it adds is taken, what it changes and deletes is told by the comparison."""
    assert (await side.upload("too early.txt")).status_code == 503
    first = await older.upload("Приказ 1.txt")
    assert await side.take_over("--dry-run") == (9, 0, REFUSED)
    assert await side.take_over() == (9, 0, REFUSED)
    await settles(side.difference, (set(), set()), FOUND_SECONDS)
    for words in ("договор поставки", "README", "приказ", "backup.tar.gz"):
        found = set(await older.search(words))
        assert found, words
        assert found <= set(await side.search(words))
    content = await side.admin_api.get(f"{FILES}/{first}/content")
    assert content.content == await older.content(first)

    second = await older.upload("Приказ 2.txt")
    assert await side.take_over("--restart") == (1, 9, REFUSED)
    await settles(side.difference, (set(), set()), FOUND_SECONDS)
    assert second in await side.search("приказ")

    await older.database.execute("UPDATE file_metadata SET description = 'отменён' WHERE file_id = $1", first)
    await older.database.execute("DELETE FROM file_metadata WHERE file_id = $1", second)
    assert await side.take_over("--restart") == (0, 9, REFUSED)
    theirs, ours = await side.difference()
    assert {one[0] for one in theirs} == {first}
    assert {one[0] for one in ours} == {first, second}
    return first, second


async def cut_over(side: Newer, changed: str, deleted: str) -> str:
    """All is taken anew, so nothing is left of what was changed or deleted meanwhile. Returns the moment."""
    assert await side.take_over() == (9, 0, REFUSED)
    await settles(side.difference, (set(), set()), FOUND_SECONDS)
    assert await side.search("отменён") == [changed]
    assert deleted not in await side.search("приказ")
    moment = await side.moment()
    await side.set_elements("online")
    return moment


async def go_on(side: Newer, changed: str) -> str:
    """Clients upload, change, and delete the backup. Returns the new file."""
    made = await eventually(lambda: uploaded(side, "Приказ 4.txt"), FOUND_SECONDS, "uploads are taken")
    [gone] = await side.search("backup.tar.gz")
    assert made is not None
    (await side.admin_api.patch(f"{FILES}/{changed}", json={"description": "действует"})).raise_for_status()
    (await side.admin_api.delete(f"{FILES}/{gone}")).raise_for_status()
    await settles(lambda: side.search("приказ 4"), [made], FOUND_SECONDS)
    await settles(lambda: side.search("действует"), [changed], FOUND_SECONDS)
    await settles(lambda: side.search("backup.tar.gz"), list[str](), FOUND_SECONDS)
    return made


async def back(older: Older, side: Newer, since: str) -> None:
    """The older system gets what has happened since the cut-over."""
    theirs, ours = await side.difference()
    assert (len(theirs), len(ours)) == (2, 2), "it does not know yet what was made, changed and deleted"
    changed = await side.changed(since)
    assert len(changed) == 3
    await older.database.execute("CREATE TABLE changed (change jsonb)")
    await older.database.copy_records_to_table("changed", records=[(one,) for one in changed])
    await older.database.execute(STATEMENTS["bring_back.sql"])
    assert await side.difference() == (set(), set())


async def uploaded(side: Newer, name: str) -> str | None:
    """The id of a new file; None while no element is known to be online."""
    answer = await side.upload(name)
    return str(answer.json()["file_id"]) if answer.status_code == 201 else None
