"""A row goes to Postgres as it receives a value of its type `cache_row`, so nothing is parsed there.

Field by field in the order of the table: record_recv in PostgreSQL's rowtypes.c, and for several of them array_recv in
arrayfuncs.c. Compiled code writes the same bytes (native/artstore_rows.pyx).
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from consumer_query.records import BadRecordError, Reason

# Of pg_type; those of built-in types never change.
_BOOL: Final = 16
_LONG: Final = 20
_TEXT: Final = 25
_TEXTS: Final = 1009
_TIME: Final = 1184
_UUID: Final = 2950
_VECTOR: Final = 3614

_EPOCH: Final = 946_684_800_000_000
"""Postgres counts microseconds since the year 2000."""
_FIELD: Final = struct.Struct("!Ii")
"""Type, and size in bytes; -1 is NULL."""
_NUMBER: Final = struct.Struct("!Iiq")
_ARRAY: Final = struct.Struct("!iiIii")
"""Dimensions, whether any is NULL, type of the elements, how many, number of the first."""
_SIZE: Final = struct.Struct("!i")
_NO_TEXTS: Final = struct.pack("!iiI", 0, 0, _TEXT)
_FIELDS: Final = 19


def record_of(columns: Mapping[str, Any], search: bytes | None) -> bytes:
    """A row with its size before it.

    Args:
        columns: of `projection.FileState`
        search: by what it is found, a tsvector in the binary form; None for NULL

    Raises:
        BadRecordError: a text holds NUL, which Postgres would refuse.
    """
    head = (
        _SIZE.pack(_FIELDS),
        _FIELD.pack(_UUID, 16) + bytes.fromhex(columns["file_id"].replace("-", "")),
        _number(columns["revision"]),
    )
    if columns["deleted"]:
        return _sized((*head, _DELETED, _OF_DELETED))
    expires = columns["retention_expires_at"]
    return _sized(
        (
            *head,
            _ALIVE,
            _text(columns["storage_element_id"]),
            _text(columns["original_filename"]),
            _text(columns["storage_filename"]),
            _number(columns["file_size"]),
            _text(columns["mime_type"]),
            _time(columns["created_at"]),
            _time(columns["updated_at"]),
            _text(columns["created_by_username"]),
            _text(columns["created_by_fullname"]),
            _text(columns["description"]),
            _text(columns["version"]),
            _texts(columns["tags"]),
            _text(columns["storage_path"]),
            _text(columns["checksum"]),
            _null(_TIME) if expires is None else _time(expires),
            _null(_VECTOR) if search is None else _FIELD.pack(_VECTOR, len(search)) + search,
        )
    )


def array_of(records: Sequence[bytes]) -> bytes:
    """Several rows, each with its size before it, as one value of `cache_rows`."""
    # The elements' type is another in each database. Postgres goes by what it expects and only compares built-in ones.
    return _ARRAY.pack(1, 0, 0, len(records), 1) + b"".join(records)


def _sized(parts: Iterable[bytes]) -> bytes:
    record = b"".join(parts)
    return _SIZE.pack(len(record)) + record


def _null(of_type: int) -> bytes:
    return _FIELD.pack(of_type, -1)


def _number(value: int) -> bytes:
    return _NUMBER.pack(_LONG, 8, value)


def _time(microseconds: int) -> bytes:
    return _NUMBER.pack(_TIME, 8, microseconds - _EPOCH)


def _text(value: str | None) -> bytes:
    if value is None:
        return _null(_TEXT)
    text = _storable(value)
    return _FIELD.pack(_TEXT, len(text)) + text


def _texts(values: Sequence[str]) -> bytes:
    texts = [_storable(value) for value in values]
    array = _ARRAY.pack(1, 0, _TEXT, len(texts), 1) if texts else _NO_TEXTS
    array += b"".join([_SIZE.pack(len(one)) + one for one in texts])
    return _FIELD.pack(_TEXTS, len(array)) + array


def _storable(value: str) -> bytes:
    text = value.encode()
    if b"\0" in text:
        raise BadRecordError(Reason.UNSTORABLE_TEXT, "a text holds the character NUL, which Postgres cannot store")
    return text


_ALIVE: Final = _FIELD.pack(_BOOL, 1) + b"\0"
_DELETED: Final = _FIELD.pack(_BOOL, 1) + b"\1"
# Of all columns behind `deleted`.
_OF_DELETED: Final = b"".join(map(_null, (
    _TEXT, _TEXT, _TEXT, _LONG, _TEXT, _TIME, _TIME, _TEXT, _TEXT, _TEXT, _TEXT, _TEXTS, _TEXT, _TEXT, _TIME, _VECTOR,
)))  # fmt: skip
