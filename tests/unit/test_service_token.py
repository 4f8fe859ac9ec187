"""The Query side shows the Admin API a token of its own, and says so when it has none."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import pytest
from fastapi import FastAPI, Form, Header
from pydantic import SecretStr

from consumer_query.admin_client import AdminClient
from consumer_query.errors import DeadLettersAwayError
from runtime.service_token import ServiceToken, TokenFile, TokenSource
from runtime.tokens import Tokens
from tests.running import served

SCOPES = "files:read sync:admin"


class Seen:
    """What the issuer and the Admin API were told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.shown: list[str | None] = []


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def url(seen: Seen) -> AsyncIterator[str]:
    """An issuer and an Admin API in one."""
    app = FastAPI()

    @app.post("/token")
    async def token(
        grant_type: Annotated[str, Form()],
        scope: Annotated[str | None, Form()] = None,
        authorization: Annotated[str | None, Header()] = None,
    ) -> dict[str, object]:
        seen.asked.append((grant_type, scope, authorization))
        return {"access_token": f"token-{len(seen.asked)}", "token_type": "Bearer", "expires_in": 300}

    @app.post("/api/v1/admin/republish")
    async def republish(authorization: Annotated[str | None, Header()] = None) -> dict[str, int]:
        seen.shown.append(authorization)
        return {"announced": 1}

    async with served(app) as made:
        yield made


async def republish(url: str, source: TokenSource | None) -> None:
    """Twice."""
    client = AdminClient(url, None if source is None else ServiceToken(source))
    try:
        for _ in range(2):
            await client.republish(uuid4(), 1, "tests")
    finally:
        await client.close()


async def test_a_token_is_got_once_by_client_credentials_and_shown_each_time(url: str, seen: Seen) -> None:
    await republish(url, Tokens(f"{url}/token", "query", SecretStr("s3cret"), SCOPES))
    assert seen.asked == [("client_credentials", SCOPES, "Basic cXVlcnk6czNjcmV0")]
    assert seen.shown == ["Bearer token-1"] * 2


async def test_a_token_in_a_file_is_read_anew_each_time(url: str, seen: Seen, tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = TokenFile(path)
    for text in ("one\n", "two"):
        path.write_text(text)
        await republish(url, source)
    assert seen.shown == ["Bearer one"] * 2 + ["Bearer two"] * 2


async def test_without_a_token_nothing_is_shown(url: str, seen: Seen) -> None:
    await republish(url, None)
    assert seen.shown == [None] * 2


@pytest.mark.parametrize("content", [None, "", "ж"], ids=["absent", "empty", "no ASCII"])
async def test_a_token_that_cannot_be_had_is_said_and_nothing_is_asked(
    url: str, seen: Seen, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content, "utf-8")
    with pytest.raises(DeadLettersAwayError, match="The Admin API cannot be asked: TokenError: no token"):
        await republish(url, TokenFile(path))
    assert seen.shown == []


async def test_an_issuer_that_is_away_is_said(url: str) -> None:
    source = Tokens("http://127.0.0.1:1/token", "query", SecretStr("s3cret"))
    with pytest.raises(DeadLettersAwayError, match="cannot be asked: TokenError: no token") as refused:
        await republish(url, source)
    assert "s3cret" not in str(refused.value)
