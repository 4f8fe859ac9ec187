"""What the routes of search refuse, in problem+json that names the parameter, before any database is asked."""

from typing import Any

import asyncpg
import httpx
import pytest

from consumer_query.api_process import query_app

Client = httpx.AsyncClient


@pytest.fixture
async def query() -> Client:
    """A client of a Query API whose database nobody has opened."""
    app = query_app(asyncpg.create_pool("postgresql://nobody@nowhere/nothing", min_size=0))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return Client(transport=transport, base_url="http://query/api/v1/files")


def is_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem: dict[str, Any] = answer.json()
    return problem


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ("query=" + "x" * 1001, "query"),
        ("query=a%00", "query"),
        ("limit=0", "limit"),
        ("limit=1&limit=1e9", "limit"),
        ("cursor=" + "x" * 8_001, "cursor"),
        ("sort=best", "sort"),
        ("tags=a", "tags"),
        ("type=png", "type.0"),
        ("tag=a&" * 9_000, "tag"),
        ("tag=", "tag.0"),
        ("min_size=-1", "min_size"),
        ("max_size=" + "9" * 5_000, "max_size"),
        ("min_size=2&max_size=1", "max_size"),
        ("created_from=yesterday", "created_from"),
        ("created_from=2026-01-13T10:00:00+03:00", "created_from"),
        ("created_from=9999-12-31T23:59:59-14:00", "created_from"),
        ("created_before=2026-02-30", "created_before"),
        ("retention=soon", "retention"),
        ("checksum=1", "checksum"),
        ("at_least=x", "at_least.0"),
        ("wait=2", "wait"),
        ("max_lag=x", "max_lag"),
    ],
)
@pytest.mark.parametrize("path", ["/search", "/search/export"])
async def test_a_parameter_that_cannot_be_meant_is_named(query: Client, path: str, parameters: str, field: str) -> None:
    problem = is_problem(await query.get(f"{path}?{parameters}"), 422)
    assert field in [one["field"] for one in problem["errors"]]
    assert field in problem["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"words"',
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"query": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"query": "a\\u0000"}',
        b'{"query": {}}',
        b'{"' + b"x" * 100_000 + b'": 1}',
        b'{"limit": 1e400}',
        b'{"limit": NaN}',
        b'{"limit": ' + b"9" * 5_000 + b"}",
        b'{"type": "image/png"}',
        b'{"tag": [' + b"1," * 100_000 + b"1]}",
        b'{"tag": ["' + b"x" * 1_000_000 + b'"]}',
        b'{"cursor": "' + b"A" * 80_001 + b'"}',
        b"{" + b",".join(b'"%d":1' % number for number in range(50_000)) + b"}",
        b'{"query": "' + b"x" * 10_001 + b'"}',
        b"{" + b" " * 2_000_000 + b"}",
    ],
)
async def test_a_body_that_is_no_search_is_refused_in_few_words(query: Client, body: bytes) -> None:
    answer = await query.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {400, 413, 422}
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 10_000


async def test_a_form_is_no_search(query: Client) -> None:
    is_problem(await query.post("/search", data={"query": "a"}), 422)
