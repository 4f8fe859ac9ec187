"""A file event carries the whole state of one file after one change.

Nothing has to be remembered to apply it: of two events of one file, the greater `revision` is the state.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

REVISION_HEADER = "revision"
"""Record header, decimal text: lets a consumer fence a tombstone, whose value is null."""

EVENT_ID_HEADER = "event_id"
"""Record header, UUID text: the identity of the change, readable without decoding the value."""

TRACEPARENT_HEADER = "traceparent"
"""Record header, W3C Trace Context: the trace that the change belongs to. Only of changes that are traced."""


def record_headers(revision: int, event_id: UUID, traceparent: str | None = None) -> list[tuple[str, bytes]]:
    """The headers that every record of a change carries, its tombstone too."""
    headers = [(REVISION_HEADER, b"%d" % revision), (EVENT_ID_HEADER, str(event_id).encode())]
    if traceparent is not None:
        headers.append((TRACEPARENT_HEADER, traceparent.encode()))
    return headers


class EventType(StrEnum):
    """What happened, as it reads at the edges (metrics, logs, REST)."""

    CREATED = "file:created"
    UPDATED = "file:updated"
    DELETED = "file:deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMetadata:
    """What is known about a file that exists. Fields are described in `avro/`; times are aware, UTC."""

    original_filename: str
    storage_filename: str
    file_size: int
    mime_type: str
    created_at: datetime
    updated_at: datetime
    created_by_username: str
    created_by_fullname: str | None = None
    description: str | None = None
    version: str | None = None
    tags: tuple[str, ...] = ()
    storage_path: str
    checksum: str
    retention_expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEvent:
    """One change of one file. `metadata` is None exactly when the file was deleted."""

    event_id: UUID
    event_type: EventType
    occurred_at: datetime
    file_id: UUID
    revision: int
    storage_element_id: str
    metadata: FileMetadata | None

    def __post_init__(self) -> None:
        """Refuse a state that no file can have.

        Raises:
            ValueError: revision below 1, or metadata present on a deletion or absent elsewhere.
        """
        if self.revision < 1:
            raise ValueError(f"revision must be 1 or more, not {self.revision}")
        if (self.metadata is None) != (self.event_type is EventType.DELETED):
            raise ValueError(f"{self.event_type} must {'not ' if self.metadata else ''}carry metadata")
