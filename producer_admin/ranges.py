"""What a request for content gets is decided from its headers and the file alone (RFC 9110, sections 13 and 14).

One range is served. Several, an unknown unit and what cannot be read are ignored, as the RFC allows: the whole is
always a right answer. Preconditions on content compare the digest, those on changes the revision.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

from producer_admin.errors import RefusedError
from runtime.errors import FieldError

_RANGE: Final = re.compile(r"[ \t]*(?:(?P<first>[0-9]+)-(?P<last>[0-9]*)|-(?P<suffix>[0-9]+))[ \t]*")
_TAG: Final = re.compile(r'(?P<weak>W/)?"(?P<opaque>[!\x23-\x7e\x80-\xff]*)"')
_MOST: Final = 10**18
"""Beyond any size. Python refuses to read numbers of more than some thousand digits."""


@dataclass(frozen=True)
class ContentAnswer:
    """How to answer: the status, which bytes (half open), and headers besides those of every answer."""

    status: int
    """200 whole, 206 part, 304 not modified, 416 not satisfiable. With the last two there are no bytes to send."""
    start: int
    end: int
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(
    size: int, etag: str, range_: str | None = None, if_range: str | None = None, if_none_match: str | None = None
) -> ContentAnswer:
    """Decide a GET of content (for HEAD, leave `range_` out: it means nothing there).

    Args:
        size: of the whole content in bytes
        etag: its strong entity tag, with the quotes
        range_: header Range, None when absent; the others likewise
        if_range: header If-Range
        if_none_match: header If-None-Match
    """
    if not_modified(if_none_match, etag):
        return ContentAnswer(304, 0, 0)
    if range_ is None or not range_applies(if_range, etag):
        return ContentAnswer(200, 0, size)
    wanted = parse_range(range_, size)
    if wanted is None:
        return ContentAnswer(200, 0, size)
    start, end = wanted
    if start >= end:
        return ContentAnswer(416, 0, 0, {"Content-Range": f"bytes */{size}"})
    return ContentAnswer(206, start, end, {"Content-Range": f"bytes {start}-{end - 1}/{size}"})


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """The bytes that a Range header asks for, half open.

    Returns:
        None when the header is to be ignored; an empty range when it cannot be satisfied.
    """
    unit, _, ranges = header.partition("=")
    match = _RANGE.fullmatch(ranges)
    if unit.strip().lower() != "bytes" or match is None:
        return None
    if match["suffix"]:
        length = _number(match["suffix"])
        # The last bytes of nothing are all of it, which a Content-Range has no words for.
        return None if length and not size else (max(0, size - length), size)
    first = _number(match["first"])
    last = _number(match["last"]) if match["last"] else _MOST
    if last < first:
        return None
    return (first, min(last + 1, size)) if first < size else (size, size)


def range_applies(if_range: str | None, etag: str) -> bool:
    """Whether a Range header counts: without If-Range, or when that names this very content (strong comparison).

    A date never does: content has no date by which it could be told from other content of the same second.
    """
    return if_range is None or if_range.strip() == etag


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has this content already (weak comparison). A header that cannot be read counts as absent."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    tags = _tags(if_none_match)
    return tags is not None and any(f'"{opaque}"' == etag for _, opaque in tags)


def parse_if_match(header: str | None) -> frozenset[int] | None:
    """The revisions that a change is asked for (strong comparison, so weak tags name none).

    Returns:
        None when any will do: no header, or `*`.

    Raises:
        RefusedError: not a list of entity tags.
    """
    if header is None or header.strip() == "*":
        return None
    tags = _tags(header)
    if tags is None:
        _refuse("If-Match", 'must be * or a list of entity tags like "7"')
    revisions = (_revision(opaque) for weak, opaque in tags if not weak)
    return frozenset(one for one in revisions if one is not None)


def _tags(header: str) -> list[tuple[bool, str]] | None:
    """Entity tags as (weak, opaque); None when the header is not a list of them. Commas may stand inside a tag."""
    tags: list[tuple[bool, str]] = []
    at, expected = 0, True
    while at < len(header):
        if header[at] in " \t":
            at += 1
        elif header[at] == ",":
            at, expected = at + 1, True
        elif expected and (match := _TAG.match(header, at)):
            tags.append((match["weak"] is not None, match["opaque"]))
            at, expected = match.end(), False
        else:
            return None
    return tags or None


def _revision(opaque: str) -> int | None:
    # Tags are compared letter by letter: "07" is not "7".
    return int(opaque) if re.fullmatch(r"[1-9][0-9]{0,17}", opaque) else None


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return _MOST if len(significant) > 18 else int(significant or "0")


def _refuse(header: str, message: str) -> NoReturn:
    raise RefusedError(f"{header} {message}.", (FieldError(header, message),))
