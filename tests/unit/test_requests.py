"""Requests have ids: in answers of every kind, and in whatever is logged for them."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, ClassVar

import httpx
import pytest
import structlog
import structlog.testing
from fastapi import FastAPI

from consumer_query.errors import SearchTooSlowError
from consumer_query.freshness import NotYetVisibleError, StaleIndexError
from runtime.errors import ServiceError
from runtime.http import answer_with_problems, identify_requests, pass_on

_log = structlog.get_logger()


class BrokenError(ServiceError):
    status: ClassVar[int] = 503


class AskedForError(BrokenError):
    expected: ClassVar[bool] = True


@pytest.fixture
def logged() -> Iterator[Sequence[Any]]:
    """What is logged, with what is bound to it."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        yield lines


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()

    @app.get("/fine")
    async def fine() -> str:
        _log.info("asked")
        return "fine"

    @app.get("/raises/{file_id}")
    async def raises(file_id: str) -> None:
        raise {"broken": BrokenError, "asked": AskedForError, "unforeseen": RuntimeError}[file_id](file_id)

    answer_with_problems(app)
    identify_requests(app)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as made:
        yield made


async def test_a_sane_id_of_the_client_is_taken_and_told(client: httpx.AsyncClient, logged: Sequence[Any]) -> None:
    answer = await client.get("/fine", headers={"X-Request-ID": "abc-1 2"})
    assert answer.headers["X-Request-ID"] == "abc-1 2"
    assert [(one["event"], one["request_id"]) for one in logged] == [("asked", "abc-1 2")]


@pytest.mark.parametrize("given", [b"", b"x" * 129, "ж".encode(), b"a\x1b[31m", b"tab\there"])
async def test_any_other_id_is_replaced_by_one_of_ours(client: httpx.AsyncClient, given: bytes) -> None:
    answer = await client.get("/fine", headers=[(b"X-Request-ID", given)])
    assert len(answer.headers["X-Request-ID"]) == 32
    assert int(answer.headers["X-Request-ID"], 16)


async def test_each_request_without_an_id_gets_another(client: httpx.AsyncClient) -> None:
    ids = {(await client.get("/fine")).headers["X-Request-ID"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("path", "status", "level"),
    [
        ("/raises/broken", 503, "error"),
        ("/raises/asked", 503, "info"),
        ("/raises/unforeseen", 500, "error"),
        ("/nowhere", 404, None),
    ],
)
async def test_an_error_is_answered_and_logged_under_the_id(
    client: httpx.AsyncClient, logged: Sequence[Any], path: str, status: int, level: str | None
) -> None:
    answer = await client.get(path, headers={"X-Request-ID": "mine"})
    assert answer.status_code == status
    assert answer.headers["X-Request-ID"] == "mine"
    assert answer.headers["Content-Type"] == "application/problem+json"
    said = [(one["log_level"], one["request_id"], one["path"], one["file_id"]) for one in logged]
    assert said == ([] if level is None else [(level, "mine", path, path.rpartition("/")[2])])


def test_only_what_a_client_limits_itself_is_expected() -> None:
    assert StaleIndexError.expected
    assert NotYetVisibleError.expected
    assert not SearchTooSlowError.expected


async def test_an_id_ends_with_its_request(client: httpx.AsyncClient, logged: Sequence[Any]) -> None:
    await client.get("/fine", headers={"X-Request-ID": "first"})
    _log.info("between")
    assert [one.get("request_id") for one in logged] == ["first", None]


async def test_what_is_asked_of_another_service_goes_under_the_same_id(logged: Sequence[Any]) -> None:
    inner, outer = FastAPI(), FastAPI()

    @inner.get("/")
    async def asked() -> str:
        _log.info("asked on")
        return "fine"

    @outer.get("/")
    async def asks() -> int:
        transport = httpx.ASGITransport(inner)
        hooks = {"request": [pass_on]}
        async with httpx.AsyncClient(transport=transport, base_url="http://inner", event_hooks=hooks) as client:
            return (await client.get("/")).status_code

    identify_requests(inner)
    identify_requests(outer)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://outer") as client:
        answer = await client.get("/")
    assert [one["request_id"] for one in logged] == [answer.headers["X-Request-ID"]]
