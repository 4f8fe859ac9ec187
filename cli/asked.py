"""Sizes and moments as people type them, for options."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

_SIZE: Final = re.compile(r"([0-9]{1,18}(?:[.,][0-9]{1,6})?) *([kmgt]?)(i?b)?", re.IGNORECASE)
_AGO: Final = re.compile(r"([0-9]{1,4}) *([hdw])", re.IGNORECASE)
_HOURS: Final = {"h": 1, "d": 24, "w": 7 * 24}
_POWERS: Final = " kmgt"
_MOST: Final = 2**63 - 1


def byte_count(text: str) -> int:
    """A size in bytes: 500, 10M and 10MiB (powers of 1024), 10MB (powers of 1000).

    Raises:
        typer.BadParameter: it is none, or more than 2^63 - 1.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size such as 500, 10M, 10MB or 1.5GiB.")
    number, prefix, unit = match.groups()
    base = 1000 if prefix and (unit or "").lower() == "b" else 1024
    count: int = round(float(number.replace(",", ".")) * base ** _POWERS.index(prefix.lower() or " "))
    if count > _MOST:
        raise typer.BadParameter(f"{text!r} is more than any file has.")
    return count


def moment(text: str) -> str:
    """A moment in RFC 3339: a day or a time of this machine's zone, or so long ago as 12h, 7d or 2w say.

    Raises:
        typer.BadParameter: it is none.
    """
    text = text.strip()
    try:
        if ago := _AGO.fullmatch(text):
            then = datetime.now(UTC) - timedelta(hours=int(ago[1]) * _HOURS[ago[2].lower()])
        else:
            then = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"{text!r} is not a moment such as 2026-01-31, 2026-01-31T12:00, 12h, 7d or 2w."
        ) from error
    return then.isoformat()
