"""No route answers, reads of a body or does anything before its caller has shown a token with the route's scope.

A route says its scope by `needs`; an application with a route that says none is not put together. Bearer tokens, and
how they are refused: RFC 6750. In AUTH_MODE=off, which is for the loopback, there is no guard, and all may do all.

Who asks is the token's subject: X-Actor says nothing else behind the guard, unless the caller may act for others.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final, TypeVar
from urllib.parse import quote

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, iter_route_contexts

from runtime.access_tokens import LONGEST_SUBJECT, REALM, Caller, Rules, TokenRefusedError, judge, read_head, verify
from runtime.errors import ServiceError
from runtime.health import Health
from runtime.http import PROBLEM_RESPONSE, header_text
from runtime.issuer_keys import IssuerKeys, KeyFile, Keys
from runtime.rates import Rates, address_of
from runtime.settings import AuthSettings

MOST_REMEMBERED: Final = 1_000
"""Tokens whose signature was good: checking one takes longer than many a request."""
_SCHEME: Final = "bearer"
_DECLARED: Final = "__needed_scope__"
_ACTOR: Final = b"x-actor"

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


class Scope(StrEnum):
    """What a token lets its bearer do. None includes another."""

    READ = "files:read"
    WRITE = "files:write"
    SYNC = "sync:admin"


class NoTokenError(ServiceError):
    """The request shows no token."""

    status: ClassVar[int] = 401
    title: ClassVar[str] = "No token"

    def __init__(self) -> None:
        super().__init__("Send a token: Authorization: Bearer …", headers={"WWW-Authenticate": REALM})


class ScopeMissingError(ServiceError):
    """The token is good, and not for this."""

    status: ClassVar[int] = 403
    title: ClassVar[str] = "Scope missing"

    def __init__(self, needed: Scope) -> None:
        challenge = f'{REALM}, error="insufficient_scope", scope="{needed}"'
        super().__init__(f"This needs a token with the scope {needed}.", headers={"WWW-Authenticate": challenge})


class Guard:
    """Lets those in who have a token for what they ask.

    Args:
        keys: of the issuer
        rules: what a token must be
        clock: seconds since 1970
    """

    def __init__(self, keys: Keys, rules: Rules, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._rules = rules
        self._clock = clock
        self._remembered: dict[bytes, Mapping[str, Any]] = {}
        """By the token's digest: what it claims. Of tokens that were signed well by keys of this version."""
        self._version = keys.version

    async def admit(self, request: Request, needed: Scope) -> Caller:
        """Who asks; from here on log lines name them, and X-Actor does.

        Raises:
            NoTokenError: the request has no token.
            TokenRefusedError: it has one that is not to be believed.
            ScopeMissingError: it has one for other things.
            KeysAwayError: nobody can tell.
        """
        caller = judge(await self._claims(_bearer(request)), self._rules, self._clock())
        structlog.contextvars.bind_contextvars(caller=caller.subject)
        if needed not in caller.scopes:
            raise ScopeMissingError(needed)
        _vouch(request, caller)
        return caller

    async def run(self, stopping: asyncio.Event) -> None:
        """Look after the keys until told to stop."""
        await self._keys.run(stopping)

    def tell(self, health: Health) -> None:
        """Have readiness mention it when keys are missing or old. To restart would not help."""
        health.mention("keys of tokens", self._keys.check)

    async def _claims(self, token: str) -> Mapping[str, Any]:
        if self._version != (version := self._keys.version):
            self._remembered.clear()
            self._version = version
        digest = hashlib.sha256(token.encode()).digest()
        known = self._remembered.get(digest)
        if known is not None:
            return known
        head = read_head(token)
        keys = await self._keys.of(head.kid)
        claims = verify(token, head, keys)
        if len(self._remembered) >= MOST_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[digest] = claims
        return claims


def open_guard(settings: AuthSettings) -> Guard | None:
    """The guard that the settings want; None when they want none."""
    if settings.auth_mode == "off":
        return None
    assert settings.auth_issuer is not None  # noqa: S101 - the settings refuse that
    assert settings.auth_audience is not None  # noqa: S101 - likewise
    keys = (
        KeyFile(settings.auth_key_file)
        if settings.auth_key_file is not None
        else IssuerKeys(settings.auth_issuer, settings.auth_jwks_url)
    )
    return Guard(keys, Rules(settings.auth_issuer, settings.auth_audience, settings.auth_leeway_seconds))


def needs(scope: Scope) -> Callable[[Endpoint], Endpoint]:
    """Declare which scope a route needs. Stands between the route and its function."""

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARED, scope)
        return endpoint

    return declare


class Guarded(APIRoute):
    """A route behind the guard. FastAPI reads a body before it asks dependencies, so the guard is not one of them."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Raises TypeError when the endpoint does not say what it needs."""
        found = getattr(endpoint, _DECLARED, None)
        if not isinstance(found, Scope):
            raise TypeError(f"{path}: {endpoint.__name__} does not say which scope it needs.")
        self.needed = found
        refusals: dict[int | str, Any] = dict.fromkeys((401, 403, 503), PROBLEM_RESPONSE)
        super().__init__(path, endpoint, **options | {"responses": refusals | (options.get("responses") or {})})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request: nothing of it is touched before the guard has let it pass."""
        answer = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            guard: Guard | None = request.app.state.guard
            if guard is not None:
                await _counted(guard, request, self.needed)
            return await answer(request)

        return guarded


async def _counted(guard: Guard, request: Request, needed: Scope) -> None:
    """Admit a request and count it for its caller; one that is refused, for its address. Raises as either does."""
    rates: Rates | None = getattr(request.app.state, "rates", None)
    try:
        caller = await guard.admit(request, needed)
    except ServiceError:
        if rates is not None:
            rates.count(address_of(request.scope))
        raise
    if rates is not None:
        rates.count(f"subject {caller.subject}")


def documents(guard: Guard | None) -> Mapping[str, Any]:
    """How FastAPI serves its documents: by itself without a guard; else it does not, and `protect` serves the one."""
    return {} if guard is None else {"openapi_url": None}


def protect(app: FastAPI, guard: Guard | None) -> None:
    """Put an application behind the guard. To be called when it has all its routes.

    The page /docs is not there behind a guard: a browser shows no token for a page.

    Raises:
        TypeError: a route says no scope.
    """
    app.state.guard = guard
    if guard is not None:

        @needs(Scope.READ)
        async def openapi() -> Response:
            return JSONResponse(app.openapi())

        app.router.add_api_route(
            "/openapi.json", openapi, route_class_override=Guarded, include_in_schema=False, response_model=None
        )
    own = {app.openapi_url, app.docs_url, app.redoc_url, app.swagger_ui_oauth2_redirect_url}
    scopes: dict[tuple[str, str], Scope] = {}
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, Guarded):
            scopes.update({(str(route.path_format), one): route.original_route.needed for one in route.methods or ()})
        elif guard is not None or route.path not in own:
            raise TypeError(f"{route.path} does not say which scope it needs.")
    if guard is not None:
        _document(app, scopes)


def _document(app: FastAPI, scopes: Mapping[tuple[str, str], Scope]) -> None:
    described = app.openapi

    def openapi() -> dict[str, Any]:
        made = described()
        scheme = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        made.setdefault("components", {})["securitySchemes"] = {_SCHEME: scheme}
        for path, operations in made["paths"].items():
            for method, operation in operations.items():
                operation["security"] = [{_SCHEME: [scopes[path, method.upper()].value]}]
        return made

    app.openapi = openapi  # type: ignore[method-assign]


def _bearer(request: Request) -> str:
    """The token of a request. Only its header may hold one: URLs are logged on the way (RFC 6750, section 2.3)."""
    given = request.headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if given else ("", "", "")
    if scheme.lower() != "bearer":
        raise NoTokenError
    if len(given) > 1:
        raise TokenRefusedError("There is more than one token.")
    return token.strip()


def _vouch(request: Request, caller: Caller) -> None:
    """Let X-Actor say who asks: the caller; or whom a caller acts for that may, and then who it is as well."""
    headers: list[tuple[bytes, bytes]] = request.scope["headers"]
    said = [value for name, value in headers if name == _ACTOR]
    actor = caller.subject
    if said and Scope.SYNC in caller.scopes:
        try:
            other = header_text(said[0].decode("latin-1")).strip()
        except UnicodeError:
            return  # the station refuses it
        room = LONGEST_SUBJECT - len(actor) - len(" ()")
        if other and other != actor and room > 0:
            actor = f"{other[:room]} ({actor})"
    # In its place: whoever has looked at the headers holds this very list.
    headers[:] = [(name, value) for name, value in headers if name != _ACTOR]
    headers.append((_ACTOR, quote(actor, safe=" ").encode()))
