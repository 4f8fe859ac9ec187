"""Means that die: the process of a saga ends at its n-th touch of the world, and from then on reaches nothing.

A touch is the moment before or behind each effect: a statement, a commit, a write or a removal of bytes, and the middle
of a write. So a crash at every step is one of these numbers.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin.elements import Elements
from producer_admin.saga_steps import Means
from producer_admin.storage import FoundObject, StorageElement, StoredObject

EVER = 10**9


class Crash(BaseException):
    """The process is gone: nothing catches this, and nothing runs after it."""


class MortalMeans(Means):
    """The means of one process."""

    def __init__(self, engine: AsyncEngine, elements: Elements, folders: dict[str, Path], touches: int = EVER) -> None:
        super().__init__(engine, elements)
        self._folders = folders
        self.left = touches

    def touch(self) -> None:
        """Die here, or have died."""
        self.left -= 1
        if self.left < 0:
            raise Crash

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        self.touch()
        async with super().transaction() as connection:
            yield connection
            self.touch()
        self.touch()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[AsyncConnection]:
        self.touch()
        async with super().alone() as connection:
            yield connection
        self.touch()

    def storage(self, element_id: str) -> StorageElement:
        return _MortalStorage(super().storage(element_id), self, self._folders[element_id])


class _MortalStorage(StorageElement):
    def __init__(self, storage: StorageElement, means: MortalMeans, folder: Path) -> None:
        self._storage = storage
        self._means = means
        self._folder = folder

    async def write(self, key: str, content: AsyncIterator[bytes]) -> StoredObject:
        self._means.touch()
        try:
            self._means.touch()
        except Crash:
            # What a killed process leaves of a write on a local disk; tests/contract/test_storage.py kills one.
            staged = self._folder / f"{key}#1"
            staged.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(b"half")
            raise
        stored = await self._storage.write(key, content)
        self._means.touch()
        return stored

    async def remove(self, key: str) -> None:
        self._means.touch()
        await self._storage.remove(key)
        self._means.touch()

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        self._means.touch()
        return await self._storage.read(key, start, end)

    async def find(self, key: str) -> FoundObject | None:
        return await self._storage.find(key)

    def list(self, prefix: str = "") -> AsyncIterator[FoundObject]:
        return self._storage.list(prefix)

    async def check(self, *, write: bool = True) -> None:
        await self._storage.check(write=write)
