"""What a request passes before a route sees it, and what every answer tells a browser."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from hypothesis import given
from hypothesis import strategies as st

from local.ports import free_port
from runtime import front
from runtime.answers import NOTHING
from runtime.front import MAX_BODY_BYTES, patience_left, put_front
from runtime.health import Health, management_app
from runtime.http import answer_with_problems, identify_requests
from runtime.process import http_server
from runtime.settings import HttpSettings
from tests.running import served
from tests.waiting import eventually

PAGE = "https://files.example.org"


def made(**settings: Any) -> FastAPI:
    app = FastAPI()

    @app.get("/fine")
    async def fine() -> str:
        return "fine"

    @app.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    @app.post("/streamed")
    async def streamed(request: Request) -> int:
        return sum([len(piece) async for piece in request.stream()])

    @app.get("/tagged")
    async def tagged() -> Response:
        return Response("x", headers={"ETag": '"1"'})

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("secret insides")

    put_front(app, HttpSettings.model_validate(settings), lambda method, path: (method, path) == ("POST", "/streamed"))
    answer_with_problems(app)
    identify_requests(app)
    return app


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def problem(answer: httpx.Response, status: int) -> None:
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["status"]) == (status, status)


@pytest.mark.parametrize("path", ["/fine", "/nowhere", "/broken", "/openapi.json"])
async def test_every_answer_tells_browsers_to_run_and_keep_nothing(path: str) -> None:
    async with client_of(made()) as client:
        headers = (await client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == NOTHING[1].decode()
    assert headers["cache-control"] == "no-store"


async def test_what_has_a_tag_may_be_kept_and_asked_for_again() -> None:
    async with client_of(made()) as client:
        assert (await client.get("/tagged")).headers["cache-control"] == "private, no-cache"


async def test_the_pages_of_the_documentation_may_load_what_they_need() -> None:
    async with client_of(made()) as client:
        for path in ("/docs", "/redoc"):
            page = await client.get(path)
            policy = page.headers["content-security-policy"]
            assert page.status_code == 200
            sources = {piece.split("'")[0] for piece in page.text.split('src="')[1:]}
            hosts = {"/".join(one.split("/")[:3]) for one in sources if one.startswith("https://")}
            assert hosts
            assert all(host in policy for host in hosts), policy


async def test_the_management_port_answers_with_the_same_headers() -> None:
    async with client_of(management_app(Health())) as client:
        for path in ("/health/live", "/health/ready", "/metrics", "/nowhere"):
            assert (await client.get(path)).headers["x-content-type-options"] == "nosniff"


async def test_nothing_is_counted_unless_the_settings_say_so() -> None:
    async with client_of(made()) as client:
        assert {(await client.get("/fine")).status_code for _ in range(200)} == {200}


async def test_a_client_that_asks_too_often_is_told_when_it_may_again() -> None:
    async with client_of(made(rate_limit_per_second=0.5, rate_limit_burst=3)) as client:
        assert [(await client.get("/fine")).status_code for _ in range(4)] == [200, 200, 200, 429]
        answer = await client.post("/body", content=b"x")
        problem(answer, 429)
        assert answer.headers["retry-after"] == "2"
        assert answer.headers["x-request-id"]


async def test_whom_a_proxy_speaks_for_is_believed_of_trusted_ones_alone() -> None:
    for trusted, expected in (("", [200, 429]), ("127.0.0.1", [200, 200])):
        stopping, port = asyncio.Event(), free_port()
        app = made(rate_limit_per_second=0.001, rate_limit_burst=1)
        serving = http_server(app, "127.0.0.1", port, trusted_proxies=trusted)
        task = asyncio.create_task(serving(stopping))
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

                async def first(client: httpx.AsyncClient = client) -> int:
                    with contextlib.suppress(httpx.TransportError):
                        return (await client.get("/fine", headers={"X-Forwarded-For": "10.0.0.1"})).status_code
                    return 0

                await eventually(first)
                second = await client.get("/fine", headers={"X-Forwarded-For": "10.0.0.2"})
                assert [200, second.status_code] == expected
        finally:
            stopping.set()
            await task


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_cors_is_closed_by_default(method: str) -> None:
    async with client_of(made()) as client:
        asked = {"Origin": PAGE, "Access-Control-Request-Method": method}
        preflight = await client.options("/body", headers=asked)
        assert preflight.status_code == 405
        answer = await client.get("/fine", headers={"Origin": PAGE})
        assert answer.status_code == 200
        for one in (preflight, answer):
            assert not [name for name in one.headers if name.startswith("access-control")]


async def test_cors_is_open_to_the_listed_origins_alone() -> None:
    async with client_of(made(cors_allowed_origins=f"https://other.example, {PAGE}/")) as client:
        asked = {
            "Origin": PAGE,
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "authorization, if-match, idempotency-key",
        }
        preflight = await client.options("/body", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert "access-control-allow-credentials" not in preflight.headers
        answer = await client.post("/body", content=b"xx", headers={"Origin": PAGE})
        assert (answer.status_code, answer.json()) == (200, 2)
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "ETag" in answer.headers["access-control-expose-headers"]

        stranger = await client.options("/body", headers=asked | {"Origin": "https://evil.example"})
        assert stranger.status_code == 400
        assert "access-control-allow-origin" not in stranger.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://[", "http://localhost:1"]
)
async def test_a_page_of_another_site_changes_nothing(origin: str) -> None:
    """A form of any page can be sent here without asking: its browser only hides the answer."""
    async with client_of(made()) as client:
        problem(await client.post("/body", content=b"x", headers={"Origin": origin}), 403)
        assert (await client.post("/body", content=b"x", headers={"Origin": "http://localhost"})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example:8010", "localhost.evil.example", "127.0.0.1@evil.example", "[", ""])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_without_tokens_no_page_becomes_one_of_ours_by_its_name(method: str, host: str) -> None:
    """A page's owner can have its name lead to the loopback: its browser then takes us for the page's own site."""
    async with client_of(made()) as client:
        headers = {"Host": host, "Origin": f"http://{host}"}
        problem(await client.request(method, "/fine" if method == "GET" else "/body", headers=headers), 421)
        for ours in ("localhost:8010", "127.0.0.1", "[::1]:8010"):
            assert (await client.get("/fine", headers={"Host": ours})).status_code == 200


async def test_a_body_that_is_too_large_is_refused_where_it_would_fill_memory() -> None:
    large = b"x" * (MAX_BODY_BYTES + 1)
    async with client_of(made()) as client:
        problem(await client.post("/body", content=large), 413)
        assert (await client.post("/body", content=large[:-1])).json() == MAX_BODY_BYTES
        assert (await client.post("/streamed", content=large)).json() == len(large)


@pytest.mark.parametrize("path", ["/body", "/streamed"])
async def test_a_body_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(front, "PATIENCE_SECONDS", 0.3)
    async with served(made()) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n".encode())
        answered = asyncio.ensure_future(reader.readline())
        # Each byte comes soon after the last, and all are as good as none.
        while not answered.done():
            writer.write(b"x")
            await asyncio.wait({answered}, timeout=0.05)
        assert answered.result().startswith(b"HTTP/1.1 408 ")
        writer.close()


@given(st.lists(st.tuples(st.floats(0, 25), st.floats(1, 10)), max_size=100))
def test_what_comes_at_the_least_rate_or_faster_is_never_cut(pieces: list[tuple[float, float]]) -> None:
    patience = front.PATIENCE_SECONDS
    for waited, times in pieces:
        assert waited < patience
        patience = patience_left(patience, waited, int(waited * times * front.LEAST_RATE) + 1)


def test_what_comes_more_slowly_is_cut_however_much_came_before() -> None:
    patience, seconds = patience_left(front.PATIENCE_SECONDS, 1.0, 2**40), 0
    while patience > 0:
        patience, seconds = patience_left(patience, 1.0, front.LEAST_RATE // 2), seconds + 1
    assert seconds == 2 * front.PATIENCE_SECONDS


def test_what_may_be_answered_before_a_route_is_asked_is_documented_for_every_route() -> None:
    for path in made().openapi()["paths"].values():
        for method, operation in path.items():
            answers = operation["responses"]
            assert answers.keys() >= {"400", "408", "414", "421", "429", "431", "503"}
            assert ("403" in answers) == (method == "post")
            assert {one for status in ("408", "429") for one in answers[status]["content"]} == {
                "application/problem+json"
            }
