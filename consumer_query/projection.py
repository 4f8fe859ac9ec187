"""Of all records of a file, the one with the greatest revision is its state. Values in, values out; no I/O."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from schemas.events import FileEvent, FileMetadata


@dataclass(frozen=True, slots=True)
class FileState:
    """What a file is at a revision; `metadata` is None when it is deleted."""

    file_id: UUID
    revision: int
    storage_element_id: str | None
    metadata: FileMetadata | None

    @classmethod
    def of(cls, event: FileEvent) -> "FileState":
        """The state that an event carries."""
        return cls(event.file_id, event.revision, event.storage_element_id, event.metadata)

    @classmethod
    def of_tombstone(cls, key: bytes | None, revision: bytes | None) -> "FileState":
        """The state that a null record means.

        Raises:
            ValueError: the key is no file id, or there is no revision to fence it by.
        """
        if key is None or revision is None:
            raise ValueError("a tombstone needs a key and a revision header")
        return cls(UUID(key.decode()), int(revision), None, None)


def newest(states: Iterable[FileState]) -> list[FileState]:
    """The newest state of each file, by file id.

    The order is the same for every projector, so that two that write the same rows cannot deadlock.
    """
    by_file: dict[UUID, FileState] = {}
    for state in states:
        known = by_file.get(state.file_id)
        if known is None or state.revision > known.revision:
            by_file[state.file_id] = state
    return [by_file[file_id] for file_id in sorted(by_file)]
