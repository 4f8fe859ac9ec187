"""Whatever an operator does to the Admin module is on record, and what was refused or rehearsed is not."""

from pathlib import Path
from typing import Any

import asyncpg
import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import actions
from producer_admin.actions import Did
from producer_admin.requeue import requeue

ROOT = "http://admin/api/v1"


async def recorded(admin: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    answer = await admin.get(f"{ROOT}/admin/actions", params=query)
    assert answer.status_code == 200
    found: list[dict[str, Any]] = answer.json()["actions"]
    return found


def told(found: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(one["actor"], one["action"], one["subject"]) for one in found]


async def test_the_life_of_a_storage_element_is_on_record_newest_first(
    admin: httpx.AsyncClient, tmp_path: Path
) -> None:
    at, url = f"{ROOT}/storage-elements/b", (tmp_path / "b").as_uri()
    headers = [(b"X-Actor", "Иван".encode())]
    await admin.put(at, json={"url": url}, headers=headers)
    await admin.put(at, json={"url": url, "mode": "offline", "capacity_bytes": 7})
    await admin.delete(at, headers=headers)
    found = await recorded(admin)
    assert told(found) == [
        ("Иван", "element forgotten", "b"),
        ("anonymous", "element changed", "b"),
        ("Иван", "element registered", "b"),
    ]
    assert found[1]["detail"] == {
        "before": {"url": url, "mode": "online", "capacity_bytes": None},
        "to": {"url": url, "mode": "offline", "capacity_bytes": 7},
    }
    assert told(await recorded(admin, limit=1, before=found[0]["action_id"])) == told(found)[1:2]


async def test_what_was_refused_is_not_on_record(admin: httpx.AsyncClient, tmp_path: Path) -> None:
    url = (tmp_path / "b").as_uri()
    assert (await admin.put(f"{ROOT}/storage-elements/b", json={"url": "ftp://b"})).status_code == 422
    bad = await admin.put(f"{ROOT}/storage-elements/b", json={"url": url}, headers={"X-Actor": "a\tb"})
    assert bad.status_code == 422
    assert (await admin.delete(f"{ROOT}/storage-elements/se-01")).status_code == 409
    assert await recorded(admin) == []


async def test_events_that_are_put_back_are_on_record_with_their_files(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool
) -> None:
    file_id = (await admin.post("/upload", files={"file": ("a.txt", b"x")})).json()["file_id"]
    await admin_pool.execute(
        "WITH sent AS (DELETE FROM outbox RETURNING *) INSERT INTO outbox_sent (outbox_id, shard, file_id, revision, "
        "event_id, event_type, actor, payload, occurred_at, sent_at, record_offset) SELECT outbox_id, shard, file_id, "
        "revision, event_id, event_type, actor, payload, occurred_at, now(), 0 FROM sent"
    )
    async with admin_pool.acquire() as connection:
        await requeue(connection, [file_id], dry_run=True, actor="ivan")
        assert await recorded(admin) == []
        await requeue(connection, [file_id], actor="ivan")
    [found] = await recorded(admin)
    assert told([found]) == [("ivan", "events put back into the outbox", "1 files")]
    assert found["detail"] == {"file_ids": [file_id]}


async def test_what_begins_a_long_verb_is_on_record_under_the_user_who_runs_it(
    admin: httpx.AsyncClient, admin_engine: AsyncEngine
) -> None:
    await actions.note_begun(admin_engine, Did.RECLAIM, "se-01", grace="24 h")
    assert told(await recorded(admin)) == [(actions.operator(), "reclaiming scrub begun", "se-01")]
