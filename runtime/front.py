"""What a request passes before any route sees it: how often its client asks, whose page sent it, how its body comes.

From outside in: `connections` (size and time of heads), `http.RequestIds` (an id, and the headers of `answers`), CORS
where it is open, and this.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.http import answer_of, problem
from runtime.rates import Rates, TooOftenError, address_of
from runtime.settings import HttpSettings, is_loopback

MAX_BODY_BYTES: Final = 1 << 20
"""Larger than any JSON body that a route of ours takes."""
PATIENCE_SECONDS: Final = 30.0
"""How long a body may keep us waiting. Each byte earns its sender some of it back: what goes on is never cut."""
LEAST_RATE: Final = 1024
"""Bytes a second that keep our patience as it is."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""
_SENT: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "Range",
    "X-Actor",
    "X-Request-ID",
    "traceparent",
)
"""Headers that a page's script may send."""
_SEEN: Final = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)
"""Headers that it may read."""

Streamed = Callable[[str, str], bool]
"""By method and path: whether a route reads its body piece by piece, and bounds its size itself."""


def put_front(
    app: FastAPI,
    settings: HttpSettings | None = None,
    streamed: Streamed = lambda *_: False,
    *,
    guarded: bool = False,
) -> None:
    """Let all requests to `app` pass through here.

    Args:
        app: it
        settings: without them nothing is counted, and CORS is closed
        streamed: which routes read their body piece by piece
        guarded: the guard of `auth` counts, by the subjects of tokens, with the rates in `app.state`. Where there is
            none only this machine's names are answered
    """
    rate = 0.0 if settings is None else settings.rate_limit_per_second
    rates = None if settings is None or not rate else Rates(rate, settings.rate_limit_burst)
    origins = [] if settings is None else settings.origins
    app.state.rates = rates
    alone = settings is not None and not guarded
    app.add_middleware(
        Front, rates=None if guarded else rates, origins=frozenset(origins), streamed=streamed, alone=alone
    )
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=_SENT,
            expose_headers=_SEEN,
        )


class Front:
    """Middleware: see the module."""

    def __init__(
        self, app: ASGIApp, rates: Rates | None, origins: frozenset[str], streamed: Streamed, *, alone: bool
    ) -> None:
        self._app = app
        self._rates = rates
        self._origins = origins
        self._streamed = streamed
        self._alone = alone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on with bounds on its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (refusal := self._too_often(scope) or self._misled(scope) or self._foreign(scope)) is not None:
            await refusal(scope, receive, send)
        else:
            most = None if self._streamed(scope["method"], scope["path"]) else MAX_BODY_BYTES
            await self._app(scope, _bounded(receive, most), send)

    def _too_often(self, scope: Scope) -> JSONResponse | None:
        try:
            if self._rates is not None:
                self._rates.count(address_of(scope))
        except TooOftenError as error:
            return answer_of(error)
        return None

    def _misled(self, scope: Scope) -> JSONResponse | None:
        """Refuse what asks for another name, where all who reach this machine's are let in.

        A page whose name leads to the loopback (DNS rebinding) is of our origin to its browser, and reads everything.
        """
        host = next((value for name, value in scope["headers"] if name == b"host"), b"localhost").decode("latin-1")
        if not self._alone or is_loopback(_name(host)):
            return None
        return problem(421, "Misdirected Request", "Without tokens this answers to localhost and 127.0.0.1 alone.")

    def _foreign(self, scope: Scope) -> JSONResponse | None:
        """Refuse what a page of another site sends: its browser keeps the answer from it, but not the change."""
        if scope["method"] in _SAFE:
            return None
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin or self._origins & {origin, "*"} or _place(origin) == headers.get(b"host", b"").decode("latin-1"):
            return None
        return problem(403, "Forbidden", "Pages of another origin may change nothing here.")


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def patience_left(patience: float, waited: float, length: int) -> float:
    """Seconds that a body may keep us waiting yet, after `length` bytes for which it did so for `waited` seconds."""
    return min(PATIENCE_SECONDS, patience - waited + length / LEAST_RATE)


def _bounded(receive: Receive, most: int | None) -> Receive:
    """A body that is refused when it is too large (413), before it fills memory, or too slow (408).

    Args:
        receive: where it comes from
        most: bytes; None is any number
    """
    size, patience, ended = 0, PATIENCE_SECONDS, False

    async def bounded() -> Message:
        nonlocal size, patience, ended
        if ended:  # what follows is the client's hanging up, which takes as long as it takes
            return await receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, "The body comes too slowly.", {"Retry-After": "1"}) from None
        length = len(message.get("body", b""))
        size += length
        if most is not None and size > most:
            raise HTTPException(413, f"The body is larger than {most} bytes.")
        patience = patience_left(patience, time.monotonic() - began, length)
        ended = not message.get("more_body", False)
        return message

    return bounded
