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


class SearchTooSlowError(QueryError):
    """The database was not done within the time that a search may take, and stopped."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Search took too long"


class UnreadableRecordError(QueryError):
    """A record is not a file event. The partition stands still, and says so, rather than pass it over."""


class PositionMovedError(QueryError):
    """Another projector has applied this partition meanwhile; what is in hand must be dropped."""

    retryable: ClassVar[bool] = True


class DeadLetterNotFoundError(QueryError):
    """Nothing that was read at that position was put aside."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Dead letter not found"


class RefusedRequestError(QueryError):
    """The request cannot be taken; `errors` names the field."""

    status: ClassVar[int] = 422
    title: ClassVar[str] = "Request refused"


class DeadLettersAwayError(QueryError):
    """What dead letters need does not answer: nothing more was marked."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Dead letters not available"
    retryable: ClassVar[bool] = True


class DeadLettersNotSetUpError(QueryError):
    """This process was not told where to find what the request needs; the message names the setting."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Not set up"


class AdminAwayError(QueryError):
    """The Admin module does not answer, or refuses."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Admin module not available"
    retryable: ClassVar[bool] = True


class CannotCompareError(QueryError):
    """What the two sides answer cannot be compared."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Sides cannot be compared"
