"""A key that a client chose stands for one change: a retry gets the first answer, another request under it is refused.

The key is reserved in the transaction that begins the saga, and gets its answer in the transaction that records the
change, so it says "done" exactly when the change is. A saga that is given up frees its key. (The client's side is the
Idempotency-Key header of the IETF draft of that name; where the draft says 422 for another body, this answers 409.)
"""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from producer_admin.errors import KeyReusedError, RequestUnderWayError
from producer_admin.files import FileRecord
from schemas.events import FileMetadata

LONGEST_KEY: Final = 255
_MOMENTS: Final = ("created_at", "updated_at", "retention_expires_at")

# Waits for another transaction that holds the same new key, and then finds it taken.
RESERVE: Final = text(
    """
    INSERT INTO idempotency_keys (key, saga_id) VALUES (:key, :saga_id) ON CONFLICT (key) DO NOTHING RETURNING key
    """
)
LOOK: Final = text("SELECT fingerprint, answer FROM idempotency_keys WHERE key = :key")
ANSWER: Final = text(
    """
    UPDATE idempotency_keys SET fingerprint = :fingerprint, answer = CAST(:answer AS jsonb)
    WHERE key = :key AND saga_id = :saga_id
    """
)
FREE: Final = text("DELETE FROM idempotency_keys WHERE key = :key AND saga_id = :saga_id AND answer IS NULL")


class Answered:
    """The change was made before; this is what was answered, to whoever asks the same."""

    def __init__(self, fingerprint: bytes, record: FileRecord) -> None:
        self._fingerprint = fingerprint
        self._record = record

    def to(self, fingerprint: bytes) -> FileRecord:
        """The first answer.

        Raises:
            KeyReusedError: what is asked now is not what was asked then.
        """
        if fingerprint != self._fingerprint:
            raise KeyReusedError(
                "This Idempotency-Key was used for another request. Choose a new key for a new request."
            )
        return self._record


async def look(connection: AsyncConnection, key: str) -> Answered | None:
    """What is known under `key`.

    Raises:
        RequestUnderWayError: the first request with this key has not ended.
    """
    row = (await connection.execute(LOOK, {"key": key})).one_or_none()
    if row is None:
        return None
    if row.answer is None:
        raise RequestUnderWayError("The first request with this Idempotency-Key is still under way. Try again later.")
    return Answered(row.fingerprint, _record(row.answer))


async def reserve(connection: AsyncConnection, key: str, saga_id: UUID) -> Answered | None:
    """Take `key` for a saga, in the transaction that begins it.

    Returns:
        The answer to the request that had taken it before, if there was one.

    Raises:
        RequestUnderWayError: another request has taken it and not ended.
    """
    if (await connection.execute(RESERVE, {"key": key, "saga_id": saga_id})).one_or_none() is not None:
        return None
    return await look(connection, key)


async def answer(connection: AsyncConnection, key: str, saga_id: UUID, fingerprint: bytes, record: FileRecord) -> None:
    """Keep the answer, in the transaction that records the change."""
    values = {"key": key, "saga_id": saga_id, "fingerprint": fingerprint, "answer": json.dumps(_json(record))}
    await connection.execute(ANSWER, values)


async def free(connection: AsyncConnection, key: str, saga_id: UUID) -> None:
    """Let go of a key under which nothing was done, so that a retry can begin at once."""
    await connection.execute(FREE, {"key": key, "saga_id": saga_id})


def _json(record: FileRecord) -> dict[str, Any]:
    metadata = asdict(record.metadata)
    for name in _MOMENTS:
        metadata[name] = metadata[name] and metadata[name].isoformat()
    return {
        "file_id": str(record.file_id),
        "revision": record.revision,
        "storage_element_id": record.storage_element_id,
        "metadata": metadata,
    }


def _record(value: dict[str, Any]) -> FileRecord:
    metadata = dict(value["metadata"])
    for name in _MOMENTS:
        metadata[name] = metadata[name] and datetime.fromisoformat(metadata[name])
    metadata["tags"] = tuple(metadata["tags"])
    return FileRecord(UUID(value["file_id"]), value["revision"], value["storage_element_id"], FileMetadata(**metadata))
