"""A folder as a storage element: what is reported as stored outlives a loss of power.

`obstore` writes beside the target, as `<name>#<n>`, and renames, so nothing half is ever seen. But it never calls
fsync, it hides what a killed writer has left beside the target, and it reads disks in pieces so small that a download
is some twenty times as slow. So writes go through it and are synced here, and all else is done here.
"""

import asyncio
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from obstore.store import LocalStore

from producer_admin.errors import StorageError
from producer_admin.object_store import BLOCK_BYTES, STALL_SECONDS, FoundObject, ObstoreElement, StoredObject, reason

T = TypeVar("T")
MIN_FREE_BYTES: Final = 16 * 2**20
"""A disk with less room than this takes no file that is worth a try."""
THREADS: Final = 32
"""Waiting for one disk at a time at most; syncs that wait together are done together."""
_STAGED_NUMBERS: Final = range(1, 9)
"""The library takes the first number that is free, and a key has one writer. Listing would read a whole day's names."""


class LocalDiskElement(ObstoreElement):
    """A storage element in a folder of this machine."""

    def __init__(self, folder: Path, *, stall_seconds: float = STALL_SECONDS) -> None:
        super().__init__(LocalStore(folder), stall_seconds=stall_seconds)
        self._folder = folder
        self._durable_folders: set[Path] = set()
        # Its own, so that a disk that hangs holds up no other one.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=folder.name)

    async def write(self, key: str, content: AsyncIterator[bytes]) -> StoredObject:
        """See `storage.StorageElement`. The library would make a folder that is gone anew."""
        self._path(key)
        await self._aside("show its folder", self._present)
        return await super().write(key, content)

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See `storage.StorageElement`. Goes on to its end when the object is removed meanwhile."""
        handle = await self._aside("give the content", os.open, self._path(key), os.O_RDONLY)
        return _Reader(self._threads, handle, start, end, self._stall_seconds / 2)

    async def find(self, key: str) -> FoundObject | None:
        """See `storage.StorageElement`."""
        try:
            status = await self._aside(f"answer for {key}", os.stat, self._path(key))
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return None
            raise
        if not stat.S_ISREG(status.st_mode):
            return None
        return FoundObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    async def remove(self, key: str) -> None:
        """See `storage.StorageElement`. What is staged goes first: a rename still under way then fails or is undone."""
        await self._aside("remove the content", self._unlink, key)

    async def list(self, prefix: str = "") -> AsyncIterator[FoundObject]:
        """See `storage.StorageElement`."""
        found = _walk(self._folder, PurePosixPath(prefix))
        while page := await self._aside("list its content", lambda: list(islice(found, 1000))):
            for one in page:
                yield one

    async def check(self, *, write: bool = True) -> None:
        """See `storage.StorageElement`. A folder that is gone is a disk that is not mounted: it is not made anew."""
        await self._aside("show its folder", partial(self._look, write=write))
        await super().check(write=write)

    async def _settle(self, key: str, size: int) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._make_durable, self._path(key), size)

    async def _aside(self, what: str, act: Callable[..., T], *arguments: object) -> T:
        """Call something that waits for the disk, off the event loop. Raises StorageError."""
        loop = asyncio.get_running_loop()
        return await self._within(loop.run_in_executor(self._threads, act, *arguments), 0, what)

    def _path(self, key: str) -> Path:
        """Where an object is. The key of a file that was taken over may be anything, but never leads out of here."""
        parts = key.strip("/").split("/")
        if "\x00" in key or not {"", ".", ".."}.isdisjoint(parts):
            raise StorageError(f"{key!r} cannot be the key of an object.")
        return self._folder.joinpath(*parts)

    def _present(self) -> None:
        if not self._folder.is_dir():
            raise StorageError(f"The folder {self._folder} is not there. Is its disk mounted?")

    def _look(self, *, write: bool) -> None:
        self._present()
        if write and shutil.disk_usage(self._folder).free < MIN_FREE_BYTES:
            raise StorageError(f"The disk of {self._folder} is full.")

    def _make_durable(self, path: Path, size: int) -> None:
        """The file, then its name, then the names of folders that this process has not yet seen on the disk."""
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
            stored = os.fstat(handle).st_size
        finally:
            os.close(handle)
        if stored != size:
            raise StorageError(f"The storage element has {stored} bytes of {size} for {path.name}.")
        _sync_folder(path.parent)
        for folder in path.parent.parents:
            if path.parent in self._durable_folders or not folder.is_relative_to(self._folder):
                break
            _sync_folder(folder)
        self._durable_folders.add(path.parent)

    def _unlink(self, key: str) -> None:
        path = self._path(key)
        for number in _STAGED_NUMBERS:
            path.with_name(f"{path.name}#{number}").unlink(missing_ok=True)
        path.unlink(missing_ok=True)


class _Reader(AsyncIterator[bytes]):
    """The bytes of an open file. The file is closed at the end, or when nobody holds the reader any more."""

    def __init__(self, threads: Executor, handle: int, start: int, end: int | None, stall_seconds: float) -> None:
        self._threads = threads
        self._handle: int | None = handle
        self._at = start
        self._end = end
        self._stall_seconds = stall_seconds

    async def __anext__(self) -> bytes:
        """The next bytes."""
        length = BLOCK_BYTES if self._end is None else min(BLOCK_BYTES, self._end - self._at)
        chunk = b""
        if self._handle is not None and length > 0:
            try:
                async with asyncio.timeout(self._stall_seconds):
                    loop = asyncio.get_running_loop()
                    chunk = await loop.run_in_executor(self._threads, os.pread, self._handle, length, self._at)
            except OSError as error:
                raise StorageError(f"The storage element stopped giving the content: {reason(error)}") from error
        if not chunk:
            self._close()
            raise StopAsyncIteration
        self._at += len(chunk)
        return chunk

    def _close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __del__(self) -> None:
        self._close()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _walk(root: Path, folder: PurePosixPath) -> Iterator[FoundObject]:
    try:
        entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        key = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, key)
        elif entry.is_file(follow_symlinks=False):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # removed or renamed meanwhile
            yield FoundObject(str(key), status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
