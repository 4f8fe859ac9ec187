"""The trace of a file over real services of both sides: the station that holds it up is named, whatever is broken."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner, Result

from cli.__main__ import app as artstore
from consumer_query import trace_facts, trace_words
from consumer_query.api_process import dead_letters_desk, lag_watch, query_app, tracer
from consumer_query.dead_letters import TopicDeadLetters
from consumer_query.settings import QueryApiSettings
from consumer_query.trace import Part
from local.ports import free_port
from producer_admin.api_process import admin_app
from producer_admin.backlog import HeldRelay
from producer_admin.batches import Limits
from producer_admin.outbox import shard_of
from producer_admin.publisher import ShardPublisher
from producer_admin.relay import Relay
from producer_admin.saga import REPLACE, UPLOAD, run_saga
from producer_admin.saga_steps import Means, Work
from producer_admin.trace import trace as admin_trace
from schemas.topics import DEAD_LETTERS, topic_name
from tests.integration.conftest import LIMITS, Running, Topic
from tests.integration.test_dead_letters import letter
from tests.integration.test_sagas import DETAILS, uploading
from tests.running import running, served
from tests.samples import created
from tests.waiting import eventually, settles

Trace = Callable[[UUID], Awaitable[dict[str, Any]]]
Relaying = Callable[[], Any]
QUICK = 8.0
"""Seconds for an answer while something hangs: the limit of one part, 2 s, on a busy machine. Each part by itself would
take 10 s and more to be given up."""
LOOKS = 200
UNKNOWN_SCHEMA = b"\xc3\x01" + b"\x00" * 8


def api_settings(topic: str, group: str, admin_url: str | None, servers: str | None) -> QueryApiSettings:
    return QueryApiSettings.model_validate(
        {
            "query_database_url": "postgresql://unused",
            "kafka_bootstrap_servers": servers,
            "file_events_topic": topic,
            "kafka_consumer_group": group,
            "admin_api_url": admin_url,
        }
    )


@asynccontextmanager
async def query_api(
    pool: asyncpg.Pool, topic: Topic, group: str, admin_url: str | None, servers: str | None
) -> AsyncIterator[FastAPI]:
    """A Query API as its process puts it together, that has seen the group's lag if there is a broker."""
    settings = api_settings(topic.name, group, admin_url, servers)
    watch = lag_watch(settings)
    async with dead_letters_desk(pool, settings) as desk, tracer(pool, settings, desk, watch) as trace:
        app = query_app(pool, desk, None, watch, trace)
        if watch is None:
            yield app
            return
        async with running(watch):
            if servers == topic.bootstrap_servers:
                await eventually(lambda: known(watch))
            yield app


async def known(watch: Any) -> bool:
    return watch.report is not None


def asker(app: FastAPI) -> Trace:
    async def ask(file_id: UUID) -> dict[str, Any]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://query", timeout=30) as client:
            answer = await client.get(f"/api/v1/files/{file_id}/trace")
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

    return ask


@pytest.fixture
async def admin_url(means: Means, admin_engine: AsyncEngine) -> AsyncIterator[str]:
    """Of an Admin API that listens."""
    async with served(admin_app(means, admin_engine, LIMITS)) as url:
        yield url


@pytest.fixture
async def api(query_pool: asyncpg.Pool, events_topic: Topic, group: str, admin_url: str) -> AsyncIterator[FastAPI]:
    async with query_api(query_pool, events_topic, group, admin_url, events_topic.bootstrap_servers) as app:
        yield app


@pytest.fixture
def trace(api: FastAPI) -> Trace:
    return asker(api)


@pytest.fixture
def relay(admin_pool: asyncpg.Pool, events_topic: Topic) -> Relaying:
    opener = partial(ShardPublisher.open, events_topic.bootstrap_servers, events_topic.name)
    return lambda: running(Relay(admin_pool, opener, Limits(500, 2**20)))


async def uploaded(admin: httpx.AsyncClient) -> UUID:
    answer = await admin.post("/upload", files={"file": ("a.txt", b"x")})
    assert answer.status_code == 201
    return UUID(answer.json()["file_id"])


async def sent(pool: asyncpg.Pool) -> None:
    await settles(lambda: pool.fetchval("SELECT count(*) FROM outbox"), 0)


async def held_up_by(trace: Trace, file_id: UUID, station: str) -> dict[str, Any]:
    """The trace as soon as it names the station, whatever it named before."""
    found: dict[str, Any] = {}

    async def look() -> str:
        found.update(await trace(file_id))
        return str(found["held_up_by"])

    await settles(look, station)
    return found


def marks(found: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["mark"] for one in found["stations"]}


async def test_a_change_is_found_at_each_station_of_its_way(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, trace: Trace, relay: Relaying, running_projector: Running
) -> None:
    file_id = await uploaded(admin)
    found = await trace(file_id)
    assert (found["held_up_by"], found["revision"]) == ("outbox", 1)
    assert found["admin"]["relay"] == "nobody"
    assert "no relay sends this shard" in found["told"]
    assert marks(found) == {"saga": "done", "outbox": "here", "topic": "not_yet", "cache": "not_yet"}

    async with relay():
        await sent(admin_pool)
        found = await held_up_by(trace, file_id, "topic")
        at = await admin_pool.fetchrow("SELECT shard, record_offset FROM outbox_sent")
        assert at is not None
        assert (found["partition"], found["offset"]) == (at["shard"], at["record_offset"])
        assert marks(found) == {"saga": "done", "outbox": "done", "topic": "here", "cache": "not_yet"}
        await eventually(lambda: is_told(trace, file_id, "no projector is in its group"))

        async with running_projector():
            found = await held_up_by(trace, file_id, "nothing")
            assert found["told"] == "Search shows revision 1, the newest."
            assert set(marks(found).values()) == {"done"}
            assert found["troubles"] == {}
            await admin.patch(f"/{file_id}", json={"description": "two"})
            await held_up_by(trace, file_id, "nothing")
            await admin.delete(f"/{file_id}")
            found = await held_up_by(trace, file_id, "nothing")
            await eventually(lambda: shows(trace, file_id, 3))
            found = await trace(file_id)
            assert found["told"] == "It was deleted at revision 3, and search does not show it."
            assert found["cached"]["row"] == {"revision": 3, "deleted": True}


async def is_told(trace: Trace, file_id: UUID, words: str) -> bool:
    return words in (await trace(file_id))["told"]


async def shows(trace: Trace, file_id: UUID, revision: int) -> bool:
    row = (await trace(file_id))["cached"]["row"]
    return row is not None and row["revision"] == revision


async def test_a_relay_that_was_told_to_hold_is_told_from_one_that_is_gone(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, trace: Trace
) -> None:
    file_id = await uploaded(admin)
    async with running(HeldRelay(admin_pool)):
        await eventually(lambda: is_told(trace, file_id, "EVENT_PUBLISH_ENABLED"))
    await eventually(lambda: is_told(trace, file_id, "no relay sends this shard"))


async def test_what_is_before_it_on_its_shard_is_counted(admin: httpx.AsyncClient, trace: Trace) -> None:
    files = [await uploaded(admin) for _ in range(30)]
    last = files[-1]
    before = sum(shard_of(one) == shard_of(last) for one in files[:-1])
    assert (await trace(last))["admin"]["ahead"] == before
    await admin.patch(f"/{last}", json={"description": "two"})
    found = (await trace(last))["admin"]
    assert ([one["revision"] for one in found["waiting"]], found["ahead"]) == ([1, 2], before)


class Stuck:
    """Content of which only the first byte comes, until it is told how to end."""

    def __init__(self) -> None:
        self.ending: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"x"
        yield await self.ending

    async def details(self) -> dict[str, Any]:
        return DETAILS


async def test_a_saga_that_hangs_is_named_with_its_step_and_whether_anybody_is_at_it(
    means: Means, admin_pool: asyncpg.Pool, trace: Trace
) -> None:
    content = Stuck()
    work = uploading(content=content)
    upload = asyncio.create_task(run_saga(UPLOAD, means, work))
    await settles(lambda: admin_pool.fetchval("SELECT count(*) FROM sagas"), 1)
    found = await trace(work.file_id)
    assert (found["held_up_by"], found["revision"]) == ("saga", None)
    assert "Nothing of it is recorded; its upload is at the step store_bytes" in found["told"]
    assert marks(found) == {"saga": "here", "outbox": "not_yet", "topic": "not_yet", "cache": "not_yet"}
    assert found["admin"]["sagas"][0]["attended"]

    await admin_pool.execute("UPDATE sagas SET lease_until = '-infinity'")
    assert "Its process does not tell of itself; another takes it up." in (await trace(work.file_id))["told"]

    await admin_pool.execute("UPDATE sagas SET lease_until = clock_timestamp() + interval '1 minute'")
    content.ending.set_exception(OSError("the client hung up"))
    with pytest.raises(OSError, match="hung up"):
        await upload
    found = await trace(work.file_id)
    assert found["held_up_by"] == "saga"
    assert "Its upload was given up, and there is no such file: OSError: the client hung up" in found["told"]


async def test_a_replacement_under_way_holds_up_only_what_is_not_recorded(
    means: Means,
    admin: httpx.AsyncClient,
    admin_pool: asyncpg.Pool,
    trace: Trace,
    relay: Relaying,
    running_projector: Running,
) -> None:
    file_id = await uploaded(admin)
    content = Stuck()
    replacing = asyncio.create_task(run_saga(REPLACE, means, Work(file_id=file_id, content=content)))
    await settles(lambda: admin_pool.fetchval("SELECT count(*) FROM sagas WHERE kind = 'replace'"), 1)
    assert (await trace(file_id))["held_up_by"] == "outbox"
    async with relay(), running_projector():
        found = await held_up_by(trace, file_id, "saga")
        assert found["told"].startswith("Search shows revision 1; its replace is at the step store_bytes")
        content.ending.set_result(b"y")
        await replacing
        found = await held_up_by(trace, file_id, "nothing")
        assert found["revision"] == 2


async def test_a_partition_that_is_held_by_an_unknown_schema_is_the_topics_hold_up(
    admin: httpx.AsyncClient,
    admin_pool: asyncpg.Pool,
    trace: Trace,
    relay: Relaying,
    running_projector: Running,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace_words, "STILL_SECONDS", 1.0)
    file_id = await uploaded(admin)
    async with running_projector():
        async with relay():
            await held_up_by(trace, file_id, "nothing")
        await admin.patch(f"/{file_id}", json={"description": "two"})
        await admin_pool.execute("UPDATE outbox SET payload = $1 || substring(payload FROM 11)", UNKNOWN_SCHEMA)
        async with relay():
            await sent(admin_pool)
        found = await held_up_by(trace, file_id, "topic")
        assert found["cached"]["row"]["revision"] == 1
        assert found["offset"] == await admin_pool.fetchval("SELECT max(record_offset) FROM outbox_sent")
        assert found["cached"]["position"] <= found["offset"]
        await eventually(lambda: is_told(trace, file_id, "the position has not moved for"))
        assert marks(await trace(file_id))["topic"] == "here"


async def test_a_dead_letter_is_named_until_the_file_is_announced_anew(
    admin: httpx.AsyncClient,
    admin_pool: asyncpg.Pool,
    trace: Trace,
    relay: Relaying,
    running_projector: Running,
    api: FastAPI,
) -> None:
    file_id, other = await uploaded(admin), await uploaded(admin)
    await admin_pool.execute("UPDATE outbox SET payload = 'rubbish' WHERE file_id = $1", file_id)
    async with relay(), running_projector():
        found = await held_up_by(trace, file_id, "dead_letter")
        position = found["dead_letter"]["position"]
        assert position.endswith(f"/{found['partition']}/{found['offset']}")
        assert (found["dead_letter"]["reason"], found["dead_letter"]["status"]) == ("undecodable", "open")
        assert marks(found)["dead_letter"] == "here"
        assert "Revision 1 could not be applied and was put aside: undecodable" in found["told"]
        await held_up_by(trace, other, "nothing")

        async with client_of(api) as client:
            answer = await client.post("/api/v1/admin/dlq/redrive", json={"position": position, "how": "republish"})
        assert answer.json()["outcomes"] == {"republished": 1}, answer.text
        found = await held_up_by(trace, file_id, "nothing")
        assert found["revision"] == 2
        assert found["dead_letter"] is None
        assert [one["status"] for one in found["dead_letters"]["letters"]] == ["republished"]


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://query", timeout=30)


async def test_what_the_cache_has_lost_is_told_from_what_is_on_its_way(
    admin: httpx.AsyncClient, trace: Trace, query_pool: asyncpg.Pool, relay: Relaying, running_projector: Running
) -> None:
    lost, ghost = await uploaded(admin), uuid4()
    async with relay(), running_projector():
        await held_up_by(trace, lost, "nothing")
        await query_pool.execute("UPDATE file_metadata_cache_g1 SET file_id = $1", ghost)
        found = await trace(lost)
        assert found["held_up_by"] == "cache"
        assert "was passed by, is not among the dead letters, and the cache has nothing of it" in found["told"]
        found = await trace(ghost)
        assert found["held_up_by"] == "cache"
        assert "of a file that the Admin module does not know" in found["told"]


async def test_the_admin_side_is_told_as_of_one_moment_however_fast_things_move(
    admin: httpx.AsyncClient, admin_engine: AsyncEngine, relay: Relaying
) -> None:
    file_id = await uploaded(admin)
    ended = False

    async def change() -> None:
        number = 0
        while not ended:
            number += 1
            assert (await admin.patch(f"/{file_id}", json={"description": str(number)})).status_code == 200

    async with relay():
        changing = asyncio.create_task(change())
        seen: set[tuple[bool, int]] = set()
        for _ in range(LOOKS):
            found = await admin_trace(admin_engine, file_id)
            told = [one.revision for one in found.waiting] + ([found.sent.revision] if found.sent else [])
            assert max(told) == found.revision
            seen.add((bool(found.waiting), found.revision or 0))
        ended = True
        await changing
    assert len(seen) > 10, "too little has moved to show anything"


async def test_a_file_that_nobody_knows_is_not_found(api: FastAPI, admin_url: str) -> None:
    stranger = uuid4()
    async with client_of(api) as client:
        answer = await client.get(f"/api/v1/files/{stranger}/trace")
        assert answer.status_code == 404
        assert answer.json()["detail"].startswith(f"Nobody knows a file {stranger}")
        assert (await client.get("/api/v1/files/7/trace")).status_code == 422
    async with httpx.AsyncClient(base_url=admin_url) as admin:
        known = (await admin.get(f"/api/v1/files/{stranger}/trace")).json()
    assert (known["revision"], known["sagas"], known["waiting"], known["sent"]) == (None, [], [], None)


async def test_without_the_admin_module_the_query_side_tells_what_it_knows_and_claims_no_more(
    admin: httpx.AsyncClient,
    admin_pool: asyncpg.Pool,
    query_pool: asyncpg.Pool,
    events_topic: Topic,
    group: str,
    relay: Relaying,
    running_projector: Running,
) -> None:
    file_id = await uploaded(admin)
    servers = events_topic.bootstrap_servers
    nowhere = f"http://127.0.0.1:{free_port()}"
    async with relay(), query_api(query_pool, events_topic, group, nowhere, servers) as app:
        ask = asker(app)
        async with running_projector():
            await eventually(lambda: shows(ask, file_id, 1))
            found = await ask(file_id)
            assert found["held_up_by"] == "unclear"
            assert "The cache has revision 1." in found["told"]
            assert "The Admin API does not answer" in found["troubles"]["admin"]
        for text in ("two", "three"):
            await admin.patch(f"/{file_id}", json={"description": text})
        await sent(admin_pool)
        found = await held_up_by(ask, file_id, "topic")
        assert found["revision"] == 3
        assert found["offset"] == await admin_pool.fetchval("SELECT max(record_offset) FROM outbox_sent")
        # Of a file that only a stranger would know, nobody may say that it does not exist.
        assert (await ask(uuid4()))["held_up_by"] == "unclear"
    async with query_api(query_pool, events_topic, group, None, None) as app:
        found = await asker(app)(file_id)
        assert found["held_up_by"] == "unclear"
        assert found["troubles"]["admin"] == "ADMIN_API_URL is not set"
        assert found["troubles"]["dead_letters"] == found["troubles"]["lag"] == "KAFKA_BOOTSTRAP_SERVERS is not set"


@asynccontextmanager
async def hanging_server() -> AsyncIterator[int]:
    """The port of a server that takes connections and never says a word."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1_000):
            pass
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_everything_that_hangs_at_once_is_told_within_the_time_of_one(events_topic: Topic, group: str) -> None:
    async with hanging_server() as port:
        pool = await asyncpg.create_pool(f"postgresql://nobody@127.0.0.1:{port}/none", min_size=0)
        async with query_api(pool, events_topic, group, f"http://127.0.0.1:{port}", f"127.0.0.1:{port}") as app:
            begin = time.monotonic()
            found = await asker(app)(uuid4())
            assert time.monotonic() - begin < QUICK
        pool.terminate()
    assert found["held_up_by"] == "unclear"
    assert found["troubles"].keys() == {"admin", "database", "dead_letters", "lag"}


async def test_what_was_let_go_of_has_ended_once_the_tracer_is_closed(query_pool: asyncpg.Pool, topic: str) -> None:
    async with hanging_server() as port:
        settings = api_settings(topic, "none", None, f"127.0.0.1:{port}")
        async with dead_letters_desk(query_pool, settings) as desk, tracer(query_pool, settings, desk, None) as made:
            found = await made.facts(uuid4())
            assert found.troubles[Part.DEAD_LETTERS] == "no answer within 2 s"
            assert working() != []
        assert working() == []


def working() -> list[str]:
    """What a tracer has under way."""
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in names if name.startswith("Tracer.")]


async def test_an_admin_module_that_hangs_or_answers_nonsense_holds_no_trace_up(
    query_pool: asyncpg.Pool, events_topic: Topic, group: str
) -> None:
    async with (
        hanging_server() as port,
        query_api(query_pool, events_topic, group, f"http://127.0.0.1:{port}", None) as app,
    ):
        begin = time.monotonic()
        found = await asker(app)(uuid4())
        assert time.monotonic() - begin < QUICK
        assert found["troubles"]["admin"] == "no answer within 2 s"
    strange = FastAPI()

    @strange.get("/api/v1/files/{file_id}/trace")
    async def nonsense(file_id: UUID) -> dict[str, str]:
        return {"file": str(file_id)}

    async with served(strange) as url, query_api(query_pool, events_topic, group, url, None) as app:
        assert "answer cannot be read" in (await asker(app)(uuid4()))["troubles"]["admin"]


async def test_a_database_that_hangs_is_told_in_time_with_what_the_others_know(
    admin: httpx.AsyncClient,
    admin_pool: asyncpg.Pool,
    query_database: str,
    trace: Trace,
    relay: Relaying,
    running_projector: Running,
) -> None:
    file_id = await uploaded(admin)
    async with running_projector():
        async with relay():
            await held_up_by(trace, file_id, "nothing")
        await admin.patch(f"/{file_id}", json={"description": "two"})
        locker = await asyncpg.connect(query_database)
        async with locker.transaction():
            await locker.execute("LOCK TABLE file_metadata_cache_g1 IN ACCESS EXCLUSIVE MODE")
            begin = time.monotonic()
            found = await trace(file_id)
            assert time.monotonic() - begin < QUICK
            assert found["held_up_by"] == "outbox"
            assert found["troubles"] == {"database": "no answer within 2 s"}
            async with relay():
                await sent(admin_pool)
            found = await held_up_by(trace, file_id, "topic")
            assert "the rows of the cache are not told: no answer within 2 s" in found["told"]
        await locker.close()
        await held_up_by(trace, file_id, "nothing")


async def test_an_admin_database_that_is_blocked_is_told_in_time(
    admin_database: str, admin_url: str, trace: Trace
) -> None:
    locker = await asyncpg.connect(admin_database)
    async with locker.transaction(), httpx.AsyncClient(base_url=admin_url, timeout=QUICK) as client:
        await locker.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
        answer = await client.get(f"/api/v1/files/{uuid4()}/trace")
        assert (answer.status_code, answer.json()["title"]) == (503, "Trace took too long")
        found = await trace(uuid4())
        assert found["held_up_by"] == "unclear"
        assert "admin" in found["troubles"]
    await locker.close()


async def test_without_a_broker_what_is_visible_is_still_told_to_be(
    admin: httpx.AsyncClient,
    query_pool: asyncpg.Pool,
    events_topic: Topic,
    group: str,
    admin_url: str,
    trace: Trace,
    relay: Relaying,
    running_projector: Running,
) -> None:
    file_id = await uploaded(admin)
    async with relay(), running_projector():
        await held_up_by(trace, file_id, "nothing")
    nowhere = f"127.0.0.1:{free_port()}"
    async with query_api(query_pool, events_topic, group, admin_url, nowhere) as app:
        begin = time.monotonic()
        found = await asker(app)(file_id)
        assert time.monotonic() - begin < QUICK
        assert found["held_up_by"] == "nothing"
        assert {"dead_letters", "lag"} == found["troubles"].keys()
        await admin.patch(f"/{file_id}", json={"description": "two"})
        assert (await asker(app)(file_id))["held_up_by"] == "outbox"


async def test_dead_letters_are_looked_through_from_the_newest_and_a_cut_is_told(
    events_topic: Topic, trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_facts, "MOST_LETTERS", 3)
    writer = TopicDeadLetters(events_topic.bootstrap_servers, topic_name(DEAD_LETTERS, events_topic.name))
    first, last = created(), created()
    others = [letter(created(), offset, topic=events_topic.name) for offset in range(3)]
    await writer.put([letter(first, 7, topic=events_topic.name), *others, letter(last, 9, topic=events_topic.name)])
    await writer.close()
    found = await trace(last.file_id)
    assert found["held_up_by"] == "dead_letter"
    assert [one["position"] for one in found["dead_letters"]["letters"]] == [f"{events_topic.name}/3/9"]
    found = await trace(first.file_id)
    assert found["dead_letters"] == {"letters": [], "complete": False}
    assert found["held_up_by"] == "unclear"
    assert "there was no time for all of them" in found["told"]
    monkeypatch.setattr(trace_facts, "MOST_LETTERS", 5)
    found = await trace(first.file_id)
    assert (found["held_up_by"], found["dead_letters"]["complete"]) == ("dead_letter", True)


async def test_what_looks_wrong_is_looked_at_again_before_it_is_told(
    query_pool: asyncpg.Pool, events_topic: Topic, group: str, means: Means, admin_engine: AsyncEngine
) -> None:
    """An Admin module that is asked a moment before the file is recorded, while the cache is asked a moment after."""
    truth = admin_app(means, admin_engine, LIMITS)
    late = FastAPI()
    asked = 0

    @late.get("/api/v1/files/{file_id}/trace")
    async def answer(file_id: UUID) -> Any:
        nonlocal asked
        asked += 1
        async with httpx.AsyncClient(transport=httpx.ASGITransport(truth), base_url="http://admin") as client:
            found = (await client.get(f"/api/v1/files/{file_id}/trace")).json()
        return found if asked == 1 else {**found, "revision": 1}

    file_id = uuid4()
    await query_pool.execute(
        "INSERT INTO file_metadata_cache_g1 (file_id, revision, deleted) VALUES ($1, 1, false)", file_id
    )
    async with served(late) as url, query_api(query_pool, events_topic, group, url, None) as app:
        assert (await asker(app)(file_id))["held_up_by"] == "nothing"
    assert asked == 2


async def verb(*arguments: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(artstore, ["trace", *arguments]))


async def test_the_verb_shows_each_station_says_what_to_do_and_exits_with_0_once_it_is_visible(
    admin: httpx.AsyncClient, api: FastAPI, trace: Trace, relay: Relaying, running_projector: Running
) -> None:
    file_id = await uploaded(admin)
    async with served(api) as url:
        shown = await verb(str(file_id), "--url", url)
        assert shown.exit_code == 1
        assert "HELD UP: OUTBOX" in shown.output
        assert "python -m producer_admin relay" in shown.output
        assert "not yet" in shown.output
        told = await verb(str(file_id), "--url", url, "--json")
        assert (told.exit_code, json.loads(told.stdout)["held_up_by"]) == (1, "outbox")
        async with relay(), running_projector():
            await held_up_by(trace, file_id, "nothing")
            shown = await verb(str(file_id), "--url", url)
            assert (shown.exit_code, "VISIBLE" in shown.output) == (0, True)
            told = await verb(str(file_id), "--url", url, "--json")
            assert (told.exit_code, json.loads(told.stdout)["held_up_by"]) == (0, "nothing")
        unknown = await verb(str(uuid4()), "--url", url)
        assert unknown.exit_code == 1
        assert "Nobody knows a file" in str(unknown.exception)
        assert (await verb("not-an-id", "--url", url)).exit_code == 2
