"""A storage element never shows half a file: an object appears whole, with its digest known, or not at all.

Objects are named by ids of ours alone. No part of a name, tag or description that a user chose is ever in a path.
"""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit
from uuid import UUID

import obstore
import obstore.exceptions
from obstore.store import LocalStore, ObjectStore

from producer_admin.errors import StorageError

if TYPE_CHECKING:
    from obstore import GetResult  # stands in the library's hints only

PART_BYTES = 5 * 2**20
"""One part of a multipart write; S3 takes none smaller. Two are in flight: an upload holds about 10 MiB."""


@dataclass(frozen=True)
class StoredObject:
    """What is known once the bytes are in place."""

    size: int
    checksum: str


@dataclass(frozen=True)
class ObjectName:
    """Where a file's bytes are on its storage element."""

    path: str
    filename: str

    @property
    def key(self) -> str:
        """The whole key of the object."""
        return f"{self.path}/{self.filename}"


def object_name(file_id: UUID, saga_id: UUID, moment: datetime) -> ObjectName:
    """A name that no other attempt shares, so that undoing one attempt cannot take away another's bytes."""
    return ObjectName(f"files/{moment:%Y/%m/%d}", f"{file_id}_{saga_id.hex[:12]}")


class StorageElement(Protocol):
    """The port that the saga needs of a storage element."""

    async def write(self, key: str, content: AsyncIterator[bytes]) -> StoredObject:
        """Store `content` whole under `key`, or raise and leave nothing."""

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """The object's bytes in order. Raises StorageError when it is not there."""

    async def remove(self, key: str) -> None:
        """Remove the object; one that is not there is removed already."""


class ObstoreElement:
    """A storage element behind `obstore`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def write(self, key: str, content: AsyncIterator[bytes]) -> StoredObject:
        """See StorageElement. The digest is taken of the bytes as they pass."""
        digest = hashlib.sha256()
        size = 0
        refused: Exception | None = None

        async def hashed() -> AsyncIterator[bytes]:
            nonlocal size, refused
            try:
                async for chunk in content:
                    digest.update(chunk)
                    size += len(chunk)
                    yield chunk
            except Exception as error:
                refused = error
                raise

        try:
            await obstore.put_async(
                self._store, key, hashed(), use_multipart=True, chunk_size=PART_BYTES, max_concurrency=2
            )
        except Exception as error:
            if refused is not None:
                raise refused from None  # the library wraps it, and it is the content's own fault
            raise StorageError(f"The storage element did not take the content: {error}") from error
        return StoredObject(size, f"sha256:{digest.hexdigest()}")

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """See StorageElement."""
        try:
            found = await obstore.get_async(self._store, key)
        except (obstore.exceptions.BaseError, FileNotFoundError) as error:
            raise StorageError(f"The storage element does not give the content: {error}") from error
        return _chunks(found)

    async def remove(self, key: str) -> None:
        """See StorageElement."""
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except obstore.exceptions.BaseError as error:
            raise StorageError(f"The storage element did not remove the content: {error}") from error


async def _chunks(found: "GetResult") -> AsyncIterator[bytes]:
    async for chunk in found.stream():
        yield bytes(chunk)


def open_storage(url: str) -> ObstoreElement:
    """Open the storage element at `url` (file:///absolute/folder, made when missing).

    Raises:
        ValueError: the URL is not one that this service can open.
    """
    parts = urlsplit(url)
    folder = Path(unquote(parts.path))
    if parts.scheme != "file" or parts.netloc or not folder.is_absolute():
        raise ValueError(f"STORAGE_ELEMENT_URL must look like file:///absolute/folder, not {url!r}")
    folder.mkdir(parents=True, exist_ok=True)
    return ObstoreElement(LocalStore(folder))
