"""Rows for a table without indexes go by COPY, which costs Postgres half of what JSON does, and Python little more."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from consumer_query.generations import table_name
from consumer_query.projection import FileState
from consumer_query.read_model import search_of
from consumer_query.records import BadRecordError, Reason
from runtime.postgres import Connection
from schemas.codec import moment_of

COLUMNS: Final = (
    "file_id", "revision", "deleted", "storage_element_id", "original_filename", "storage_filename", "file_size",
    "mime_type", "created_at", "updated_at", "created_by_username", "created_by_fullname", "description", "version",
    "tags", "storage_path", "checksum", "retention_expires_at", "search",
)  # fmt: skip
_OF_DELETED: Final = (None,) * (len(COLUMNS) - 3)


class Line(NamedTuple):
    """A file's state, ready to be copied."""

    file_id: str
    revision: int
    values: tuple[Any, ...]
    """Of COLUMNS."""


def line_of(state: FileState) -> Line:
    """Make a state ready to be copied.

    Raises:
        BadRecordError: Postgres would refuse it.
    """
    if state.deleted:
        return Line(state.file_id, state.revision, (state.file_id, state.revision, True, *_OF_DELETED))
    known = state.columns
    texts = (
        known["storage_element_id"], known["original_filename"], known["storage_filename"], known["mime_type"],
        known["created_by_username"], known["created_by_fullname"], known["description"], known["version"],
        known["storage_path"], known["checksum"],
    )  # fmt: skip
    if "\x00" in "{}{}{}{}{}{}{}{}{}{}".format(*texts) or any("\x00" in tag for tag in known["tags"]):
        raise BadRecordError(Reason.UNSTORABLE_TEXT, "a text holds the character NUL, which Postgres cannot store")
    element, name, stored_as, mime_type, username, fullname, description, version, path, checksum = texts
    expires = known["retention_expires_at"]
    values = (
        state.file_id, state.revision, False, element, name, stored_as, known["file_size"], mime_type,
        moment_of(known["created_at"]), moment_of(known["updated_at"]),
        username, fullname, description, version, known["tags"], path, checksum,
        None if expires is None else moment_of(expires), search_of(known),
    )  # fmt: skip
    return Line(state.file_id, state.revision, values)


async def copy(connection: Connection, generation: int, lines: Sequence[Line]) -> int:
    """Write states within the caller's transaction, over a connection that has been taught: how many.

    The table must have none of these files yet.
    """
    records = [line.values for line in lines]
    await connection.copy_records_to_table(table_name(generation), records=records, columns=COLUMNS)
    return len(records)
