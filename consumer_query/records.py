"""A record becomes a file's state, or is refused with its reason; there is no third way.

What Postgres would refuse is found here and in `read_model.row_of` as far as it can be told from the record alone,
because finding one bad row in a batch of thousands costs a bisection there.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from consumer_query.errors import QueryError
from consumer_query.projection import FileState
from schemas.codec import EVENT_TYPES, CodecError, Decoder, UnknownSchemaError
from schemas.events import REVISION_HEADER, EventType
from schemas.registry import RegistryError, fetch_schema

TOMBSTONE: Final = "tombstone"
SURPASSED: Final = "surpassed"
"""Instead of what happened, of records that were not read because the rows are at their revision or beyond."""
_FILE_ID: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
EARLIEST: Final = int(datetime(1, 1, 2, tzinfo=UTC).timestamp()) * 1_000_000
LATEST: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1_000_000
"""Microseconds. Postgres could store later times; the APIs could not answer them."""
LARGEST_REVISION: Final = 2**63 - 1


class Reason(StrEnum):
    """Why a record cannot be applied, as it stands in headers, metrics and lists."""

    UNDECODABLE = "undecodable"
    BREAKS_CONTRACT = "breaks_contract"
    UNSTORABLE_TEXT = "unstorable_text"
    TOO_MANY_WORDS = "too_many_words"
    OUT_OF_RANGE = "out_of_range"
    REFUSED_BY_DATABASE = "refused_by_database"


class BadRecordError(QueryError):
    """A record can never be applied as it is; it belongs among the dead letters."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class RecordReader:
    """Reads records; remembers the schemas that it was taught. One per consumer.

    Args:
        registry_url: where schemas of Confluent-framed records are asked for; None when there is no registry
    """

    def __init__(self, registry_url: str | None) -> None:
        self._registry_url = registry_url
        self._decoder = Decoder()

    def state_of(self, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> FileState:
        """What a record says of its file.

        Raises:
            BadRecordError: it is no file event.
            UnknownSchemaError: its schema has to be learned or deployed first.
        """
        if value is None:
            return _tombstone(key, headers.get(REVISION_HEADER))
        try:
            record = self._decoder.read(value)
        except UnknownSchemaError:
            raise
        except CodecError as error:
            raise BadRecordError(Reason.UNDECODABLE, str(error)) from error
        return _checked(key, record)

    async def learn(self, unknown: UnknownSchemaError) -> None:
        """Ask the registry for a schema.

        Raises:
            UnknownSchemaError: the same, when there is nobody to ask.
            RegistryError: the registry did not answer, or does not know the schema.
        """
        if not unknown.in_registry or self._registry_url is None:
            raise unknown
        schema = await fetch_schema(self._registry_url, unknown.schema)
        try:
            self._decoder.learn(unknown.schema, schema)
        except Exception as error:  # fastavro raises almost anything on foreign schemas
            raise RegistryError(f"Schema {unknown.schema} of the registry cannot be used: {error}") from error

    async def read(self, key: bytes | None, value: bytes | None, headers: Mapping[str, bytes]) -> FileState:
        """Like `state_of`, asking the registry where needed.

        Raises:
            BadRecordError: it is no file event.
            UnknownSchemaError: its schema has to be deployed first.
            RegistryError: the registry did not answer, or does not know the schema.
        """
        try:
            return self.state_of(key, value, headers)
        except UnknownSchemaError as unknown:
            await self.learn(unknown)
        return self.state_of(key, value, headers)


def revision_in(headers: Iterable[tuple[str, bytes | None]]) -> int | None:
    """The revision that a record's headers tell; None when they tell none that can be."""
    return next((_revision(value) for name, value in headers if name == REVISION_HEADER), None)


def claim_of(
    key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]]
) -> tuple[str, int] | None:
    """The file and the revision that a record is of, told without reading it; None when that takes reading.

    A row at that revision or beyond surpasses the record, whatever else it says: one that cannot be read would have
    changed nothing either. A header is trusted when the value agrees with it, which has its revision behind the file's
    id; a schema that puts them elsewhere only makes its records slower.
    """
    revision = revision_in(headers)
    if key is None or revision is None:
        return None
    if value is not None:
        place = value.find(key)
        if place < 0 or not value.startswith(_avro(revision), place + len(key)):
            return None
    file_id = key.decode(errors="replace")
    return (file_id, revision) if _FILE_ID.fullmatch(file_id) else None


@lru_cache(1024)
def _avro(number: int) -> bytes:
    """A positive long as Avro writes it: twice the number, seven bits a byte, the lowest first."""
    rest, found = number << 1, bytearray()
    while rest > 127:
        found.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*found, rest])


def _revision(text: bytes | None) -> int | None:
    # The length first: Python refuses to read a number of thousands of digits.
    if text is None or len(text) > 19 or not text.isdigit() or not 1 <= int(text) <= LARGEST_REVISION:
        return None
    return int(text)


def _tombstone(key: bytes | None, revision: bytes | None) -> FileState:
    text = (key or b"").decode(errors="replace")
    if not _FILE_ID.fullmatch(text):
        raise BadRecordError(Reason.BREAKS_CONTRACT, f"the key of a tombstone has to be a file id, not {text!r}")
    number = _revision(revision)
    if number is None:
        raise BadRecordError(Reason.BREAKS_CONTRACT, f"the revision header of a tombstone is {revision!r}")
    return _deleted(text, number, TOMBSTONE)


def _deleted(file_id: str, revision: int, event_type: str) -> FileState:
    return FileState(file_id, revision, {"file_id": file_id, "revision": revision, "deleted": True}, event_type)


def _checked(key: bytes | None, record: dict[str, Any]) -> FileState:
    file_id, revision, row = record["file_id"], record["revision"], record["metadata"]
    if not _FILE_ID.fullmatch(file_id):
        raise BadRecordError(Reason.BREAKS_CONTRACT, f"file_id is {file_id!r}")
    if key != file_id.encode():
        raise BadRecordError(Reason.BREAKS_CONTRACT, f"the key is {key!r}, the event is of {file_id}")
    if revision < 1:
        raise BadRecordError(Reason.BREAKS_CONTRACT, f"revision has to be 1 or more, not {revision}")
    event_type = EVENT_TYPES[record["event_type"]]
    if (row is None) != (event_type is EventType.DELETED):
        raise BadRecordError(Reason.BREAKS_CONTRACT, f"{event_type} must {'not ' if row else ''}carry metadata")
    if row is None:
        return _deleted(file_id, revision, event_type)
    expires = row["retention_expires_at"]
    if not (
        EARLIEST <= row["created_at"] <= LATEST
        and EARLIEST <= row["updated_at"] <= LATEST
        and (expires is None or EARLIEST <= expires <= LATEST)
    ):
        raise BadRecordError(Reason.OUT_OF_RANGE, "a time lies outside the years 1 to 9999")
    if row["file_size"] < 0:
        raise BadRecordError(Reason.OUT_OF_RANGE, f"file_size is {row['file_size']}")
    row["file_id"] = file_id
    row["revision"] = revision
    row["deleted"] = False
    row["storage_element_id"] = record["storage_element_id"]
    return FileState(file_id, revision, row, event_type)
