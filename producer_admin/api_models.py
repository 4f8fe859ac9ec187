"""What may come in and what goes out of the Admin API. A value that gets past here can be stored and searched.

Postgres text holds no NUL; names and tags hold no control characters, so that no log line, header or terminal can be
broken by one.
"""

import mimetypes
import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from producer_admin.files import FileRecord
from schemas.file_view import FileView

MAX_TAGS: Final = 100
# Within what Postgres, Avro's timestamps and every client's calendar can hold, in any time zone.
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127}")
DEFAULT_MEDIA_TYPE: Final = "application/octet-stream"


def _printable(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("holds a control character")
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


def _distinct(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


Name = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]
Label = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100), AfterValidator(_printable)
]
Text = Annotated[str, StringConstraints(max_length=10_000), AfterValidator(_storable)]
Moment = Annotated[AwareDatetime, AfterValidator(_storable_moment)]
Tags = Annotated[list[Label], Field(max_length=MAX_TAGS), AfterValidator(_distinct)]


class FileDetails(BaseModel):
    """What an uploader says of a file, besides its content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    original_filename: Name
    mime_type: str = DEFAULT_MEDIA_TYPE
    description: Text | None = None
    version: Label | None = None
    tags: Tags = []
    created_by_username: Label = "anonymous"
    created_by_fullname: Label | None = None
    retention_expires_at: Moment | None = None

    @field_validator("mime_type")
    @classmethod
    def _media_type(cls, value: str) -> str:
        essence = value.partition(";")[0].strip().lower()
        if not _MEDIA_TYPE.fullmatch(essence):
            raise ValueError("not a media type (RFC 6838)")
        return essence

    @model_validator(mode="after")
    def _guess_media_type(self) -> Self:
        if self.mime_type == DEFAULT_MEDIA_TYPE:
            guess, encoding = mimetypes.guess_type(self.original_filename, strict=False)
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


def view(record: FileRecord) -> FileView:
    """A record as the API answers it."""
    return FileView(
        file_id=record.file_id,
        revision=record.revision,
        storage_element_id=record.storage_element_id,
        **asdict(record.metadata),
    )
