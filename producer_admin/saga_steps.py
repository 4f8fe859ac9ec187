"""What each step of a saga does. One outside the database may run twice, and so may its undoing: the same in the end.

Two objects make that so. `created` is written under a name that no other saga shares, and is removed if the saga is
given up. `doomed` is what the recorded change has made garbage. Both are in the saga's row before they matter, so
whoever resumes the saga knows them.
"""

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID, uuid4

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin import files
from producer_admin.elements import Elements
from producer_admin.errors import NoElementError, NoRoomError, SourceStorageError, StorageError
from producer_admin.files import FileRecord
from producer_admin.storage import ObjectName, ObjectRef, StorageElement, StoredObject, object_name

ANONYMOUS = "anonymous"


class Content(Protocol):
    """What is being stored: bytes first, and what is known of them once they have all been read."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The bytes, once."""

    async def details(self) -> Mapping[str, Any]:
        """Metadata columns from the caller. Raises AdminError when they are refused."""


class Leases:
    """The sagas that this process works on, each under its token; `saga_recovery` prolongs their leases."""

    def __init__(self) -> None:
        self.in_hand: dict[UUID, UUID] = {}
        """Owner by saga."""

    @contextlib.contextmanager
    def held(self, saga_id: UUID, owner: UUID) -> Iterator[None]:
        """While this lasts, the lease is prolonged."""
        self.in_hand[saga_id] = owner
        try:
            yield
        finally:
            del self.in_hand[saga_id]


class Means:
    """What sagas act on: the database and the storage elements."""

    def __init__(self, engine: AsyncEngine, elements: Elements) -> None:
        self._engine = engine
        self.elements = elements
        self.leases = Leases()

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection in a transaction that commits at the end."""
        return self._engine.begin()

    def alone(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection on which each statement is its own transaction: one round trip instead of three."""
        return self._engine.execution_options(isolation_level="AUTOCOMMIT").connect()

    def storage(self, element_id: str) -> StorageElement:
        """The element, to write to or to remove from."""
        return self.elements.storage(element_id)


@dataclass
class Work:
    """One saga in hand: what was asked, and what its steps have found so far."""

    file_id: UUID
    actor: str | None = None
    """Who asks; None when nobody said."""
    key: str | None = None
    """The client's Idempotency-Key."""
    expected: AbstractSet[int] | None = None
    """Revisions that the file may have; None is any."""
    change: Mapping[str, Any] = field(default_factory=dict)
    content: Content | None = None
    size: int | None = None
    """Bytes that the content will have at most, when that is known beforehand."""
    target: str | None = None
    """The storage element to move to."""
    only_expired: bool = False

    saga_id: UUID = field(default_factory=uuid4)
    owner: UUID = field(default_factory=uuid4)
    """Token of this run of the saga; another run of it has another."""
    traceparent: str | None = None
    """The trace that the saga belongs to, whoever takes it up."""
    name: ObjectName | None = None
    created: ObjectRef | None = None
    doomed: ObjectRef | None = None
    stored: StoredObject | None = None
    source: FileRecord | None = None
    """The file as it was when a move began."""
    record: FileRecord | None = None

    @property
    def asker(self) -> str:
        """Who asks, for the logs."""
        return self.actor or ANONYMOUS

    @property
    def detail(self) -> str:
        """JSON that a resumed saga needs."""
        known = {"created": _ref_json(self.created), "doomed": _ref_json(self.doomed)}
        return json.dumps(known if self.traceparent is None else {**known, "traceparent": self.traceparent})

    def fingerprint(self, kind: str) -> bytes:
        """Digest of all that the client asked, for telling a retry from another request under the same key."""
        asked = {
            "kind": kind,
            "file_id": None if kind == "upload" else str(self.file_id),
            "change": dict(self.change),
            "content": self.stored.checksum if self.content is not None and self.stored is not None else None,
            "expected": None if self.expected is None else sorted(self.expected),
            "target": self.target,
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).digest()

    async def read_without_storing(self) -> None:
        """Read the content for its digest alone: the answer is known already, and is for just this content."""
        if self.content is None:
            return
        digest, size = hashlib.sha256(), 0
        async for chunk in self.content.chunks():
            digest.update(chunk)
            size += len(chunk)
        self.stored = StoredObject(size, f"sha256:{digest.hexdigest()}")
        self.change = {**self.change, **await self.content.details()}

    @classmethod
    def resumed(cls, saga_id: UUID, owner: UUID, file_id: UUID, detail: Mapping[str, Any]) -> "Work":
        """What is left of a saga whose process has gone."""
        return cls(
            file_id=file_id,
            saga_id=saga_id,
            owner=owner,
            created=_ref(detail.get("created")),
            doomed=_ref(detail.get("doomed")),
            traceparent=detail.get("traceparent"),
        )


async def prepare_upload(means: Means, work: Work) -> None:
    """Choose the storage element and the name of the object."""
    _place(work, means.elements.place(work.size))


async def prepare_replacement(means: Means, work: Work) -> None:
    """As for an upload, if there is such a file at such a revision: better now than behind gigabytes."""
    await _look(means, work)
    _place(work, means.elements.place(work.size))


async def prepare_move(means: Means, work: Work) -> None:
    """Find the bytes to copy. A file that is there already is answered as it is."""
    source = await _look(means, work)
    assert work.target is not None  # noqa: S101 - a move has a target
    if source.storage_element_id == work.target:
        work.record = source
        return
    element = means.elements.get(work.target)
    if not element.writable:
        raise NoElementError(f"Storage element {work.target} takes no files now. Try again later.")
    if element.free_bytes is not None and element.free_bytes < source.metadata.file_size:
        raise NoRoomError(f"Storage element {work.target} is full.")
    work.source = source
    _place(work, work.target)


async def store_bytes(means: Means, work: Work) -> None:
    """Stream the content to the storage element, then learn the rest of what the caller said."""
    assert work.content is not None  # noqa: S101 - the kinds that store have content
    await _write(means, work, work.content.chunks())
    work.change = {**work.change, **await work.content.details()}


async def copy_bytes(means: Means, work: Work) -> None:
    """Stream the object from one element to another. A copy that is not what was recorded is refused."""
    assert work.source is not None  # noqa: S101 - found when the move was prepared
    source = work.source
    content = await means.elements.source(source.storage_element_id).read(source.object.key)
    await _write(means, work, _of_source(source.storage_element_id, content))
    assert work.stored is not None  # noqa: S101 - `_write` set it
    if work.stored.checksum != source.metadata.checksum:
        raise StorageError(f"The content of file {work.file_id} is damaged on {source.storage_element_id}.")


async def remove_created(means: Means, work: Work) -> None:
    """Remove the object that this saga has written, if it is there."""
    if work.created is not None:
        await means.storage(work.created.element_id).remove(work.created.key)


async def remove_doomed(means: Means, work: Work) -> None:
    """Remove the object that the recorded change has made garbage, if it is there."""
    if work.doomed is not None:
        await means.storage(work.doomed.element_id).remove(work.doomed.key)


async def record_creation(connection: AsyncConnection, work: Work) -> FileRecord:
    """Revision 1."""
    uploader = str(work.change["created_by_username"])
    values = {**work.change, **_stored_columns(work)}
    assert work.created is not None  # noqa: S101 - placed
    return await files.create(connection, work.file_id, work.created.element_id, values, work.actor or uploader)


async def record_content(connection: AsyncConnection, work: Work) -> FileRecord:
    """The next revision, with other bytes; those before are garbage."""
    assert work.created is not None  # noqa: S101 - placed
    before, after = await files.replace_content(
        connection,
        work.file_id,
        work.created.element_id,
        {**work.change, **_stored_columns(work)},
        work.asker,
        work.expected,
    )
    work.doomed = before.object
    return after


async def record_update(connection: AsyncConnection, work: Work) -> FileRecord:
    """The next revision, if anything changes."""
    return await files.change(connection, work.file_id, work.change, work.asker, work.expected)


async def record_move(connection: AsyncConnection, work: Work) -> FileRecord:
    """The next revision, with the bytes elsewhere; those before are garbage."""
    assert work.source is not None  # noqa: S101 - found when the move was prepared
    assert work.created is not None  # noqa: S101 - placed
    assert work.name is not None  # noqa: S101 - placed
    before, after = await files.relocate(
        connection,
        work.file_id,
        work.source.object,
        work.created.element_id,
        {"storage_path": work.name.path, "storage_filename": work.name.filename},
        work.asker,
        work.expected,
    )
    work.doomed = before.object
    return after


async def record_deletion(connection: AsyncConnection, work: Work) -> FileRecord:
    """The last revision; from here on the bytes are garbage."""
    record = await files.delete(connection, work.file_id, work.asker, work.expected, only_expired=work.only_expired)
    work.doomed = record.object
    return record


def _place(work: Work, element_id: str) -> None:
    work.name = object_name(work.file_id, work.saga_id, datetime.now(UTC))
    work.created = ObjectRef(element_id, work.name.key)


async def _look(means: Means, work: Work) -> FileRecord:
    async with means.alone() as connection:
        record = await files.get(connection, work.file_id)
    files.require_revision(record.file_id, record.revision, work.expected)
    return record


async def _write(means: Means, work: Work, content: AsyncIterator[bytes]) -> None:
    assert work.created is not None  # noqa: S101 - placed
    try:
        work.stored = await means.storage(work.created.element_id).write(work.created.key, content)
    except SourceStorageError:
        raise  # not the fault of the element that is written to
    except StorageError as error:
        await means.elements.report_fault(work.created.element_id)
        if "No space left" in str(error):  # in the words of every operating system's ENOSPC, whichever driver hears it
            raise NoRoomError(f"Storage element {work.created.element_id} is full.") from error
        raise


async def _of_source(element_id: str, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for chunk in content:
            yield chunk
    except StorageError as error:
        raise SourceStorageError(f"Storage element {element_id} does not give the content: {error}") from error


def _stored_columns(work: Work) -> dict[str, Any]:
    assert work.stored is not None  # noqa: S101 - the step before stored it
    assert work.name is not None  # noqa: S101 - under this name
    return {
        "storage_path": work.name.path,
        "storage_filename": work.name.filename,
        "file_size": work.stored.size,
        "checksum": work.stored.checksum,
    }


def _ref(value: Mapping[str, str] | None) -> ObjectRef | None:
    return ObjectRef(value["element_id"], value["key"]) if value else None


def _ref_json(ref: ObjectRef | None) -> dict[str, str] | None:
    return None if ref is None else {"element_id": ref.element_id, "key": ref.key}
