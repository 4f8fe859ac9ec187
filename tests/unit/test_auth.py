"""The guard of an application: nothing is read before it lets in, and it remembers without believing for too long."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing
from fastapi import APIRouter, FastAPI, Header

from runtime.access_tokens import Key, read_keys
from runtime.auth import Guard, Guarded, Scope, documents, needs, protect
from runtime.dev_tokens import SCOPES
from runtime.health import Health
from runtime.http import answer_with_problems, identify_requests
from runtime.issuer_keys import KeyFile, KeysAwayError
from tests.tokens import OURS, RULES, THEIRS, bearer, jwks, mint

NOW = 1_768_298_400.0
READING, ACTING = ("files:read",), ("files:read", "sync:admin")


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


class Counted:
    """Keys that count how often they are wanted."""

    version = 1

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.wanted = 0

    async def of(self, _: str | None) -> Sequence[Key]:
        self.wanted += 1
        return read_keys(self.text)

    async def check(self) -> None:
        return

    async def run(self, stopping: asyncio.Event) -> None:
        await stopping.wait()


def guarded(guard: Guard | None) -> FastAPI:
    app = FastAPI(**documents(guard))
    router = APIRouter(prefix="/files", route_class=Guarded)

    @router.post("")
    @needs(Scope.READ)
    async def read(body: dict[str, Any], x_actor: str | None = Header(None)) -> dict[str, Any]:
        return {"body": body, "actor": x_actor}

    @router.get("/broken")
    @needs(Scope.READ)
    async def broken() -> None:
        raise RuntimeError("broken")

    app.include_router(router)
    protect(app, guard)
    answer_with_problems(app)
    identify_requests(app)
    return app


def client(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://app")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys() -> Counted:
    return Counted(jwks(one=OURS))


@pytest.fixture
async def app(keys: Counted, clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    async with client(guarded(Guard(keys, RULES, clock))) as made:
        yield made


async def post(app: httpx.AsyncClient, token: str, **headers: str) -> httpx.Response:
    return await app.post("/files", json={}, headers=bearer(token) | headers)


def test_a_token_for_development_has_every_scope_that_there_is() -> None:
    assert tuple(Scope) == SCOPES


async def test_a_body_that_nobody_could_read_is_refused_for_the_token_first(app: httpx.AsyncClient) -> None:
    answers = [
        await app.post("/files", content=b"{", headers=headers)
        for headers in ({}, bearer("x"), bearer(mint(now=NOW)), bearer(mint(*READING, now=NOW)))
    ]
    assert [one.status_code for one in answers] == [401, 401, 403, 422]


async def test_without_a_guard_everybody_is_let_in_and_the_document_promises_nothing_else() -> None:
    async with client(guarded(None)) as app:
        assert (await app.post("/files", json={})).status_code == 200
        assert "security" not in (await app.get("/openapi.json")).json()["paths"]["/files"]["post"]
        assert (await app.get("/docs")).status_code == 200


async def test_a_route_that_says_no_scope_cannot_be_added() -> None:
    router = APIRouter(route_class=Guarded)
    with pytest.raises(TypeError, match="/free: free does not say"):

        @router.get("/free")
        async def free() -> None: ...


@pytest.mark.parametrize("keys", [None, Counted(jwks(one=OURS))], ids=["off", "jwt"])
async def test_an_application_with_a_route_of_another_kind_is_not_put_together(keys: Counted | None) -> None:
    guard = None if keys is None else Guard(keys, RULES)
    app = FastAPI(**documents(guard))

    @app.get("/free")
    async def free() -> None: ...

    with pytest.raises(TypeError, match="/free does not say"):
        protect(app, guard)


async def test_a_signature_is_checked_once_and_the_rest_each_time(
    app: httpx.AsyncClient, keys: Counted, clock: Clock
) -> None:
    token = mint(*READING, now=NOW)
    assert [(await post(app, token)).status_code for _ in range(3)] == [200] * 3
    assert keys.wanted == 1
    clock.now += 300 + RULES.leeway
    assert (await post(app, token)).status_code == 401


async def test_what_was_checked_by_a_key_that_is_gone_is_checked_again(app: httpx.AsyncClient, keys: Counted) -> None:
    token = mint(*READING, now=NOW)
    assert (await post(app, token)).status_code == 200
    keys.text, keys.version = jwks(two=THEIRS), 2
    assert (await post(app, token)).status_code == 401


async def test_what_is_remembered_is_bounded_and_rubbish_is_not_remembered(
    keys: Counted, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.auth.MOST_REMEMBERED", 3)
    guard = Guard(keys, RULES, clock)
    async with client(guarded(guard)) as app:
        for number in range(5):
            assert (await post(app, mint(*READING, now=NOW, sub=str(number)))).status_code == 200
        await post(app, mint(*READING, key=THEIRS, now=NOW))
    assert len(guard._remembered) == 3


@pytest.mark.parametrize(
    ("scopes", "said", "actor"),
    [
        (READING, None, "ivanov"),
        (READING, "petrov", "ivanov"),
        (ACTING, None, "ivanov"),
        (ACTING, "ivanov", "ivanov"),
        (ACTING, "petrov", "petrov (ivanov)"),
        (ACTING, "%D0%9E%D0%BB%D1%8F", "%D0%9E%D0%BB%D1%8F %28ivanov%29"),
        (ACTING, "p" * 100, "p" * 91 + " (ivanov)"),
        (ACTING, " ", "ivanov"),
        (ACTING, "%FF", "%FF"),
    ],
)
async def test_the_actor_is_the_tokens_subject_or_whom_it_may_act_for(
    app: httpx.AsyncClient, scopes: tuple[str, ...], said: str | None, actor: str
) -> None:
    answer = await post(app, mint(*scopes, now=NOW), **({} if said is None else {"X-Actor": said}))
    told = answer.json()["actor"]
    assert told == actor or told == actor.replace("(", "%28").replace(")", "%29")


async def test_only_one_actor_is_ever_told(app: httpx.AsyncClient) -> None:
    headers = [("Authorization", f"Bearer {mint(*READING, now=NOW)}"), ("X-Actor", "a"), ("X-Actor", "b")]
    assert (await app.post("/files", json={}, headers=headers)).json()["actor"] == "ivanov"


async def test_two_tokens_are_none(app: httpx.AsyncClient) -> None:
    token = f"Bearer {mint(*READING, now=NOW)}"
    answer = await app.post("/files", json={}, headers=[("Authorization", token), ("Authorization", token)])
    assert (answer.status_code, answer.json()["detail"]) == (401, "There is more than one token.")


async def test_log_lines_name_the_caller_and_never_the_token(app: httpx.AsyncClient) -> None:
    token = mint(*READING, now=NOW)
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await app.get("/files/broken", headers=bearer(token))
        await app.get("/nowhere")
    assert [one["caller"] for one in lines if one["event"] == "unforeseen error"] == ["ivanov"]
    assert token not in repr(lines)
    assert "caller" not in structlog.contextvars.get_contextvars()


async def test_without_a_key_nobody_can_tell_and_readiness_says_so_without_failing(tmp_path: Path) -> None:
    guard = Guard(KeyFile(tmp_path / "none"), RULES)
    health = Health()
    guard.tell(health)
    async with client(guarded(guard)) as app:
        answer = await post(app, mint(*READING))
    assert (answer.status_code, answer.headers["Retry-After"], answer.json()["title"]) == (
        503,
        "1",
        KeysAwayError.title,
    )
    assert (await health.reasons(), list(await health.mentions())) == ({}, ["keys of tokens"])
