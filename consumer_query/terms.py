"""Values that are asked for as a whole are lexemes too, each under a name that no word can have: one index answers all.

A filter is then one more term of the query, and costs what a word costs; another index for each column would cost the
projector more than all of these. What is a range is asked for by classes, and the row itself decides at their edges.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain
from typing import Any, Final

from consumer_query.analysis import one_spelling
from schemas.codec import moment_of

_is_usual: Final = re.compile("sha256:[0-9a-f]{64}").fullmatch
_LONGEST: Final = 200
"""Bytes. What is longer is found by its digest."""
_MOST_CACHED: Final = 50_000


class Kind(StrEnum):
    """What a value is of. No word holds a colon, so none looks like a term."""

    TYPE = "type"
    """A MIME type, and its part before the slash."""
    TAG = "tag"
    UPLOADER = "by"
    ELEMENT = "at"
    CHECKSUM = "sum"
    SIZE = "size"
    """How many binary digits the number of bytes has."""
    CREATED = "new"
    """The month, in UTC."""
    UPDATED = "upd"
    """The month, in UTC."""
    KEPT = "keep"
    """The year in which retention ends, the first or last of the classes if it lies beyond them; or none."""


COUNTED: Final = (Kind.TYPE, Kind.TAG, Kind.UPLOADER, Kind.ELEMENT, Kind.SIZE, Kind.CREATED, Kind.UPDATED, Kind.KEPT)
"""Those with few values; how many files have one is worth knowing."""

NOT_KEPT: Final = "none"
FIRST_YEAR: Final = 2000
LAST_YEAR: Final = 2100


def term(kind: Kind, value: str) -> str:
    """The lexeme of a value, whatever its case and form (Unicode NFKC)."""
    same = one_spelling(value)
    if len(same) > _LONGEST // 4 and len(same.encode()) > _LONGEST:
        same = hashlib.sha256(same.encode()).hexdigest()
    return f"{kind}:{same}"


def checksum_term(value: str) -> str:
    """Of a digest, with or without the name of its algorithm."""
    return term(Kind.CHECKSUM, value.rpartition(":")[2])


def size_class(size: int) -> int:
    """Sizes of one class differ by less than two times; 0 is a class of its own."""
    return max(0, size).bit_length()


def month_of(moment: datetime) -> str:
    """The month of a moment in UTC, as 2026-11."""
    moment = moment.astimezone(UTC)
    return f"{moment.year:04}-{moment.month:02}"


class Beginning(str):
    """Of terms: asks for all that begin so."""

    __slots__ = ()


def since(kind: Kind, month: str, now: datetime) -> Iterator[str]:
    """Terms of all files whose moment of a kind is in a month or later.

    Months to the end of this year one by one, which the index merges; files of later ones are hardly there.
    """
    last = max(int(month[:4]), now.astimezone(UTC).year)
    yield from between(kind, month, f"{last:04}-12")
    digits = f"{last:04}"
    for place in range(4):
        for digit in range(int(digits[place]) + 1, 10):
            yield Beginning(term(kind, f"{digits[:place]}{digit}"))


def between(kind: Kind, first: str, last: str) -> Iterator[str]:
    """Terms of all files whose moment of a kind is in one of these months, both included."""
    begin, end = (int(month[:4]) * 12 + int(month[5:]) - 1 for month in (first, last))
    for number in range(begin, end + 1):
        yield term(kind, f"{number // 12:04}-{number % 12 + 1:02}")


def year_class(moment: datetime) -> int:
    """The year of a moment in UTC, within FIRST_YEAR to LAST_YEAR."""
    return min(LAST_YEAR, max(FIRST_YEAR, moment.astimezone(UTC).year))


def terms_of(columns: Mapping[str, Any]) -> list[bytes]:
    """All lexemes of a file's values, as they stand in a tsvector's binary form.

    Args:
        columns: of `FileState`, times in microseconds since 1970
    """
    expires = columns["retention_expires_at"]
    return [
        *TYPES[columns["mime_type"]],
        *chain.from_iterable(map(TAGS.__getitem__, columns["tags"])),
        *UPLOADERS[columns["created_by_username"]],
        *ELEMENTS[columns["storage_element_id"]],
        checksum_lexeme(columns["checksum"]),
        SIZES[size_class(columns["file_size"])],
        CREATED[columns["created_at"] // _DAY],
        UPDATED[columns["updated_at"] // _DAY],
        NONE_KEPT if expires is None else KEPT[expires // _DAY],
    ]


def checksum_lexeme(checksum: str) -> bytes:
    """That of a checksum, as above."""
    # What `term` would make of those that are as they should be, which all are.
    return b"sum:%b\0" % checksum[7:].encode() if _is_usual(checksum) else _ended(checksum_term(checksum))


def _ended(text: str) -> bytes:
    return text.encode() + b"\0"


class _Terms(dict[str, tuple[bytes, ...]]):
    """Terms of the values that come again and again; emptied when full."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self._kind = kind

    def __missing__(self, value: str) -> tuple[bytes, ...]:
        made = tuple(dict.fromkeys(_ended(one) for one in self._terms(value)))
        if len(value) <= _LONGEST:
            if len(self) >= _MOST_CACHED:
                self.clear()
            self[value] = made
        return made

    def _terms(self, value: str) -> Iterator[str]:
        yield term(self._kind, value)
        if self._kind is Kind.TYPE:
            yield term(self._kind, value.partition("/")[0])


class _Days(dict[int, bytes]):
    """Terms of days since 1970; emptied when full."""

    def __init__(self, kind: Kind, value: Callable[[datetime], str]) -> None:
        super().__init__()
        self._kind = kind
        self._value = value

    def __missing__(self, day: int) -> bytes:
        if len(self) >= _MOST_CACHED:
            self.clear()
        self[day] = made = _ended(term(self._kind, self._value(moment_of(day * _DAY))))
        return made


_DAY: Final = 86_400_000_000
TYPES: Final = _Terms(Kind.TYPE)
TAGS: Final = _Terms(Kind.TAG)
UPLOADERS: Final = _Terms(Kind.UPLOADER)
ELEMENTS: Final = _Terms(Kind.ELEMENT)
SIZES: Final = [_ended(term(Kind.SIZE, str(number))) for number in range(65)]
CREATED: Final = _Days(Kind.CREATED, month_of)
UPDATED: Final = _Days(Kind.UPDATED, month_of)
KEPT: Final = _Days(Kind.KEPT, lambda moment: str(year_class(moment)))
NONE_KEPT: Final = _ended(term(Kind.KEPT, NOT_KEPT))
