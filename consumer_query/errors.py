"""What can go wrong on the Query side, as a caller or an operator sees it."""

from typing import ClassVar

from runtime.errors import ServiceError


class QueryError(ServiceError):
    """Base of the Query module's foreseen faults."""


class FileNotInCacheError(QueryError):
    """There is no such file in the cache: never uploaded, deleted, or not yet applied."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "File not found"


class BadSearchError(QueryError):
    """The search cannot be understood; `errors` names the parameter."""

    status: ClassVar[int] = 422
    title: ClassVar[str] = "Request refused"


class UnreadableRecordError(QueryError):
    """A record is not a file event. The partition stands still, and says so, rather than pass it over."""


class PositionMovedError(QueryError):
    """Another projector has applied this partition meanwhile; what is in hand must be dropped."""

    retryable: ClassVar[bool] = True
