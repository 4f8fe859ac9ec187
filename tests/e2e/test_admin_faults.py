"""The Admin side as real processes: whatever is killed under load, answers stay true and the topic hears everything."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from runtime.postgres import open_pool
from tests.agreement import require_agreement, require_topic
from tests.e2e.admin_side import AdminSide, admin_side, prepare
from tests.waiting import eventually

SETTLE_SECONDS = 60
UNFINISHED = "SELECT count(*) FROM sagas WHERE state NOT IN ('done', 'compensated')"


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminSide]:
    with admin_side(tmp_path_factory.mktemp("admin-side")) as running:
        yield running


@pytest.fixture(scope="module")
async def prepared(side: AdminSide) -> AdminSide:
    await prepare(side)
    return side


@pytest.fixture
async def pool(prepared: AdminSide) -> AsyncIterator[asyncpg.Pool]:
    async with await open_pool(prepared.database, "tests") as opened:
        yield opened


@pytest.fixture
def admin(prepared: AdminSide) -> Iterator[AdminSide]:
    """Two API processes and two relays."""
    for number in ("1", "2"):
        prepared.start(f"api-{number}", "api")
        prepared.start(f"relay-{number}", "relay")
    yield prepared
    prepared.stop()


@pytest.fixture
async def apis(admin: AdminSide) -> AsyncIterator[list[httpx.AsyncClient]]:
    async with admin.client("api-1") as first, admin.client("api-2") as second:
        yield [first, second]


@dataclass
class Clients:
    """Clients that change files all the time, and what they were answered."""

    apis: list[httpx.AsyncClient]
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last 2xx answer of each file that was not deleted."""
    deleted: set[str] = field(default_factory=set)
    statuses: dict[int, int] = field(default_factory=dict)
    without_retry_after: int = 0
    unsure: set[str] = field(default_factory=set)
    """Files whose last change was not answered with 2xx."""
    stopping: bool = False

    async def run(self, count: int) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        turn = 0
        while not self.stopping:
            turn += 1
            api = self.apis[(number + turn) % len(self.apis)]
            name = f"{number}-{turn}.txt"
            made = await self._ask(api, "POST", "/upload", None, files={"file": (name, os.urandom(1000))})
            if made is None or made.status_code != 201:
                continue
            file_id = made.json()["file_id"]
            self.known[file_id] = made.json()
            for description in ("one", "two"):
                changed = await self._ask(api, "PATCH", f"/{file_id}", file_id, json={"description": description})
                if changed is not None and changed.status_code == 200:
                    self.known[file_id] = changed.json()
            if turn % 3 == 0:
                replaced = await self._ask(api, "PUT", f"/{file_id}/content", file_id, content=b"new")
                if replaced is not None and replaced.status_code == 200:
                    self.known[file_id] = replaced.json()
            if turn % 4 == 0:
                gone = await self._ask(api, "DELETE", f"/{file_id}", file_id)
                if gone is not None and gone.status_code == 204:
                    del self.known[file_id]
                    self.deleted.add(file_id)

    async def _ask(
        self, api: httpx.AsyncClient, method: str, path: str, file_id: str | None, **request: Any
    ) -> httpx.Response | None:
        try:
            answer = await api.request(method, path, **request)
        except httpx.TransportError:
            answer = None
        status = answer.status_code if answer is not None else 0
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if status == 503:
            assert answer is not None
            self.without_retry_after += "retry-after" not in answer.headers
        if status not in (200, 201, 204) and file_id is not None:
            self.unsure.add(file_id)
        return answer


async def require_true(clients: Clients, pool: asyncpg.Pool) -> None:
    """Every answer that a client got holds, unless it was followed by a change that was not answered."""
    rows = {str(row["file_id"]): row for row in await pool.fetch("SELECT * FROM files")}
    for file_id, answer in clients.known.items():
        row = rows[file_id]
        assert row["revision"] >= answer["revision"]
        if file_id not in clients.unsure:
            assert row["deleted_at"] is None
            for name in ("revision", "description", "checksum", "storage_filename"):
                assert row[name] == answer[name], (file_id, name)
    assert all(rows[file_id]["deleted_at"] for file_id in clients.deleted)


async def require_all(side: AdminSide, clients: Clients, pool: asyncpg.Pool) -> None:
    # Those whose process was killed are taken up when their lease has run out.
    await eventually(lambda: none_unfinished(pool), SETTLE_SECONDS, "every saga at its end")
    await require_topic(pool, side.topic, SETTLE_SECONDS)
    await require_agreement(pool, {"se-01": side.files})
    await require_true(clients, pool)


async def none_unfinished(pool: asyncpg.Pool) -> bool:
    return not await pool.fetchval(UNFINISHED)


async def reached(pool: asyncpg.Pool, count: int) -> bool:
    return bool(await pool.fetchval("SELECT count(*) >= $1 FROM files", count))


async def test_two_apis_and_two_relays_lose_nothing_though_one_of_each_is_killed(
    admin: AdminSide, apis: list[httpx.AsyncClient], pool: asyncpg.Pool
) -> None:
    before = await pool.fetchval("SELECT count(*) FROM files")
    clients = Clients(apis)
    load = asyncio.create_task(clients.run(6))
    await eventually(lambda: reached(pool, before + 40), 60, "some load")
    await asyncio.to_thread(admin.kill, "relay-1")
    await asyncio.to_thread(admin.kill, "api-1")
    clients.apis = clients.apis[1:]
    now = await pool.fetchval("SELECT count(*) FROM files")
    await eventually(lambda: reached(pool, now + 80), 60, "load on what is left")
    clients.stopping = True
    await load
    assert clients.statuses.keys() <= {0, 200, 201, 204}, clients.statuses
    await require_all(admin, clients, pool)


async def test_a_killed_postgres_costs_answers_of_503_and_no_half_made_file(
    admin: AdminSide, apis: list[httpx.AsyncClient]
) -> None:
    clients = Clients(apis)
    async with await open_pool(admin.database, "tests") as pool:
        before = await pool.fetchval("SELECT count(*) FROM files")
        load = asyncio.create_task(clients.run(6))
        await eventually(lambda: reached(pool, before + 40), 60, "some load")
    await asyncio.to_thread(admin.postgres.kill)
    await eventually(lambda: answered(clients, 503, 20), 60, "answers while the database is away")
    await asyncio.to_thread(admin.postgres.start)
    made = clients.statuses[201]
    await eventually(lambda: answered(clients, 201, made + 40), 60, "uploads after the restart")
    clients.stopping = True
    await load
    assert clients.statuses.keys() <= {200, 201, 204, 503}, clients.statuses
    assert clients.without_retry_after == 0
    async with await open_pool(admin.database, "tests") as pool:
        await require_all(admin, clients, pool)


async def answered(clients: Clients, status: int, count: int) -> bool:
    return clients.statuses.get(status, 0) >= count


@pytest.mark.parametrize(
    ("away_seconds", "rate"),
    [
        pytest.param(8.0, 20.0, id="8 s"),
        # 60 % of what these machines sustain, and at least 50/s: `artstore bench uploads` says what that is.
        pytest.param(60.0, float(os.environ.get("SOAK_RATE", "50")), id="60 s", marks=pytest.mark.soak),
    ],
)
async def test_uploads_go_on_without_a_broker_and_all_is_on_the_topic_soon_after_it_is_back(
    admin: AdminSide, apis: list[httpx.AsyncClient], pool: asyncpg.Pool, away_seconds: float, rate: float
) -> None:
    ids: list[str] = []
    late: list[float] = []
    stopping = asyncio.Event()

    async def upload(api: httpx.AsyncClient, number: int, due: float) -> None:
        answer = await api.post("/upload", files={"file": (f"{number}.txt", b"x" * 1000)})
        assert answer.status_code == 201, answer.text
        ids.append(answer.json()["file_id"])
        late.append(time.monotonic() - due)

    async def load() -> None:
        """An open loop: an upload is due at its time whatever became of the ones before."""
        begin, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while not stopping.is_set():
                due = begin + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(upload(apis[number % 2], number, due))
                number += 1

    loading = asyncio.create_task(load())
    await eventually(lambda: some(ids, 20), 30)
    await asyncio.to_thread(admin.kafka.kill)
    begin, count = time.monotonic(), len(ids)
    await eventually(lambda: passed(begin, away_seconds), away_seconds + 5)
    uploaded = len(ids) - count
    assert uploaded >= 0.9 * rate * away_seconds, "uploads did not go on as they were due"
    waiting = await pool.fetchval("SELECT count(*) FROM outbox")
    assert waiting >= 0.8 * uploaded, "the outbox does not hold what the broker could not take"
    await asyncio.to_thread(admin.kafka.start)
    answers = time.monotonic()
    last = await pool.fetchval("SELECT max(outbox_id) FROM outbox")
    await eventually(lambda: all_sent(pool, last), 10, "all on the topic 10 s after the broker answers")
    took = time.monotonic() - answers
    stopping.set()
    await loading
    print(
        f"{uploaded} uploads in {away_seconds:g} s without a broker, {waiting} events waited; "
        f"all on the topic {took:.1f} s after its first good answer; "
        f"upload answered p50 {sorted(late)[len(late) // 2] * 1000:.0f} ms after it was due, slowest {max(late):.2f} s"
    )
    await require_topic(pool, admin.topic, SETTLE_SECONDS)


async def some(ids: list[str], count: int) -> bool:
    return len(ids) >= count


async def passed(begin: float, seconds: float) -> bool:
    return time.monotonic() - begin >= seconds


async def all_sent(pool: asyncpg.Pool, last: int) -> bool:
    return not await pool.fetchval("SELECT count(*) FROM outbox WHERE outbox_id <= $1", last)


@pytest.mark.parametrize(
    "mebibytes", [pytest.param(256, id="256 MiB"), pytest.param(5 * 1024, id="5 GiB", marks=pytest.mark.soak)]
)
async def test_a_large_upload_reaches_the_storage_element_as_it_comes_in_bounded_memory_and_without_a_spool_file(
    prepared: AdminSide, tmp_path: Path, mebibytes: int
) -> None:
    spool = tmp_path / "tmp"
    spool.mkdir()
    child = prepared.start("api-large", "api", TMPDIR=str(spool))
    process = psutil.Process(child.pid)
    at_rest = process.memory_info().rss
    highest = at_rest
    seen: list[int] = []
    elsewhere: set[str] = set()
    block = os.urandom(2**20)

    def look() -> None:
        nonlocal highest
        highest = max(highest, process.memory_info().rss)
        for one in process.open_files():
            if Path(one.path).is_relative_to(prepared.files):
                continue
            if not one.path.endswith(".log"):
                elsewhere.add(one.path)
        elsewhere.update(map(str, spool.iterdir()))

    async def body() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="large.bin"\r\n\r\n'
        for number in range(mebibytes):
            yield block
            if number % 16 == 15:
                look()
                seen.append(sum(path.stat().st_size for path in prepared.files.rglob("*#*")))
        yield b"\r\n--x--\r\n"

    async with prepared.client("api-large") as api:
        answer = await api.post(
            "/upload",
            content=body(),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
            timeout=600,
        )
    assert answer.status_code == 201, answer.text
    assert answer.json()["file_size"] == mebibytes * 2**20
    # All but what is on its way was at the storage element before the last byte was sent.
    assert seen[-1] >= (mebibytes - 64) * 2**20
    assert elsewhere == set()
    grown = (highest - at_rest) / 2**20
    print(f"{mebibytes} MiB: {at_rest / 2**20:.0f} MiB at rest, at most {grown:.0f} MiB more while it came in")
    assert grown < 100
    async with prepared.client("api-large") as api:
        await api.delete(f"/{answer.json()['file_id']}")
    prepared.processes.pop("api-large").stop(10)
