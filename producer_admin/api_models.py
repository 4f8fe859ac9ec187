"""What may come in and what goes out of the Admin API. A value that gets past here can be stored and searched.

Postgres text holds no NUL; names and tags hold no control characters, so that no log line, header or terminal can be
broken by one.
"""

import mimetypes
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from producer_admin.errors import RefusedError
from producer_admin.files import FileRecord
from producer_admin.saga_log import LoggedSaga
from runtime.errors import FieldError
from runtime.http import header_text
from schemas.file_view import FileView

MAX_TAGS: Final = 100
# Within what Postgres, Avro's timestamps and every client's calendar can hold, in any time zone.
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127}")
DEFAULT_MEDIA_TYPE: Final = "application/octet-stream"


def _printable(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("holds a control character")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("is blank")
    return value


def _storable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("holds a NUL character")
    return value


def _storable_moment(value: datetime) -> datetime:
    try:
        moment = value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is out of range") from error
    if not EARLIEST <= moment <= LATEST:
        raise ValueError(f"is not between {EARLIEST:%Y} and {LATEST:%Y}")
    return moment


def _media_type(value: str) -> str:
    essence = value.partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(essence):
        raise ValueError("not a media type (RFC 6838)")
    return essence


def _distinct(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


@dataclass(frozen=True)
class Limits:
    """How much a deployment takes; the types below bound what it can be set to."""

    upload_bytes: int
    """Content of one file."""
    name: int
    """Characters of a file's name."""
    description: int
    """Characters."""
    tags: int
    """Tags of one file."""
    tag: int
    """Characters of one tag."""

    def check(self, columns: Mapping[str, Any]) -> None:
        """Return when the columns are within the limits.

        Raises:
            RefusedError: some are not; names each.
        """
        tags = columns.get("tags") or []
        found = [
            ("original_filename", len(columns.get("original_filename") or ""), self.name, "characters"),
            ("description", len(columns.get("description") or ""), self.description, "characters"),
            ("tags", len(tags), self.tags, "tags"),
            *((f"tags.{place}", len(tag), self.tag, "characters") for place, tag in enumerate(tags)),
        ]
        errors = tuple(
            FieldError(name, f"has {size} {unit}, and {most} are allowed here")
            for name, size, most, unit in found
            if size > most
        )
        if errors:
            raise RefusedError.of(errors)


Name = Annotated[
    str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable), AfterValidator(_not_blank)
]
Label = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), AfterValidator(_printable)
]
_LABEL: Final = TypeAdapter(Label)
Text = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_storable)]
Moment = Annotated[AwareDatetime, AfterValidator(_storable_moment)]
MediaType = Annotated[str, AfterValidator(_media_type)]
Tags = Annotated[list[Label], Field(max_length=MAX_TAGS), AfterValidator(_distinct)]


class FileDetails(BaseModel):
    """What an uploader says of a file, besides its content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    original_filename: Name
    mime_type: MediaType = DEFAULT_MEDIA_TYPE
    description: Text | None = None
    version: Label | None = None
    tags: Tags = []
    created_by_username: Label = "anonymous"
    created_by_fullname: Label | None = None
    retention_expires_at: Moment | None = None

    @model_validator(mode="after")
    def _guess_media_type(self) -> Self:
        if self.mime_type == DEFAULT_MEDIA_TYPE:
            # As a path: by itself `data:text/html,x` would be taken for a URL.
            guess, encoding = mimetypes.guess_type(f"/{self.original_filename}", strict=False)
            # A compressed file is not of the type that it holds.
            self.__dict__["mime_type"] = DEFAULT_MEDIA_TYPE if encoding or not guess else guess
        return self

    def columns(self) -> dict[str, Any]:
        """As columns of the files table."""
        return self.model_dump()


class FileChange(BaseModel):
    """A PATCH: fields that are left out stay as they are; null clears those that may be empty."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    original_filename: Name = ""
    description: Text | None = None
    version: Label | None = None
    tags: Tags = []
    retention_expires_at: Moment | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("names no field to change")
        return self

    def columns(self) -> dict[str, Any]:
        """Just what was said, as columns of the files table."""
        return self.model_dump(exclude_unset=True)


class ContentChange(BaseModel):
    """What may be said of new content, besides the bytes. What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mime_type: MediaType = DEFAULT_MEDIA_TYPE
    version: Label | None = None

    def columns(self) -> dict[str, Any]:
        """Just what was said, as columns of the files table."""
        return self.model_dump(exclude_unset=True)


class Move(BaseModel):
    """Where a file's content is to go."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    storage_element_id: Label


class FilePage(BaseModel):
    """Some files, newest first, and where the next page begins; null behind the last."""

    files: list[FileView]
    next_cursor: str | None


class SagaView(BaseModel):
    """Where a saga stands. While it is running, recorded or compensating, some process works on it or will."""

    model_config = ConfigDict(from_attributes=True)

    saga_id: UUID
    kind: str
    file_id: UUID
    state: str
    step: str
    detail: dict[str, Any]
    error: str | None
    attempts: int
    actor: str
    revision: int | None
    started_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, saga: LoggedSaga) -> "SagaView":
        """A row of the log as the API answers it."""
        return cls.model_validate(saga)


class SagaPage(BaseModel):
    """Some sagas, newest first, and where the next page begins; null behind the last."""

    sagas: list[SagaView]
    next_cursor: str | None


def read_actor(header: str) -> str:
    """Who asks, as header X-Actor says it: UTF-8, or percent-encoded.

    Raises:
        RefusedError: not a name that can be stored.
    """
    try:
        return _LABEL.validate_python(header_text(header))
    except (UnicodeError, ValidationError) as error:
        problem = FieldError("X-Actor", "not 1 to 100 printable characters in UTF-8")
        raise RefusedError("X-Actor cannot be read.", (problem,)) from error


def view(record: FileRecord) -> FileView:
    """A record as the API answers it."""
    return FileView(
        file_id=record.file_id,
        revision=record.revision,
        storage_element_id=record.storage_element_id,
        **asdict(record.metadata),
    )
