"""From an upload to a search hit through real processes, some of which are killed on the way."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer

from local.settings import StackSettings
from local.stack import Stack
from schemas.codec import Decoder
from tests.waiting import eventually, settles

FILES = "/api/v1/files"
NOTHING: list[str] = []
RESTART_SECONDS = 60
"""A relay that was killed leaves leases of 15 s behind."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(StackSettings.on_free_ports(tmp_path_factory.mktemp("stack")))
    with stack:
        yield stack
    stack.erase()


@pytest.fixture
async def admin(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.admin_url + FILES, timeout=60) as client:
        yield client


@pytest.fixture
async def query(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.query_url + FILES, timeout=60) as client:
        yield client


async def upload(admin: httpx.AsyncClient, name: str, **fields: Any) -> str:
    answer = await admin.post("/upload", data=fields, files={"file": (name, b"content")})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["file_id"])


async def names(query: httpx.AsyncClient, words: str) -> list[str]:
    answer = await query.get("/search", params={"query": words})
    return [hit["original_filename"] for hit in answer.json()["results"]]


async def test_what_was_uploaded_is_found(admin: httpx.AsyncClient, query: httpx.AsyncClient) -> None:
    file_id = await upload(admin, "Договор_поставки.pdf", description="Contract with a supplier")
    for words in ("договоры", "supplier contract", "Договор_поставки.pdf"):
        await settles(partial(names, query, words), ["Договор_поставки.pdf"])
    in_admin = (await admin.get(f"/{file_id}")).json()
    assert (await query.get(f"/{file_id}")).json() == in_admin


async def test_an_upload_two_updates_and_a_deletion_are_seen_in_order_and_search_follows_each(
    stack: Stack, admin: httpx.AsyncClient, query: httpx.AsyncClient
) -> None:
    file_id = await upload(admin, "zebra.txt")
    await settles(lambda: names(query, "zebra"), ["zebra.txt"])
    await admin.patch(f"/{file_id}", json={"original_filename": "giraffe.txt"})
    await settles(lambda: names(query, "giraffe"), ["giraffe.txt"])
    assert await names(query, "zebra") == []
    await admin.patch(f"/{file_id}", json={"description": "an okapi really"})
    await settles(lambda: names(query, "okapi"), ["giraffe.txt"])
    await admin.delete(f"/{file_id}")
    await settles(lambda: names(query, "okapi"), NOTHING)
    assert (await query.get(f"/{file_id}")).status_code == 404
    assert await story(stack, file_id) == [
        ("file:created", 1),
        ("file:updated", 2),
        ("file:updated", 3),
        ("file:deleted", 4),
        ("tombstone", 4),
    ]


async def story(stack: Stack, file_id: str) -> list[tuple[str, int]]:
    """What a plain consumer with its own settings sees of a file."""
    seen: list[tuple[str, int]] = []
    async with AIOKafkaConsumer(
        stack.settings.file_events_topic,
        bootstrap_servers=stack.kafka.bootstrap_servers,
        auto_offset_reset="earliest",
    ) as consumer:
        async with asyncio.timeout(30):
            async for record in consumer:
                if record.key is not None and record.key.decode() == file_id:
                    what = "tombstone" if record.value is None else str(Decoder().decode(record.value).event_type)
                    seen.append((what, int(dict(record.headers)["revision"])))
                    if record.value is None:
                        return seen
    raise AssertionError(f"the consumer stopped after {seen}")


@pytest.mark.parametrize("victim", ["query-projector", "admin-relay"])
async def test_a_hundred_uploads_at_once_are_a_hundred_rows_though_a_process_is_killed(
    stack: Stack, admin: httpx.AsyncClient, query: httpx.AsyncClient, victim: str
) -> None:
    before = set(await rows(stack.postgres.url("artstore_query"), CACHED))
    uploads = [asyncio.create_task(upload(admin, f"{victim} {number}.txt")) for number in range(90)]
    # In the middle: some are in search already, some are not yet uploaded.
    await eventually(lambda: some_applied(stack, before, 10), what="the first uploads in search")
    await asyncio.to_thread(stack.kill, victim)
    # However fast the others were.
    uploads += [asyncio.create_task(upload(admin, f"{victim} {number}.txt")) for number in range(90, 100)]
    file_ids = await asyncio.gather(*uploads)
    assert len(set(file_ids)) == 100
    assert await rows(stack.postgres.url("artstore_query"), CACHED) != await truth(stack), "killed too late to matter"
    await asyncio.to_thread(stack.restart, victim)
    await settles(lambda: rows(stack.postgres.url("artstore_query"), CACHED), await truth(stack), RESTART_SECONDS)
    found = (await query.get("/search", params={"query": f'"{victim}"', "limit": 200})).json()
    assert {hit["file_id"] for hit in found["results"]} == set(file_ids)
    assert found["total"] == 100


async def test_uploads_go_on_while_the_broker_is_dead_and_are_found_once_it_is_back(
    stack: Stack, admin: httpx.AsyncClient
) -> None:
    await asyncio.to_thread(stack.kill, "kafka")
    file_ids = [await upload(admin, f"meanwhile {number}.txt") for number in range(10)]
    await asyncio.to_thread(stack.restart, "kafka")
    await settles(lambda: rows(stack.postgres.url("artstore_query"), CACHED), await truth(stack), RESTART_SECONDS)
    assert len(file_ids) == 10


async def test_a_killed_database_costs_answers_of_503_and_no_file(stack: Stack, admin: httpx.AsyncClient) -> None:
    await asyncio.to_thread(stack.kill, "postgres")
    answer = await admin.post("/upload", files={"file": ("late.txt", b"x")})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert int(answer.headers["retry-after"]) >= 1
    await asyncio.to_thread(stack.restart, "postgres")
    await eventually(lambda: accepted(admin))
    await settles(lambda: rows(stack.postgres.url("artstore_query"), CACHED), await truth(stack), RESTART_SECONDS)


async def accepted(admin: httpx.AsyncClient) -> bool:
    answer = await admin.post("/upload", files={"file": ("again.txt", b"x")})
    assert answer.status_code in {201, 503}
    return answer.status_code == 201


CACHED = "SELECT * FROM file_metadata_cache ORDER BY file_id"
TRUTH = "SELECT * FROM files WHERE deleted_at IS NULL ORDER BY file_id"


async def some_applied(stack: Stack, before: set[Any], count: int) -> bool:
    return len(await rows(stack.postgres.url("artstore_query"), CACHED)) >= len(before) + count


async def truth(stack: Stack) -> list[Any]:
    return await rows(stack.postgres.url("artstore_admin"), TRUTH)


async def rows(url: str, statement: str) -> list[Any]:
    """Files whole, with all that the Admin and the Query side have in common."""
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch(statement)
    finally:
        await connection.close()
    return [
        tuple(tuple(value) if isinstance(value, list) else value for name, value in sorted(row.items()) if name in BOTH)
        for row in found
    ]


BOTH = {
    "file_id", "revision", "storage_element_id", "original_filename", "storage_filename", "file_size", "mime_type",
    "created_at", "updated_at", "created_by_username", "created_by_fullname", "description", "version", "tags",
    "storage_path", "checksum", "retention_expires_at",
}  # fmt: skip
