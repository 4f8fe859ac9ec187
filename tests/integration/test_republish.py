"""A republish outranks what consumers hold: every file again, deleted ones too, each under a raised revision, once."""

import asyncio
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import elements, files
from producer_admin.errors import FileNotFoundInAdminError
from producer_admin.files import FileRecord
from producer_admin.republish import Options, Progress, republish, republish_files, stored
from schemas.codec import Decoder
from schemas.events import EventType, FileEvent
from tests.integration.conftest import Topic, revisions
from tests.integration.test_backfill import relay_of
from tests.running import run_verb, running
from tests.samples import metadata
from tests.waiting import eventually, settles

ABSENT = UUID("ffffffff-0000-4000-8000-000000000000")


@pytest.fixture
async def known(admin_engine: AsyncEngine, storage_folder: Path) -> list[UUID]:
    """Ten files in order of their ids, the first of them deleted at revision 2, none waiting for the topic."""
    await elements.ensure(admin_engine, "se-01", storage_folder.as_uri())
    found = sorted(uuid4() for _ in range(10))
    async with admin_engine.begin() as connection:
        await files.take_over(connection, [FileRecord(one, 1, "se-01", metadata()) for one in found], "tests")
        await files.delete(connection, found[0], "tests")
        await connection.exec_driver_sql("DELETE FROM outbox")
    return found


async def waiting(pool: asyncpg.Pool) -> list[FileEvent]:
    rows = await pool.fetch("SELECT payload FROM outbox ORDER BY file_id, outbox_id")
    return [Decoder().decode(row["payload"]) for row in rows]


async def cli(admin_database: str, *options: str) -> tuple[int, str, str]:
    verb = (sys.executable, "-m", "producer_admin", "republish", *options)
    return await run_verb(verb, ADMIN_DATABASE_URL=admin_database)


async def test_a_file_is_announced_as_it_is_under_the_next_revision(
    known: list[UUID], admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    used = await admin_pool.fetchval("SELECT sum(used_bytes) FROM storage_usage")
    async with admin_engine.connect() as connection:
        before = (await files.get(connection, known[1])).metadata
    assert await republish_files(admin_engine, [known[1], ABSENT, known[1]], "tests") == 1
    [event] = await waiting(admin_pool)
    assert (event.file_id, event.revision, event.event_type) == (known[1], 2, EventType.UPDATED)
    assert event.metadata == metadata(updated_at=event.occurred_at)
    assert event.occurred_at > before.updated_at
    async with admin_engine.connect() as connection:
        after = await files.get(connection, known[1])
    assert (after.revision, after.metadata) == (2, event.metadata)
    assert await admin_pool.fetchval("SELECT actor FROM outbox") == "tests"
    assert await admin_pool.fetchval("SELECT sum(used_bytes) FROM storage_usage") == used


async def test_a_deleted_file_is_announced_as_deleted_and_stays_deleted(
    known: list[UUID], admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    assert await republish_files(admin_engine, known[:1], "tests") == 1
    [event] = await waiting(admin_pool)
    assert (event.revision, event.event_type, event.metadata) == (3, EventType.DELETED, None)
    assert await admin_pool.fetchval("SELECT deleted_at IS NOT NULL FROM files WHERE file_id = $1", known[0])


async def test_new_revisions_outrank_what_a_consumer_has_seen(
    known: list[UUID], admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    await republish_files(admin_engine, known[:2], "tests", at_least=7)
    assert [event.revision for event in await waiting(admin_pool)] == [8, 8]
    await republish_files(admin_engine, known[:2], "tests", at_least=7)
    assert [event.revision for event in await waiting(admin_pool)] == [8, 9, 8, 9]


async def test_republishes_and_changes_at_once_never_share_a_revision(
    known: list[UUID], admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    async def change(number: int) -> None:
        async with admin_engine.begin() as connection:
            await files.change(connection, known[1], {"description": str(number)}, "tests")

    await asyncio.gather(
        *(republish_files(admin_engine, reversed(known), "tests") for _ in range(4)), *map(change, range(3))
    )
    found: dict[UUID, list[int]] = {}
    for event in await waiting(admin_pool):
        found.setdefault(event.file_id, []).append(event.revision)
    assert found == {
        known[0]: [3, 4, 5, 6],
        known[1]: [2, 3, 4, 5, 6, 7, 8],
        **{one: [2, 3, 4, 5] for one in known[2:]},
    }


async def test_more_files_than_a_page_are_all_announced_once(
    known: list[UUID], admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    progress = Progress()
    await republish(admin_engine, stored(admin_engine, None, None, 3), 10, Options(batch=3), progress, lambda *_: None)
    assert (progress.announced, progress.looked_at, progress.last) == (10, 10, known[-1])
    assert [event.file_id for event in await waiting(admin_pool)] == known


async def test_since_takes_just_what_was_changed_since(
    known: list[UUID], admin_database: str, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    await admin_pool.execute("UPDATE files SET updated_at = now() - interval '1 hour'")
    async with admin_engine.begin() as connection:
        await files.change(connection, known[3], {"description": "new"}, "tests")
        await files.delete(connection, known[7], "tests")
    await admin_pool.execute("DELETE FROM outbox")
    since = datetime.now(UTC) - timedelta(minutes=30)
    code, out, err = await cli(admin_database, "--since", since.isoformat(), "--batch", "2")
    assert code == 0, err
    assert out.startswith("2 files announced under a raised revision, of 10 looked at.")
    assert [(event.file_id, event.revision) for event in await waiting(admin_pool)] == [(known[3], 3), (known[7], 3)]


async def test_ids_that_are_no_files_are_listed_and_the_exit_code_says_so(
    known: list[UUID], admin_database: str, admin_pool: asyncpg.Pool, tmp_path: Path
) -> None:
    code, out, _ = await cli(admin_database, "--ids", f"{known[5]},{ABSENT}", "--at-least", "4")
    assert code == 1
    assert str(ABSENT) in out
    assert [(event.file_id, event.revision) for event in await waiting(admin_pool)] == [(known[5], 5)]
    listed = tmp_path / "ids.txt"
    listed.write_text("\n".join(map(str, [*known, ABSENT])))
    code, out, _ = await cli(admin_database, "--file", str(listed), "--json", "--dry-run")
    found = json.loads(out)
    assert code == 1
    assert (found["announced"], found["unknown"], found["dry_run"]) == (10, [str(ABSENT)], True)
    assert len(await waiting(admin_pool)) == 1
    assert await admin_pool.fetchval("SELECT max(revision) FROM files WHERE file_id <> $1", known[5]) == 2


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--all", "--ids", str(ABSENT)],
        ["--ids", "x"],
        ["--ids", ","],
        ["--since", "yesterday"],
        ["--all", "--after", "x"],
        ["--file", "/does/not/exist"],
    ],
)
async def test_wrong_usage_ends_with_2_and_touches_nothing(options: list[str]) -> None:
    code, out, err = await cli("postgresql://nobody@127.0.0.1:1/nothing", *options)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


async def test_a_run_that_stopped_says_where_and_goes_on_from_there(
    known: list[UUID], admin_database: str, admin_pool: asyncpg.Pool
) -> None:
    async with admin_pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM files WHERE file_id = $1 FOR UPDATE", known[5])
        # It does not wait for a lock for ever.
        code, out, err = await cli(admin_database, "--all", "--batch", "2")
    assert code == 1
    assert "Traceback" not in err
    assert f"go on with --after {known[3]}." in out
    assert [event.file_id for event in await waiting(admin_pool)] == known[:4]
    code, out, err = await cli(admin_database, "--all", "--batch", "2", "--after", str(known[3]))
    assert code == 0, err
    assert [(event.file_id, event.revision) for event in await waiting(admin_pool)] == [
        (known[0], 3),
        *((one, 2) for one in known[1:]),
    ]


@pytest.mark.usefixtures("known")
async def test_a_full_outbox_holds_a_republish(admin_engine: AsyncEngine, admin_pool: asyncpg.Pool) -> None:
    said: list[str] = []

    def tell(_done: int, _total: int | None, text: str) -> None:
        said.append(text)

    async def waits() -> bool:
        return bool(said) and said[-1].startswith("Waiting for the relay")

    options: dict[str, Any] = {"batch": 2, "outbox_limit": 3}
    progress = Progress()
    task = asyncio.create_task(
        republish(admin_engine, stored(admin_engine, None, None, 2), 10, Options(**options), progress, tell)
    )
    await eventually(waits)
    assert progress.announced == 4
    while not task.done():
        await admin_pool.execute("DELETE FROM outbox")  # as if sent
        await asyncio.wait({task}, timeout=0.1)
    await task
    assert progress.announced == 10


async def test_on_the_topic_a_republish_is_behind_what_it_repairs(
    known: list[UUID], admin_engine: AsyncEngine, admin_pool: asyncpg.Pool, events_topic: Topic
) -> None:
    async with running(relay_of(admin_pool, events_topic)):
        for at_least in (0, 40):
            await republish_files(admin_engine, known, "tests", at_least)
            await settles(lambda: admin_pool.fetchval("SELECT count(*) FROM outbox"), 0)
    records = await events_topic.records()
    assert revisions(records) == {
        # A deletion and its tombstone carry one revision.
        str(known[0]): [3, 3, 41, 41],
        **{str(one): [2, 41] for one in known[1:]},
    }
    assert [record.value is None for record in records if record.key == str(known[0]).encode()] == [False, True] * 2


async def test_ids_that_only_a_consumer_knows_are_announced_as_deleted_and_never_used_again(
    known: list[UUID], admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    asked = [ABSENT, known[1]]
    assert await republish_files(admin_engine, asked, "tests", seen={ABSENT: 7}, deletions=True) == 2
    announced = {event.file_id: event for event in await waiting(admin_pool)}
    assert (announced[ABSENT].revision, announced[ABSENT].event_type) == (8, EventType.DELETED)
    assert (announced[known[1]].revision, announced[known[1]].event_type) == (2, EventType.UPDATED)
    async with admin_engine.begin() as connection:
        assert await files.take_over(connection, [FileRecord(ABSENT, 1, "se-01", metadata())], "tests") == []
        with pytest.raises(FileNotFoundInAdminError):
            await files.get(connection, ABSENT)
    await republish_files(admin_engine, [ABSENT], "tests")
    assert [event.revision for event in await waiting(admin_pool) if event.file_id == ABSENT] == [8, 9]


async def test_what_a_consumer_has_seen_is_outranked_file_by_file(
    known: list[UUID], admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    await republish_files(admin_engine, known[1:4], "tests", at_least=2, seen={known[1]: 9, known[2]: 1})
    assert [event.revision for event in await waiting(admin_pool)] == [10, 3, 3]
