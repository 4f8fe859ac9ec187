"""Whatever goes wrong, a client gets problem+json (RFC 9457), and this is the one place that makes it.

Every request has an id, its client's or ours, which stands in its answer and in all that is logged for it.
"""

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import unquote
from uuid import uuid4

import structlog
from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime import tracing
from runtime.answers import guarded
from runtime.errors import FieldError, ServiceError
from runtime.escapes import masked

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


ActorHeader = Annotated[
    str | None, Header(max_length=1_200, description="Who asks, for the audit log. UTF-8 or percent-encoded.")
]
"""X-Actor, as routes that change something read it: as long as a hundred letters are that are percent-encoded."""


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

REQUEST_ID: Final = b"x-request-id"
_SANE_ID: Final = re.compile(rb"[\x20-\x7e]{1,128}")


class RequestIds:
    """Middleware: takes or makes the id of a request, binds it to the log, and tells it in any answer.

    An answer also gets the headers that every answer has (`answers`).

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
                headers = [*message.get("headers", ()), (REQUEST_ID, request_id)]
                message["headers"] = guarded(scope["path"], headers)
            await send(message)

        text = request_id.decode()
        tracing.note(request_id=text)
        bound = structlog.contextvars.bind_contextvars(request_id=text)
        try:
            await self._app(scope, receive, named)
        finally:
            structlog.contextvars.reset_contextvars(**bound)
            structlog.contextvars.unbind_contextvars("caller")


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
        return answer_of(error)

    async def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type below
        errors = field_errors(error.errors())
        detail = "; ".join(f"{one.field}: {one.message}" for one in errors)
        return problem(422, "Request refused", detail, errors)

    async def http_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type below
        answer = problem(error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail))
        answer.headers.update(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            answer.headers["Allow"] = _methods(app, request.url.path)
        return answer

    async def away(request: Request, error: Exception) -> JSONResponse:
        if not is_away(error):
            return await unforeseen(request, error)
        _log.warning("dependency away", error=f"{type(error).__name__}: {error}", **_named(request))
        return problem(503, "Temporarily unavailable", "A dependency is away. Try again.", retryable=True)

    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        _log.error("unforeseen error", exc_info=error, **_named(request))
        return problem(500, "Internal error", "Something unforeseen went wrong; the log says what.")

    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(RequestValidationError, refused)
    app.add_exception_handler(HTTPException, http_error)
    for kind in unavailable:
        app.add_exception_handler(kind, away)
    app.add_exception_handler(Exception, unforeseen)
    _document_problems(app)


def _methods(app: FastAPI, path: str) -> str:
    """All methods of a path (RFC 9110, section 10.2.1); the router knows those of one route at a time."""
    routes = [route for route in iter_route_contexts(app.routes) if compile_path(str(route.path))[0].match(path)]
    return ", ".join(sorted({method for route in routes for method in route.methods or ()}))


def _named(request: Request) -> dict[str, Any]:
    """The fields of a log line about a request: its path, and what that names, such as `file_id`."""
    return {"path": request.url.path, **request.path_params}


_EVERYWHERE: Final = {
    "400": "What came is not HTTP.",
    "408": "The request came too slowly.",
    "414": "Path and query are too long.",
    "421": "Without tokens this answers to names of the loopback alone.",
    "429": "This client asks too often; Retry-After says when it may again.",
    "431": "The headers are too large, or too many.",
    "503": "A dependency is away, or there are too many connections.",
}
"""What may happen before a route sees a request: docs/security.md."""
_CHANGING: Final = {"403": "A page of another origin may change nothing."}
_WITH_BODY: Final = {"413": "The body is too large."}
_SAFE: Final = frozenset({"get", "head", "options"})


def _document_problems(app: FastAPI) -> None:
    """Document what any route may answer, and that errors are application/problem+json, which FastAPI does not know."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            for path in described()["paths"].values():
                for method, operation in path.items():
                    _document(method, operation)
        return described()

    app.openapi = openapi  # type: ignore[method-assign]


def _document(method: str, operation: dict[str, Any]) -> None:
    common = _EVERYWHERE | ({} if method in _SAFE else _CHANGING) | (_WITH_BODY if "requestBody" in operation else {})
    answers = operation["responses"]
    for status, description in common.items():
        answers.setdefault(status, {"description": description, "content": {"application/json": _PROBLEM_SCHEMA}})
    for status, answer in answers.items():
        if status >= "400" and "application/json" in answer.get("content", {}):
            answer["content"] = {PROBLEM_TYPE: answer["content"]["application/json"]}


_PROBLEM_SCHEMA: Final = {"schema": {"$ref": "#/components/schemas/Problem"}}


def answer_of(error: ServiceError) -> JSONResponse:
    """The answer that tells of a foreseen fault."""
    answer = problem(error.status, error.title, str(error), error.errors, retryable=error.retryable)
    answer.headers.update(error.headers)
    return answer


def problem(
    status: int, title: str, detail: str, errors: tuple[FieldError, ...] = (), *, retryable: bool = False
) -> JSONResponse:
    """An error answer; a retryable one says when to try again."""
    said = Problem(
        title=title,
        status=status,
        detail=masked(detail),
        errors=[ProblemField(field=one.field, message=one.message) for one in errors],
    )
    return JSONResponse(
        said.model_dump(),
        status_code=status,
        media_type=PROBLEM_TYPE,
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)} if retryable else None,
    )
