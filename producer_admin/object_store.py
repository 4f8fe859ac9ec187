"""Bytes to and from `obstore`, whichever store is behind it: whole or not at all, and never waiting without end.

An upload of any size holds three parts in memory: two on their way and one that is being filled. What hangs ends in
seconds, and the error says who hangs; what flows may take as long as it takes.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

import obstore
import obstore.exceptions
from obstore.store import ObjectStore

from producer_admin.errors import ClientStalledError, StorageError, TooLargeError

if TYPE_CHECKING:
    from obstore import GetResult  # stands in the library's hints only

PART_BYTES: Final = 5 * 2**20
"""One part of a multipart write; S3 takes none smaller. Content that fits into one is written in one request."""
MAX_PARTS: Final = 10_000
"""Of one object, at S3 and GCS; Azure takes more."""
STALL_SECONDS: Final = 30.0
CHECK_FOLDER: Final = "health"
"""Where `check` writes. A process that is killed leaves its object there."""

BLOCK_BYTES: Final = 2**20
"""What is handed to the library, or read from it, at a time: each handing over costs a change of threads."""
_SETTLING_BYTES_PER_SECOND: Final = 10 * 2**20
"""The slowest that a storage element may put in place for good what it has taken; the stall limit comes on top."""
_ABORT_SECONDS: Final = 2.0
"""How long a failed write waits for the library to take back what it has begun."""

_FAULTS: Final = (obstore.exceptions.BaseError, OSError, ValueError)
T = TypeVar("T")
_Handover = asyncio.Queue[bytes | BaseException | None]
"""One block on its way to the library; an error ends the write, None the content."""


@dataclass(frozen=True)
class StoredObject:
    """What is known once the bytes are in place."""

    size: int
    checksum: str


@dataclass(frozen=True)
class FoundObject:
    """An object as a listing shows it."""

    key: str
    size: int
    modified: datetime
    """By the storage element's clock."""


class ObstoreElement:
    """A storage element behind `obstore`.

    S3 itself refuses a part whose SHA-256 differs from the one in its signed request, and GCS and Azure check what
    arrived over TLS, so that the size is all that is left to ask for.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        stall_seconds: float = STALL_SECONDS,
        part_bytes: int = PART_BYTES,
        max_bytes: int | None = None,
    ) -> None:
        self._store = store
        self._stall_seconds = stall_seconds
        self._part_bytes = part_bytes
        self._max_bytes = max_bytes
        self._check_key = f"{CHECK_FOLDER}/{uuid4().hex}"

    async def write(self, key: str, content: AsyncIterator[bytes]) -> StoredObject:
        """See `storage.StorageElement`. The digest is taken of the bytes as they pass."""
        blocks = _Blocks(content, self._stall_seconds, self._max_bytes)
        first: list[bytes] = []
        while sum(map(len, first)) < self._part_bytes:
            block = await blocks.next()
            if block is None:
                await self._put_whole(key, b"".join(first))
                break
            first.append(block)
        else:
            await self._put_parts(key, first, blocks)
        try:
            await self._within(self._settle(key, blocks.size), blocks.size, "put the content in place")
        except StorageError as error:
            try:
                await self.remove(key)
            except StorageError as removal:
                error.add_note(str(removal))
            raise
        return StoredObject(blocks.size, f"sha256:{blocks.digest.hexdigest()}")

    async def read(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """See `storage.StorageElement`."""
        if end is not None and end <= start:
            if await self.find(key) is None:
                raise StorageError(f"The storage element does not have the content {key}.")
            return _nothing()
        options: Any = {}
        if end is not None:
            options = {"range": (start, end)}
        elif start:
            options = {"range": {"offset": start}}
        # Half as long as a writer waits for its content: a copy then blames the element that hangs.
        patience = self._stall_seconds / 2
        try:
            async with asyncio.timeout(patience):
                found = await obstore.get_async(self._store, key, options=options)
        except _FAULTS as error:
            raise StorageError(f"The storage element does not give the content: {reason(error)}") from error
        return _chunks(found, patience)

    async def find(self, key: str) -> FoundObject | None:
        """See `storage.StorageElement`."""
        try:
            async with asyncio.timeout(self._stall_seconds):
                meta = await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return None
        except _FAULTS as error:
            raise StorageError(f"The storage element does not answer for {key}: {reason(error)}") from error
        return FoundObject(key, meta["size"], meta["last_modified"])

    async def remove(self, key: str) -> None:
        """See `storage.StorageElement`."""
        try:
            async with asyncio.timeout(self._stall_seconds):
                await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except _FAULTS as error:
            raise StorageError(f"The storage element did not remove the content: {reason(error)}") from error

    async def list(self, prefix: str = "") -> AsyncIterator[FoundObject]:
        """See `storage.StorageElement`. Unfinished multipart writes are hidden from it; a lifecycle rule ends those."""
        pages = aiter(obstore.list(self._store, prefix or None, chunk_size=1000))
        while True:
            try:
                async with asyncio.timeout(self._stall_seconds):
                    page = await anext(pages)
            except StopAsyncIteration:
                return
            except _FAULTS as error:
                raise StorageError(f"The storage element does not list its content: {reason(error)}") from error
            for meta in page:
                yield FoundObject(meta["path"], meta["size"], meta["last_modified"])

    async def check(self, *, write: bool = True) -> None:
        """See `storage.StorageElement`."""
        if not write:
            # A listing also tells a bucket that is not there from an object that is not there.
            async for _ in self.list(CHECK_FOLDER):
                return
            return
        content = uuid4().bytes
        # Nothing is tidied up where this fails: the next check uses the same key, and what hangs is let alone.
        await self.write(self._check_key, _one(content))
        given = b"".join([chunk async for chunk in await self.read(self._check_key)])
        await self.remove(self._check_key)
        if given != content:
            raise StorageError("The storage element gives other bytes than it was given.")

    async def _settle(self, key: str, size: int) -> None:
        """Make sure that the whole object is there for good. Raises StorageError when it is not."""
        found = await self.find(key)
        if found is None or found.size != size:
            raise StorageError(f"The storage element has {found and found.size} bytes of {size} for {key}.")

    async def _put_whole(self, key: str, content: bytes) -> None:
        await self._within(self._put(key, content), len(content), "take the content")

    async def _put_parts(self, key: str, first: Sequence[bytes], blocks: "_Blocks") -> None:
        handover: _Handover = asyncio.Queue(1)
        putting = asyncio.create_task(self._put(key, _handed_over(handover)))
        try:
            for block in first:
                await self._hand_over(handover, block, putting)
            while (following := await blocks.next()) is not None:
                await self._hand_over(handover, following, putting)
            await self._hand_over(handover, None, putting)
            await self._within(asyncio.shield(putting), blocks.size, "take the content")
        except BaseException as error:
            await _abandon(handover, putting, error)
            raise

    async def _put(self, key: str, content: bytes | AsyncIterator[bytes]) -> None:
        await obstore.put_async(
            self._store,
            key,
            content,
            use_multipart=not isinstance(content, bytes),
            chunk_size=self._part_bytes,
            max_concurrency=2,
        )

    async def _hand_over(self, handover: _Handover, item: bytes | None, putting: asyncio.Future[Any]) -> None:
        """Wait until the library takes `item`, which it does when it has room for it."""
        taking = asyncio.ensure_future(handover.put(item))
        try:
            done, _ = await asyncio.wait({taking, putting}, timeout=self._stall_seconds, return_when="FIRST_COMPLETED")
        finally:
            taking.cancel()
        if taking in done:
            return
        if putting in done:
            await self._within(putting, 0, "take the content")
        raise StorageError(f"The storage element took no content for {self._stall_seconds:g} s.")

    async def _within(self, act: Awaitable[T], size: int, what: str) -> T:
        """Give an act the time that `size` bytes may take to be put in place, and its failures a name."""
        try:
            async with asyncio.timeout(self._stall_seconds + size / _SETTLING_BYTES_PER_SECOND):
                return await act
        except _FAULTS as error:
            raise StorageError(f"The storage element did not {what}: {reason(error)}") from error


class _Blocks:
    """Content in blocks that are worth handing over, hashed and counted on the way."""

    def __init__(self, content: AsyncIterator[bytes], stall_seconds: float, max_bytes: int | None) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self._content = aiter(content)
        self._stall_seconds = stall_seconds
        self._max_bytes = max_bytes

    async def next(self) -> bytes | None:
        """The next block; None at the end."""
        chunks: list[bytes] = []
        length = 0
        while length < BLOCK_BYTES:
            chunk = await self._chunk()
            if chunk is None:
                break
            chunks.append(chunk)
            length += len(chunk)
        return b"".join(chunks) if length else None

    async def _chunk(self) -> bytes | None:
        try:
            async with asyncio.timeout(self._stall_seconds) as patience:
                chunk = await anext(self._content)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            if not patience.expired():
                raise  # the content's own fault
            raise ClientStalledError(f"No content came for {self._stall_seconds:g} s.") from None
        self.digest.update(chunk)
        self.size += len(chunk)
        if self._max_bytes is not None and self.size > self._max_bytes:
            raise TooLargeError(f"The storage element keeps no objects larger than {self._max_bytes} bytes.")
        return chunk


async def _handed_over(handover: _Handover) -> AsyncIterator[bytes]:
    while (item := await handover.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


async def _abandon(handover: _Handover, putting: asyncio.Future[Any], error: BaseException) -> None:
    """End a write that failed: told through its content, the library aborts the parts that it has sent."""
    while not handover.empty():
        handover.get_nowait()
    handover.put_nowait(error if isinstance(error, Exception) else StorageError("The write was given up."))
    await asyncio.wait({putting}, timeout=_ABORT_SECONDS)
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)


async def _chunks(found: "GetResult", stall_seconds: float) -> AsyncIterator[bytes]:
    stream = aiter(found.stream(min_chunk_size=BLOCK_BYTES))
    while True:
        try:
            async with asyncio.timeout(stall_seconds):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except _FAULTS as error:
            raise StorageError(f"The storage element stopped giving the content: {reason(error)}") from error
        yield bytes(chunk)


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _nothing() -> AsyncIterator[bytes]:
    chunks: tuple[bytes, ...] = ()
    for chunk in chunks:
        yield chunk


def reason(error: Exception) -> str:
    """The library's first line; a dump of its insides follows that."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error).partition("\n")[0] or type(error).__name__
