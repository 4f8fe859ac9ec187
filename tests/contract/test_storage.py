"""Every storage element keeps the same promises: whole or not at all, with the digest of what is really there."""

import asyncio
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from producer_admin.errors import ClientStalledError, StorageError, TooLargeError
from producer_admin.object_store import ObstoreElement
from producer_admin.storage import PART_BYTES, StorageElement, object_name, open_storage, own_name
from tests.object_stores import CREDENTIALS, S3, s3, silence
from tests.waiting import eventually

KINDS = ["local disk", "memory", "S3"]
Urls = Callable[[str], str]


@pytest.fixture(scope="module")
def store() -> Iterator[S3]:
    with s3() as running:
        yield running


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def urls(store: S3, storage_folder: Path) -> Urls:
    """A URL of each kind, with nothing in it yet."""
    made = {"local disk": storage_folder.as_uri, "memory": lambda: "memory:///", "S3": store.bucket}
    return lambda kind: made[kind]()


@pytest.fixture(params=KINDS)
def element(request: pytest.FixtureRequest, urls: Urls) -> StorageElement:
    return open_storage(urls(request.param))


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(element: StorageElement, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in await element.read(key, start, end)])


async def listed(element: StorageElement, folder: str = "") -> list[tuple[str, int]]:
    return [(found.key, found.size) async for found in element.list(folder)]


@pytest.mark.parametrize(
    "parts",
    [(), (b"",), (b"hello", b" world"), (b"z" * PART_BYTES,), (b"x" * (PART_BYTES + 1), b"y" * PART_BYTES * 3, b"z")],
    ids=["nothing", "an empty chunk", "two chunks", "just one part", "several parts"],
)
async def test_what_is_written_is_read_and_its_digest_is_known(
    element: StorageElement, parts: tuple[bytes, ...]
) -> None:
    whole = b"".join(parts)
    stored = await element.write("files/a", chunks(*parts))
    assert (stored.size, stored.checksum) == (len(whole), f"sha256:{hashlib.sha256(whole).hexdigest()}")
    assert await read(element, "files/a") == whole


@pytest.mark.parametrize(("start", "end"), [(0, 5), (3, 3), (0, 0), (7, None), (0, None), (5, 11), (9, 99)])
async def test_a_range_is_what_a_slice_is(element: StorageElement, start: int, end: int | None) -> None:
    whole = b"hello world"
    await element.write("files/a", chunks(whole))
    assert await read(element, "files/a", start, end) == whole[start:end]


@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 5), (0, 0), (5, None)])
async def test_what_is_not_there_is_said_before_the_first_byte(
    element: StorageElement, start: int, end: int | None
) -> None:
    with pytest.raises(StorageError):
        await element.read("files/a", start, end)
    assert await element.find("files/a") is None


async def test_a_write_that_breaks_off_leaves_nothing_and_says_why(
    element: StorageElement, storage_folder: Path
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (PART_BYTES * 2 + 1)
        raise TooLargeError("too large")

    with pytest.raises(TooLargeError):
        await element.write("files/a", broken())
    with pytest.raises(StorageError):
        await element.read("files/a")
    assert [path for path in storage_folder.rglob("*") if path.is_file()] == []


async def test_no_part_of_a_write_can_be_seen_before_it_is_whole(element: StorageElement) -> None:
    seen: list[object] = []

    async def watched() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield b"x" * 2**20
            seen.append(await element.find("files/a"))

    await element.write("files/a", watched())
    assert seen == [None] * 12
    assert await listed(element) == [("files/a", 12 * 2**20)]


async def test_a_write_that_is_cancelled_shows_nothing(element: StorageElement) -> None:
    under_way = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * (PART_BYTES * 2 + 1)
        under_way.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(element.write("files/a", endless()))
    await under_way.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await element.remove("files/a")
    assert await listed(element) == []


async def test_removing_twice_is_removing_once(element: StorageElement) -> None:
    await element.write("files/a", chunks(b"x"))
    await element.remove("files/a")
    await element.remove("files/a")
    assert await listed(element) == []


async def test_a_listing_shows_everything_below_a_folder_with_sizes_and_times(element: StorageElement) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    for key in ("files/2026/01/02/b", "files/2026/01/02/a", "files/2026/01/03/c", "else/d"):
        await element.write(key, chunks(key.encode()))
    assert await listed(element, "files/2026/01/02") == [("files/2026/01/02/a", 18), ("files/2026/01/02/b", 18)]
    assert sorted(await listed(element, "files/2026")) == [
        ("files/2026/01/02/a", 18),
        ("files/2026/01/02/b", 18),
        ("files/2026/01/03/c", 18),
    ]
    assert len(await listed(element)) == 4
    assert await listed(element, "nowhere") == []
    times = [found.modified async for found in element.list()]
    assert all(before < one <= datetime.now(UTC) + timedelta(seconds=2) for one in times)


async def test_a_healthy_element_passes_its_check_and_keeps_nothing_of_it(element: StorageElement) -> None:
    await element.check()
    await element.check(write=False)
    assert await listed(element) == []


@pytest.mark.parametrize("kind", KINDS)
async def test_content_that_stops_coming_is_the_clients_fault(kind: str, urls: Urls) -> None:
    element = open_storage(urls(kind), stall_seconds=0.5)

    async def stalls() -> AsyncIterator[bytes]:
        yield b"x" * (PART_BYTES * 2)
        await asyncio.Event().wait()

    with pytest.raises(ClientStalledError, match=r"0\.5 s"):
        await element.write("files/a", stalls())
    assert await listed(element) == []


async def test_content_may_take_longer_than_the_limit_as_long_as_it_flows(urls: Urls) -> None:
    loop = asyncio.get_running_loop()

    async def slow() -> AsyncIterator[bytes]:
        until = loop.time() + 0.8
        while loop.time() < until:
            await asyncio.sleep(0.05)
            yield b"x" * (PART_BYTES // 4)

    for kind in ("local disk", "memory"):
        stored = await open_storage(urls(kind), stall_seconds=0.3).write("files/a", slow())
        assert stored.size > PART_BYTES


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("size", [10, PART_BYTES * 4], ids=["in one request", "in parts"])
async def test_a_storage_element_that_hangs_is_its_own_fault_and_found_out_soon(size: int) -> None:
    async with silence() as endpoint:
        element = open_storage(f"s3://bucket?endpoint={endpoint}&region=x", stall_seconds=0.3)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(StorageError, match=r"0\.3 s|in time"):
            await element.write("files/a", chunks(*[b"x" * (size // 10)] * 10))
        with pytest.raises(StorageError, match="in time"):
            await element.read("files/a")
        with pytest.raises(StorageError, match="in time"):
            await element.check(write=False)
        assert loop.time() - begun < 10


@pytest.mark.usefixtures("credentials")
async def test_a_storage_element_that_refuses_connections_fails_within_seconds() -> None:
    element = open_storage("s3://bucket?endpoint=http://127.0.0.1:9&region=x")
    async with asyncio.timeout(10):
        for act in (element.check(), element.check(write=False), element.write("a", chunks(b"x")), element.find("a")):
            with pytest.raises(StorageError, match=r"error sending request"):
                await act


async def test_a_bucket_that_is_not_there_fails_its_check(store: S3) -> None:
    element = open_storage(store.url("nobody-made-this"))
    for write in (True, False):
        with pytest.raises(StorageError):
            await element.check(write=write)


async def test_an_object_of_more_parts_than_a_store_takes_is_refused_at_its_limit(store: S3) -> None:
    element = open_storage(store.bucket())
    assert isinstance(element, ObstoreElement)
    element._max_bytes = 3 * PART_BYTES
    await element.write("files/a", chunks(b"x" * 3 * PART_BYTES))
    with pytest.raises(TooLargeError, match="larger than"):
        await element.write("files/b", chunks(b"x" * 3 * PART_BYTES, b"x"))
    assert await listed(element) == [("files/a", 3 * PART_BYTES)]


KILLED_WRITER = """
import asyncio, sys
from producer_admin.storage import open_storage

async def content():
    yield b"x" * (12 * 2**20)
    print("waiting", flush=True)
    await asyncio.Event().wait()

asyncio.run(open_storage(sys.argv[1]).write("files/a", content()))
"""


@pytest.mark.parametrize("kind", ["local disk", "S3"])
async def test_a_writer_that_is_killed_shows_nothing_and_remove_takes_away_what_it_left(kind: str, urls: Urls) -> None:
    url = urls(kind)
    element = open_storage(url)
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED_WRITER, url, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert writer.stdout is not None
    assert await writer.stdout.readline() == b"waiting\n"
    if kind == "local disk":
        await eventually(lambda: listed(element), what="a staged file")
    writer.send_signal(signal.SIGKILL)
    await writer.wait()

    assert await element.find("files/a") is None
    left = await listed(element)
    assert [key for key, _ in left] == (["files/a#1"] if kind == "local disk" else [])
    await element.remove("files/a")
    assert await listed(element) == []


async def test_a_disk_that_holds_other_than_was_sent_is_found_out_and_shows_nothing(storage_folder: Path) -> None:
    element = open_storage(storage_folder.as_uri())

    async def meddling() -> AsyncIterator[bytes]:
        yield b"x" * (PART_BYTES * 2)
        yield b"x" * (PART_BYTES * 2)
        with (storage_folder / "files" / "a#1").open("r+b") as staged:
            staged.seek(PART_BYTES * 5)
            staged.write(b"more")

    with pytest.raises(StorageError, match="bytes of"):
        await element.write("files/a", meddling())
    assert await listed(element) == []


async def test_a_disk_is_synced_before_the_write_is_reported(
    storage_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    sync = os.fsync

    def noted(handle: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    element = open_storage(storage_folder.as_uri())
    await element.write("files/2026/01/02/a", chunks(b"x"))
    wanted = ["", "files", "files/2026", "files/2026/01", "files/2026/01/02", "files/2026/01/02/a"]
    assert synced == {str(storage_folder / one) if one else str(storage_folder) for one in wanted}


@pytest.mark.parametrize("name", ["отчёт за год.pdf", "100%.txt", "a#1", "a?b*[c]", "~x+y", "a:b"])
async def test_a_file_taken_over_is_found_under_any_name_it_has_on_the_disk(name: str, storage_folder: Path) -> None:
    element = open_storage(storage_folder.as_uri())
    (storage_folder / "old").mkdir()
    (storage_folder / "old" / name).write_bytes(b"hello")
    for key in (f"old/{name}", f"/old/{name}"):
        assert await read(element, key, 1, 3) == b"el"
        assert (await element.find(key)) is not None
    assert await listed(element) == [(f"old/{name}", 5)]
    await element.remove(f"old/{name}")
    assert await listed(element) == []


@pytest.mark.parametrize("key", ["../outside", "files/../../outside", "..", "", "/", "files//a", "./outside", "a\x00b"])
async def test_no_key_leads_out_of_the_folder(key: str, storage_folder: Path) -> None:
    element = open_storage(storage_folder.as_uri())
    outside = storage_folder.parent / "outside"
    outside.write_bytes(b"secret")
    for act in (element.read(key), element.find(key), element.remove(key), element.write(key, chunks(b"x"))):
        with pytest.raises(StorageError, match="cannot be the key"):
            await act
    assert outside.read_bytes() == b"secret"


async def test_a_download_that_has_begun_is_whole_though_the_object_is_removed(storage_folder: Path) -> None:
    element = open_storage(storage_folder.as_uri())
    await element.write("files/a", chunks(b"x" * 2**20, b"y" * 2**20))
    content = await element.read("files/a")
    await element.remove("files/a")
    assert b"".join([chunk async for chunk in content]) == b"x" * 2**20 + b"y" * 2**20


async def test_downloads_that_are_not_read_to_their_end_leave_no_file_open(storage_folder: Path) -> None:
    element = open_storage(storage_folder.as_uri())
    await element.write("files/a", chunks(b"x" * 2**20, b"y" * 2**20))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        await element.read("files/a")
        await anext(await element.read("files/a"))
        await read(element, "files/a")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_a_folder_that_is_gone_is_not_made_anew(storage_folder: Path) -> None:
    element = open_storage(storage_folder.as_uri())
    storage_folder.rmdir()
    for act in (element.write("files/a", chunks(b"x")), element.check(), element.check(write=False)):
        with pytest.raises(StorageError, match="mounted"):
            await act
    assert not storage_folder.exists()
    with pytest.raises(ValueError, match="mounted"):
        open_storage(storage_folder.as_uri(), make=False)


def test_a_name_of_ours_is_read_back_and_any_other_is_foreign() -> None:
    file_id = uuid4()
    key = object_name(file_id, uuid4(), datetime(2026, 1, 2, tzinfo=UTC)).key
    assert key.startswith("files/2026/01/02/")
    for suffix, staged in (("", False), ("#1", True)):
        own = own_name(key + suffix)
        assert own is not None
        assert (own.file_id, own.staged) == (file_id, staged)
    for foreign in ("files/a", f"x/{key}", key.upper(), f"{key}.bak", "files/2026/01/02/", ""):
        assert own_name(foreign) is None


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("s3://bucket", {}),
        ("s3://bucket/a/prefix?endpoint=https://minio:9000&region=eu-1&part_mib=64", {}),
        ("gs://bucket/prefix", {}),
        ("az://container/prefix", {"AZURE_STORAGE_ACCOUNT_NAME": "account"}),
        ("az://container/prefix?account=account", {}),
        ("memory:///", {}),
    ],
)
def test_a_url_of_each_kind_is_opened(url: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    open_storage(url)


@pytest.mark.parametrize(
    "url",
    [
        "/tmp/x",
        "file://host/x",
        "ftp://x/y",
        "file:relative",
        "file:///tmp?x=1",
        "memory:///name",
        "s3:///prefix",
        "s3://key:secret@bucket/prefix",
        "s3://secret@bucket",
        "s3://bucket?aws_secret_access_key=secret",
        "s3://bucket?nonsense",
        "s3://bucket?part_mib=1",
        "s3://bucket?part_mib=4096",
        "s3://bucket#secret",
        "az://container?sas=secret",
        "az://container",
        "gs://bucket?endpoint=http://x",
        "http://[broken",
        "",
    ],
)
def test_a_url_that_cannot_be_opened_is_refused_and_tells_no_secret(url: str) -> None:
    with pytest.raises(ValueError, match="cannot be opened") as refused:
        open_storage(url)
    assert "secret@" not in str(refused.value)
    assert "=secret" not in str(refused.value)
