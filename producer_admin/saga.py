"""Each change of a file is a saga: it ends in one transaction that writes the file, its event and the saga's fate.

Before that transaction every step can be undone; after it a saga only goes forward. The table below says which steps
there are; the executor under it knows nothing of files.

    upload   store the bytes (undo: remove them)  →  record the file and its event
    update   record the change and its event
    delete   record the deletion and its event    →  remove the bytes
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid4

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin import files, saga_log
from producer_admin.files import FileRecord
from producer_admin.metrics import SAGAS
from producer_admin.storage import ObjectName, StorageElement, StoredObject

_log = structlog.get_logger()


class Content(Protocol):
    """What is being uploaded: bytes first, and what is known of them once they have all been read."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, once."""

    async def details(self) -> Mapping[str, Any]:
        """Metadata columns from the caller. Raises AdminError when they are refused."""


@dataclass(frozen=True)
class Means:
    """What steps act on."""

    engine: AsyncEngine
    """Transactions, and single statements through `alone`."""
    storage: StorageElement
    storage_element_id: str

    def alone(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection on which each statement is its own transaction: one round trip instead of three."""
        return self.engine.execution_options(isolation_level="AUTOCOMMIT").connect()


@dataclass
class Work:
    """One saga in hand: what was asked, and what its steps have found so far."""

    file_id: UUID
    saga_id: UUID = field(default_factory=uuid4)
    change: Mapping[str, Any] = field(default_factory=dict)
    content: Content | None = None
    name: ObjectName | None = None
    stored: StoredObject | None = None
    object_key: str | None = None
    record: FileRecord | None = None

    @property
    def detail(self) -> str:
        """JSON that a resumed saga needs."""
        return json.dumps({"object_key": self.object_key})


@dataclass(frozen=True)
class Outside:
    """A step outside the Admin database. May run twice; so may its undoing."""

    name: str
    act: Callable[[Means, Work], Awaitable[None]]
    undo: Callable[[Means, Work], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Recording:
    """The step that decides: a transaction that writes the file, its event and the saga's fate."""

    name: str
    act: Callable[[AsyncConnection, Means, Work], Awaitable[FileRecord]]


@dataclass(frozen=True)
class Saga:
    """A kind of change."""

    kind: str
    steps: tuple[Outside | Recording, ...]


async def store_bytes(means: Means, work: Work) -> None:
    """Stream the content to the storage element, then learn the rest of what the caller said."""
    assert work.content is not None  # noqa: S101 - an upload has content
    assert work.object_key is not None  # noqa: S101 - and a place for it
    work.stored = await means.storage.write(work.object_key, work.content.chunks())
    work.change = await work.content.details()


async def remove_bytes(means: Means, work: Work) -> None:
    """Remove the object, if it is there."""
    assert work.object_key is not None  # noqa: S101 - set before this step can run
    await means.storage.remove(work.object_key)


async def record_creation(connection: AsyncConnection, means: Means, work: Work) -> FileRecord:
    """Revision 1."""
    assert work.stored is not None  # noqa: S101 - the step before stored it
    assert work.name is not None  # noqa: S101 - an upload has an object's name
    values = {
        **work.change,
        "storage_path": work.name.path,
        "storage_filename": work.name.filename,
        "file_size": work.stored.size,
        "checksum": work.stored.checksum,
    }
    return await files.create(connection, work.file_id, means.storage_element_id, values)


async def record_update(connection: AsyncConnection, _: Means, work: Work) -> FileRecord:
    """The next revision, if anything changes."""
    return await files.change(connection, work.file_id, work.change)


async def record_deletion(connection: AsyncConnection, _: Means, work: Work) -> FileRecord:
    """The last revision; from here on the bytes are garbage."""
    record = await files.delete(connection, work.file_id)
    work.object_key = record.object_key
    return record


UPLOAD = Saga(
    "upload",
    (Outside("store_bytes", store_bytes, undo=remove_bytes), Recording("record_creation", record_creation)),
)
UPDATE = Saga("update", (Recording("record_update", record_update),))
DELETE = Saga("delete", (Recording("record_deletion", record_deletion), Outside("remove_bytes", remove_bytes)))


async def run_saga(saga: Saga, means: Means, work: Work) -> FileRecord:
    """Take a saga through its steps.

    Returns:
        The file as the recording step left it. A step that fails after that is noted in the saga log and does not
        take the answer back.

    Raises:
        AdminError: the change was refused or undone; nothing of it remains.
    """
    position, undone = 0, True
    if isinstance(saga.steps[0], Outside):
        async with means.alone() as connection:
            await _begin(connection, saga, work)
    try:
        for position, step in enumerate(saga.steps):
            if isinstance(step, Recording):
                await _record(saga, means, work, position, step)
                undone = False
            else:
                await step.act(means, work)
                if not undone:
                    async with means.alone() as connection:
                        await saga_log.move(connection, work.saga_id, "done", step.name)
    except BaseException as error:
        # Shielded: a client that hangs up must not leave its bytes behind.
        if undone and await asyncio.shield(_compensate(saga, means, work, position, error)):
            SAGAS.labels(saga.kind, "compensated").inc()
            raise
        if not undone:
            await asyncio.shield(_note_stuck(saga, means, work, position, error))
        if not isinstance(error, Exception):
            raise
    SAGAS.labels(saga.kind, "done").inc()
    assert work.record is not None  # noqa: S101 - every saga has a recording step, and it has run
    return work.record


async def _begin(connection: AsyncConnection, saga: Saga, work: Work) -> None:
    await saga_log.begin(connection, work.saga_id, saga.kind, work.file_id, saga.steps[0].name, work.detail)


async def _record(saga: Saga, means: Means, work: Work, position: int, step: Recording) -> None:
    async with means.engine.begin() as connection:
        if position == 0:
            await _begin(connection, saga, work)
        work.record = await step.act(connection, means, work)
        await saga_log.record(connection, work.saga_id, step.name, last=step is saga.steps[-1])


async def _compensate(saga: Saga, means: Means, work: Work, position: int, error: BaseException) -> bool:
    """Undo what was done, newest first. False when the change turns out to be recorded: then nothing is undone."""
    reversible = [step for step in saga.steps[: position + 1] if isinstance(step, Outside) and step.undo]
    if not reversible:
        return True
    reason = f"{type(error).__name__}: {error}"
    async with means.alone() as connection:
        if not await saga_log.give_up(connection, work.saga_id, saga.steps[position].name, reason):
            # Not running: recorded after all, or another process has given it up and undoes it.
            return not await saga_log.is_recorded(connection, work.saga_id)
    for step in reversed(reversible):
        assert step.undo is not None  # noqa: S101 - chosen for having one
        await step.undo(means, work)
    async with means.alone() as connection:
        await saga_log.move(connection, work.saga_id, "compensated", saga.steps[0].name, reason)
    return True


async def _note_stuck(saga: Saga, means: Means, work: Work, position: int, error: BaseException) -> None:
    name = saga.steps[position].name
    _log.error("saga stuck", saga=saga.kind, saga_id=str(work.saga_id), step=name, error=str(error))
    SAGAS.labels(saga.kind, "stuck").inc()
    async with means.alone() as connection:
        await saga_log.move(connection, work.saga_id, "recorded", name, f"{type(error).__name__}: {error}")
