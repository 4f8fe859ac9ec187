"""Values of parameters of search, as callers write them: understood, or refused in words that say what is meant."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from consumer_query.errors import BadSearchError
from consumer_query.freshness import Token, parse_max_lag, parse_wait

MAX_BIGINT: Final = 2**63 - 1
"""Of Postgres; sizes and revisions."""
_MOMENT: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?P<time>[Tt ][0-9:.]{5,18}([Zz]|[+-][0-9]{2}:[0-9]{2}))?")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/([a-z0-9!#$&^_.+-]{1,127}|\*)")
_CHECKSUM: Final = re.compile(r"(sha256:)?[0-9a-f]{64}")


def storable(value: str) -> str:
    """Return a text that Postgres can hold.

    Raises:
        ValueError: it cannot.
    """
    if "\x00" in value:
        raise ValueError("holds a NUL character")
    return value


def _moment(value: object) -> datetime:
    match = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a moment such as 2026-01-31T12:00:00Z, or a day such as 2026-01-31 (in a URL, + is %2B)")
    text = match[0] if match["time"] else f"{match[0]}T00:00:00Z"
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError("not a moment of the calendar") from error


def _media_type(value: str) -> str:
    value = value.strip().lower()
    if not _MEDIA_TYPE.fullmatch(value):
        raise ValueError("not a media type such as image/png, or image/* for all of a kind")
    return value


def _checksum(value: str) -> str:
    value = value.strip().lower()
    if not _CHECKSUM.fullmatch(value):
        raise ValueError("not 64 hex digits, with or without sha256: before them")
    return value


def _token(value: str) -> str:
    return _understood(value, Token.parse)


def _wait(value: str) -> str:
    return _understood(value, parse_wait)


def _max_lag(value: str) -> str:
    return _understood(value, parse_max_lag)


def _understood(value: str, parse: Callable[[str], object]) -> str:
    try:
        parse(value)
    except BadSearchError as error:
        raise ValueError(error.errors[0].message) from error
    return value


Value = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1_000), AfterValidator(storable)
]
# A day is no date-time to a schema.
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string"})]
Bytes = Annotated[int, Field(ge=0, le=MAX_BIGINT)]
MediaType = Annotated[str, StringConstraints(max_length=255), AfterValidator(_media_type)]
Checksum = Annotated[str, StringConstraints(max_length=71), AfterValidator(_checksum)]
TokenText = Annotated[str, StringConstraints(max_length=100), AfterValidator(_token)]
Wait = Annotated[str, StringConstraints(max_length=20), AfterValidator(_wait)]
MaxLag = Annotated[str, StringConstraints(max_length=20), AfterValidator(_max_lag)]
