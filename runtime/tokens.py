"""One token serves all connections of a process until shortly before it runs out (OAuth 2.0, client credentials).

Only new connections ask for one. What fails is told to the client as a fault of the connection: it tries again.
"""

import asyncio
from time import monotonic
from typing import Any, Final
from urllib.parse import quote

import httpx
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError
from pydantic import SecretStr

ANSWER_SECONDS: Final = 5.0
MARGIN_SECONDS: Final = 30.0
"""Before its end a token is not used any more, unless that is more than half of its life."""


class TokenError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """There is no token to log in with. The message says why, without a secret."""

    retriable = True


class Tokens(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """Asks a token endpoint as RFC 6749, section 4.4, says.

    Args:
        url: of the endpoint
        client_id: of this process
        client_secret: sent by HTTP Basic (section 2.3.1)
        scope: asked for; None is what the server gives by itself
    """

    def __init__(self, url: str, client_id: str, client_secret: SecretStr, scope: str | None = None) -> None:
        self._url = url
        self._client_id = client_id
        self._client_secret = client_secret
        self._scope = scope
        self._token = ""
        self._good_until = 0.0
        """By the monotonic clock."""
        # Many connections may be opened at once; the first asks for all.
        self._alone = asyncio.Lock()

    async def token(self) -> str:
        """A token that is good for a while.

        Raises:
            TokenError: the endpoint is away, refuses, or does not answer within ANSWER_SECONDS.
        """
        async with self._alone:
            if monotonic() >= self._good_until:
                asked_at = monotonic()
                self._token, seconds = await self._ask()
                self._good_until = asked_at + max(seconds - MARGIN_SECONDS, seconds / 2)
            return self._token

    async def _ask(self) -> tuple[str, float]:
        """A token, and for how many seconds it is good; 0 when the endpoint does not say."""
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        # Each part is encoded as in a form, so that a colon in it is none between them.
        basic = httpx.BasicAuth(*(quote(one, "") for one in (self._client_id, self._client_secret.get_secret_value())))
        try:
            async with asyncio.timeout(ANSWER_SECONDS), httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
                answer = await client.post(self._url, data=form, auth=basic)
            body: Any = answer.json() if answer.content else {}
        except TimeoutError:
            raise TokenError(f"no token: {self._url} did not answer within {ANSWER_SECONDS:g} s") from None
        except httpx.HTTPError as error:
            raise TokenError(f"no token: {self._url}: {type(error).__name__}: {error}") from error
        except ValueError:
            body = {}
        if not isinstance(body, dict):
            body = {}
        token, seconds = body.get("access_token"), body.get("expires_in", 0)
        if answer.is_success and isinstance(token, str) and isinstance(seconds, (int, float)):
            return token, seconds
        said = [str(body[name]) for name in ("error", "error_description") if name in body]
        raise TokenError(f"no token: {self._url} answered {answer.status_code} {': '.join(said)}".rstrip())
