"""The issuer's keys are had before they are needed, and asked for seldom, whatever tokens come.

Known keys serve while the issuer is away, for KEPT_SECONDS: an outage of it closes nothing at once, and a key that was
taken back cannot be kept in use by cutting us off from the issuer for ever.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final, Protocol

import httpx
import structlog

from runtime.access_tokens import Key, named, read_keys
from runtime.errors import ServiceError
from runtime.health import NotReadyError
from runtime.retries import pause

REFRESH_SECONDS: Final = 300.0
"""A key that is not in the JWKS any more is used no longer than this."""
SELDOM_SECONDS: Final = 10.0
"""Between two tries, whoever wants them: tokens with made-up names of keys make no flood of requests."""
ANSWER_SECONDS: Final = 5.0
KEPT_SECONDS: Final = 24 * 3600.0
"""Known keys are used for so long without a word from the issuer. Its tokens have run out long before."""
MOST_BYTES: Final = 1 << 20
"""Of an answer."""
DISCOVERY: Final = "/.well-known/openid-configuration"

_log = structlog.get_logger()


class KeysAwayError(ServiceError):
    """There is no key to check tokens with, so nobody can be let in or refused."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Tokens cannot be checked"
    retryable: ClassVar[bool] = True


class Keys(Protocol):
    """Where keys come from."""

    @property
    def version(self) -> int:
        """Another number once the keys are others: what was checked by those before is to be checked again."""

    async def of(self, kid: str | None) -> Sequence[Key]:
        """The keys that a token may mean which says this name. Raises KeysAwayError where no key is known at all."""

    async def check(self) -> None:
        """Raise NotReadyError while keys are missing, or may be old."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Look after them until told to stop."""


class _Known:
    """The keys that are known, and what stands in the way of knowing better."""

    def __init__(self) -> None:
        self.keys: tuple[Key, ...] | None = None
        self.version = 0
        self.trouble: str | None = "not read yet"
        self._text: bytes | None = None

    def take(self, text: bytes) -> None:
        """Keep to these from now on. Raises ValueError: they cannot be read; nothing changes."""
        if text != self._text:
            self.keys = read_keys(text)
            self.version += 1
            self._text = text
            _log.info("keys of tokens read", keys=[key.kid for key in self.keys])
        self.trouble = None if self.keys else "there is no key among them that can be used"

    def fail(self, trouble: str) -> None:
        """Say why they cannot be had, once for each reason."""
        if trouble != self.trouble:
            _log.warning("no news of the keys of tokens", error=trouble)
        self.trouble = trouble

    def forget(self) -> None:
        """Use them no longer."""
        if self.keys is not None:
            self.keys, self._text = None, None
            self.version += 1

    def of(self, kid: str | None) -> list[Key]:
        if self.keys is None:
            raise KeysAwayError("The keys that tokens are checked with cannot be had. Try again.")
        return named(self.keys, kid)

    def check(self) -> None:
        if self.trouble is not None:
            raise NotReadyError(self.trouble)


class KeyFile:
    """Keys in a file that somebody else keeps: read again as soon as it changes.

    Args:
        path: of a JWKS, a PEM public key or a PEM certificate
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _Known()
        self._seen: tuple[int, int, int] | None = None

    @property
    def version(self) -> int:
        """See Keys."""
        self._look()
        return self._known.version

    async def of(self, kid: str | None) -> Sequence[Key]:
        """See Keys."""
        self._look()
        return self._known.of(kid)

    async def check(self) -> None:
        """See Keys."""
        self._look()
        self._known.check()

    async def run(self, stopping: asyncio.Event) -> None:
        """See Keys: there is nothing to do."""
        await stopping.wait()

    def _look(self) -> None:
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                self._known.take(self._path.read_bytes())
                self._seen = seen
        except (OSError, ValueError) as error:
            self._known.fail(f"{self._path}: {error}")


class IssuerKeys:
    """Keys as the issuer publishes them.

    Args:
        issuer: asked where its keys are, unless `jwks_url` says so
        jwks_url: of its keys
        clock: seconds, never going back
    """

    def __init__(self, issuer: str, jwks_url: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._clock = clock
        self._known = _Known()
        self._heard = clock()
        self._tried: float | None = None
        # Whoever comes while it is asked waits for the same answer.
        self._alone = asyncio.Lock()

    @property
    def version(self) -> int:
        """See Keys."""
        if self._clock() - self._heard > KEPT_SECONDS:
            self._known.forget()
        return self._known.version

    async def of(self, kid: str | None) -> Sequence[Key]:
        """See Keys."""
        if not self._known.keys or not named(self._known.keys, kid):
            await self._refresh(SELDOM_SECONDS)
        return self._known.of(kid)

    async def check(self) -> None:
        """See Keys."""
        self._known.check()

    async def run(self, stopping: asyncio.Event) -> None:
        """See Keys."""
        while not stopping.is_set():
            await self._refresh(0.0)
            await pause(SELDOM_SECONDS if self._known.trouble else REFRESH_SECONDS, stopping)

    async def _refresh(self, seldom: float) -> None:
        """Ask the issuer, unless it was asked less than `seldom` seconds ago."""
        async with self._alone:
            if self._tried is not None and self._clock() - self._tried < seldom:
                return
            self._tried = self._clock()
            try:
                async with asyncio.timeout(ANSWER_SECONDS), httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
                    text = await _get(client, self._jwks_url or await self._discover(client))
                self._known.take(text)
                self._heard = self._clock()
            except TimeoutError:
                self._known.fail(f"the issuer does not answer within {ANSWER_SECONDS:g} s")
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
                self._known.fail(f"{type(error).__name__}: {error}")

    async def _discover(self, client: httpx.AsyncClient) -> str:
        """Where the issuer says that its keys are (OpenID Connect Discovery). Raises ValueError: it does not say."""
        found = json.loads(await _get(client, self._issuer.rstrip("/") + DISCOVERY))
        if not isinstance(found, dict) or found.get("issuer") != self._issuer:
            raise ValueError("what is there describes another issuer than AUTH_ISSUER")
        url = found.get("jwks_uri")
        if not isinstance(url, str) or (self._issuer.startswith("https:") and not url.startswith("https:")):
            raise ValueError("the issuer names no place of its keys that could be trusted")
        return url


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    """A whole answer. Raises ValueError: it is larger than any JWKS; or what httpx does."""
    async with client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
        answer.raise_for_status()
        text = b""
        async for piece in answer.aiter_bytes():
            text += piece
            if len(text) > MOST_BYTES:
                raise ValueError(f"{url} answers more than {MOST_BYTES} bytes")
        return text
