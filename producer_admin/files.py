"""The files table: a revision is raised only under the lock of the file's row, and never without its event.

These functions join the caller's transaction and never commit. Each puts the event of its change into the outbox before
it returns, so that no caller can change a file and forget to announce it; and it keeps the account of what is stored
on which element.
"""

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ColumnElement, Row, Select, Text, cast, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from producer_admin import elements, outbox
from producer_admin.errors import ContentMovedError, FileNotFoundInAdminError, NotExpiredError, RevisionMismatchError
from producer_admin.pages import Place, page
from producer_admin.storage import ObjectRef
from producer_admin.tables import FILES
from schemas.events import EventType, FileEvent, FileMetadata

_METADATA_COLUMNS: Final = tuple(FileMetadata.__dataclass_fields__)

# The clock of a later change may stand a little earlier; times of one file still never go back.
_LATER: Final = func.greatest(func.now(), FILES.c.updated_at)

EXPIRED: Final = text(
    """
    SELECT file_id FROM files
    WHERE deleted_at IS NULL AND retention_expires_at <= now()
      AND storage_element_id NOT IN (SELECT element_id FROM storage_elements WHERE mode = 'read_only')
    ORDER BY retention_expires_at LIMIT :limit
    """
)

# The whole page is one parameter, so a page may hold any number of rows.
TAKE_OVER: Final = text(
    """
    INSERT INTO files (
        file_id, storage_element_id, original_filename, storage_filename, file_size, mime_type, created_at,
        created_by_username, created_by_fullname, description, version, tags, storage_path, checksum,
        retention_expires_at, revision, updated_at
    )
    SELECT old.*, 1, now() FROM json_to_recordset(CAST(:found AS json)) AS old (
        file_id uuid, storage_element_id text, original_filename text, storage_filename text, file_size bigint,
        mime_type text, created_at timestamptz, created_by_username text, created_by_fullname text, description text,
        version text, tags text[], storage_path text, checksum text, retention_expires_at timestamptz
    )
    ON CONFLICT (file_id) DO NOTHING
    RETURNING *
    """
)

# A deletion is a row as any other; of a file that nobody here ever saw nothing but its id is known.
REMEMBER: Final = text(
    """
    INSERT INTO files (
        file_id, revision, storage_element_id, original_filename, storage_filename, file_size, mime_type, created_at,
        updated_at, created_by_username, tags, storage_path, checksum, deleted_at
    )
    SELECT file_id, 1, '', '', '', 0, '', now(), now(), '', '{}', '', '', now()
    FROM unnest(CAST(:file_ids AS uuid[])) AS file_id
    ON CONFLICT (file_id) DO NOTHING
    RETURNING file_id
    """
)


@dataclass(frozen=True)
class FileRecord:
    """One file as the Admin side knows it."""

    file_id: UUID
    revision: int
    storage_element_id: str
    metadata: FileMetadata

    @property
    def object(self) -> ObjectRef:
        """Where the content is."""
        return ObjectRef(self.storage_element_id, f"{self.metadata.storage_path}/{self.metadata.storage_filename}")


async def create(
    connection: AsyncConnection, file_id: UUID, element_id: str, values: Mapping[str, Any], actor: str
) -> FileRecord:
    """Record a new file at revision 1. `values` are metadata columns without the two times."""
    statement = (
        insert(FILES)
        .values(
            file_id=file_id,
            revision=1,
            storage_element_id=element_id,
            created_at=func.now(),
            updated_at=func.now(),
            **values,
        )
        .returning(FILES)
    )
    record = await _announce(connection, EventType.CREATED, (await connection.execute(statement)).one(), actor)
    await elements.account(connection, element_id, record.metadata.file_size)
    return record


async def change(
    connection: AsyncConnection,
    file_id: UUID,
    values: Mapping[str, Any],
    actor: str,
    expected: AbstractSet[int] | None = None,
) -> FileRecord:
    """Give metadata columns new values. A change that changes nothing raises no revision.

    Args:
        connection: in the caller's transaction
        file_id: of the file
        values: metadata columns
        actor: who asks
        expected: revisions that the caller takes the file to have; None is any

    Raises:
        FileNotFoundInAdminError: no such file, or it was deleted.
        RevisionMismatchError: the file is at another revision than expected.
    """
    row = await _locked(connection, file_id, expected)
    if all(row._mapping[column] == value for column, value in values.items()):  # noqa: SLF001 - Row's public mapping
        return _record(row)
    return await _revise(connection, file_id, values, actor)


async def replace_content(
    connection: AsyncConnection,
    file_id: UUID,
    element_id: str,
    values: Mapping[str, Any],
    actor: str,
    expected: AbstractSet[int] | None = None,
) -> tuple[FileRecord, FileRecord]:
    """Point a file to new content. Always a new revision, also when the bytes are the same.

    Returns:
        The file as it was, whose bytes are garbage now, and as it is.

    Raises:
        FileNotFoundInAdminError: no such file, or it was deleted.
        RevisionMismatchError: the file is at another revision than expected.
    """
    before = _record(await _locked(connection, file_id, expected))
    after = await _revise(connection, file_id, {**values, "storage_element_id": element_id}, actor)
    await _transfer(connection, before, after)
    return before, after


async def relocate(
    connection: AsyncConnection,
    file_id: UUID,
    source: ObjectRef,
    element_id: str,
    values: Mapping[str, Any],
    actor: str,
    expected: AbstractSet[int] | None = None,
) -> tuple[FileRecord, FileRecord]:
    """Point a file to a copy of its content on another element.

    Args:
        connection: in the caller's transaction
        file_id: of the file
        source: the object that was copied
        element_id: where the copy is
        values: `storage_path` and `storage_filename` of the copy
        actor: who asks
        expected: revisions that the caller takes the file to have; None is any

    Returns:
        The file as it was, whose bytes are garbage now, and as it is.

    Raises:
        FileNotFoundInAdminError: no such file, or it was deleted.
        RevisionMismatchError: the file is at another revision than expected.
        ContentMovedError: the file has other content by now than what was copied.
    """
    before = _record(await _locked(connection, file_id, expected))
    if before.object != source:
        raise ContentMovedError(f"The content of file {file_id} was changed while it was being moved.")
    after = await _revise(connection, file_id, {**values, "storage_element_id": element_id}, actor)
    await _transfer(connection, before, after)
    return before, after


async def delete(
    connection: AsyncConnection,
    file_id: UUID,
    actor: str,
    expected: AbstractSet[int] | None = None,
    *,
    only_expired: bool = False,
) -> FileRecord:
    """Mark a file deleted. Its row stays, so that its id and revisions are never used again.

    Returns:
        The file at its last revision. Its bytes are garbage now.

    Raises:
        FileNotFoundInAdminError: no such file, or it was deleted before.
        RevisionMismatchError: the file is at another revision than expected.
        NotExpiredError: `only_expired`, and its retention has been prolonged meanwhile.
    """
    row = await _locked(connection, file_id, expected)
    if only_expired and not (row.retention_expires_at and row.retention_expires_at <= await _now(connection)):
        raise NotExpiredError(f"File {file_id} has not expired.")
    statement = (
        update(FILES)
        .where(FILES.c.file_id == file_id)
        .values(revision=FILES.c.revision + 1, deleted_at=func.now(), updated_at=_LATER)
        .returning(FILES)
    )
    record = await _announce(connection, EventType.DELETED, (await connection.execute(statement)).one(), actor)
    await elements.account(connection, record.storage_element_id, -record.metadata.file_size)
    return record


async def republish(
    connection: AsyncConnection,
    file_ids: Sequence[UUID],
    actor: str,
    at_least: int = 0,
    seen: Mapping[UUID, int] | None = None,
) -> list[FileRecord]:
    """Announce the state of files again, deleted ones too, each as a change of its own: a repair is a change.

    Args:
        connection: in the caller's transaction
        file_ids: those that are unknown are passed over
        actor: who asks
        at_least: the new revisions are greater than this as well; for a consumer that has seen more than we remember
        seen: the same, file by file
    """
    locked = await connection.execute(
        select(FILES.c.file_id).where(FILES.c.file_id.in_(file_ids)).order_by(FILES.c.file_id).with_for_update()
    )
    greatest = func.greatest(FILES.c.revision, at_least, _seen(seen or {}))
    statement = (
        update(FILES)
        .where(FILES.c.file_id.in_(locked.scalars().all()))
        .values(revision=greatest + 1, updated_at=_LATER)
        .returning(FILES)
    )
    rows = (await connection.execute(statement)).all()
    events = [_event(EventType.DELETED if row.deleted_at else EventType.UPDATED, row) for row in rows]
    await outbox.add_many(connection, events, actor)
    return [_record(row) for row in rows]


async def remember_as_deleted(connection: AsyncConnection, file_ids: Sequence[UUID]) -> int:
    """Remember ids that were never known here as those of deleted files, so that they are never used again.

    Nobody has been told yet: the caller republishes them in the same transaction, under a revision that outranks what
    the consumer has seen.

    Returns:
        How many were unknown; the others are left as they are.
    """
    return len((await connection.execute(REMEMBER, {"file_ids": sorted(file_ids)})).all())


async def take_over(connection: AsyncConnection, found: Sequence[FileRecord], actor: str) -> list[FileRecord]:
    """Record files that an older system made, with their own ids, times and places, at revision 1 as of now.

    Returns:
        Those that were new here. An id that is known, also of a deleted file, is passed over: ids are never used again.
    """
    if not found:
        return []
    # In one order, so that two take-overs that meet the same ids never deadlock.
    columns = [
        {
            "file_id": one.file_id,
            "storage_element_id": one.storage_element_id,
            **{name: getattr(one.metadata, name) for name in _METADATA_COLUMNS},
        }
        for one in sorted(found, key=lambda one: one.file_id)
    ]
    rows = (await connection.execute(TAKE_OVER, {"found": json.dumps(columns, default=str)})).all()
    await outbox.add_many(connection, [_event(EventType.CREATED, row) for row in rows], actor)
    used: dict[str, int] = {}
    for row in rows:
        used[row.storage_element_id] = used.get(row.storage_element_id, 0) + row.file_size
    for element_id, size in sorted(used.items()):
        await elements.account(connection, element_id, size)
    return [_record(row) for row in rows]


async def get(connection: AsyncConnection, file_id: UUID) -> FileRecord:
    """The file as it is now.

    Raises:
        FileNotFoundInAdminError: no such file, or it was deleted.
    """
    return _record(_found((await connection.execute(_living(file_id))).one_or_none(), file_id))


async def newest(connection: AsyncConnection, limit: int, behind: Place | None = None) -> list[FileRecord]:
    """Files that exist, newest first, at most `limit`; behind the place where the page before ended."""
    living = select(FILES).where(FILES.c.deleted_at.is_(None))
    rows = await connection.execute(page(living, FILES.c.created_at, FILES.c.file_id, limit, behind))
    return [_record(row) for row in rows]


async def expired(connection: AsyncConnection, limit: int) -> Sequence[UUID]:
    """Files whose retention is over, longest ago first, at most `limit`.

    Not those on read-only elements, where another system may be at work that has the bytes to itself.
    """
    return (await connection.execute(EXPIRED, {"limit": limit})).scalars().all()


def require_revision(file_id: UUID, revision: int, expected: AbstractSet[int] | None) -> None:
    """Return when a file is at a revision that its caller expects; None is any.

    Raises:
        RevisionMismatchError: it is not.
    """
    if expected is not None and revision not in expected:
        raise RevisionMismatchError(f"File {file_id} is at revision {revision}.")


def _seen(seen: Mapping[UUID, int]) -> ColumnElement[int]:
    """The revision of the row's file in `seen`, 0 where it is not. One parameter, however many files."""
    known = cast({str(one): revision for one, revision in seen.items()}, JSONB)
    return func.coalesce(cast(known[cast(FILES.c.file_id, Text)].astext, BigInteger), 0)


async def _now(connection: AsyncConnection) -> datetime:
    """The database's clock, as of the begin of the transaction."""
    return (await connection.execute(select(func.now()))).scalar_one()


def _living(file_id: UUID) -> Select[Any]:
    return select(FILES).where(FILES.c.file_id == file_id, FILES.c.deleted_at.is_(None))


async def _locked(connection: AsyncConnection, file_id: UUID, expected: AbstractSet[int] | None) -> Row[Any]:
    row = _found((await connection.execute(_living(file_id).with_for_update())).one_or_none(), file_id)
    require_revision(file_id, row.revision, expected)
    return row


def _found(row: Row[Any] | None, file_id: UUID) -> Row[Any]:
    if row is None:
        raise FileNotFoundInAdminError(f"There is no file {file_id}.")
    return row


async def _revise(connection: AsyncConnection, file_id: UUID, values: Mapping[str, Any], actor: str) -> FileRecord:
    statement = (
        update(FILES)
        .where(FILES.c.file_id == file_id)
        .values(revision=FILES.c.revision + 1, updated_at=_LATER, **values)
        .returning(FILES)
    )
    return await _announce(connection, EventType.UPDATED, (await connection.execute(statement)).one(), actor)


async def _transfer(connection: AsyncConnection, before: FileRecord, after: FileRecord) -> None:
    moved = [
        (before.storage_element_id, -before.metadata.file_size),
        (after.storage_element_id, after.metadata.file_size),
    ]
    for element_id, size in sorted(moved):  # always in one order, so that two transfers cannot wait for each other
        await elements.account(connection, element_id, size)


def _record(row: Row[Any]) -> FileRecord:
    columns = row._mapping  # noqa: SLF001 - Row's public mapping
    metadata = {name: columns[name] for name in _METADATA_COLUMNS}
    return FileRecord(
        row.file_id,
        row.revision,
        row.storage_element_id,
        FileMetadata(**metadata | {"tags": tuple(row.tags)}),
    )


def _event(event_type: EventType, row: Row[Any]) -> FileEvent:
    record = _record(row)
    return FileEvent(
        event_id=uuid4(),
        event_type=event_type,
        occurred_at=row.updated_at,
        file_id=record.file_id,
        revision=record.revision,
        storage_element_id=record.storage_element_id,
        metadata=None if event_type is EventType.DELETED else record.metadata,
    )


async def _announce(connection: AsyncConnection, event_type: EventType, row: Row[Any], actor: str) -> FileRecord:
    await outbox.add(connection, _event(event_type, row), actor)
    return _record(row)
