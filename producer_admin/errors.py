"""What can go wrong on the Admin side, as a caller sees it."""

from typing import ClassVar

from runtime.errors import ServiceError


class AdminError(ServiceError):
    """Base of the Admin module's foreseen faults."""


class FileNotFoundInAdminError(AdminError):
    """There is no such file, or it was deleted."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "File not found"


class RefusedError(AdminError):
    """The request breaks a rule; `errors` names the fields."""

    status: ClassVar[int] = 422
    title: ClassVar[str] = "Request refused"


class TooLargeError(AdminError):
    """The content is larger than this service takes."""

    status: ClassVar[int] = 413
    title: ClassVar[str] = "Content too large"


class MalformedBodyError(AdminError):
    """The body is not the multipart form that it claims to be."""

    status: ClassVar[int] = 400
    title: ClassVar[str] = "Malformed body"


class StorageError(AdminError):
    """The storage element did not do its part. Nothing was recorded."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Storage element unavailable"
    retryable: ClassVar[bool] = True


class SagaInterruptedError(AdminError):
    """Another process decided this saga's fate meanwhile. Nothing was recorded."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Change interrupted"
    retryable: ClassVar[bool] = True
