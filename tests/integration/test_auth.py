"""Every route of both services, asked without what it wants: refused, before anything is read or done."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy.ext.asyncio import AsyncEngine

from consumer_query.api_process import query_app
from producer_admin.api_process import admin_app
from producer_admin.saga_steps import Means
from runtime.auth import Guard, Guarded, Scope
from runtime.issuer_keys import KeyFile
from tests.integration.conftest import LIMITS
from tests.tokens import ALL_SCOPES, RULES, THEIRS, bearer, forged_with_public_key, jwks, mint
from tests.tokens import OURS as KEY

DOCUMENTED: Final = re.compile(r"^\| `([A-Z]+) (/[^`]*)` \| `([a-z:]+)` \|", re.MULTILINE)
SOMEBODY: Final = "6a9f3b1e-8f0d-4d0c-9f57-5a2c2f8c1f10"
BAD: Final[Mapping[str, Callable[[], dict[str, str]]]] = {
    "none": dict,
    "another scheme": lambda: {"Authorization": "Basic aXZhbm92OnNlY3JldA=="},
    "empty": lambda: {"Authorization": "Bearer "},
    "no JWT": lambda: bearer("rubbish"),
    "two dots": lambda: bearer("a.b.c"),
    "cut": lambda: bearer(mint(*ALL_SCOPES)[:-4]),
    "another body": lambda: bearer(".".join([*mint().split(".")[:1], *mint(*ALL_SCOPES, sub="x").split(".")[1:]])[:-3]),
    "expired": lambda: bearer(mint(*ALL_SCOPES, exp=1_700_000_000)),
    "never expires": lambda: bearer(mint(*ALL_SCOPES, exp=None)),
    "not valid yet": lambda: bearer(mint(*ALL_SCOPES, nbf=4_000_000_000)),
    "another audience": lambda: bearer(mint(*ALL_SCOPES, aud="other")),
    "no audience": lambda: bearer(mint(*ALL_SCOPES, aud=None)),
    "another issuer": lambda: bearer(mint(*ALL_SCOPES, iss="https://issuer.example/realms/other")),
    "another key": lambda: bearer(mint(*ALL_SCOPES, key=THEIRS)),
    "an unknown key": lambda: bearer(mint(*ALL_SCOPES, key=THEIRS, kid="two")),
    "no algorithm": lambda: bearer(mint(*ALL_SCOPES, key=None, algorithm="none")),
    "HMAC by the public key": lambda: bearer(forged_with_public_key(*ALL_SCOPES)),
    "no subject": lambda: bearer(mint(*ALL_SCOPES, sub=None)),
}


@dataclass
class Service:
    """An application, its database, and where it keeps bytes."""

    app: FastAPI
    pool: asyncpg.Pool
    folder: Path

    def routes(self) -> Iterator[tuple[str, str, Scope]]:
        """Method, path and needed scope of each."""
        for route in iter_route_contexts(self.app.routes):
            assert isinstance(route.original_route, Guarded)
            for method in sorted(route.methods or ()):
                yield method, str(route.path_format), route.original_route.needed

    async def state(self) -> Any:
        """All rows, and all that lies in the folder."""
        tables = await self.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        rows = {name: await self.pool.fetch(f'SELECT t::text FROM "{name}" t ORDER BY 1') for (name,) in tables}
        return rows, {path: path.stat().st_mtime_ns for path in self.folder.rglob("*")}

    async def ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer to a request whose body nobody may look at."""
        answers: list[Any] = []

        async def receive() -> Any:
            raise AssertionError(f"{method} {path}: the body was read")

        async def send(message: Any) -> None:
            answers.append(message)

        sent = {"host": "service", "content-type": "application/json", "content-length": "2", **headers}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("service", 80),
        }
        await self.app(scope, receive, send)
        return answers[0]["status"], {name.decode(): value.decode() for name, value in answers[0]["headers"]}


@pytest.fixture
async def guard(tmp_path: Path) -> Guard:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(one=KEY))
    return Guard(KeyFile(path), RULES)


@pytest.fixture
async def admin_service(
    means: Means, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool, storage_folder: Path, guard: Guard
) -> Service:
    return Service(admin_app(means, admin_engine, LIMITS, guard=guard), admin_pool, storage_folder)


@pytest.fixture
async def query_service(query_pool: asyncpg.Pool, storage_folder: Path, guard: Guard) -> Service:
    return Service(query_app(query_pool, guard=guard), query_pool, storage_folder)


@pytest.fixture(params=["admin", "query"])
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.getfixturevalue(f"{request.param}_service")
    return found


def filled(path: str) -> str:
    """A path with something in its places that there is not."""
    named = {"element_id": "se-99", "topic": "events", "partition": "0", "offset": "0"}
    return re.sub(r"\{(\w+)\}", lambda place: named.get(place[1], SOMEBODY), path)


async def test_no_route_lets_in_whom_it_cannot_believe_and_nothing_is_read_or_done(service: Service) -> None:
    before = await service.state()
    let_in = [
        (what, method, path, status, told)
        for what, headers in BAD.items()
        for method, path, _ in service.routes()
        for status, told in [await service.ask(method, filled(path), headers())]
        if status != 401 or not told["www-authenticate"].startswith('Bearer realm="artstore"')
    ]
    assert not let_in
    assert await service.state() == before


async def test_no_route_lets_in_whose_token_has_every_scope_but_its_own(service: Service) -> None:
    before = await service.state()
    let_in = []
    for method, path, needed in service.routes():
        others = bearer(mint(*(one for one in ALL_SCOPES if one != needed)))
        status, told = await service.ask(method, filled(path), others)
        if (status, told.get("www-authenticate")) != (
            403,
            f'Bearer realm="artstore", error="insufficient_scope", scope="{needed}"',
        ):
            let_in.append((method, path, status))
    assert not let_in
    assert await service.state() == before


async def test_each_route_lets_in_whose_token_has_its_scope_alone(service: Service) -> None:
    transport = httpx.ASGITransport(service.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        kept_out = [
            (method, path, answer.status_code)
            for method, path, needed in service.routes()
            for answer in [await client.request(method, filled(path), headers=bearer(mint(needed)))]
            if answer.status_code in (401, 403, 500)
        ]
    assert not kept_out


async def test_refusals_are_problems_that_say_why(service: Service) -> None:
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        answers = [
            await client.get("/openapi.json", headers=headers)
            for headers in ({}, bearer(mint(exp=1_700_000_000)), bearer(mint()))
        ]
    assert [(one.status_code, one.json()["title"], one.json()["detail"]) for one in answers] == [
        (401, "No token", "Send a token: Authorization: Bearer …"),
        (401, "Token refused", "The token has expired."),
        (403, "Scope missing", "This needs a token with the scope files:read."),
    ]
    assert {one.headers["content-type"] for one in answers} == {"application/problem+json"}
    # RFC 6750, section 3.1: who shows nothing is told no error.
    assert answers[0].headers["www-authenticate"] == 'Bearer realm="artstore"'
    assert (
        answers[1]
        .headers["www-authenticate"]
        .endswith('error="invalid_token", error_description="The token has expired."')
    )


async def test_the_document_names_each_routes_scope_and_refusals_and_the_page_is_not_there(service: Service) -> None:
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        told = (await client.get("/openapi.json", headers=bearer(mint("files:read")))).json()
        page = await client.get("/docs", headers=bearer(mint(*ALL_SCOPES)))
    assert page.status_code == 404
    assert told["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }
    described = {
        (method.upper(), path): (operation["security"], {"401", "403"} - operation["responses"].keys())
        for path, operations in told["paths"].items()
        for method, operation in operations.items()
    }
    routes: dict[tuple[str, str], Any] = {
        (method, path): ([{"bearer": [needed]}], set()) for method, path, needed in service.routes()
    }
    for hidden in (("GET", "/openapi.json"), ("HEAD", "/api/v1/files/{file_id}/content")):
        routes.pop(hidden, None)
    assert described == routes


async def test_the_page_for_operators_lists_each_route_with_its_scope(
    admin_service: Service, query_service: Service
) -> None:
    listed = set(DOCUMENTED.findall(Path("docs/auth.md").read_text()))
    routes = {route for one in (admin_service, query_service) for route in one.routes()}
    assert listed == routes


@pytest.mark.parametrize(
    ("scopes", "said", "recorded"),
    [
        (("files:write",), None, "ivanov"),
        (("files:write",), "petrov", "ivanov"),
        (("files:write", "sync:admin"), "%D0%9E%D0%BB%D1%8F", "Оля (ivanov)"),
        (("files:write", "sync:admin"), "ivanov", "ivanov"),
    ],
)
async def test_the_audit_names_the_tokens_subject_whatever_the_caller_says(
    admin_service: Service, scopes: tuple[str, ...], said: str | None, recorded: str
) -> None:
    headers = bearer(mint(*scopes)) | ({} if said is None else {"X-Actor": said})
    transport = httpx.ASGITransport(admin_service.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        answer = await client.post("/api/v1/files/upload", files={"file": ("a.txt", b"x")}, headers=headers)
    assert answer.status_code == 201, answer.text
    told = [await admin_service.pool.fetchval(f"SELECT actor FROM {table}") for table in ("sagas", "outbox")]
    assert told == [recorded] * 2


async def test_the_longest_subject_is_recorded_whole(admin_service: Service) -> None:
    """Percent-encoded, as the guard hands it on, a character has up to twelve."""
    transport, subject = httpx.ASGITransport(admin_service.app), "𝒳" * 100
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        headers = bearer(mint("files:write", sub=subject))
        answer = await client.post("/api/v1/files/upload", files={"file": ("a.txt", b"x")}, headers=headers)
    assert answer.status_code == 201, answer.text
    assert await admin_service.pool.fetchval("SELECT actor FROM sagas") == subject
