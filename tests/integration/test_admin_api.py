"""The Admin API over a real Postgres and a real disk: every 2xx is in the outbox, every 4xx leaves nothing."""

import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from producer_admin.marks import MARK
from schemas.codec import Decoder
from schemas.events import EventType
from tests.integration.conftest import MAX_UPLOAD_BYTES

CONTENT = "содержание".encode()


async def upload(admin: httpx.AsyncClient, content: bytes = CONTENT, name: str = "отчёт.pdf", **fields: Any) -> Any:
    answer = await admin.post("/upload", data=fields, files={"file": (name, content, "application/pdf")})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def stored_rows(pool: asyncpg.Pool) -> dict[str, int]:
    tables = ("files", "outbox")
    return {table: await pool.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


def stored_objects(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != MARK]


async def test_an_upload_is_stored_whole_and_announced_in_the_same_transaction(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, storage_folder: Path
) -> None:
    fields: dict[str, Any] = {
        "description": "Договор на поставку",
        "tags": ["urgent", "contract", "urgent"],
        "version": "1.0",
        "created_by_username": "ivanov",
        "created_by_fullname": "Иван Иванов",
        "retention_expires_at": "2027-01-13T10:00:00Z",
    }
    answer = await upload(admin, **fields)
    expected = {
        **fields,
        "tags": ["urgent", "contract"],
        "original_filename": "отчёт.pdf",
        "mime_type": "application/pdf",
        "file_size": len(CONTENT),
        "checksum": f"sha256:{hashlib.sha256(CONTENT).hexdigest()}",
        "revision": 1,
        "storage_element_id": "se-01",
    }
    assert {name: answer[name] for name in expected} == expected
    [path] = stored_objects(storage_folder)
    assert path.read_bytes() == CONTENT
    assert path.relative_to(storage_folder).as_posix() == f"{answer['storage_path']}/{answer['storage_filename']}"

    row = await admin_pool.fetchrow("SELECT payload, xmin::text FROM outbox")
    assert row is not None
    event = Decoder().decode(row["payload"])
    assert (str(event.file_id), event.event_type, event.revision) == (answer["file_id"], EventType.CREATED, 1)
    assert event.metadata is not None
    assert event.metadata.tags == ("urgent", "contract")
    assert event.metadata.checksum == answer["checksum"]
    # One transaction wrote both.
    assert await admin_pool.fetchval("SELECT xmin::text FROM files") == row["xmin"]


async def test_a_file_comes_back_as_it_went(admin: httpx.AsyncClient) -> None:
    content = bytes(range(256)) * 50_000
    answer = await upload(admin, content, name='a "quoted" имя.bin')
    back = await admin.get(f"/{answer['file_id']}/content")
    assert back.content == content
    assert back.headers["x-content-type-options"] == "nosniff"
    assert back.headers["content-disposition"].startswith("attachment; filename*=UTF-8''a%20")
    assert (await admin.get(f"/{answer['file_id']}")).json() == answer


async def test_a_name_that_looks_like_a_url_is_still_a_name(admin: httpx.AsyncClient) -> None:
    answer = await admin.post("/upload", files={"file": ("data:text/html,x.png", b"x", "application/octet-stream")})
    assert answer.json()["mime_type"] == "image/png"


async def test_every_error_is_documented_as_a_problem(admin: httpx.AsyncClient) -> None:
    described = (await admin.get("http://admin/openapi.json")).json()
    answers = [
        (path, method, status, answer)
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
        if status >= "400"
    ]
    assert len(answers) > 50
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert [one for one in answers if one[3]["content"] != problem] == []
    assert {"Problem", "ProblemField"} <= described["components"]["schemas"].keys()


async def test_no_part_of_a_name_is_in_the_storage_path(admin: httpx.AsyncClient, storage_folder: Path) -> None:
    await upload(admin, original_filename="../../../etc/passwd", tags=["../x"])
    [path] = stored_objects(storage_folder)
    assert "passwd" not in path.as_posix()


async def test_fields_behind_the_file_count_as_much_as_those_before_it(admin: httpx.AsyncClient) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n'
        b'--x\r\nContent-Disposition: form-data; name="description"\r\n\r\nlate\r\n--x--\r\n'
    )
    answer = await admin.post("/upload", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.json()["description"] == "late"
    assert answer.json()["mime_type"] == "text/plain"


async def test_each_change_raises_the_revision_by_one_and_a_change_of_nothing_does_not(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool
) -> None:
    file_id = (await upload(admin))["file_id"]
    changed = await admin.patch(f"/{file_id}", json={"description": "two", "tags": ["a"]})
    assert (changed.json()["revision"], changed.headers["etag"]) == (2, '"2"')
    assert (await admin.patch(f"/{file_id}", json={"description": "two", "tags": ["a"]})).json()["revision"] == 2
    cleared = (await admin.patch(f"/{file_id}", json={"description": None})).json()
    assert (cleared["revision"], cleared["description"], cleared["tags"]) == (3, None, ["a"])
    events = await admin_pool.fetch("SELECT event_type, revision FROM outbox ORDER BY outbox_id")
    assert [tuple(row) for row in events] == [("file:created", 1), ("file:updated", 2), ("file:updated", 3)]


async def test_a_deleted_file_is_gone_and_its_row_remembers_its_revision(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, storage_folder: Path
) -> None:
    file_id = (await upload(admin))["file_id"]
    assert (await admin.delete(f"/{file_id}")).status_code == 204
    for answer in (
        await admin.get(f"/{file_id}"),
        await admin.get(f"/{file_id}/content"),
        await admin.patch(f"/{file_id}", json={"version": "2"}),
        await admin.delete(f"/{file_id}"),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert stored_objects(storage_folder) == []
    assert await admin_pool.fetchval("SELECT revision FROM files WHERE deleted_at IS NOT NULL") == 2
    event = Decoder().decode(await admin_pool.fetchval("SELECT payload FROM outbox WHERE revision = 2"))
    assert (event.event_type, event.metadata) == (EventType.DELETED, None)


def form(*, file: bool = True, filename: str = "a.txt", **fields: Any) -> dict[str, Any]:
    files = {"file": (filename, CONTENT)} if file else {"other": ("a.txt", CONTENT)}
    return {"data": fields, "files": files}


@pytest.mark.parametrize(
    ("request_of_upload", "status", "field"),
    [
        pytest.param(form(file=False), 422, "file", id="no file"),
        pytest.param({"json": {"file": "x"}}, 422, "file", id="wrong type of body"),
        pytest.param({"content": b""}, 422, "file", id="no body"),
        pytest.param(form(filename="n" * 5000), 422, "original_filename", id="name of 5,000 characters"),
        pytest.param(form(original_filename="n" * 256), 422, "original_filename", id="name of 256 characters"),
        pytest.param(form(original_filename="a\nb"), 422, "original_filename", id="line break in the name"),
        pytest.param(form(original_filename="a\x9bb"), 422, "original_filename", id="C1 control in the name"),
        pytest.param(form(original_filename=" \u2003"), 422, "original_filename", id="blank name"),
        pytest.param(form(description="a\x00b"), 422, "description", id="NUL in the description"),
        pytest.param(form(description="d" * 10_001), 422, "description", id="long description"),
        pytest.param(form(description="d" * 100_000), 422, "description", id="field beyond every limit"),
        pytest.param(form(tags=[f"t{n}" for n in range(300)]), 422, "tags", id="300 tags"),
        pytest.param(form(tags=[f"t{n}" for n in range(3000)]), 422, "tags", id="3,000 tags"),
        pytest.param(form(tags=["x", "t" * 101]), 422, "tags.1", id="long tag"),
        pytest.param(form(mime_type="pdf"), 422, "mime_type", id="no media type"),
        pytest.param(form(retention_expires_at="soon"), 422, "retention_expires_at", id="no time"),
        pytest.param(form(retention_expires_at="2027-01-01T00:00:00"), 422, "retention_expires_at", id="no zone"),
        pytest.param(
            form(retention_expires_at="0001-01-01T00:00:00+23:59"), 422, "retention_expires_at", id="before time"
        ),
        pytest.param(
            form(retention_expires_at="9999-12-31T23:59:59-23:59"), 422, "retention_expires_at", id="after time"
        ),
        pytest.param(form(file_size="1"), 422, "file_size", id="a field that is not the caller's"),
        pytest.param({"files": [("file", ("a", b"1")), ("file", ("b", b"2"))]}, 422, "file", id="two files"),
        pytest.param({"files": {"file": ("a", b"x" * (MAX_UPLOAD_BYTES + 1))}}, 413, "file", id="too large"),
        pytest.param(
            {
                "content": b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf a fi',
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            400,
            None,
            id="a body that breaks off",
        ),
        pytest.param(
            {"content": b"", "headers": {"Content-Type": f"multipart/form-data; boundary={'x' * 500}"}},
            400,
            None,
            id="a boundary of 500 characters",
        ),
        pytest.param(
            {"content": b"not a form", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            400,
            None,
            id="a body that is no form",
        ),
        pytest.param(
            {
                "content": b'--x\r\nContent-Disposition: form-data; name="description"\r\n\r\n\xff\xfe\r\n--x--\r\n',
                "headers": {"Content-Type": "multipart/form-data; boundary=x"},
            },
            422,
            "description",
            id="a field that is not UTF-8",
        ),
    ],
)
async def test_a_refused_upload_names_the_field_and_leaves_nothing(
    admin: httpx.AsyncClient,
    admin_pool: asyncpg.Pool,
    storage_folder: Path,
    request_of_upload: dict[str, Any],
    status: int,
    field: str | None,
) -> None:
    answer = await admin.post("/upload", **request_of_upload)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert [one["field"] for one in answer.json()["errors"]] == ([field] if field else [])
    assert await stored_rows(admin_pool) == {"files": 0, "outbox": 0}
    assert stored_objects(storage_folder) == []
    assert await admin_pool.fetchval("SELECT count(*) FROM sagas WHERE state != 'compensated'") == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({}, "body"),
        ([], "body"),
        ({"tags": "x"}, "tags"),
        ({"tags": ["x", 1]}, "tags.1"),
        ({"original_filename": None}, "original_filename"),
        ({"original_filename": ""}, "original_filename"),
        ({"description": 1}, "description"),
        ({"description": "\x00"}, "description"),
        ({"file_size": 1}, "file_size"),
        ({"retention_expires_at": "0001-01-01T00:00:00Z"}, "retention_expires_at"),
    ],
)
async def test_a_refused_change_names_the_field_and_changes_nothing(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, change: Any, field: str
) -> None:
    before = await upload(admin)
    answer = await admin.patch(f"/{before['file_id']}", json=change)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert (await admin.get(f"/{before['file_id']}")).json() == before
    assert await admin_pool.fetchval("SELECT count(*) FROM outbox") == 1


@pytest.mark.parametrize(("file_id", "status"), [(str(UUID(int=1)), 404), ("not-a-uuid", 422)])
async def test_an_unknown_file_is_a_problem_in_every_route(admin: httpx.AsyncClient, file_id: str, status: int) -> None:
    for answer in (
        await admin.get(f"/{file_id}"),
        await admin.get(f"/{file_id}/content"),
        await admin.patch(f"/{file_id}", json={"version": "2"}),
        await admin.delete(f"/{file_id}"),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_an_upload_whose_event_cannot_be_written_leaves_no_file_and_no_bytes(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, storage_folder: Path
) -> None:
    await admin_pool.execute("ALTER TABLE outbox ADD CONSTRAINT closed CHECK (false)")
    answer = await admin.post("/upload", files={"file": ("a.txt", CONTENT)})
    assert answer.status_code == 500
    assert await stored_rows(admin_pool) == {"files": 0, "outbox": 0}
    assert stored_objects(storage_folder) == []
    row = await admin_pool.fetchrow("SELECT state, error FROM sagas")
    assert row is not None
    assert row["state"] == "compensated"
    assert "closed" in row["error"]
