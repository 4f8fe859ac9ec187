"""What can go wrong on the Admin side, as a caller sees it."""

from typing import ClassVar, Self

from runtime.errors import FieldError, ServiceError


class AdminError(ServiceError):
    """Base of the Admin module's foreseen faults."""


class FileNotFoundInAdminError(AdminError):
    """There is no such file, or it was deleted."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "File not found"


class RevisionMismatchError(AdminError):
    """The file has changed since the caller read it: If-Match names other revisions (RFC 9110, section 13.1.1)."""

    status: ClassVar[int] = 412
    title: ClassVar[str] = "Revision mismatch"


class ContentMovedError(AdminError):
    """The file got other content while it was being copied. Nothing was changed."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "Content changed meanwhile"
    retryable: ClassVar[bool] = True


class NotExpiredError(AdminError):
    """The file was due for deletion, and its retention was prolonged."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "Not expired"


class RefusedError(AdminError):
    """The request breaks a rule; `errors` names the fields."""

    status: ClassVar[int] = 422
    title: ClassVar[str] = "Request refused"

    @classmethod
    def of(cls, errors: tuple[FieldError, ...]) -> Self:
        """The refusal of these fields."""
        return cls("; ".join(f"{one.field}: {one.message}" for one in errors), errors)


class TooLargeError(AdminError):
    """The content is larger than this service takes."""

    status: ClassVar[int] = 413
    title: ClassVar[str] = "Content too large"


class UnsupportedMediaTypeError(AdminError):
    """The body is of a kind that this route does not take."""

    status: ClassVar[int] = 415
    title: ClassVar[str] = "Unsupported media type"


class RangeError(AdminError):
    """The content is shorter than the range that was asked for (RFC 9110, section 15.5.17)."""

    status: ClassVar[int] = 416
    title: ClassVar[str] = "Range not satisfiable"


class MalformedBodyError(AdminError):
    """The body is not the multipart form that it claims to be."""

    status: ClassVar[int] = 400
    title: ClassVar[str] = "Malformed body"


class StorageError(AdminError):
    """The storage element did not do its part. Nothing was recorded."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Storage element unavailable"
    retryable: ClassVar[bool] = True


class SourceStorageError(StorageError):
    """The storage element that content was being copied from did not give it."""


class SagaNotFoundError(AdminError):
    """There is no such saga, or it is forgotten."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Saga not found"


class KeyReusedError(AdminError):
    """An Idempotency-Key stands for another request than this."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "Idempotency key reused"


class RequestUnderWayError(AdminError):
    """The first request with this Idempotency-Key has not ended. Its answer can be had later."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "Request under way"
    retryable: ClassVar[bool] = True


class StepTimeoutError(AdminError):
    """A step of a saga took longer than it may. Nothing was recorded."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Step timed out"
    retryable: ClassVar[bool] = True


class SagaInterruptedError(AdminError):
    """Another process decided this saga's fate meanwhile. Nothing was recorded."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Change interrupted"
    retryable: ClassVar[bool] = True


class ClientStalledError(AdminError):
    """The client sent nothing for too long in the middle of its content (RFC 9110, section 15.5.9)."""

    status: ClassVar[int] = 408
    title: ClassVar[str] = "Content stalled"
    retryable: ClassVar[bool] = True


class UnknownElementError(AdminError):
    """The registry has no storage element of this name."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Storage element not found"


class OwnElementUnknownError(UnknownElementError):
    """A file or a saga names a storage element that the registry does not have: ours to mend, not the client's."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Storage element unavailable"
    retryable: ClassVar[bool] = True


class ElementOfflineError(AdminError):
    """An operator has taken the storage element offline."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Storage element offline"
    retryable: ClassVar[bool] = True


class NoElementError(AdminError):
    """No storage element is online and healthy."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "No storage element available"
    retryable: ClassVar[bool] = True


class NoRoomError(AdminError):
    """Every storage element that takes new files is full (RFC 4918, section 11.5)."""

    status: ClassVar[int] = 507
    title: ClassVar[str] = "Storage full"


class MappingError(AdminError):
    """A backfill's mapping does not fit its source."""

    status: ClassVar[int] = 422
    title: ClassVar[str] = "Mapping refused"


class SourceError(AdminError):
    """A backfill's source cannot be read. What was taken over stays."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Source unavailable"
    retryable: ClassVar[bool] = True


class BackfillOvertakenError(AdminError):
    """Another run of the same backfill is under way. This one took nothing twice."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "Backfill overtaken"


class ElementTakenError(AdminError):
    """The place is another storage element already, or is not the place of this one."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "Another storage element's place"


class ElementInUseError(AdminError):
    """The storage element cannot be forgotten yet."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "Storage element in use"


class SyncTooSlowError(AdminError):
    """Comparing with the Query side took too long. Nothing was changed."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Comparison took too long"
    retryable: ClassVar[bool] = True
