"""The files table: a revision is raised only under the lock of the file's row, and never without its event.

These functions join the caller's transaction and never commit. Each returns the event of the change, so that a
caller cannot change a file and forget to announce it: the event is in the outbox when they return.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid4

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from producer_admin import outbox
from producer_admin.errors import FileNotFoundInAdminError
from producer_admin.tables import FILES
from schemas.events import EventType, FileEvent, FileMetadata

_METADATA_COLUMNS: Final = tuple(FileMetadata.__dataclass_fields__)


@dataclass(frozen=True)
class FileRecord:
    """One file as the Admin side knows it."""

    file_id: UUID
    revision: int
    storage_element_id: str
    metadata: FileMetadata

    @property
    def object_key(self) -> str:
        """Key of the content on the storage element."""
        return f"{self.metadata.storage_path}/{self.metadata.storage_filename}"


async def create(connection: AsyncConnection, file_id: UUID, element_id: str, values: Mapping[str, Any]) -> FileRecord:
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
    return await _announce(connection, EventType.CREATED, (await connection.execute(statement)).one())


async def change(connection: AsyncConnection, file_id: UUID, values: Mapping[str, Any]) -> FileRecord:
    """Give metadata columns new values. A change that changes nothing raises no revision.

    Raises:
        FileNotFoundInAdminError: no such file, or it was deleted.
    """
    row = await _locked(connection, file_id)
    if all(row._mapping[column] == value for column, value in values.items()):  # noqa: SLF001 - Row's public mapping
        return _record(row)
    statement = (
        update(FILES)
        .where(FILES.c.file_id == file_id)
        # The clock of a later change may stand a little earlier; times of one file still never go back.
        .values(revision=FILES.c.revision + 1, updated_at=func.greatest(func.now(), FILES.c.updated_at), **values)
        .returning(FILES)
    )
    return await _announce(connection, EventType.UPDATED, (await connection.execute(statement)).one())


async def delete(connection: AsyncConnection, file_id: UUID) -> FileRecord:
    """Mark a file deleted. Its row stays, so that its id and revisions are never used again.

    Returns:
        The file as it was, for whoever has to remove its bytes.

    Raises:
        FileNotFoundInAdminError: no such file, or it was deleted before.
    """
    before = _record(await _locked(connection, file_id))
    statement = (
        update(FILES)
        .where(FILES.c.file_id == file_id)
        .values(revision=FILES.c.revision + 1, deleted_at=func.now(), updated_at=func.now())
        .returning(FILES)
    )
    await _announce(connection, EventType.DELETED, (await connection.execute(statement)).one())
    return before


async def get(connection: AsyncConnection, file_id: UUID) -> FileRecord:
    """The file as it is now.

    Raises:
        FileNotFoundInAdminError: no such file, or it was deleted.
    """
    statement = select(FILES).where(FILES.c.file_id == file_id, FILES.c.deleted_at.is_(None))
    return _record(_found((await connection.execute(statement)).one_or_none(), file_id))


async def _locked(connection: AsyncConnection, file_id: UUID) -> Row[Any]:
    statement = select(FILES).where(FILES.c.file_id == file_id, FILES.c.deleted_at.is_(None)).with_for_update()
    return _found((await connection.execute(statement)).one_or_none(), file_id)


def _found(row: Row[Any] | None, file_id: UUID) -> Row[Any]:
    if row is None:
        raise FileNotFoundInAdminError(f"There is no file {file_id}.")
    return row


def _record(row: Row[Any]) -> FileRecord:
    columns = row._mapping  # noqa: SLF001 - Row's public mapping
    metadata = {name: columns[name] for name in _METADATA_COLUMNS}
    return FileRecord(
        row.file_id,
        row.revision,
        row.storage_element_id,
        FileMetadata(**metadata | {"tags": tuple(row.tags)}),
    )


async def _announce(connection: AsyncConnection, event_type: EventType, row: Row[Any]) -> FileRecord:
    record = _record(row)
    event = FileEvent(
        event_id=uuid4(),
        event_type=event_type,
        occurred_at=row.updated_at,
        file_id=record.file_id,
        revision=record.revision,
        storage_element_id=record.storage_element_id,
        metadata=None if event_type is EventType.DELETED else record.metadata,
    )
    await outbox.add(connection, event)
    return record
