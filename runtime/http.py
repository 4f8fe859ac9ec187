"""Whatever goes wrong, a client gets problem+json (RFC 9457), and this is the one place that makes it."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from runtime.errors import FieldError, ServiceError

RETRY_AFTER_SECONDS = 1
_log = structlog.get_logger()


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


PROBLEM_RESPONSE: dict[str, Any] = {
    "model": Problem,
    "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
}
"""How routes document an error status."""


def field_errors(errors: Sequence[Any], root: str = "body") -> tuple[FieldError, ...]:
    """Name the refused fields of a pydantic validation as the caller wrote them, dotted.

    `root` names what is refused as a whole, such as a body that is no JSON.
    """
    return tuple(_field_error(error, root) for error in errors)


def _field_error(error: Any, root: str) -> FieldError:
    where = error["loc"]
    if where and where[0] in _SOURCES:
        where = where[1:]
    if error["type"] == "json_invalid":
        where = ()
    return FieldError(".".join(map(str, where)) or root, error["msg"].removeprefix("Value error, "))


_SOURCES = frozenset({"body", "query", "path", "header"})


def answer_with_problems(app: FastAPI, unavailable: tuple[type[Exception], ...] = ()) -> None:
    """Make every error of `app` a problem+json answer.

    `unavailable` are the library errors that mean a dependency is away: 503 with Retry-After.
    """

    async def service_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServiceError)  # noqa: S101 - registered for this type below
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("request failed", path=request.url.path, error=str(error), status=error.status)
        return _problem(error.status, error.title, str(error), error.errors, retryable=error.retryable)

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
        _log.warning("dependency away", path=request.url.path, error=f"{type(error).__name__}: {error}")
        return _problem(503, "Temporarily unavailable", "A dependency is away. Try again.", retryable=True)

    async def unforeseen(request: Request, error: Exception) -> JSONResponse:
        _log.error("unforeseen error", path=request.url.path, exc_info=error)
        return _problem(500, "Internal error", "Something unforeseen went wrong; the log says what.")

    app.add_exception_handler(ServiceError, service_error)
    app.add_exception_handler(RequestValidationError, refused)
    app.add_exception_handler(HTTPException, http_error)
    for kind in unavailable:
        app.add_exception_handler(kind, away)
    app.add_exception_handler(Exception, unforeseen)


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
        media_type="application/problem+json",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)} if retryable else None,
    )
