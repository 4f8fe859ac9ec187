"""The registry of storage elements: what operators decide holds on every instance, and sick ones are found out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin import elements as registry
from producer_admin.api_process import admin_app
from producer_admin.elements import Elements, Mode
from producer_admin.errors import (
    ElementOfflineError,
    NoElementError,
    NoRoomError,
    OwnElementUnknownError,
    StorageError,
    UnknownElementError,
)
from producer_admin.saga_steps import Means
from tests.conftest import execute
from tests.integration.conftest import LIMITS
from tests.object_stores import CREDENTIALS, silence
from tests.waiting import eventually

Hanging = Callable[[float], Awaitable[Elements]]
ALL = "http://admin/api/v1/storage-elements"


@pytest.fixture
async def element_urls(tmp_path: Path) -> tuple[str, str]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return (tmp_path / "a").as_uri(), (tmp_path / "b").as_uri()


@pytest.fixture
async def elements(admin_engine: AsyncEngine, element_urls: tuple[str, str]) -> Elements:
    """Two elements, a and b, online."""
    await put(admin_engine, "a", element_urls[0])
    await put(admin_engine, "b", element_urls[1])
    return await opened(admin_engine)


@pytest.fixture
async def api(admin: httpx.AsyncClient) -> httpx.AsyncClient:
    """The Admin API at the registry; se-01 is registered."""
    admin.base_url = httpx.URL(ALL)
    return admin


async def put(
    engine: AsyncEngine, element_id: str, url: str, mode: Mode = Mode.ONLINE, capacity: int | None = None
) -> None:
    async with engine.begin() as connection:
        await registry.register(connection, element_id, url, mode, capacity)


async def opened(engine: AsyncEngine, **options: float) -> Elements:
    made = Elements(engine, **options)  # type: ignore[arg-type]
    await made.refresh()
    return made


@asynccontextmanager
async def watched(elements: Elements) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    watching = asyncio.create_task(elements.watch(stopping))
    try:
        yield
    finally:
        stopping.set()
        async with asyncio.timeout(5):
            await watching


def placed(elements: Elements, size: int | None = 1) -> set[str]:
    return {elements.place(size) for _ in range(100)}


async def count(engine: AsyncEngine, element_id: str, delta: int) -> None:
    async with engine.begin() as connection:
        await registry.account(connection, element_id, delta)


async def chunks() -> AsyncIterator[bytes]:
    yield b"x"


async def test_new_bytes_go_to_every_element_that_can_take_them(elements: Elements) -> None:
    assert placed(elements) == {"a", "b"}
    await elements.storage("a").write("files/x", chunks())
    assert await elements.source("a").find("files/x") is not None
    assert await elements.source("b").find("files/x") is None


async def test_used_bytes_are_what_committed_changes_have_counted(
    elements: Elements, admin_engine: AsyncEngine, element_urls: tuple[str, str]
) -> None:
    await put(admin_engine, "a", element_urls[0], capacity=1000)
    await asyncio.gather(*(count(admin_engine, "a", number) for number in range(1, 31)))
    await count(admin_engine, "a", -65)
    async with admin_engine.connect() as connection:
        await registry.account(connection, "a", 10**6)
        await connection.rollback()
    await elements.refresh()
    assert (elements.get("a").used_bytes, elements.get("a").free_bytes) == (400, 600)
    assert (elements.get("b").used_bytes, elements.get("b").free_bytes) == (0, None)


async def test_counting_waits_for_no_other_connections_commit(
    admin_engine: AsyncEngine, element_urls: tuple[str, str]
) -> None:
    await put(admin_engine, "a", element_urls[0])
    async with admin_engine.connect() as first, admin_engine.connect() as second, admin_engine.connect() as third:
        by_slot = {await _slot(one): one for one in (first, second, third)}
        assert len(by_slot) > 1, "three connections, made one after the other, share one counter"
        async with asyncio.timeout(5):
            for connection in by_slot.values():
                await registry.account(connection, "a", 1)


async def _slot(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT pg_backend_pid() % 16"))).scalar_one())


async def test_a_full_element_is_passed_over_and_all_full_is_no_room(
    elements: Elements, admin_engine: AsyncEngine, element_urls: tuple[str, str]
) -> None:
    await put(admin_engine, "a", element_urls[0], capacity=1000)
    await count(admin_engine, "a", 900)
    await elements.refresh()
    assert placed(elements, 101) == {"b"}
    await put(admin_engine, "b", element_urls[1], capacity=1)
    await elements.refresh()
    assert placed(elements, 100) == {"a"}
    with pytest.raises(NoRoomError):
        elements.place(101)


async def test_read_only_gives_and_offline_does_not(
    elements: Elements, admin_engine: AsyncEngine, element_urls: tuple[str, str]
) -> None:
    await elements.storage("a").write("files/x", chunks())
    await put(admin_engine, "a", element_urls[0], Mode.READ_ONLY)
    await elements.refresh()
    assert placed(elements) == {"b"}
    assert [chunk async for chunk in await elements.source("a").read("files/x")] == [b"x"]

    for element_id, url in zip("ab", element_urls, strict=True):
        await put(admin_engine, element_id, url, Mode.OFFLINE)
    await elements.refresh()
    with pytest.raises(ElementOfflineError):
        elements.source("a")
    with pytest.raises(NoElementError):
        elements.place(1)


async def test_an_unknown_element_is_404_when_asked_for_and_503_when_a_file_names_it(elements: Elements) -> None:
    with pytest.raises(UnknownElementError) as asked:
        elements.get("nowhere")
    for act in (elements.source, elements.storage):
        with pytest.raises(OwnElementUnknownError) as named:
            act("nowhere")
        assert (asked.value.status, named.value.status, named.value.retryable) == (404, 503, True)


async def test_a_change_of_mode_holds_soon_on_every_instance(
    elements: Elements, admin_engine: AsyncEngine, element_urls: tuple[str, str]
) -> None:
    other = await opened(admin_engine)
    async with watched(elements), watched(other):
        await put(admin_engine, "a", element_urls[0], Mode.OFFLINE)
        for instance in (elements, other):
            await eventually(lambda seen=instance: _is(placed(seen) == {"b"}), seconds=5)  # type: ignore[misc]


async def _is(value: object) -> object:
    return value


async def test_a_sick_element_is_avoided_says_why_and_comes_back(elements: Elements, tmp_path: Path) -> None:
    (tmp_path / "a").rename(tmp_path / "away")
    await elements.check()
    assert placed(elements) == {"b"}
    await elements.refresh()
    sick = elements.get("a")
    assert sick.health_error is not None
    assert "mounted" in sick.health_error
    assert sick.checked_at is not None
    (tmp_path / "away").rename(tmp_path / "a")
    await elements.check()
    await elements.refresh()
    assert placed(elements) == {"a", "b"}
    assert elements.get("a").health_error is None


async def test_a_process_that_starts_while_a_disk_is_away_makes_no_folder_in_its_place(
    elements: Elements, admin_engine: AsyncEngine, tmp_path: Path
) -> None:
    (tmp_path / "a").rmdir()
    late = await opened(admin_engine)
    with pytest.raises(StorageError, match="mounted"):
        late.storage("a")
    await late.check()
    assert placed(late) == {"b"}
    assert not (tmp_path / "a").exists()
    (tmp_path / "a").mkdir()
    await late.check()
    assert placed(late) == {"a", "b"}
    assert await elements.storage("a").find("files/x") is None


async def test_what_one_instance_found_sick_is_avoided_by_the_others(
    elements: Elements, admin_engine: AsyncEngine, tmp_path: Path
) -> None:
    other = await opened(admin_engine)
    (tmp_path / "a").rmdir()
    await elements.check()
    await other.refresh()
    assert placed(other) == {"b"}


async def test_an_instance_that_cannot_reach_an_element_does_not_believe_one_that_can(
    elements: Elements, admin_engine: AsyncEngine, tmp_path: Path
) -> None:
    other = await opened(admin_engine)
    (tmp_path / "a").rmdir()
    await elements.check()
    (tmp_path / "a").mkdir()
    await other.check()
    await elements.refresh()
    assert placed(elements) == {"b"}
    await elements.check()
    assert placed(elements) == {"a", "b"}


async def test_a_reported_fault_is_avoided_at_once_until_a_check_that_began_later(
    admin_engine: AsyncEngine, elements: Elements
) -> None:
    await elements.report_fault("a")
    assert placed(elements) == {"b"}
    await elements.refresh()
    assert placed(elements) == {"b"}

    patient = await opened(admin_engine, check_seconds=3600)
    async with watched(patient):
        await eventually(lambda: _is(patient.get("a").checked_at), what="the first check")
        await patient.report_fault("a")
        assert placed(patient) == {"b"}
        await eventually(lambda: _is(placed(patient) == {"a", "b"}), seconds=10, what="the check that was asked for")


@pytest.fixture
async def hanging(
    elements: Elements, admin_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Hanging]:
    """Of two elements, b never answers. Opens them with a limit in seconds for checks."""
    assert placed(elements) == {"a", "b"}
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    async with silence() as endpoint:
        await put(admin_engine, "b", f"s3://bucket?endpoint={endpoint}&region=x")
        made: list[Elements] = []

        async def open_them(limit: float) -> Elements:
            made.append(await opened(admin_engine, check_seconds=0.1, check_limit_seconds=limit))
            return made[-1]

        yield open_them
        for one in made:
            for driver in one._drivers.values():
                driver.close()


async def test_an_element_that_hangs_is_sick_and_does_not_hold_up_the_others(hanging: Hanging) -> None:
    elements = await hanging(0.3)
    async with watched(elements):
        await eventually(lambda: _is(placed(elements) == {"a"}), seconds=5)
        assert "0.3 s" in str(elements.get("b").health_error)


async def test_checks_of_an_element_that_hangs_do_not_pile_up(hanging: Hanging) -> None:
    elements = await hanging(0.1)
    for _ in range(5):
        await elements.check()
    looking = [task for task in asyncio.all_tasks() if "_Driver._look" in repr(task.get_coro())]
    assert len(looking) == 1


async def test_a_check_that_hangs_is_given_up_when_its_element_moves(
    hanging: Hanging, admin_engine: AsyncEngine, tmp_path: Path
) -> None:
    elements = await hanging(60)
    checking = asyncio.create_task(elements.check())
    await eventually(lambda: _is([one for one in asyncio.all_tasks() if "_Driver._look" in repr(one.get_coro())]))
    (tmp_path / "b2").mkdir()
    await put(admin_engine, "b", (tmp_path / "b2").as_uri())
    await elements.refresh()
    async with asyncio.timeout(5):
        await checking
    await elements.check()
    assert placed(elements) == {"a", "b"}


async def test_an_element_that_moved_is_opened_at_its_new_place(
    elements: Elements, admin_engine: AsyncEngine, tmp_path: Path
) -> None:
    await elements.storage("a").write("files/x", chunks())
    (tmp_path / "a").rename(tmp_path / "moved")
    await elements.check()
    await put(admin_engine, "a", (tmp_path / "moved").as_uri())
    await elements.refresh()
    assert await elements.source("a").find("files/x") is not None
    assert elements.get("a").health_error is None


async def test_a_url_that_cannot_be_opened_is_that_elements_fault_alone(
    elements: Elements, admin_engine: AsyncEngine
) -> None:
    await put(admin_engine, "c", "gopher://nowhere")
    await elements.refresh()
    assert placed(elements) <= {"a", "b", "c"}
    with pytest.raises(StorageError, match="cannot be opened"):
        elements.storage("c")
    await elements.check()
    assert placed(elements) == {"a", "b"}


async def test_the_element_of_the_settings_is_registered_once_and_left_as_operators_set_it(
    admin_engine: AsyncEngine, tmp_path: Path
) -> None:
    url = (tmp_path / "new" / "folder").as_uri()
    await asyncio.gather(*(registry.ensure(admin_engine, "se-01", url) for _ in range(3)))
    elements = await opened(admin_engine)
    assert placed(elements) == {"se-01"}
    await put(admin_engine, "se-01", url, Mode.READ_ONLY, 1000)
    await registry.ensure(admin_engine, "se-01", (tmp_path / "other").as_uri())
    await elements.refresh()
    assert (elements.get("se-01").url, elements.get("se-01").mode) == (url, Mode.READ_ONLY)
    assert not (tmp_path / "other").exists()


async def test_a_watch_outlives_its_connections(elements: Elements, admin_database: str) -> None:
    async with watched(elements):
        await execute(
            admin_database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        await eventually(lambda: _set_mode(admin_database, "a", "offline"))
        await eventually(lambda: _is(placed(elements) == {"b"}))


async def _set_mode(url: str, element_id: str, mode: str) -> bool:
    await execute(url, f"UPDATE storage_elements SET mode = '{mode}' WHERE element_id = '{element_id}'")
    return True


async def test_the_api_registers_changes_and_shows_elements(api: httpx.AsyncClient, tmp_path: Path) -> None:
    url = (tmp_path / "second").as_uri()
    made = await api.put("/se-02", json={"url": url, "capacity_bytes": 1000})
    assert made.status_code == 201
    assert made.json() | {"registered_at": None} == {
        "element_id": "se-02",
        "url": url,
        "mode": "online",
        "capacity_bytes": 1000,
        "used_bytes": 0,
        "free_bytes": 1000,
        "healthy": True,
        "health_error": None,
        "checked_at": None,
        "registered_at": None,
        "content_url": "/api/v1/files/{file_id}/content",
    }
    changed = await api.put("/se-02", json={"url": url, "mode": "read_only"})
    assert (changed.status_code, changed.json()["mode"], changed.json()["capacity_bytes"]) == (200, "read_only", None)
    assert (await api.get("/se-02")).json() == changed.json()
    assert [one["element_id"] for one in (await api.get(ALL)).json()["elements"]] == ["se-01", "se-02"]


async def test_the_content_url_leads_to_a_files_content(api: httpx.AsyncClient) -> None:
    uploaded = await api.post("http://admin/api/v1/files/upload", files={"file": ("a.txt", b"hello")})
    file = uploaded.json()
    element = (await api.get(f"/{file['storage_element_id']}")).json()
    content = await api.get("http://admin" + element["content_url"].replace("{file_id}", file["file_id"]))
    assert content.content == b"hello"
    assert element["used_bytes"] == 5


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/se-02", {"url": "gopher://x"}, "url"),
        ("/se-02", {"url": "s3://key:secret@bucket"}, "url"),
        ("/se-02", {"url": "file:///proc/nothing/can/be/made/here"}, "url"),
        ("/se-02", {"url": "s3://bucket?endpoint=http://127.0.0.1:9&region=x"}, "url"),
        ("/se-02", {}, "url"),
        ("/se-02", {"url": "memory:///", "mode": "asleep"}, "mode"),
        ("/se-02", {"url": "memory:///", "capacity_bytes": 0}, "capacity_bytes"),
        ("/se-02", {"url": "memory:///", "capacity_bytes": 2**63}, "capacity_bytes"),
        ("/se-02", {"url": "memory:///", "used_bytes": 1}, "used_bytes"),
        ("/se-02", {"url": "x" * 3000}, "url"),
        ("/SE_02!", {"url": "memory:///"}, "element_id"),
    ],
)
async def test_what_cannot_be_an_element_is_refused_by_field(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, object], field: str
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    refused = await api.put(path, json=body)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in refused.json()["errors"]] == [field]
    assert [one["element_id"] for one in (await api.get(ALL)).json()["elements"]] == ["se-01"]


async def test_a_known_element_is_not_moved_to_where_nothing_is(api: httpx.AsyncClient, tmp_path: Path) -> None:
    before = (await api.get("/se-01")).json()
    refused = await api.put("/se-01", json={"url": (tmp_path / "typo").as_uri()})
    assert refused.status_code == 422
    assert (await api.get("/se-01")).json() == before
    assert not (tmp_path / "typo").exists()


async def test_an_element_is_forgotten_only_when_nothing_refers_to_it(
    api: httpx.AsyncClient, admin_database: str, storage_folder: Path
) -> None:
    assert (await api.delete("/nowhere")).status_code == 404
    assert (await api.get("/nowhere")).status_code == 404
    url = storage_folder.as_uri()
    assert (await api.delete("/se-01")).status_code == 409
    uploaded = await api.post("http://admin/api/v1/files/upload", files={"file": ("a.txt", b"hello")})
    assert (await api.put("/se-01", json={"url": url, "mode": "offline"})).status_code == 200
    assert (await api.delete("/se-01")).status_code == 409
    await api.put("/se-01", json={"url": url})
    await api.delete(f"http://admin/api/v1/files/{uploaded.json()['file_id']}")
    await api.put("/se-01", json={"url": url, "mode": "offline"})
    await execute(
        admin_database,
        "INSERT INTO sagas (saga_id, kind, file_id, state, step, detail, actor, attempts, lease_until)"
        f" VALUES ('{uuid4()}', 'upload', '{uuid4()}', 'running', 'x',"
        """ '{"created": {"element_id": "se-01", "key": "files/x"}, "doomed": null}', 'x', 0, now())""",
    )
    assert (await api.delete("/se-01")).status_code == 409
    await execute(admin_database, "UPDATE sagas SET state = 'compensated'")
    assert (await api.delete("/se-01")).status_code == 204
    assert (await api.get(ALL)).json() == {"elements": []}


async def test_a_public_address_makes_the_content_url_absolute(means: Means, admin_engine: AsyncEngine) -> None:
    app = admin_app(means, admin_engine, LIMITS, "https://files.example/")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        [element] = (await client.get("/api/v1/storage-elements")).json()["elements"]
    assert element["content_url"] == "https://files.example/api/v1/files/{file_id}/content"
