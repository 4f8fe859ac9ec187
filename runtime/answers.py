"""Every answer tells a browser to do nothing with it but read it: no guessing of its type, no scripts, no frames.

What is not a page of the API's own documentation may load nothing at all, whatever bytes a client has uploaded.
"""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]

_ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_POLICY: Final = b"content-security-policy"
NOTHING: Final = (_POLICY, b"default-src 'none'; frame-ancestors 'none'; sandbox")
PAGES: Final = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc"})
"""The API's documentation, which FastAPI makes: a script of its own, and what that loads."""
_OF_PAGES: Final = (
    _POLICY,
    (
        b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; connect-src 'self'; "
        b"script-src https://cdn.jsdelivr.net 'unsafe-inline'; style-src https://cdn.jsdelivr.net 'unsafe-inline'; "
        b"img-src https://fastapi.tiangolo.com data:; worker-src blob:"
    ),
)
_UNSEEN: Final = (b"cache-control", b"no-store")
_CHECKED: Final = (b"cache-control", b"private, no-cache")


def guarded(path: str, headers: Headers) -> Headers:
    """An answer's headers with those that every answer has; what a route has set itself stays.

    What has an ETag may be kept by its client, and is asked for again each time; all else is kept by nobody.

    Args:
        path: that was asked for
        headers: names in lower case, as ASGI has them
    """
    names = {name for name, _ in headers}
    cached = _CHECKED if b"etag" in names else _UNSEEN
    policy = _OF_PAGES if path in PAGES else NOTHING
    return [*headers, *(one for one in (*_ALWAYS, policy, cached) if one[0] not in names)]


class GuardedAnswers:
    """Middleware: see the module."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer with all headers."""

        async def guarding(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = guarded(scope["path"], list(message.get("headers", ())))
            await send(message)

        await self._app(scope, receive, guarding)
