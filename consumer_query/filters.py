"""What a file has to be besides matching the words: terms of the same index where there are any, and the row's own say.

Terms find candidates; where a term only stands for a range of values, a condition on the row decides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any, Final, NamedTuple

from consumer_query.analysis import quoted_term
from consumer_query.terms import (
    FIRST_YEAR,
    LAST_YEAR,
    NOT_KEPT,
    Beginning,
    Kind,
    between,
    checksum_term,
    month_of,
    since,
    size_class,
    term,
    year_class,
)

_LARGEST_CLASS: Final = 63
"""A bigint's."""
_MOST_MONTHS: Final = 240
"""More are not asked for one by one."""


class Retention(StrEnum):
    """Whether a file is to be kept for a time."""

    NONE = "none"
    """No time was set."""
    ACTIVE = "active"
    """Until some time to come."""
    EXPIRED = "expired"
    """Until a time that is past."""


class Condition(NamedTuple):
    """A test of a row, by SQL with {} for the value's parameter."""

    sql: str
    value: Any


@dataclass(frozen=True)
class Filters:
    """All of these at once; what is empty or None asks for nothing. Moments have a time zone."""

    types: Sequence[str] = ()
    """Any of: image/png, or image/* for all of a kind."""
    tags: Sequence[str] = ()
    """All of these."""
    any_tags: Sequence[str] = ()
    min_size: int | None = None
    """Bytes, itself included."""
    max_size: int | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    updated_from: datetime | None = None
    updated_before: datetime | None = None
    uploaders: Sequence[str] = ()
    """Any of these user names."""
    storage_elements: Sequence[str] = ()
    """Any of these."""
    retention: Retention | None = None
    checksum: str | None = None
    """With or without the name of its algorithm."""

    @property
    def by_the_clock(self) -> bool:
        """Whether the same file may be within them at one moment and not at another."""
        return self.retention in (Retention.ACTIVE, Retention.EXPIRED)

    def values(self) -> list[tuple[str, ...]]:
        """Each a choice of lexemes, one of which the file has to have."""
        choices = [
            _any(Kind.TYPE, (value.removesuffix("/*") for value in self.types)),
            *(_any(Kind.TAG, (tag,)) for tag in self.tags),
            _any(Kind.TAG, self.any_tags),
            _any(Kind.UPLOADER, self.uploaders),
            _any(Kind.ELEMENT, self.storage_elements),
            () if self.checksum is None else (checksum_term(self.checksum),),
            _any(Kind.KEPT, (NOT_KEPT,)) if self.retention is Retention.NONE else (),
        ]
        return [choice for choice in choices if choice]

    def classes(self, now: datetime) -> list[tuple[str, ...]]:
        """The same for ranges, which `conditions` decide: worth asking for only where they leave few files."""
        choices = [
            self._size_terms(),
            _month_terms(Kind.CREATED, self.created_from, self.created_before, now),
            _month_terms(Kind.UPDATED, self.updated_from, self.updated_before, now),
            self._retention_terms(now),
        ]
        return [choice for choice in choices if choice]

    def conditions(self, now: datetime) -> list[Condition]:
        """What terms cannot decide."""
        found = [
            ("file_size >= {}", self.min_size),
            ("file_size <= {}", self.max_size),
            ("created_at >= {}", self.created_from),
            ("created_at < {}", self.created_before),
            ("updated_at >= {}", self.updated_from),
            ("updated_at < {}", self.updated_before),
        ]
        conditions = [Condition(sql, value) for sql, value in found if value is not None]
        if self.retention is Retention.ACTIVE:
            conditions.append(Condition("retention_expires_at > {}", now))
        elif self.retention is Retention.EXPIRED:
            conditions.append(Condition("retention_expires_at <= {}", now))
        return conditions

    def _size_terms(self) -> tuple[str, ...]:
        if self.min_size is None and self.max_size is None:
            return ()
        first = size_class(self.min_size or 0)
        last = _LARGEST_CLASS if self.max_size is None else min(_LARGEST_CLASS, size_class(self.max_size))
        # An empty range asks for one class, and the row says no.
        return _any(Kind.SIZE, (str(number) for number in range(first, max(first, last) + 1)))

    def _retention_terms(self, now: datetime) -> tuple[str, ...]:
        if self.retention in (None, Retention.NONE):
            return ()
        this_year = year_class(now)
        years = (
            range(FIRST_YEAR, this_year + 1) if self.retention is Retention.EXPIRED else range(this_year, LAST_YEAR + 1)
        )
        return _any(Kind.KEPT, map(str, years))


def tsquery_of(choices: Iterable[Iterable[str]]) -> str:
    """Choices of lexemes as the text of a tsquery; empty when there are none."""
    return " & ".join("(" + " | ".join(map(_asked, choice)) + ")" for choice in choices)


def _asked(lexeme: str) -> str:
    return quoted_term(lexeme) + ":*" * isinstance(lexeme, Beginning)


def _any(kind: Kind, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(term(kind, value) for value in values))


def _month_terms(kind: Kind, first: datetime | None, last: datetime | None, now: datetime) -> tuple[str, ...]:
    if first is None:
        return ()  # as long a range as there are files
    begin = month_of(first)
    months = since(kind, begin, now) if last is None else between(kind, begin, month_of(last))
    some = tuple(islice(months, _MOST_MONTHS + 1))
    return some if len(some) <= _MOST_MONTHS else ()
