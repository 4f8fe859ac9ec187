"""A row of an older system is taken over whole, by the rules that an upload obeys, or refused with the reason. No I/O.

    mapping file  →  Mapping  →  (with the source's columns)  Plan  →  (with a row)  FileRecord or Refused

Whatever is refused is refused for itself: no value of a row, however odd, stops the rows beside it.
"""

import json
import re
import tomllib
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from producer_admin.api_models import FileDetails, Moment, Name, Tags
from producer_admin.errors import MappingError
from producer_admin.files import FileRecord
from schemas.events import FileMetadata

DEFAULT_TABLE: Final = "file_metadata"
DEFAULT_KEY: Final = "file_id"
MOST_BYTES: Final = 2**63 - 1
"""What a bigint holds."""
MAX_REASON: Final = 1_000

_NAME: Final = TypeAdapter(Name)
_CHECKSUM: Final = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_ELEMENT_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


def is_element_id(value: str) -> bool:
    """Whether a storage element can be registered under this name."""
    return _ELEMENT_ID.fullmatch(value) is not None


def _element(value: str) -> str:
    if not is_element_id(value):
        raise ValueError("can be no storage element's id: lower-case letters, digits, . _ - and at most 63 of them")
    return value


def _segment(value: str) -> str:
    if value in {"", ".", ".."} or "/" in value:
        raise ValueError("is no name inside a folder")
    try:
        return _NAME.validate_python(value)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _folder(value: str) -> str:
    path = value.strip("/")
    for segment in path.split("/"):
        try:
            _segment(segment)
        except ValueError as error:
            raise ValueError(f"is no folder below a storage element: {segment!r} {error}") from error
    return path


def _digest(value: str) -> str:
    if not (match := _CHECKSUM.fullmatch(value.strip().lower())):
        raise ValueError("is not 64 hex digits of SHA-256, with or without sha256: before them")
    return f"sha256:{match[1]}"


def _moment(value: Any) -> Any:
    """ISO 8601 text, as UTC where it says no offset. Numbers are refused: seconds and milliseconds look alike."""
    if not isinstance(value, str | datetime):
        raise ValueError("is not a moment in ISO 8601")  # noqa: TRY004 - a ValueError is what pydantic reports
    try:
        moment = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError("is not a moment in ISO 8601") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _tags(value: Any) -> Any:
    """A list, JSON text of one, or comma-separated text; blank tags and nulls are none."""
    if isinstance(value, str):
        found = _json_list(value)
        value = value.split(",") if found is None else found
    if not isinstance(value, list):
        raise ValueError("is neither a list nor text separated by commas")  # noqa: TRY004 - as above
    return [one for one in value if not _is_blank(one)]


def _json_list(value: str) -> list[Any] | None:
    if not value.lstrip().startswith("["):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


OldMoment = Annotated[Moment, BeforeValidator(_moment)]


class OldFile(FileDetails):
    """A file as an older system describes it: what an uploader would say, and where it is already."""

    file_id: UUID
    storage_element_id: Annotated[str, AfterValidator(_element)]
    storage_filename: Annotated[str, AfterValidator(_segment)]
    storage_path: Annotated[str, StringConstraints(max_length=1_024), AfterValidator(_folder)]
    file_size: Annotated[int, Field(ge=0, le=MOST_BYTES)]
    checksum: Annotated[str, AfterValidator(_digest)]
    created_at: OldMoment
    tags: Annotated[Tags, BeforeValidator(_tags)] = Field(default_factory=list)
    retention_expires_at: OldMoment | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, row: dict[str, Any]) -> dict[str, Any]:
        # Old tables hold '' where they mean nothing; both are the default here, or "Field required".
        return {name: value for name, value in row.items() if not _is_blank(value)}


FIELDS: Final = tuple(OldFile.model_fields)
REQUIRED: Final = tuple(name for name, field_ in OldFile.model_fields.items() if field_.is_required())

# What no rule refuses, to try a mapping's constants on before any row is read.
_FLAWLESS: Final[Dictionary[str, Any]] = {
    "file_id": "00000000-0000-4000-8000-000000000000",
    "storage_element_id": "se-01",
    "original_filename": "a",
    "storage_filename": "a",
    "storage_path": "a",
    "file_size": 0,
    "checksum": "0" * 64,
    "created_at": "2026-01-13T10:00:00Z",
}


@dataclass(frozen=True)
class Mapping:
    """Which column of the source a field comes from, where it is not the column of the same name."""

    table: str = DEFAULT_TABLE
    key: str = DEFAULT_KEY
    columns: Dictionary[str, str] = field(default_factory=dict)
    constants: Dictionary[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """A row that cannot be taken over, and why; the reason names the source's columns."""

    reason: str


@dataclass(frozen=True)
class Plan:
    """How rows of one source are read."""

    columns: Dictionary[str, str]
    """Column of the source by field."""
    constants: Dictionary[str, Any]
    remarks: tuple[str, ...]
    """What was assumed for all rows, a sentence each."""

    def record_of(self, row: str) -> FileRecord | Refused:
        """The file that a row describes, at revision 1.

        Args:
            row: a JSON object of field to value, moments as ISO 8601
        """
        try:
            old = OldFile.model_validate({**json.loads(row), **self.constants})
        except ValidationError as error:
            return Refused(_printable("; ".join(self._complaint(one) for one in error.errors())))
        except (ValueError, RecursionError) as error:  # a json column may hold what no JSON reader takes
            return Refused(_printable(f"the row cannot be read as JSON: {error}"))
        values = old.columns()
        file_id, element_id = values.pop("file_id"), values.pop("storage_element_id")
        # The table sets updated_at: the time of this revision is that of the take-over.
        known = FileMetadata(**values | {"tags": tuple(old.tags), "updated_at": old.created_at})
        return FileRecord(file_id, 1, element_id, known)

    def _complaint(self, error: Any) -> str:
        where = str(error["loc"][0]) if error["loc"] else "row"
        return f"{self.columns.get(where, where)}: {error['msg'].removeprefix('Value error, ')}"


def read_mapping(toml: str) -> Mapping:
    """Read a mapping file.

    Raises:
        MappingError: it is no TOML, or names a field that files do not have.
    """
    try:
        found = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise MappingError(f"The mapping file is not TOML: {error}.") from error
    if unknown := found.keys() - Mapping.__dataclass_fields__.keys():
        raise MappingError(
            f"The mapping file says {_listed(sorted(unknown))}; it may say {_listed(Mapping.__dataclass_fields__)}."
        )
    for name, kind in (("table", str), ("key", str), ("columns", dict), ("constants", dict)):
        if not isinstance(found.get(name, kind()), kind):
            raise MappingError(f"{name} of the mapping file must be {'text' if kind is str else 'a table'}.")
    if odd := [name for name, column in found.get("columns", {}).items() if not isinstance(column, str)]:
        raise MappingError(f"The column of {_listed(odd)} in the mapping file must be text.")
    mapping = Mapping(**found)
    if unknown := {*mapping.columns, *mapping.constants} - set(FIELDS):
        raise MappingError(f"Files have no field {_listed(sorted(unknown))}; they have {_listed(FIELDS)}.")
    if twice := mapping.columns.keys() & mapping.constants.keys():
        raise MappingError(f"The mapping file gives {_listed(sorted(twice))} both a column and a constant.")
    return mapping


def plan(mapping: Mapping, source: Dictionary[str, str]) -> Plan:
    """Fit a mapping to a source.

    Args:
        mapping: as its file says
        source: type by column, as Postgres formats types

    Raises:
        MappingError: the source lacks a column that is needed or named, or a constant breaks a rule.
    """
    wanted = {name: mapping.columns.get(name, name) for name in FIELDS if name not in mapping.constants}
    missing = [
        column
        for name, column in wanted.items()
        if column not in source and (name in REQUIRED or name in mapping.columns)
    ]
    if missing:
        raise MappingError(f"The source has no column {_listed(missing)}. Its columns are {_listed(source)}.")
    try:
        OldFile.model_validate({**_FLAWLESS, **mapping.constants})
    except ValidationError as error:
        one = error.errors()[0]
        message = one["msg"].removeprefix("Value error, ")
        raise MappingError(f"Constant {one['loc'][0]} of the mapping breaks a rule: {message}.") from error
    columns = {name: column for name, column in wanted.items() if column in source}
    return Plan(columns, mapping.constants, tuple(_remarks(wanted, source)))


def _remarks(wanted: Dictionary[str, str], source: Dictionary[str, str]) -> list[str]:
    found = []
    if empty := [name for name, column in wanted.items() if column not in source]:
        found.append(f"The source has no column for {_listed(empty)}: files get what an upload that says nothing gets.")
    naive = [
        wanted[name]
        for name in ("created_at", "retention_expires_at")
        if source.get(wanted.get(name, ""), "timestamp with time zone") != "timestamp with time zone"
    ]
    if naive:
        found.append(f"Moments in {_listed(naive)} that name no time zone are taken as UTC.")
    return found


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))


def _printable(reason: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in reason)[:MAX_REASON]
