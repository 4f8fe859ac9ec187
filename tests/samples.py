"""Events and metadata for tests, valid unless a test says otherwise."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from hypothesis import strategies as st

from schemas.events import EventType, FileEvent, FileMetadata

MOMENT = datetime(2026, 1, 13, 10, 0, 0, 123456, tzinfo=UTC)

METADATA = FileMetadata(
    original_filename="document.pdf",
    storage_filename="7c9e6679-7425-40de-944b-e07fc1f90ae7_0123456789ab",
    file_size=1048576,
    mime_type="application/pdf",
    created_at=MOMENT,
    updated_at=MOMENT,
    created_by_username="ivanov",
    created_by_fullname="Иван Иванов",
    description="Contract document",
    version="1.0",
    tags=("urgent", "contract"),
    storage_path="files/2026/01/13",
    checksum="sha256:" + "a1b2c3d4" * 8,
    retention_expires_at=datetime(2027, 1, 13, 10, tzinfo=UTC),
)


def metadata(**changes: Any) -> FileMetadata:
    return replace(METADATA, **changes)


def created(file_id: UUID | None = None, revision: int = 1, **changes: Any) -> FileEvent:
    return _event(EventType.CREATED, file_id or uuid4(), revision, metadata(**changes))


def updated(file_id: UUID, revision: int, **changes: Any) -> FileEvent:
    return _event(EventType.UPDATED, file_id, revision, metadata(**changes))


def deleted(file_id: UUID, revision: int) -> FileEvent:
    return _event(EventType.DELETED, file_id, revision, None)


def _event(event_type: EventType, file_id: UUID, revision: int, known: FileMetadata | None) -> FileEvent:
    return FileEvent(
        event_id=uuid4(),
        event_type=event_type,
        occurred_at=MOMENT,
        file_id=file_id,
        revision=revision,
        storage_element_id="se-01",
        metadata=known,
    )


_text = st.text(max_size=50)
_moments = st.datetimes(
    min_value=datetime(1971, 1, 1),
    max_value=datetime(2200, 1, 1),
    timezones=st.just(UTC),
)


@st.composite
def events(draw: st.DrawFn) -> FileEvent:
    event_type = draw(st.sampled_from(EventType))
    known = st.builds(
        FileMetadata,
        original_filename=_text,
        storage_filename=_text,
        file_size=st.integers(0, 2**62),
        mime_type=_text,
        created_at=_moments,
        updated_at=_moments,
        created_by_username=_text,
        created_by_fullname=st.none() | _text,
        description=st.none() | _text,
        version=st.none() | _text,
        tags=st.lists(_text, max_size=5).map(tuple),
        storage_path=_text,
        checksum=_text,
        retention_expires_at=st.none() | _moments,
    )
    return FileEvent(
        event_id=draw(st.uuids()),
        event_type=event_type,
        occurred_at=draw(_moments),
        file_id=draw(st.uuids()),
        revision=draw(st.integers(1, 2**62)),
        storage_element_id=draw(_text),
        metadata=None if event_type is EventType.DELETED else draw(known),
    )
