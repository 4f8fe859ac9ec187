"""A service shows a token of its own to another one: its caller's stays where it was sent.

Much of what is asked is asked for nobody, or goes on when the caller's token has run out; and a token for one service
need not be good at another.
"""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

import httpx

from runtime.settings import ServiceTokenSettings
from runtime.tokens import TokenError, Tokens


class TokenSource(Protocol):
    """Where tokens come from."""

    async def token(self) -> str:
        """One that is good now. Raises TokenError when there is none."""


class TokenFile:
    """A token that somebody else renews in time.

    Args:
        path: of the token alone
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        """The token. Raises TokenError when the file cannot be read or is empty."""
        if not (token := self._read()):
            raise TokenError(f"no token: {self._path} is empty")
        return token

    def _read(self) -> str:
        try:
            return self._path.read_text("ascii").strip()
        except (OSError, UnicodeError) as error:
            raise TokenError(f"no token: {self._path}: {error}") from error


class ServiceToken(httpx.Auth):
    """Shows a token with each request of a client.

    Args:
        source: of the token
    """

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See httpx.Auth. Raises TokenError when there is none."""
        request.headers["Authorization"] = f"Bearer {await self._source.token()}"
        yield request


def open_service_token(settings: ServiceTokenSettings) -> ServiceToken | None:
    """What the settings want to be shown; None when that is nothing."""
    if settings.auth_token_file is not None:
        return ServiceToken(TokenFile(settings.auth_token_file))
    if settings.auth_token_url is None:
        return None
    assert settings.auth_client_id is not None  # noqa: S101 - the settings refuse that
    assert settings.auth_client_secret is not None  # noqa: S101 - likewise
    return ServiceToken(
        Tokens(settings.auth_token_url, settings.auth_client_id, settings.auth_client_secret, settings.auth_token_scope)
    )
