"""What became of each change of a file: who made it, what it changed, and where on the topic it is, if it is there."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from producer_admin.outbox import shard_of
from runtime.postgres import Connection
from schemas.codec import CodecError, Decoder
from schemas.events import FileEvent

# Both halves in one statement: an event that is being sent is in exactly one of them. Walks outbox_sent_file in each
# partition, and the rows that wait on one shard.
HISTORY: Final = """
SELECT outbox_id, revision, event_id, event_type, actor, payload, occurred_at, sent_at, record_offset, traceparent
FROM outbox_sent WHERE file_id = $1
UNION ALL
SELECT outbox_id, revision, event_id, event_type, actor, payload, occurred_at, NULL, NULL, traceparent
FROM outbox WHERE shard = $2 AND file_id = $1
ORDER BY outbox_id
"""


@dataclass(frozen=True)
class AuditEntry:
    """One event of a file, in the order in which events go to the topic."""

    revision: int
    event_type: str
    event_id: UUID
    actor: str
    occurred_at: datetime
    changed: tuple[str, ...] | None
    """Metadata that differ from the event before; None when there is nothing to compare with."""
    partition: int
    sent_at: datetime | None
    """None while it waits."""
    record_offset: int | None
    """None while it waits; -1 when the broker could not say."""
    traceparent: str | None = None
    """The trace that the change belongs to, if it is traced."""


async def history(connection: Connection, file_id: UUID) -> list[AuditEntry]:
    """Every event of a file that waits or is still in the audit log, oldest first; empty when there is none."""
    partition = shard_of(file_id)
    entries = []
    decoder = Decoder()
    before: FileEvent | None = None
    for row in await connection.fetch(HISTORY, file_id, partition):
        event = _decode(decoder, row["payload"])
        entries.append(
            AuditEntry(
                revision=row["revision"],
                event_type=row["event_type"],
                event_id=row["event_id"],
                actor=row["actor"],
                occurred_at=row["occurred_at"],
                changed=changed_fields(before, event) if before is not None and event is not None else None,
                partition=partition,
                sent_at=row["sent_at"],
                record_offset=row["record_offset"],
                traceparent=row["traceparent"],
            )
        )
        before = event
    return entries


def changed_fields(before: FileEvent, after: FileEvent) -> tuple[str, ...]:
    """Names of what differs between two states of a file; none at its deletion, which takes all."""
    old, new = _state(before), _state(after)
    if not old or not new:
        return ()
    return tuple(name for name in new if old[name] != new[name])


def _state(event: FileEvent) -> dict[str, Any]:
    if event.metadata is None:
        return {}
    state = {"storage_element_id": event.storage_element_id, **asdict(event.metadata)}
    del state["updated_at"]  # differs whenever anything does
    return state


def _decode(decoder: Decoder, payload: bytes) -> FileEvent | None:
    """None for a payload of a newer version than this one: the rest of the history is still worth showing."""
    try:
        return decoder.decode(payload)
    except CodecError:
        return None
