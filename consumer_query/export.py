"""All hits of a search as one stream, the newest first; it ends in order only when all of them were sent.

A page is read, then written: memory is that of one page, and no connection or transaction is held while a slow client
reads. A fault on the way breaks the connection off, so that a part is never taken for the whole.
"""

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import orjson

from consumer_query.search import Page
from schemas.file_view import FileView

PIECE: Final = 100
"""Hits written at once: a piece of long descriptions is a megabyte, not ten."""

Hits: TypeAlias = Sequence[Mapping[str, Any]]
Row: TypeAlias = Mapping[str, Any]
"""A hit as JSON has it."""

COLUMNS: Final = (*FileView.model_fields, "content_url")
CSV_HEADER: Final = ",".join(COLUMNS) + "\r\n"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""What makes a cell a formula for a spreadsheet (OWASP, CSV injection)."""


class BrokenOffError(BaseException):
    """The stream ended before all of it was sent. Nothing can be answered any more: the server logs it, and closes.

    Not an Exception, which handlers that have no answer to give would log a second time.
    """


async def pages(first: Page, read: Callable[[str], Awaitable[Page]]) -> AsyncIterator[Hits]:
    """The hits of a page, and of all pages behind it.

    Args:
        first: was read already
        read: reads the page of a cursor; what it raises ends the stream
    """
    page = first
    yield page.hits
    while page.next_cursor is not None:
        page = await read(page.next_cursor)
        yield page.hits


async def exported(
    found: AsyncIterator[Hits], row_of: Callable[[Mapping[str, Any]], Row], *, as_csv: bool
) -> AsyncIterator[bytes]:
    """Pages as the bytes of an export.

    Args:
        found: pages of hits
        row_of: makes of a hit what is written of it: COLUMNS
        as_csv: with a header, or else JSON objects, one a line

    Raises:
        BrokenOffError: whatever went wrong.
    """
    if as_csv:
        yield CSV_HEADER.encode()
    try:
        async for hits in found:
            for begin in range(0, len(hits), PIECE):
                rows = [row_of(hit) for hit in hits[begin : begin + PIECE]]
                yield csv_lines(rows).encode() if as_csv else ndjson_lines(rows)
    except Exception as error:
        raise BrokenOffError("an export was broken off") from error


def ndjson_lines(rows: Iterable[Row]) -> bytes:
    """Rows as JSON objects, one a line."""
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def csv_lines(rows: Iterable[Row]) -> str:
    """Rows as lines of CSV (RFC 4180). No cell is a formula: an apostrophe stands before what would be one."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([_cell(row[name]) for name in COLUMNS] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = "; ".join(value) if isinstance(value, list) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
