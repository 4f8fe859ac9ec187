"""A foreseen fault says three things as data: what it is over HTTP, whether to try again, what to tell the caller.

Each service has one base of its own below `ServiceError`; `runtime.http` is the only place that reads these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class FieldError:
    """One field of a request that was refused, named as the caller named it."""

    field: str
    message: str


class StartError(Exception):
    """A process cannot start. The message says what to do, so no traceback is needed."""


class ServiceError(Exception):
    """A fault that has a name. `str(error)` is one sentence for the person who caused or can mend it."""

    status: ClassVar[int] = 500
    """HTTP status (RFC 9110)."""
    title: ClassVar[str] = "Internal error"
    """Same for every occurrence (RFC 9457, section 3.1.3)."""
    retryable: ClassVar[bool] = False
    """True when the same call may succeed later."""
    expected: ClassVar[bool] = False
    """True of a 5xx that the caller has asked for, by a limit that it set: nobody has to mend anything."""

    def __init__(
        self, detail: str, errors: tuple[FieldError, ...] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.errors = errors
        self.headers = headers or {}
        """What HTTP wants beside the problem, such as Content-Range with 416."""
