"""The Admin API beyond the upload: preconditions, new content, ranges, moves, lists, limits, retries, retention."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import elements
from producer_admin.api_models import Limits
from producer_admin.api_process import admin_app
from producer_admin.saga_recovery import recover
from producer_admin.saga_steps import Means
from producer_admin.sweeper import Keeping, sweep
from schemas.codec import Decoder
from tests.integration.test_admin_api import stored_objects, upload

CONTENT = b"0123456789"
LIST = "http://admin/api/v1/files"


def etag(content: bytes) -> str:
    return f'"sha256:{hashlib.sha256(content).hexdigest()}"'


async def test_a_change_with_another_revision_than_the_files_is_refused_and_changes_nothing(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool
) -> None:
    before = await upload(admin)
    at = f"/{before['file_id']}"
    stale = {"If-Match": '"7", W/"1"'}
    for answer in (
        await admin.patch(at, json={"version": "2"}, headers=stale),
        await admin.put(f"{at}/content", content=b"x", headers=stale),
        await admin.post(f"{at}/move", json={"storage_element_id": "se-01"}, headers=stale),
        await admin.delete(at, headers=stale),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (412, "application/problem+json")
        assert "at revision 1" in answer.json()["detail"]
    assert (await admin.get(at)).json() == before
    assert await admin_pool.fetchval("SELECT count(*) FROM outbox") == 1
    assert (await admin.patch(at, json={"version": "2"}, headers={"If-Match": '"7", "1"'})).json()["revision"] == 2
    assert (await admin.delete(at, headers={"If-Match": "*"})).status_code == 204


async def test_of_two_changes_from_the_same_revision_one_wins(admin: httpx.AsyncClient) -> None:
    at = f"/{(await upload(admin))['file_id']}"
    answers = await asyncio.gather(
        *(admin.patch(at, json={"version": str(n)}, headers={"If-Match": '"1"'}) for n in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412, 412]


async def test_a_precondition_that_cannot_be_read_is_refused(admin: httpx.AsyncClient) -> None:
    at = f"/{(await upload(admin))['file_id']}"
    answer = await admin.patch(at, json={"version": "2"}, headers={"If-Match": "7"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "If-Match")


async def test_metadata_that_the_client_has_is_not_sent_again(admin: httpx.AsyncClient) -> None:
    at = f"/{(await upload(admin))['file_id']}"
    answer = await admin.get(at, headers={"If-None-Match": '"1"'})
    assert (answer.status_code, answer.content) == (304, b"")
    assert (await admin.get(at, headers={"If-None-Match": '"2"'})).status_code == 200


async def test_new_content_is_a_new_revision_and_the_old_bytes_go(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, storage_folder: Path
) -> None:
    before = await upload(admin)
    at = f"/{before['file_id']}"
    after = await admin.put(
        f"{at}/content?version=2.0", content=CONTENT, headers={"Content-Type": "text/plain", "If-Match": '"1"'}
    )
    expected = {
        "revision": 2,
        "version": "2.0",
        "mime_type": "text/plain",
        "file_size": 10,
        "checksum": etag(CONTENT).strip('"'),
        "original_filename": before["original_filename"],
        "created_at": before["created_at"],
    }
    assert {name: after.json()[name] for name in expected} == expected
    [path] = stored_objects(storage_folder)
    assert path.read_bytes() == CONTENT
    # Without a media type, as curl sends it, the old one stays.
    kept = await admin.put(f"{at}/content", content=b"x", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (kept.json()["revision"], kept.json()["mime_type"], kept.json()["version"]) == (3, "text/plain", "2.0")
    event = Decoder().decode(await admin_pool.fetchval("SELECT payload FROM outbox ORDER BY outbox_id DESC LIMIT 1"))
    assert event.metadata is not None
    assert event.metadata.file_size == 1


async def test_a_form_where_the_bytes_belong_is_refused(admin: httpx.AsyncClient) -> None:
    before = await upload(admin)
    answer = await admin.put(f"/{before['file_id']}/content", files={"file": ("a", b"x")})
    assert (answer.status_code, answer.headers["content-type"]) == (415, "application/problem+json")
    assert (await admin.get(f"/{before['file_id']}")).json() == before


@pytest.mark.parametrize(
    ("headers", "status", "body", "content_range"),
    [
        ({}, 200, CONTENT, None),
        ({"Range": "bytes=2-4"}, 206, b"234", "bytes 2-4/10"),
        ({"Range": "bytes=7-"}, 206, b"789", "bytes 7-9/10"),
        ({"Range": "bytes=-3"}, 206, b"789", "bytes 7-9/10"),
        ({"Range": "bytes=5-100"}, 206, b"56789", "bytes 5-9/10"),
        ({"Range": "bytes=10-"}, 416, b"", "bytes */10"),
        ({"Range": "bytes=1-2,4-5"}, 200, CONTENT, None),
        ({"Range": "lines=1-2"}, 200, CONTENT, None),
        ({"Range": "bytes=2-4", "If-Range": etag(CONTENT)}, 206, b"234", "bytes 2-4/10"),
        ({"Range": "bytes=2-4", "If-Range": etag(b"other")}, 200, CONTENT, None),
        ({"If-None-Match": etag(CONTENT)}, 304, b"", None),
        ({"If-None-Match": etag(b"other")}, 200, CONTENT, None),
    ],
)
async def test_a_part_of_the_content_can_be_asked_for(
    admin: httpx.AsyncClient, headers: dict[str, str], status: int, body: bytes, content_range: str | None
) -> None:
    file_id = (await upload(admin, CONTENT))["file_id"]
    answer = await admin.get(f"/{file_id}/content", headers=headers)
    assert answer.status_code == status
    if status == 416:
        assert answer.headers["content-type"] == "application/problem+json"
    else:
        assert answer.content == body
    assert answer.headers.get("content-range") == content_range
    assert (answer.headers["etag"], answer.headers["accept-ranges"]) == (etag(CONTENT), "bytes")


async def test_head_tells_the_size_and_sends_nothing(admin: httpx.AsyncClient) -> None:
    file_id = (await upload(admin, CONTENT))["file_id"]
    answer = await admin.head(f"/{file_id}/content", headers={"Range": "bytes=0-1"})
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "10")


async def test_content_that_its_element_has_lost_is_a_problem_before_a_byte_is_sent(
    admin: httpx.AsyncClient, storage_folder: Path
) -> None:
    file_id = (await upload(admin, CONTENT))["file_id"]
    stored_objects(storage_folder)[0].unlink()
    answer = await admin.get(f"/{file_id}/content")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")


async def test_content_that_is_replaced_while_it_is_asked_for_is_the_new_content(
    admin: httpx.AsyncClient, means: Means
) -> None:
    at = f"/{(await upload(admin, CONTENT))['file_id']}/content"
    source = means.elements.source

    def replaced_meanwhile(element_id: str) -> Any:
        class Replacing:
            async def read(self, *asked: Any) -> AsyncIterator[bytes]:
                patch.undo()
                assert (await admin.put(at, content=b"new")).status_code == 200
                return await source(element_id).read(*asked)

        return Replacing()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(means.elements, "source", replaced_meanwhile)
        answer = await admin.get(at)
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (200, b"new", etag(b"new"))


async def test_a_file_moves_with_its_bytes_and_search_hears_of_it(
    admin: httpx.AsyncClient, means: Means, admin_engine: AsyncEngine, storage_folder: Path, tmp_path: Path,
    admin_pool: asyncpg.Pool,
) -> None:  # fmt: skip
    before = await upload(admin, CONTENT)
    second = tmp_path / "second"
    await elements.ensure(admin_engine, "se-02", second.as_uri())
    await means.elements.refresh()
    at = f"/{before['file_id']}"
    moved = (await admin.post(f"{at}/move", json={"storage_element_id": "se-02"})).json()
    assert (moved["storage_element_id"], moved["revision"]) == ("se-02", 2)
    assert stored_objects(storage_folder) == []
    assert [path.read_bytes() for path in stored_objects(second)] == [CONTENT]
    assert (await admin.get(f"{at}/content")).content == CONTENT
    assert (await admin.post(f"{at}/move", json={"storage_element_id": "se-02"})).json() == moved
    event = Decoder().decode(await admin_pool.fetchval("SELECT payload FROM outbox WHERE revision = 2"))
    assert event.storage_element_id == "se-02"


@pytest.mark.parametrize(
    ("state", "status"),
    [("mode = 'read_only'", 503), ("mode = 'offline'", 503), ("capacity_bytes = 3", 507), ("element_id = 'gone'", 404)],
)
async def test_a_move_to_an_element_that_takes_nothing_is_refused(
    admin: httpx.AsyncClient, means: Means, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool, tmp_path: Path,
    state: str, status: int,
) -> None:  # fmt: skip
    before = await upload(admin, CONTENT)
    await elements.ensure(admin_engine, "se-02", (tmp_path / "second").as_uri())
    await admin_pool.execute(f"UPDATE storage_elements SET {state} WHERE element_id = 'se-02'")
    await means.elements.refresh()
    answer = await admin.post(f"/{before['file_id']}/move", json={"storage_element_id": "se-02"})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (await admin.get(f"/{before['file_id']}")).json() == before


@pytest.mark.parametrize(
    ("state", "status"), [("mode = 'read_only'", 503), ("mode = 'offline'", 503), ("capacity_bytes = 3", 507)]
)
async def test_an_upload_that_no_element_takes_is_refused(
    admin: httpx.AsyncClient, means: Means, admin_pool: asyncpg.Pool, state: str, status: int
) -> None:
    await admin_pool.execute(f"UPDATE storage_elements SET {state}")
    await means.elements.refresh()
    answer = await admin.post("/upload", files={"file": ("a", CONTENT)})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert ("retry-after" in answer.headers) == (status == 503)
    assert await admin_pool.fetchval("SELECT count(*) FROM files") == 0


ELEMENTS = "http://admin/api/v1/storage-elements"


async def test_one_place_is_not_two_elements(admin: httpx.AsyncClient, storage_folder: Path) -> None:
    for url in (storage_folder.as_uri(), f"{storage_folder.as_uri()}/"):
        answer = await admin.put(f"{ELEMENTS}/se-02", json={"url": url})
        assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
        assert "is storage element se-01 already" in answer.json()["detail"]


async def test_an_element_with_files_moves_only_to_where_its_objects_are(
    admin: httpx.AsyncClient, storage_folder: Path, tmp_path: Path
) -> None:
    file_id = (await upload(admin, CONTENT))["file_id"]
    other = tmp_path / "other"
    other.mkdir()
    answer = await admin.put(f"{ELEMENTS}/se-01", json={"url": other.as_uri()})
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert (await admin.get(f"/{file_id}/content")).content == CONTENT
    shutil.copytree(storage_folder, other, dirs_exist_ok=True)
    assert (await admin.put(f"{ELEMENTS}/se-01", json={"url": other.as_uri()})).status_code == 200
    shutil.rmtree(storage_folder)
    assert (await admin.get(f"/{file_id}/content")).content == CONTENT


async def test_an_empty_mount_point_is_not_the_disk_that_belongs_there(
    admin: httpx.AsyncClient, means: Means, admin_pool: asyncpg.Pool, storage_folder: Path
) -> None:
    file_id = (await upload(admin, CONTENT))["file_id"]
    mounted = storage_folder.rename(storage_folder.with_name("mounted elsewhere"))
    storage_folder.mkdir()
    await means.elements.check()
    [shown] = (await admin.get(ELEMENTS)).json()["elements"]
    assert not shown["healthy"]
    assert "mark of se-01" in shown["health_error"]
    assert (await admin.post("/upload", files={"file": ("a", b"x")})).status_code == 503
    # A deletion is recorded, and its bytes wait for their disk.
    assert (await admin.delete(f"/{file_id}")).status_code == 204
    assert await admin_pool.fetchval("SELECT state FROM sagas WHERE kind = 'delete'") == "recorded"
    assert [path for path in storage_folder.rglob("*") if path.is_file()] == []
    shutil.rmtree(storage_folder)
    mounted.rename(storage_folder)
    await means.elements.check()
    await admin_pool.execute("UPDATE sagas SET lease_until = '-infinity' WHERE state = 'recorded'")
    assert await recover(means) == 1
    assert stored_objects(storage_folder) == []


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/p?endpoint=http://key:secret@127.0.0.1:1",
        "s3://bucket/p?endpoint=http://127.0.0.1:1/%3Fsig%3Dsecret",
        "s3://bucket/p?endpoint=file:///secret",
        "memory:///",
    ],
)
async def test_a_place_that_holds_a_secret_or_does_not_last_is_refused_without_repeating_it(
    admin: httpx.AsyncClient, url: str
) -> None:
    answer = await admin.put(f"{ELEMENTS}/se-02", json={"url": url})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert "secret" not in answer.text.replace("secrets are in the environment", "")


async def test_the_list_goes_page_by_page_and_what_comes_and_goes_meanwhile_shifts_nothing(
    admin: httpx.AsyncClient,
) -> None:
    ids = [(await upload(admin, name=f"{number}.txt"))["file_id"] for number in range(7)]
    first = (await admin.get(LIST, params={"limit": 3})).json()
    assert [one["file_id"] for one in first["files"]] == ids[:3:-1]
    await admin.delete(f"/{ids[6]}")
    await upload(admin, name="newer.txt")
    second = (await admin.get(LIST, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [one["file_id"] for one in second["files"]] == ids[3:0:-1]
    last = (await admin.get(LIST, params={"limit": 3, "cursor": second["next_cursor"]})).json()
    assert ([one["file_id"] for one in last["files"]], last["next_cursor"]) == (ids[:1], None)


async def test_files_of_the_same_moment_are_all_in_the_list(admin: httpx.AsyncClient, admin_pool: asyncpg.Pool) -> None:
    ids = {(await upload(admin))["file_id"] for _ in range(5)}
    await admin_pool.execute("UPDATE files SET created_at = '2026-01-13T10:00:00Z'")
    found, cursor = set(), None
    for _ in range(5):
        page = (await admin.get(LIST, params={"limit": 1} | ({"cursor": cursor} if cursor else {}))).json()
        found |= {one["file_id"] for one in page["files"]}
        cursor = page["next_cursor"]
    assert (found, cursor) == (ids, None)


@pytest.mark.parametrize("params", [{"cursor": "x"}, {"cursor": "Z" * 50}, {"limit": 0}, {"limit": 501}])
async def test_a_page_that_cannot_be_is_refused(admin: httpx.AsyncClient, params: dict[str, Any]) -> None:
    for path in (LIST, "http://admin/api/v1/sagas"):
        answer = await admin.get(path, params=params)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, next(iter(params)))


@pytest.fixture
async def strict(means: Means, admin_engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A deployment that takes little."""
    app = admin_app(means, admin_engine, Limits(upload_bytes=10, name=5, description=3, tags=1, tag=2))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://admin/api/v1/files"
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"original_filename": "123456"}, 422, "original_filename"),
        ({"description": "four"}, 422, "description"),
        ({"tags": ["a", "b"]}, 422, "tags"),
        ({"tags": ["abc"]}, 422, "tags.0"),
    ],
)
async def test_a_deployments_own_limits_hold_for_uploads_and_changes(
    strict: httpx.AsyncClient, fields: dict[str, Any], status: int, field: str
) -> None:
    refused = await strict.post("/upload", data=fields, files={"file": ("a", b"x")})
    assert (refused.status_code, [one["field"] for one in refused.json()["errors"]]) == (status, [field])
    at = f"/{(await upload(strict, b'x', name='a'))['file_id']}"
    refused = await strict.patch(at, json=fields)
    assert (refused.status_code, [one["field"] for one in refused.json()["errors"]]) == (status, [field])
    assert (await strict.get(at)).json()["revision"] == 1


async def test_content_beyond_the_limit_is_refused_by_its_announcement_or_as_it_comes(
    strict: httpx.AsyncClient, storage_folder: Path
) -> None:
    at = f"/{(await upload(strict, b'x', name='a'))['file_id']}/content"

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x"

    for content in (b"x" * 11, unannounced()):
        answer = await strict.put(at, content=content)
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    assert (await strict.put(at, content=b"x" * 10)).status_code == 200
    assert len(stored_objects(storage_folder)) == 1


@pytest.mark.parametrize("path", ["/files/{file_id}", "/storage-elements/content"])
async def test_a_json_body_is_not_read_without_end(admin: httpx.AsyncClient, path: str) -> None:
    at = "http://admin/api/v1" + path.format(file_id=(await upload(admin))["file_id"])
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"description": "'
        while True:
            sent += 1
            yield b"x" * 65536

    method = "PATCH" if "files" in path else "PUT"
    answer = await admin.request(method, at, content=endless(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    assert sent < 100


async def test_a_retried_upload_is_the_first_one_and_other_bytes_under_its_key_are_refused(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, storage_folder: Path
) -> None:
    key = {"Idempotency-Key": "0b7c"}

    async def send(content: bytes, **fields: str) -> httpx.Response:
        # Each with a boundary of its own, as a client that retries has.
        return await admin.post("/upload", data=fields, files={"file": ("a.txt", content)}, headers=key)

    first = await send(CONTENT, description="one")
    again = await send(CONTENT, description="one")
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.json(), again.headers["location"]) == (first.json(), first.headers["location"])
    for other in (await send(b"other", description="one"), await send(CONTENT, description="two")):
        assert (other.status_code, other.headers["content-type"]) == (409, "application/problem+json")
    assert await admin_pool.fetchval("SELECT count(*) FROM files") == 1
    assert len(stored_objects(storage_folder)) == 1


async def test_a_retried_deletion_is_done_not_absent(admin: httpx.AsyncClient) -> None:
    at = f"/{(await upload(admin))['file_id']}"
    key = {"Idempotency-Key": "delete it"}
    assert [(await admin.delete(at, headers=key)).status_code for _ in range(2)] == [204, 204]
    assert (await admin.delete(at)).status_code == 404


@pytest.mark.parametrize("key", ["", "k" * 256, "ключ".encode(), "a\tb"])
async def test_a_key_that_cannot_be_one_is_refused(admin: httpx.AsyncClient, key: Any) -> None:
    answer = await admin.post("/upload", files={"file": ("a", b"x")}, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


@pytest.mark.parametrize(
    ("headers", "actor"),
    [
        ({"X-Actor": "ivanov"}, "ivanov"),
        ({"X-Actor": "Иванов".encode()}, "Иванов"),
        ({"X-Actor": "%D0%98%D0%B2%D0%B0%D0%BD"}, "Иван"),
        ({}, "anonymous"),
    ],
)
async def test_the_audit_log_knows_who_asked(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, headers: dict[str, Any], actor: str
) -> None:
    answer = await admin.post("/upload", files={"file": ("a", b"x")}, headers=headers)
    await admin.patch(f"/{answer.json()['file_id']}", json={"version": "2"}, headers=headers)
    assert answer.json()["created_by_username"] == actor
    for table in ("outbox", "sagas"):
        assert await admin_pool.fetchval(f"SELECT array_agg(DISTINCT actor) FROM {table}") == [actor]


@pytest.mark.parametrize("actor", ["a\x01b", "%00", b"\xff", "x" * 101])
async def test_an_actor_that_cannot_be_stored_is_refused(admin: httpx.AsyncClient, actor: Any) -> None:
    answer = await admin.post("/upload", files={"file": ("a", b"x")}, headers={"X-Actor": actor})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "X-Actor")


async def test_sagas_can_be_looked_up(admin: httpx.AsyncClient) -> None:
    file_id = (await upload(admin))["file_id"]
    await admin.patch(f"/{file_id}", json={"version": "2"}, headers={"X-Actor": "ivanov"})
    await admin.post("/upload", files={"file": ("a" * 300, b"x")})
    sagas = "http://admin/api/v1/sagas"
    page = (await admin.get(sagas, params={"file_id": file_id, "limit": 1})).json()
    [update] = page["sagas"]
    assert (update["kind"], update["state"], update["actor"], update["revision"]) == ("update", "done", "ivanov", 2)
    rest = (await admin.get(sagas, params={"file_id": file_id, "limit": 1, "cursor": page["next_cursor"]})).json()
    assert [one["kind"] for one in rest["sagas"]] == ["upload"]
    assert rest["next_cursor"] is None
    assert (await admin.get(f"{sagas}/{update['saga_id']}")).json() == update
    assert (await admin.get(sagas, params={"state": ["running", "recorded"]})).json()["sagas"] == []
    for path, status in ((f"{sagas}/{uuid4()}", 404), (f"{sagas}/x", 422), (f"{sagas}?state=odd", 422)):
        answer = await admin.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


KEEPING = Keeping(sweep_seconds=60, answer_hours=48, saga_days=30)


async def test_a_file_whose_retention_is_over_is_deleted_like_any_other(
    admin: httpx.AsyncClient, means: Means, admin_pool: asyncpg.Pool, storage_folder: Path
) -> None:
    expired = (await upload(admin, retention_expires_at="2020-01-01T00:00:00Z"))["file_id"]
    await upload(admin)
    await upload(admin, retention_expires_at="2100-01-01T00:00:00Z")
    assert await sweep(means, KEEPING) == 1
    assert (await admin.get(f"/{expired}")).status_code == 404
    assert len(stored_objects(storage_folder)) == 2
    event = "SELECT event_type || ' by ' || actor FROM outbox WHERE file_id = $1 AND revision = 2"
    assert await admin_pool.fetchval(event, expired) == "file:deleted by retention"
    assert await sweep(means, KEEPING) == 0


async def test_a_file_whose_retention_is_over_stays_while_its_element_is_read_only(
    admin: httpx.AsyncClient, means: Means, admin_pool: asyncpg.Pool, storage_folder: Path
) -> None:
    await upload(admin, retention_expires_at="2020-01-01T00:00:00Z")
    await admin_pool.execute("UPDATE storage_elements SET mode = 'read_only'")
    assert await sweep(means, KEEPING) == 0
    assert len(stored_objects(storage_folder)) == 1
    await admin_pool.execute("UPDATE storage_elements SET mode = 'online'")
    assert await sweep(means, KEEPING) == 1


async def test_a_retention_that_is_prolonged_in_the_last_moment_holds(
    admin: httpx.AsyncClient, means: Means, admin_pool: asyncpg.Pool
) -> None:
    file_id = (await upload(admin, retention_expires_at="2020-01-01T00:00:00Z"))["file_id"]
    async with admin_pool.acquire() as connection, connection.transaction():
        # Under way when the sweeper comes by, so the sweeper finds the file and then waits for its row.
        await connection.execute("UPDATE files SET retention_expires_at = '2100-01-01T00:00:00Z'")
        sweeping = asyncio.create_task(sweep(means, KEEPING))
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        while not await admin_pool.fetchval(waiting):  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01)
    assert await sweeping == 0
    assert (await admin.get(f"/{file_id}")).status_code == 200


async def test_what_ended_long_ago_is_forgotten_and_what_is_under_way_is_not(
    admin: httpx.AsyncClient, means: Means, admin_pool: asyncpg.Pool
) -> None:
    for number in range(3):
        await admin.post("/upload", files={"file": ("a", b"x")}, headers={"Idempotency-Key": str(number)})
    await admin_pool.execute(
        """
        UPDATE sagas SET started_at = now() - interval '31 days';
        UPDATE idempotency_keys SET created_at = now() - interval '49 hours' WHERE key != '2';
        UPDATE idempotency_keys SET answer = NULL WHERE key = '1';
        """
    )
    await admin_pool.execute(
        "UPDATE sagas SET state = 'running' WHERE saga_id = (SELECT min(saga_id::text)::uuid FROM sagas)"
    )
    await sweep(means, KEEPING)
    assert await admin_pool.fetchval("SELECT array_agg(key ORDER BY key) FROM idempotency_keys") == ["1", "2"]
    assert await admin_pool.fetchval("SELECT array_agg(state) FROM sagas") == ["running"]
