"""Search over REST as clients meet it: what is asked and how, what is refused and saved, and how long it may take."""

import asyncio
import csv
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import httpx
import pytest
import structlog.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer_query.api_process import query_app, search_pool
from consumer_query.search_api import SearchDesk
from consumer_query.search_parameters import EXPORT_PAGE, SearchAsked
from tests.integration.test_search import apply, cache
from tests.running import served
from tests.samples import MOMENT, created, updated
from tests.waiting import settles

Client = httpx.AsyncClient
SECONDS = 5.0
SHORT = 0.2
LOCK = "LOCK TABLE file_metadata_cache_g1 IN ACCESS EXCLUSIVE MODE"
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def searching(query_database: str) -> AsyncIterator[asyncpg.Pool]:
    async with await search_pool(query_database, SECONDS) as pool:
        yield pool


@pytest.fixture
async def query(query_pool: asyncpg.Pool, searching: asyncpg.Pool) -> Client:
    """A client of the Query API."""
    return client(query_pool, searching)


def client(pool: asyncpg.Pool, searching: asyncpg.Pool, seconds: float = SECONDS) -> Client:
    app = query_app(pool, search=SearchDesk(pool, searching, seconds, "http://admin"))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return Client(transport=transport, base_url="http://query/api/v1/files")


def is_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem: dict[str, Any] = answer.json()
    return problem


async def names(query: Client, /, **parameters: Any) -> list[str]:
    answer = await query.get("/search", params=parameters)
    assert answer.status_code == 200, answer.text
    return [hit["original_filename"] for hit in answer.json()["results"]]


async def test_an_answer_says_what_matched_where_it_is_and_how_much_was_looked_at(
    query_pool: asyncpg.Pool, query: Client
) -> None:
    [file_id] = await cache(
        query_pool, "Отчёт <b>2026</b>.pdf", description="Годовой отчет & планы", tags=("отчеты", "план")
    )
    answer = (await query.get("/search", params={"query": "отчёты", "facets": True})).json()
    [hit] = answer.pop("results")
    assert hit["highlights"] == {
        "original_filename": "<mark>Отчёт</mark> &lt;b&gt;2026&lt;/b&gt;.pdf",
        "description": "Годовой <mark>отчет</mark> &amp; планы",
        "tags": ["<mark>отчеты</mark>", "план"],
    }
    assert hit["content_url"] == f"http://admin/api/v1/files/{file_id}/content"
    assert (hit["file_id"], hit["revision"], hit["exact"], hit["rank"] > 0) == (str(file_id), 1, False, True)
    assert answer.pop("took_ms") > 0
    facets = answer.pop("facets")
    assert (facets["counted"], facets["counted_all"]) == (1, True)
    assert facets["type"] == [{"value": "application/pdf", "count": 1}]
    assert {one["value"] for one in facets["tag"]} == {"отчеты", "план"}
    assert facets["uploader"] == [{"value": "ivanov", "count": 1}]
    assert facets["month"] == [{"value": "2026-01", "count": 1}]
    assert len(facets["size"]) == 1
    assert answer == {
        "query": "отчёты",
        "total": 1,
        "total_is": "exact",
        "ranked": 1,
        "ranked_all": True,
        "next_cursor": None,
        "corrected_to": None,
        "did_you_mean": None,
        "lag_seconds": None,
    }


async def test_a_body_asks_the_same_as_a_url(query_pool: asyncpg.Pool, query: Client) -> None:
    await cache(query_pool, *(f"report {number}" for number in range(5)), tags=("x", "y"))
    asked: dict[str, Any] = {
        "query": "report",
        "limit": 2,
        "sort": "oldest",
        "tag": ["x", "y"],
        "type": ["application/*"],
        "created_from": "2026-01-01",
    }
    by_url, by_body = await query.get("/search", params=asked), await query.post("/search", json=asked)
    assert (by_url.status_code, by_body.status_code) == (200, 200), by_body.text
    one, other = by_url.json(), by_body.json()
    assert len(one["results"]) == 2
    assert {**one, "took_ms": 0} == {**other, "took_ms": 0}
    following = await query.post("/search", json=asked | {"cursor": one["next_cursor"]})
    assert [hit["original_filename"] for hit in following.json()["results"]] == ["report 2", "report 3"]


async def test_a_body_takes_a_query_that_no_url_does(query_pool: asyncpg.Pool, query: Client) -> None:
    await cache(query_pool, "needle")
    long = "needle OR " + " OR ".join(f"word{number}" for number in range(600))
    assert is_problem(await query.get("/search", params={"query": long}), 422)["errors"][0]["field"] == "query"
    answer = await query.post("/search", json={"query": long})
    assert [hit["original_filename"] for hit in answer.json()["results"]] == ["needle"]


async def test_without_words_the_newest_files_that_the_filters_leave_come_first(
    query_pool: asyncpg.Pool, query: Client
) -> None:
    await cache(query_pool, "a.png", "b.png", mime_type="image/png")
    await cache(query_pool, "c.pdf")
    assert await names(query, type="image/*") == ["b.png", "a.png"]
    assert await names(query, query="  ", type="image/*", sort="oldest") == ["a.png", "b.png"]
    assert sorted(await names(query)) == ["a.png", "b.png", "c.pdf"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"type": "image/png"}, "small"),
        ({"type": "IMAGE/*"}, "small"),
        ({"tag": ["Red", "blue"]}, "big"),
        ({"any_tag": ["red", "green"]}, "big small"),
        ({"min_size": 10}, "big"),
        ({"max_size": 9}, "small"),
        ({"created_from": "2026-01-13T10:01:00.123456Z"}, "big"),
        ({"created_before": "2026-01-13T13:01:00.123456+03:00"}, "small"),
        ({"updated_from": "2026-02-01"}, "big"),
        ({"updated_before": "2026-02-01"}, "small"),
        ({"uploader": "petrova"}, "big"),
        ({"uploader": ["petrova", "ivanov"]}, "big small"),
        ({"storage_element": "se-01"}, "big small"),
        ({"storage_element": "se-02"}, ""),
        ({"retention": "none"}, "big"),
        ({"retention": "expired"}, "small"),
        ({"retention": "active"}, ""),
        ({"checksum": "F" * 64}, "big"),
        ({"checksum": "sha256:" + "f" * 64}, "big"),
        ({"type": "image/*", "tag": "blue"}, ""),
    ],
)
async def test_each_filter_leaves_what_it_says(
    query_pool: asyncpg.Pool, query: Client, parameters: dict[str, Any], expected: str
) -> None:
    small = created(
        original_filename="small",
        mime_type="image/png",
        tags=("red",),
        file_size=9,
        created_at=MOMENT,
        updated_at=MOMENT,
        created_by_username="ivanov",
        retention_expires_at=MOMENT,
    )
    big = created(
        original_filename="big",
        mime_type="application/pdf",
        tags=("RED", "blue", "green"),
        file_size=10,
        created_at=MOMENT + timedelta(minutes=1),
        updated_at=MOMENT + timedelta(days=40),
        created_by_username="petrova",
        retention_expires_at=None,
        checksum="sha256:" + "f" * 64,
    )
    await apply(query_pool, small, big)
    assert " ".join(await names(query, sort="name", **parameters)) == expected


async def test_a_cursor_that_nobody_gave_is_refused_and_so_is_one_of_another_query(
    query_pool: asyncpg.Pool, query: Client
) -> None:
    await cache(query_pool, "a 1", "a 2")
    cursor = (await query.get("/search", params={"query": "a", "limit": 1})).json()["next_cursor"]
    assert await names(query, query="a", limit=1, cursor=cursor) == ["a 1"]
    others: list[dict[str, Any]] = [
        {"query": "b", "cursor": cursor},
        {"query": "a", "cursor": cursor, "tag": "x"},
        {"query": "a", "cursor": cursor, "sort": "name"},
        {"query": "a", "cursor": cursor[:-1]},
        {"query": "a", "cursor": "x"},
        {"query": "a", "cursor": "\ufffd"},
    ]
    for other in others:
        problem = is_problem(await query.get("/search", params=other), 422)
        assert [one["field"] for one in problem["errors"]] == ["cursor"], other


PARAMETERS = sorted({*SearchAsked.model_fields, "format"})
scalars = st.text(max_size=40) | st.integers().map(str) | st.datetimes().map(str) | st.sampled_from(PARAMETERS)
encoded = scalars.map(quote) | st.binary(max_size=20).map(quote)
asked_by_url = st.lists(st.tuples(st.sampled_from(PARAMETERS), encoded), max_size=6)
surrogates = st.text(st.characters(exclude_categories=()), max_size=10)
values = st.none() | st.booleans() | st.integers() | st.floats() | scalars | surrogates
asked_by_body = st.dictionaries(st.sampled_from(PARAMETERS), values | st.lists(values, max_size=4), max_size=6)


@given(asked=asked_by_url, path=st.sampled_from(["/search", "/suggest", "/search/export", f"/{NOBODY}"]))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_parameters_are_a_server_error(query: Client, asked: list[tuple[str, str]], path: str) -> None:
    given_names = {name for name, _ in asked}
    answer = await query.get(f"{path}?{'&'.join(map('='.join, asked))}")
    allowed = (
        {200, 404, 422}
        | ({503} if "max_lag" in given_names else set())
        | ({504} if "at_least" in given_names else set())
    )
    assert answer.status_code in allowed, answer.text


@given(asked=asked_by_body)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_body_is_a_server_error(query: Client, asked: dict[str, Any]) -> None:
    content = json.dumps(asked)
    answer = await query.post("/search", content=content, headers={"Content-Type": "application/json"})
    allowed = {200, 422} | ({503} if "max_lag" in asked else set()) | ({504} if "at_least" in asked else set())
    assert answer.status_code in allowed, answer.text


@given(
    words=st.text(max_size=300),
    tags=st.lists(st.text(min_size=1, max_size=100), max_size=5),
    uploader=st.text(max_size=50),
    sort=st.sampled_from(["relevance", "newest", "oldest", "largest", "smallest", "name"]),
    typing=st.booleans(),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_text_is_a_query_and_a_value_of_a_filter(
    query: Client, words: str, tags: list[str], uploader: str, sort: str, *, typing: bool
) -> None:
    asked = {"query": words, "any_tag": tags, "uploader": [uploader] if uploader.strip() else [], "sort": sort}
    answer = await query.post("/search", json=asked | {"typing": typing, "facets": typing})
    if "\x00" in "".join([words, *tags, uploader]):
        assert answer.status_code == 422
    elif all(tag.strip() for tag in tags):
        assert answer.status_code == 200, answer.text
    else:  # what is blank, people and libraries see differently
        assert answer.status_code in {200, 422}, answer.text
    assert (await query.get("/suggest", params={"query": words[:200]})).status_code in {200, 422}


@asynccontextmanager
async def locked(pool: asyncpg.Pool) -> AsyncIterator[None]:
    """Nobody can read the cache meanwhile."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(LOCK)
        yield


async def test_a_search_that_takes_too_long_says_so_and_leaves_the_database_alone(
    query_pool: asyncpg.Pool, query_database: str
) -> None:
    await cache(query_pool, "a")
    async with await search_pool(query_database, SHORT) as searching:
        query = client(query_pool, searching, SHORT)
        assert await names(query, query="a") == ["a"]
        async with locked(query_pool):
            for path in ("/search", "/search/export"):
                problem = is_problem(await query.get(path, params={"query": "a"}), 503)
                assert problem["title"] == "Search took too long"
                assert f"longer than {SHORT:g} s" in problem["detail"]
            await settles(lambda: at_work(query_pool), 0)
        assert await names(query, query="a") == ["a"]


async def test_a_search_that_finds_no_free_session_in_time_says_so(
    query_pool: asyncpg.Pool, query_database: str
) -> None:
    async with await search_pool(query_database, SECONDS) as searching, AsyncExitStack() as held:
        for _ in range(searching.get_max_size()):
            await held.enter_async_context(searching.acquire())
        query = client(query_pool, searching, SHORT)
        for path in ("/search", "/search/export", "/suggest"):
            problem = is_problem(await query.get(path, params={"query": "a"}), 503)
            assert problem["title"] == "Search took too long"
        assert (await query.get(f"/{NOBODY}")).status_code == 404


async def at_work(pool: asyncpg.Pool) -> int:
    """Sessions of searches that hold a transaction."""
    count: int = await pool.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'query-search' AND state <> 'idle' "
        "AND datname = current_database()"
    )
    return count


async def test_the_database_itself_ends_a_statement_of_a_search_and_lets_it_change_nothing(query_database: str) -> None:
    async with await search_pool(query_database, SHORT) as searching:
        with pytest.raises(asyncpg.QueryCanceledError):
            await searching.execute("SELECT pg_sleep(10)")
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await searching.execute("DELETE FROM file_metadata_cache_g1")
        assert await searching.fetchval("SHOW application_name") == "query-search"


async def test_a_search_waits_for_what_its_caller_knows_of(query_pool: asyncpg.Pool, query: Client) -> None:
    [file_id] = await cache(query_pool, "before")
    parameters = {"query": "after", "at_least": f"{file_id}@2", "wait": "10s"}
    waiting = asyncio.create_task(names(query, **parameters))
    one = asyncio.create_task(query.get(f"/{file_id}", params={"at_least": 2, "wait": "10s"}))
    early = await query.get("/search", params=parameters | {"wait": "10ms"})
    problem = is_problem(early, 504)
    assert [error["field"] for error in problem["errors"]] == ["at_least"]
    assert not waiting.done()
    await apply(query_pool, updated(file_id, 2, original_filename="after"))
    assert await waiting == ["after"]
    assert (await one).json()["revision"] == 2
    assert is_problem(await query.get(f"/{file_id}", params={"at_least": 3}), 504)["title"] == "Not visible yet"
    assert is_problem(await query.get(f"/{uuid4()}", params={"at_least": 1}), 504)


@pytest.mark.parametrize("revision", ["0", "-1", str(2**63), "x"])
async def test_a_revision_that_no_file_has_is_refused(query: Client, revision: str) -> None:
    problem = is_problem(await query.get(f"/{NOBODY}", params={"at_least": revision}), 422)
    assert [one["field"] for one in problem["errors"]] == ["at_least"]


async def test_an_index_of_unknown_age_is_refused_to_who_asks_for_a_fresh_one(query: Client) -> None:
    assert await names(query) == []
    for path in ("/search", "/search/export"):
        assert is_problem(await query.get(path, params={"max_lag": "5s"}), 503)["title"] == "Index too far behind"


async def saved(query: Client, /, **parameters: Any) -> str:
    answer = await query.get("/search/export", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.content.decode()


async def test_an_export_has_every_hit_once_the_newest_first_and_the_same_fields_as_the_api(
    query_pool: asyncpg.Pool, query: Client
) -> None:
    count = 2 * EXPORT_PAGE + 500
    await apply(
        query_pool,
        *(
            created(original_filename=f"report {number}", created_at=MOMENT + timedelta(seconds=number // 3))
            for number in range(count)
        ),
    )
    await cache(query_pool, "other", mime_type="image/png")
    lines = [json.loads(line) for line in (await saved(query, query="report")).splitlines()]
    assert len({line["file_id"] for line in lines}) == len(lines) == count
    assert [line["created_at"] for line in lines] == sorted((line["created_at"] for line in lines), reverse=True)
    [shown] = (await query.get("/search", params={"query": '"report 7"', "limit": 1})).json()["results"]
    [line] = [line for line in lines if line["original_filename"] == "report 7"]
    assert {name: shown[name] for name in line} == line

    text = await saved(query, query="report", format="csv")
    table = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["file_id"] for row in table] == [line["file_id"] for line in lines]
    assert table[0]["tags"] == "urgent; contract"
    assert len((await saved(query)).splitlines()) == count + 1
    assert await saved(query, query="nothing like it") == ""
    assert (await saved(query, type="video/*", format="csv")).startswith("file_id,revision,")


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
async def test_no_cell_of_an_export_is_a_formula(query_pool: asyncpg.Pool, query: Client, begin: str) -> None:
    text = f'{begin}HYPERLINK("http://evil", 1);,'
    await cache(query_pool, "a", description=text, tags=(text, "b"))
    [row] = csv.DictReader(io.StringIO(await saved(query, format="csv"), newline=""))
    assert row["description"] == f"'{text}"
    assert row["tags"] == f"'{text}; b"
    assert row["original_filename"] == "a"


async def test_a_slow_reader_holds_no_session_and_a_fault_breaks_the_export_off_and_is_logged_once(
    query_pool: asyncpg.Pool, query_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    many = [created(description="filler " * 1_400) for _ in range(4 * EXPORT_PAGE)]
    await apply(query_pool, *many)
    async with await search_pool(query_database, SECONDS) as searching:
        app = query_app(query_pool, search=SearchDesk(query_pool, searching, SECONDS, ""))
        async with (
            served(app) as url,
            Client(base_url=url, trust_env=False, timeout=30) as query,
            query.stream("GET", "/api/v1/files/search/export") as answer,
        ):
            assert answer.status_code == 200
            pieces = answer.aiter_raw()
            await anext(pieces)
            # The reader pauses here.
            await settles(lambda: at_work(query_pool), 0)
            async with locked(query_pool):
                read = Counter[str]()
                with structlog.testing.capture_logs() as logged, pytest.raises(httpx.RemoteProtocolError):
                    await count_lines(pieces, read)
            assert 0 < read["lines"] < len(many)
    # By the server alone; what answers errors has nothing to answer here.
    assert [one.name for one in caplog.records if one.levelname == "ERROR" and one.name != "aiokafka"] == [
        "uvicorn.error"
    ]
    assert "SearchTooSlowError" in caplog.text
    assert logged == []


async def count_lines(pieces: AsyncIterator[bytes], read: Counter[str]) -> None:
    async for piece in pieces:
        read["lines"] += piece.count(b"\n")


async def test_names_and_tags_are_suggested_for_what_was_typed(query_pool: asyncpg.Pool, query: Client) -> None:
    await cache(query_pool, "Договор поставки.pdf", "other", tags=("Договоры",))
    answer = (await query.get("/suggest", params={"query": "дог"})).json()
    assert answer == {"names": ["Договор поставки.pdf"], "tags": ["Договоры"]}
    assert is_problem(await query.get("/suggest"), 422)["errors"][0]["field"] == "query"
    assert (
        is_problem(await query.get("/suggest", params={"query": "a", "limit": 21}), 422)["errors"][0]["field"]
        == "limit"
    )


async def test_every_parameter_is_explained_on_the_api_page(query: Client) -> None:
    document = (await query.get("http://query/openapi.json")).json()
    for path in ("/search", "/search/export", "/suggest"):
        operation = document["paths"][f"/api/v1/files{path}"]["get"]
        assert operation["description"]
        for parameter in operation["parameters"]:
            assert parameter.get("description"), (path, parameter["name"])
        assert set(operation["responses"]["422"]["content"]) == {"application/problem+json"}
    asked = {one["name"] for one in document["paths"]["/api/v1/files/search"]["get"]["parameters"]}
    body = document["components"]["schemas"]["LongSearchAsked"]
    assert set(body["properties"]) == asked == set(SearchAsked.model_fields)
