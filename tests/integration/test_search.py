"""Search over a real Postgres: words by their stems in two languages, names by their parts and as typed."""

import base64
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer_query import read_model
from consumer_query.api_process import query_app
from consumer_query.records import RecordReader
from schemas.codec import encode
from schemas.events import FileEvent
from tests.samples import MOMENT, created, deleted

Client = httpx.AsyncClient
EMPTY: dict[str, Any] = {"description": None, "tags": (), "created_by_fullname": None}


@pytest.fixture
async def query(query_pool: asyncpg.Pool) -> Client:
    """A client of the Query API."""
    transport = httpx.ASGITransport(query_app(query_pool), raise_app_exceptions=False)
    return Client(transport=transport, base_url="http://query/api/v1/files")


BEYOND_TIME = base64.urlsafe_b64encode(
    b'[true, 0.5, "9999-12-31T23:59:59-14:00", "00000000-0000-0000-0000-000000000000"]'
).decode()


async def cache(pool: asyncpg.Pool, *names: str, **details: Any) -> list[UUID]:
    """Put files with these names into the cache, each a minute newer than the one before."""
    events = [
        created(
            original_filename=name,
            created_at=MOMENT + timedelta(minutes=number),
            **EMPTY | details,
        )
        for number, name in enumerate(names)
    ]
    await apply(pool, *events)
    return [event.file_id for event in events]


async def apply(pool: asyncpg.Pool, *events: FileEvent) -> None:
    reader = RecordReader(None)
    states = [reader.state_of(str(event.file_id).encode(), encode(event), {}) for event in events]
    async with pool.acquire() as connection, connection.transaction():
        await read_model.apply(connection, 1, [read_model.row_of(state) for state in states])


async def found(query: Client, words: str, **parameters: Any) -> list[str]:
    answer = await query.get("/search", params={"query": words, **parameters})
    assert answer.status_code == 200, answer.text
    return [hit["original_filename"] for hit in answer.json()["results"]]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("договор", "ДоговорыПоставки_2026.pdf"),
        ("поставка", "ДоговорыПоставки_2026.pdf"),
        ("2026", "ДоговорыПоставки_2026.pdf"),
        ("pdf", "ДоговорыПоставки_2026.pdf"),
        ("ДОГОВОРЫПОСТАВКИ_2026.PDF", "ДоговорыПоставки_2026.pdf"),
        ("елка", "Ёлка-фото.jpg"),
        ("ёлки", "Ёлка-фото.jpg"),
        ("report", "annualReports2025.xlsx"),
        ("annual report 2025", "annualReports2025.xlsx"),
        ("ёлка  фото", "Ёлка-фото.jpg"),
        ("name.com_1.mp4", "name.com_1.mp4"),
        ("com", "name.com_1.mp4"),
        ("the", "the"),
        ("и", "и"),
        ("!!!", "!!!"),
        ("-dash.txt", "-dash.txt"),
        ('it\'s \\ "quoted".txt', 'it\'s \\ "quoted".txt'),
        ("'", "'"),
        ("日本語.txt", "日本語.txt"),
        ("ﷺ" * 200, "ﷺ" * 200),
    ],
)
async def test_a_file_is_found_by_what_people_type(
    query_pool: asyncpg.Pool, query: Client, words: str, name: str
) -> None:
    await cache(query_pool, "ДоговорыПоставки_2026.pdf", "Ёлка-фото.jpg", "annualReports2025.xlsx", "name.com_1.mp4")
    await cache(query_pool, "the", "и", "!!!", "-dash.txt", 'it\'s \\ "quoted".txt', "'", "日本語.txt", "ﷺ" * 200)
    assert (await found(query, words))[0] == name


async def test_description_tags_and_uploader_are_searched_too(query_pool: asyncpg.Pool, query: Client) -> None:
    await cache(
        query_pool,
        "a",
        description="Contracts with suppliers: docs/поставщики/list.txt",
        tags=("срочно",),
        created_by_fullname="Пётр Сидоров",
    )
    asked = ("contract supplier", "поставщик", "list.txt", "срочный", "ivanov", '"with suppliers"')
    for words in (*asked, "петр", "Сидоров", '"петр сидоров"'):
        assert await found(query, words) == ["a"], words
    for words in ("contract -supplier", '"list contracts"', "buyers", '-"with suppliers"', '"contracts срочно"', "the"):
        assert await found(query, words) == [], words
    assert await found(query, "buyers OR suppliers") == ["a"]


async def test_an_exact_name_comes_first_then_a_name_then_a_description_and_newer_first_on_a_tie(
    query_pool: asyncpg.Pool, query: Client
) -> None:
    await cache(query_pool, "other", description="the report of reports, report report report")
    await cache(query_pool, "old report.txt", "new report.txt", "report")
    assert await found(query, "report") == ["report", "new report.txt", "old report.txt", "other"]


async def test_pages_joined_are_the_whole_without_gaps_or_repeats(query_pool: asyncpg.Pool, query: Client) -> None:
    names = [f"copyright {number}" for number in range(25)] + ["copyright"] * 30
    files = await cache(query_pool, *names)
    seen: list[str] = []
    cursor = None
    while True:
        parameters: dict[str, Any] = {"query": "copyright", "limit": 7} | ({"cursor": cursor} if cursor else {})
        answer = (await query.get("/search", params=parameters)).json()
        assert answer["total"] == len(files)
        seen += [hit["file_id"] for hit in answer["results"]]
        if (cursor := answer["next_cursor"]) is None:
            break
    assert len(seen) == len(set(seen))
    assert set(seen) == {str(file_id) for file_id in files}


async def test_a_deleted_file_is_found_no_more(query_pool: asyncpg.Pool, query: Client) -> None:
    [file_id] = await cache(query_pool, "a.txt")
    assert (await query.get(f"/{file_id}")).json()["original_filename"] == "a.txt"
    await apply(query_pool, deleted(file_id, 2))
    assert await found(query, "a.txt") == []
    assert (await query.get(f"/{file_id}")).status_code == 404


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"query": "a\x00b"}, "query"),
        ({"query": "x" * 1001}, "query"),
        ({"query": "a", "limit": 0}, "limit"),
        ({"query": "a", "limit": 201}, "limit"),
        ({"query": "a", "limit": "x"}, "limit"),
        ({"query": "a", "cursor": "x"}, "cursor"),
        ({"query": "a", "cursor": "WzEsMiwzLDRd"}, "cursor"),
        ({"query": "a", "cursor": "ы"}, "cursor"),
        ({"query": "a", "cursor": BEYOND_TIME}, "cursor"),
    ],
)
async def test_a_refused_search_names_the_parameter(query: Client, parameters: dict[str, Any], field: str) -> None:
    answer = await query.get("/search", params=parameters)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert [one["field"] for one in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(("file_id", "status"), [("00000000-0000-0000-0000-000000000000", 404), ("x", 422)])
async def test_an_unknown_file_is_a_problem(query: Client, file_id: str, status: int) -> None:
    answer = await query.get(f"/{file_id}")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@given(words=st.text(min_size=1, max_size=100), cursor=st.none() | st.text(max_size=60))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_text_is_a_server_error(query: Client, words: str, cursor: str | None) -> None:
    parameters: dict[str, Any] = {"query": words} | ({} if cursor is None else {"cursor": cursor})
    assert (await query.get("/search", params=parameters)).status_code in {200, 422}


@given(name=st.text(min_size=1, max_size=255).filter(lambda name: "\x00" not in name and name.strip() != ""))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_name_that_postgres_can_hold_is_found_as_typed(
    query_pool: asyncpg.Pool, query: Client, name: str
) -> None:
    [file_id] = await cache(query_pool, name)
    answer = await query.get("/search", params={"query": name, "limit": 200})
    assert str(file_id) in [hit["file_id"] for hit in answer.json()["results"]]
