"""Every storage element keeps the same promises: whole or not at all, with the digest of what is really there."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from producer_admin.errors import StorageError, TooLargeError
from producer_admin.storage import PART_BYTES, ObstoreElement, open_storage


@pytest.fixture(params=["local disk", "memory"])
def element(request: pytest.FixtureRequest, storage_folder: Path) -> ObstoreElement:
    return open_storage(storage_folder.as_uri()) if request.param == "local disk" else ObstoreElement(MemoryStore())


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(element: ObstoreElement, key: str) -> bytes:
    return b"".join([chunk async for chunk in await element.read(key)])


@pytest.mark.parametrize(
    "parts",
    [(), (b"",), (b"hello", b" world"), (b"x" * (PART_BYTES + 1), b"y" * PART_BYTES)],
    ids=["nothing", "an empty chunk", "two chunks", "several parts"],
)
async def test_what_is_written_is_read_and_its_digest_is_known(
    element: ObstoreElement, parts: tuple[bytes, ...]
) -> None:
    whole = b"".join(parts)
    stored = await element.write("files/a", chunks(*parts))
    assert (stored.size, stored.checksum) == (len(whole), f"sha256:{hashlib.sha256(whole).hexdigest()}")
    assert await read(element, "files/a") == whole


async def test_a_write_that_breaks_off_leaves_nothing_and_says_why(
    element: ObstoreElement, storage_folder: Path
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (PART_BYTES + 1)
        raise TooLargeError("too large")

    with pytest.raises(TooLargeError):
        await element.write("files/a", broken())
    with pytest.raises(StorageError):
        await element.read("files/a")
    assert [path for path in storage_folder.rglob("*") if path.is_file()] == []


async def test_removing_twice_is_removing_once(element: ObstoreElement) -> None:
    await element.write("files/a", chunks(b"x"))
    await element.remove("files/a")
    await element.remove("files/a")
    with pytest.raises(StorageError):
        await element.read("files/a")


@pytest.mark.parametrize("url", ["/tmp/x", "file://host/x", "ftp://x/y", "file:relative"])
def test_a_url_that_cannot_be_opened_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="STORAGE_ELEMENT_URL"):
        open_storage(url)
