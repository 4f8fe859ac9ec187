"""Whatever goes wrong, a client gets problem+json (RFC 9457), and this is the one place that makes it.

Every request has an id, its client's or ours, which stands in its answer and in all that is logged for it.
"""

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote
from uuid import uuid4

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime import tracing
from runtime.errors import FieldError, ServiceError

if TYPE_CHECKING:
    import httpx

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1
_log = structlog.get_logger()


def header_text(header: str) -> str:
    """What a client means by a header's value: UTF-8, or percent-encoded. HTTP hands it over as Latin-1.

    Raises:
        UnicodeError: it is neither.
    """
    return unquote(header.encode("latin-1").decode(), errors="strict")


class ProblemField(BaseModel):
    """One refused field."""

    field: str
    message: str


class Problem(BaseModel):
    """An error answer, RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[ProblemField] = []


PROBLEM_RESPONSE: dict[str, Any] = {"model": Problem}
"""How routes document an error status."""

MAX_BODY_BYTES = 1 << 20
"""Larger than any JSON body that a route of ours takes."""


class BoundedBodies:
    """Middleware: a body that a route reads whole is refused with 413 once it is too large, before it fills memory.

    `streamed` tells by method and path which routes read their body piece by piece and bound it themselves.
    """

    def __init__(self, app: ASGIApp, streamed: Callable[[str, str], bool] = lambda _method, _path: False) -> None:
        self._app = app
        self._streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting its body."""
        if scope["type"] != "http" or self._streamed(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise HTTPException(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
            return message

        await self._app(scope, counted, send)


REQUEST_ID: Final = b"x-request-id"
_SANE_ID: Final = re.compile(rb"[\x20-\x7e]{1,128}")


class RequestIds:
    """Middleware: takes or makes the id of a request, binds it to the log, and tells it in any answer.

    A client's id is taken when it is printable ASCII of 128 characters at most, so that it can forge no log line.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under its id."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == REQUEST_ID), b"")
        request_id = given if _SANE_ID.fullmatch(given) else uuid4().hex.encode()

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id)]
            await send(message)

        text = request_id.decode()
        tracing.note(request_id=text)
        bound = structlog.contextvars.bind_contextvars(request_id=text)
        try:
            await self._app(scope, receive, named)
        finally:
            structlog.contextvars.reset_contextvars(**bound)


def identify_requests(app: FastAPI) -> None:
    """Give every request to `app` an id. Outside of all else: an unforeseen error is answered outside of middleware."""
    built = app.build_middleware_stack
    app.build_middleware_stack = lambda: RequestIds(built())  # type: ignore[method-assign]


async def pass_on(request: "httpx.Request") -> None:
    """An event hook of a client: what is asked of another service for a request goes under its id and in its trace."""
    if (request_id := structlog.contextvars.get_contextvars().get("request_id")) is not None:
        request.headers.setdefault("X-Request-ID", request_id)
    if (context := tracing.traceparent()) is not None:
        request.headers.setdefault("traceparent", context)


MOST_ERRORS = 20
"""Refused fields that an answer names: a body can have a hundred thousand of them."""
LONGEST_FIELD = 200
"""Characters of a name that the caller made up."""


def field_errors(errors: Sequence[Any], root: str = "body") -> tuple[FieldError, ...]:
    """Name the refused fields of a pydantic validation as the caller wrote them, dotted: the first MOST_ERRORS.

    `root` names what is refused as a whole, such as a body that is no JSON.
    """
    return tuple(_field_error(error, root) for error in errors[:MOST_ERRORS])


def _field_error(error: Any, root: str) -> FieldError:
    where = error["loc"]
    if where and where[0] in _SOURCES:
        # Header names are compared without case, and written like this.
        where = (where[1].title(),) if where[0] == "header" else where[1:]
    if error["type"] == "json_invalid":
        where = ()
    return FieldError(".".join(map(str, where))[:LONGEST_FIELD] or root, error["msg"].removeprefix("Value error, "))


_SOURCES = frozenset({"body", "query", "path", "header"})


def answer_with_problems(
    app: FastAPI,
    unavailable: tuple[type[Exception], ...] = (),
    is_away: Callable[[BaseException], bool] = lambda _: True,
) -> None:
    """Make every error of `app` a problem+json answer.

    `unavailable` are the library errors that may mean that a dependency is away, and do where `is_away` says so:
    503 with Retry-After.
    """

    async def service_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServiceError)  # noqa: S101 - registered for this type below
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            say = _log.info if error.expected else _log.error
            say("request failed", error=str(error), status=error.status, **_named(request))
        answer = _problem(error.status, error.title, str(error), error.errors, retryable=error.retryable)
        answer.headers.update(error.headers)
        return answer

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type below
        errors = field_errors(error.errors())
        detail = "; ".join(f"{one.field}: {one.message}" for one in errors)
        return _problem(422, "Request refused", detail, errors)

    async def http_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type below
        answer = _problem(error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    async def away(request: Request, error: Exception) -> JSONResponse:
        if not is_away(error):
            return await unforeseen(request, error)
        _log.warning("dependency away", error=f"{type(error).__name__}: {error}", **_named(request))
        return _problem(503, "Temporarily unavailable", "A dependency is away. Try again.", retryable=True)

    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        _log.error("unforeseen error", exc_info=error, **_named(request))
        return _problem(500, "Internal error", "Something unforeseen went wrong; the log says what.")

    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(RequestValidationError, refused)
    app.add_exception_handler(HTTPException, http_error)
    for kind in unavailable:
        app.add_exception_handler(kind, away)
    app.add_exception_handler(Exception, unforeseen)
    _document_problems(app)


def _named(request: Request) -> dict[str, Any]:
    """The fields of a log line about a request: its path, and what that names, such as `file_id`."""
    return {"path": request.url.path, **request.path_params}


def _document_problems(app: FastAPI) -> None:
    """FastAPI documents a model as application/json; errors are application/problem+json."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path in described()["paths"].values():
                for operation in path.values():
                    for status, answer in operation["responses"].items():
                        if status >= "400" and "application/json" in answer.get("content", {}):
                            answer["content"] = {PROBLEM_TYPE: answer["content"]["application/json"]}
        return described()

    app.openapi = openapi  # type: ignore[method-assign]


def _problem(
    status: int, title: str, detail: str, errors: tuple[FieldError, ...] = (), *, retryable: bool = False
) -> JSONResponse:
    problem = Problem(
        title=title,
        status=status,
        detail=detail,
        errors=[ProblemField(field=one.field, message=one.message) for one in errors],
    )
    return JSONResponse(
        problem.model_dump(),
        status_code=status,
        media_type=PROBLEM_TYPE,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)} if retryable else None,
    )
