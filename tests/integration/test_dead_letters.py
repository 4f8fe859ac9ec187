"""Dead letters over a real broker and a real database: kept as they were, tried again through the fence, never lost."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncEngine

from consumer_query import read_model
from consumer_query.api_process import dead_letters_desk, query_app
from consumer_query.dead_letter_log import DeadLetterLog
from consumer_query.dead_letters import FOREIGN, DeadLetter, TopicDeadLetters
from consumer_query.records import Reason, RecordReader
from consumer_query.resolutions import Resolutions, Status
from consumer_query.settings import QueryApiSettings
from local.kafka import EmbeddedKafka
from local.ports import free_port
from producer_admin import elements, files
from producer_admin.api_process import admin_app
from producer_admin.files import FileRecord
from producer_admin.republish_api import MOST_AT_LEAST
from producer_admin.saga_steps import Means
from runtime import acknowledged
from runtime.acknowledged import NewRecord
from runtime.kafka import idempotent_producer, transactional_producer
from runtime.postgres import open_pool
from runtime.topics import ensure_topics
from runtime.whole_topic import whole_topic
from schemas.codec import encode
from schemas.events import FileEvent
from tests.backends import Backend
from tests.integration.conftest import LIMITS, Topic
from tests.running import run_verb, served
from tests.samples import MOMENT, created, deleted, metadata, updated

Client = httpx.AsyncClient
GROUPS = "http://query/api/v1/admin/dlq"
NUL = "a\x00b"


@pytest.fixture
def dlq(topic: str) -> str:
    return f"{topic}.dlq"


@pytest.fixture
async def writer(backend: Backend, dlq: str) -> AsyncIterator[TopicDeadLetters]:
    made = TopicDeadLetters(backend.bootstrap_servers, dlq)
    yield made
    await made.close()


@asynccontextmanager
async def query_api(
    pool: asyncpg.Pool, servers: str | None, topic: str, admin_url: str | None = None
) -> AsyncIterator[Client]:
    """A client of a Query API of its own."""
    settings = QueryApiSettings(
        query_database_url="postgresql://unused",
        kafka_bootstrap_servers=servers,
        file_events_topic=topic,
        admin_api_url=admin_url,
    )
    async with dead_letters_desk(pool, settings) as desk:
        transport = httpx.ASGITransport(query_app(pool, desk), raise_app_exceptions=False)
        async with Client(transport=transport, base_url="http://query/api/v1/admin/dlq") as client:
            yield client


@pytest.fixture
async def api(query_pool: asyncpg.Pool, backend: Backend, topic: str) -> AsyncIterator[Client]:
    async with query_api(query_pool, backend.bootstrap_servers, topic) as client:
        yield client


def letter(event: FileEvent, offset: int, **changes: Any) -> DeadLetter:
    """A letter that would be applied, were it tried now."""
    made = DeadLetter(
        topic="events",
        partition=3,
        offset=offset,
        timestamp_ms=1_768_298_400_000,
        key=str(event.file_id).encode(),
        value=encode(event),
        headers=(("revision", b"%d" % event.revision), ("event_id", str(event.event_id).encode())),
        reason=Reason.UNDECODABLE,
        error="BadRecordError: no",
        at=MOMENT,
        attempt=1,
        group="group",
    )
    return replace(made, **changes)


async def apply(pool: asyncpg.Pool, *events: FileEvent) -> None:
    states = [RecordReader(None).state_of(str(one.file_id).encode(), encode(one), {}) for one in events]
    async with pool.acquire() as connection, connection.transaction():
        await read_model.apply(connection, 1, [read_model.row_of(one) for one in states])


async def cached(pool: asyncpg.Pool) -> dict[UUID, int]:
    rows = await pool.fetch("SELECT file_id, revision FROM file_metadata_cache_g1")
    return {row["file_id"]: row["revision"] for row in rows}


async def asked(api: Client, verb: str, **body: Any) -> dict[str, Any]:
    answer = await api.post(f"/{verb}", json=body, headers={"X-Actor": "tests"})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def statuses(api: Client) -> dict[int, str]:
    """Status by source offset."""
    found = (await api.get("/letters", params={"limit": 500})).json()["letters"]
    return {int(one["position"].rpartition("/")[2]): one["status"] for one in found}


async def everything(servers: str, topic: str) -> list[Any]:
    async with aclosing(whole_topic(servers, topic)) as records:
        return [record async for record in records]


async def test_a_letter_comes_back_as_the_record_was(
    writer: TopicDeadLetters, backend: Backend, topic: str, dlq: str
) -> None:
    event = created()
    odd = (("", b""), ("same", b"1"), ("same", None), ("dlq.reason", b"theirs"))
    put = [
        letter(event, 1),
        letter(event, 2, value=None, headers=odd),
        letter(event, 3, key=None, value=None, headers=()),
        letter(event, 4, value=os.urandom(1_000_000)),
        letter(event, 5, value=b"x" * 6_000_000),
    ]
    await writer.put(put)
    resolutions = Resolutions(backend.bootstrap_servers, f"{topic}.dlq-resolutions")
    async with aclosing(DeadLetterLog(backend.bootstrap_servers, dlq, resolutions).read()) as letters:
        assert [one.letter async for one in letters] == put


async def test_what_is_not_acknowledged_raises_in_time_and_the_next_put_starts_anew(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acknowledged, "PUT_SECONDS", 3)
    name = f"test-{uuid4().hex[:12]}"
    writer, one = TopicDeadLetters(backend.bootstrap_servers, f"{name}.dlq"), letter(created(), 1)
    with pytest.raises((KafkaError, TimeoutError)):
        await writer.put([one])
    await ensure_topics(backend.bootstrap_servers, name)
    await writer.put([one])
    with pytest.raises(KafkaError):
        await writer.put([letter(created(), 2, value=os.urandom(3_000_000))])
    await writer.put([letter(created(), 3)])
    await writer.close()
    assert [
        int(dict(one.headers)["dlq.offset"]) for one in await everything(backend.bootstrap_servers, f"{name}.dlq")
    ] == [
        1,
        3,
    ]

    away = TopicDeadLetters(f"127.0.0.1:{free_port()}", f"{name}.dlq")
    async with asyncio.timeout(6):
        with pytest.raises((KafkaError, TimeoutError)):
            await away.put([one])
        await away.close()


async def test_a_broker_that_dies_is_given_up_in_time_and_written_to_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acknowledged, "PUT_SECONDS", 4)
    kafka = EmbeddedKafka(tmp_path / "kafka", free_port())
    await asyncio.to_thread(kafka.start)
    try:
        await ensure_topics(kafka.bootstrap_servers, "events")
        writer = TopicDeadLetters(kafka.bootstrap_servers, "events.dlq")
        await writer.put([letter(created(), 1)])
        await asyncio.to_thread(kafka.kill)
        async with asyncio.timeout(8):
            with pytest.raises((KafkaError, TimeoutError)):
                await writer.put([letter(created(), 2)])
        await asyncio.to_thread(kafka.start)
        await writer.put([letter(created(), 3)])
        await writer.close()
        letters = await everything(kafka.bootstrap_servers, "events.dlq")
    finally:
        await asyncio.to_thread(kafka.stop)
    assert [int(dict(one.headers)["dlq.offset"]) for one in letters] == [1, 3]


async def test_a_topic_is_read_to_its_end_though_records_are_missing_there(backend: Backend, dlq: str) -> None:
    async with transactional_producer(backend.bootstrap_servers, dlq) as producer:
        for value, kept in ((b"1", True), (b"2", False), (b"3", True), (b"4", False)):
            await producer.begin_transaction()
            await producer.send_and_wait(dlq, value, partition=0)
            await (producer.commit_transaction() if kept else producer.abort_transaction())
    async with asyncio.timeout(10):
        assert [record.value for record in await everything(backend.bootstrap_servers, dlq)] == [b"1", b"3"]


async def test_letters_are_counted_once_each_and_foreign_records_are_listed(
    writer: TopicDeadLetters, api: Client, backend: Backend, dlq: str, query_pool: asyncpg.Pool
) -> None:
    first, second = created(original_filename="Отчёт.pdf"), created(revision=7)
    put = [
        letter(first, 1),
        letter(first, 2, value=b"\xff"),
        letter(created(original_filename=NUL), 3, reason=Reason.UNSTORABLE_TEXT, error="Other: text"),
    ]
    await writer.put(put)
    await writer.put(put)
    async with idempotent_producer(backend.bootstrap_servers, "stranger") as producer:
        key, headers = str(second.file_id).encode(), [("revision", b"7")]
        await producer.send_and_wait(dlq, encode(second), key, 0, headers=headers)
    await asked(api, "drop", position="events/3/2")

    found = (await api.get(GROUPS)).json()
    assert (found["open"], found["resolved"]) == (3, 1)
    groups = {one["reason"]: one for one in found["groups"]}
    assert (groups["undecodable"]["open"], groups["undecodable"]["resolved"]) == (1, 1)
    [example] = groups["undecodable"]["examples"]
    assert (example["file_id"], example["revision"], example["name"]) == (str(first.file_id), 1, "Отчёт.pdf")
    assert (groups["unstorable_text"]["error"], groups["unstorable_text"]["examples"][0]["name"]) == ("Other", NUL)
    assert groups[FOREIGN]["examples"][0]["position"] == f"{dlq}/0/6"

    page = (await api.get("/letters", params={"status": "open", "limit": 2})).json()
    rest = (await api.get("/letters", params={"status": "open", "cursor": page["next_cursor"]})).json()
    assert [one["position"] for one in page["letters"]] == ["events/3/1", "events/3/3"]
    assert rest["letters"][-1]["reason"] == FOREIGN
    assert (await asked(api, "redrive", reason=FOREIGN))["outcomes"] == {"failed": 1}
    assert await cached(query_pool) == {}
    assert (await asked(api, "drop", reason=FOREIGN))["outcomes"] == {"dropped": 1}


async def test_one_letter_is_shown_whole(writer: TopicDeadLetters, api: Client) -> None:
    event = created()
    await writer.put([letter(event, 1), letter(event, 2, key=b"\xff", value=b"\x00\xff", headers=(("h", b"\xfe"),))])
    await asked(api, "drop", position="events/3/2", note="a test of a partner")
    whole = (await api.get("/letters/events/3/1")).json()
    assert whole["record"]["metadata"]["original_filename"] == "document.pdf"
    assert (whole["status"], whole["history"], whole["group"]) == ("open", [], "group")
    broken = (await api.get("/letters/events/3/2")).json()
    assert (broken["key"], broken["value_base64"], broken["record"]) == ("\\xff", "AP8=", None)
    assert broken["headers"] == [{"name": "h", "value": "\\xfe"}]
    [action] = broken["history"]
    assert (action["actor"], action["action"], action["outcome"]) == ("tests", "drop", "dropped")
    assert action["note"] == "a test of a partner"
    missing = await api.get("/letters/events/3/9")
    assert (missing.status_code, missing.json()["title"]) == (404, "Dead letter not found")


async def test_a_redrive_applies_what_it_can_skips_what_is_newer_and_tells_why_not_the_rest(
    writer: TopicDeadLetters, api: Client, query_pool: asyncpg.Pool, events_topic: Topic
) -> None:
    fine, newer, gone, bad, known = created(), created(), created(), created(original_filename=NUL), created()
    await apply(query_pool, updated(newer.file_id, 3), deleted(gone.file_id, 5), updated(known.file_id, 2))
    tombstone = letter(fine, 6, value=None, key=str(uuid4()).encode(), headers=(("revision", b"2"),))
    await writer.put(
        [
            letter(fine, 1),
            letter(newer, 2),
            letter(gone, 3),
            letter(bad, 4),
            letter(known, 5, value=b"\xff", headers=(("revision", b"2"),)),
            tombstone,
            letter(known, 7, value=b"\xff", headers=(("revision", b"3"),)),
            letter(created(description=" ".join(f"{number:09}" for number in range(200_000))), 8),
        ]
    )
    before = await cached(query_pool)
    answer = await asked(api, "redrive", all=True)
    assert await statuses(api) == {
        1: "redriven",
        2: "superseded",
        3: "superseded",
        4: "failed",
        5: "superseded",
        6: "redriven",
        7: "failed",
        8: "failed",
    }
    assert answer["outcomes"] == {"redriven": 2, "superseded": 3, "failed": 3}
    notes = {one["letter"]["position"][-1]: one["note"] for one in answer["letters"]}
    assert "NUL" in notes["4"]
    assert "revision 5" in notes["3"]
    assert tombstone.key is not None
    assert await cached(query_pool) == before | {fine.file_id: 1, UUID(tombstone.key.decode()): 2}
    assert await events_topic.records() == []
    assert await query_pool.fetchval("SELECT count(*) FROM projector_positions") == 0


async def test_what_was_done_outlives_the_process_and_the_cache(
    writer: TopicDeadLetters, query_pool: asyncpg.Pool, backend: Backend, topic: str
) -> None:
    event = created()
    await writer.put([letter(event, 1), letter(created(), 2, value=b"\xff")])
    async with query_api(query_pool, backend.bootstrap_servers, topic) as api:
        await asked(api, "redrive", all=True)
    await query_pool.execute("TRUNCATE file_metadata_cache_g1")
    async with query_api(query_pool, backend.bootstrap_servers, topic) as api:
        assert await statuses(api) == {1: "redriven", 2: "failed"}
        # The emptied cache is filled from the topic, and its projector finds the record as bad as ever.
        await writer.put([letter(event, 1, at=datetime.now(UTC) + timedelta(seconds=1))])
        assert (await api.get(GROUPS)).json()["open"] == 2
        assert (await asked(api, "redrive", position="events/3/1"))["outcomes"] == {"redriven": 1}
        history = (await api.get("/letters/events/3/1")).json()["history"]
    assert [one["outcome"] for one in history] == ["redriven", "redriven"]
    assert await cached(query_pool) == {event.file_id: 1}


async def test_after_five_failures_a_letter_is_left_alone_unless_forced(writer: TopicDeadLetters, api: Client) -> None:
    await writer.put([letter(created(), 1, value=b"\xff"), letter(created(), 2, value=b"\xff")])
    for _ in range(5):
        assert (await asked(api, "redrive", position="events/3/1"))["outcomes"] == {"failed": 1}
    left = await asked(api, "redrive", all=True)
    assert (left["outcomes"], left["exhausted"]) == ({"failed": 1}, 1)
    assert (await asked(api, "redrive", position="events/3/1", force=True))["outcomes"] == {"failed": 1}
    assert (await api.get("/letters/events/3/1")).json()["attempts"] == 6
    assert (await asked(api, "drop", all=True))["outcomes"] == {"dropped": 2}


async def test_a_dry_run_says_the_same_and_changes_nothing(
    writer: TopicDeadLetters, api: Client, query_pool: asyncpg.Pool
) -> None:
    newer = created()
    await apply(query_pool, updated(newer.file_id, 2))
    await writer.put([letter(created(), 1), letter(newer, 2), letter(created(), 3, value=b"\xff")])
    before = await cached(query_pool)
    rehearsed = await asked(api, "redrive", all=True, dry_run=True)
    assert await cached(query_pool) == before
    assert set((await statuses(api)).values()) == {"open"}
    assert (await asked(api, "drop", all=True, dry_run=True))["outcomes"] == {"dropped": 3}
    assert (await asked(api, "redrive", all=True))["outcomes"] == rehearsed["outcomes"]


async def test_a_call_does_so_much_and_says_what_is_left(
    writer: TopicDeadLetters, api: Client, query_pool: asyncpg.Pool
) -> None:
    events = [created() for _ in range(120)]
    await writer.put([letter(event, number) for number, event in enumerate(events)])
    await writer.put([letter(created(), 1_000, reason=Reason.OUT_OF_RANGE)])
    wanted: dict[str, Any] = {"reason": Reason.UNDECODABLE, "limit": 55}
    lefts: list[int] = []
    cursor: int | None = 0
    while cursor is not None:
        answer = await asked(api, "redrive", **wanted, cursor=cursor)
        lefts.append(answer["left"])
        cursor = answer["next_cursor"]
    assert lefts == [65, 10, 0]
    assert await cached(query_pool) == {event.file_id: 1 for event in events}
    assert (await api.get(GROUPS)).json()["open"] == 1


async def test_while_the_database_is_away_nothing_is_marked(
    writer: TopicDeadLetters, backend: Backend, topic: str, query_database: str, query_pool: asyncpg.Pool
) -> None:
    await writer.put([letter(created(), 1), letter(created(), 2)])
    closed = await open_pool(query_database, "tests")
    await closed.close()
    async with query_api(closed, backend.bootstrap_servers, topic) as api:
        answer = await api.post("/redrive", json={"all": True})
        assert (answer.status_code, answer.json()["title"]) == (503, "Dead letters not available")
        assert answer.headers["content-type"] == "application/problem+json"
        assert await statuses(api) == {1: "open", 2: "open"}
    async with query_api(query_pool, backend.bootstrap_servers, topic) as api:
        assert (await asked(api, "redrive", all=True))["outcomes"] == {"redriven": 2}


async def test_what_was_done_before_a_passing_fault_is_marked(
    writer: TopicDeadLetters, backend: Backend, topic: str, query_pool: asyncpg.Pool
) -> None:
    """A letter that has to be asked of an Admin API that is away stands behind one that has not."""
    newer = created()
    await apply(query_pool, updated(newer.file_id, 2))
    await writer.put([letter(newer, 1), letter(created(), 2)])
    nobody = f"http://127.0.0.1:{free_port()}"
    async with query_api(query_pool, backend.bootstrap_servers, topic, nobody) as api:
        answer = await api.post("/redrive", json={"all": True, "how": "republish"})
        assert answer.status_code == 503
        assert "Admin API" in answer.json()["detail"]
        assert await statuses(api) == {1: "superseded", 2: "open"}


async def test_a_letter_whose_transaction_fails_for_a_reason_of_its_own_does_not_stop_the_next(
    writer: TopicDeadLetters, api: Client, query_pool: asyncpg.Pool
) -> None:
    refused, fine = created(storage_path="refuse"), created()
    await query_pool.execute("ALTER TABLE file_metadata_cache_g1 ADD CHECK (storage_path <> 'refuse')")
    await writer.put([letter(refused, 1), letter(fine, 2)])
    assert (await asked(api, "redrive", all=True))["outcomes"] == {"failed": 1, "redriven": 1}
    assert "CheckViolation" in (await api.get("/letters/events/3/1")).json()["history"][0]["note"]


@pytest.fixture
async def known(admin_engine: AsyncEngine, storage_folder: Path) -> UUID:
    """A file of the Admin module, at revision 1."""
    await elements.ensure(admin_engine, "se-01", storage_folder.as_uri())
    file_id = uuid4()
    async with admin_engine.begin() as connection:
        await files.take_over(connection, [FileRecord(file_id, 1, "se-01", metadata())], "tests")
    return file_id


async def test_a_republish_outranks_the_letter_and_is_refused_for_a_file_that_admin_does_not_know(
    writer: TopicDeadLetters,
    backend: Backend,
    topic: str,
    query_pool: asyncpg.Pool,
    means: Means,
    admin_engine: AsyncEngine,
    admin_pool: asyncpg.Pool,
    known: UUID,
) -> None:
    await writer.put(
        [
            letter(updated(known, 8), 1, value=b"\xff"),
            letter(created(), 2),
            letter(created(), 3, key=b"none", value=b"\xff"),
            letter(updated(known, 2**63 - 1), 4),
        ]
    )
    async with (
        served(admin_app(means, admin_engine, LIMITS)) as admin_url,
        query_api(query_pool, backend.bootstrap_servers, topic, admin_url) as api,
    ):
        before = await admin_pool.fetchval("SELECT count(*) FROM outbox")
        rehearsed = await asked(api, "redrive", position="events/3/1", how="republish", dry_run=True)
        assert rehearsed["outcomes"] == {"republished": 1}
        assert await admin_pool.fetchval("SELECT count(*) FROM outbox") == before
        answer = await asked(api, "redrive", all=True, how="republish")
        assert await statuses(api) == {1: "republished", 2: "failed", 3: "failed", 4: "failed"}
    assert "knows no file" in answer["letters"][1]["note"]
    assert await admin_pool.fetchval("SELECT max(revision) FROM outbox WHERE file_id = $1", known) == 9
    assert await admin_pool.fetchval("SELECT actor FROM outbox ORDER BY outbox_id DESC LIMIT 1") == "tests"


async def test_republish_over_rest_announces_deleted_files_too_and_bounds_what_is_asked(
    admin: Client, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool, known: UUID
) -> None:
    url = "http://admin/api/v1/admin/republish"
    async with admin_engine.begin() as connection:
        await files.delete(connection, known, "tests")
    answer = await admin.post(
        url, json={"file_ids": [str(known), str(uuid4())], "at_least": 40}, headers={"X-Actor": "%D0%9E%D0%BB%D1%8F"}
    )
    assert (answer.status_code, answer.json()) == (200, {"announced": 1})
    row = await admin_pool.fetchrow("SELECT revision, event_type, actor FROM outbox ORDER BY outbox_id DESC LIMIT 1")
    assert row is not None
    assert tuple(row) == (41, "file:deleted", "Оля")
    refusals: list[dict[str, Any]] = [
        {"file_ids": []},
        {"file_ids": [str(known)] * 501},
        {"file_ids": [str(known)], "at_least": MOST_AT_LEAST + 1},
        {"file_ids": [str(known)], "at_least": -1},
    ]
    for refused in refusals:
        answer = await admin.post(url, json=refused)
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"all": True, "reason": "x"},
        {"all": True, "limit": 501},
        {"all": True, "cursor": -1},
        {"all": True, "how": "rewrite"},
        {"al": True},
    ],
)
async def test_an_order_that_does_not_say_what_is_meant_is_refused(api: Client, body: dict[str, Any]) -> None:
    answer = await api.post("/redrive", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize("actor", ["", "%FF", "a%0Ab", "x" * 101])
async def test_an_actor_that_cannot_be_logged_is_refused(api: Client, actor: str) -> None:
    answer = await api.post("/drop", json={"all": True}, headers={"X-Actor": actor})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "X-Actor")


async def test_search_needs_no_kafka_and_the_rest_says_what_is_missing(query_pool: asyncpg.Pool, topic: str) -> None:
    for servers, missing in ((None, "KAFKA_BOOTSTRAP_SERVERS"), (f"127.0.0.1:{free_port()}", "Kafka does not answer")):
        async with query_api(query_pool, servers, topic) as api:
            assert (await api.get("http://query/api/v1/files/search", params={"query": "x"})).status_code == 200
            for answer in (await api.get(GROUPS), await api.post("/redrive", json={"all": True})):
                assert answer.status_code == 503
                assert missing in answer.json()["detail"]


async def test_topics_that_were_never_made_are_named(query_pool: asyncpg.Pool, backend: Backend) -> None:
    async with query_api(query_pool, backend.bootstrap_servers, f"test-{uuid4().hex[:12]}") as api:
        answer = await api.get(GROUPS)
    assert answer.status_code == 503
    assert "artstore topics ensure" in answer.json()["detail"]


async def test_a_resolution_that_cannot_be_read_leaves_its_letter_open(
    writer: TopicDeadLetters, api: Client, backend: Backend, topic: str
) -> None:
    await writer.put([letter(created(), 1)])
    resolutions = acknowledged.AcknowledgedTopic(backend.bootstrap_servers, f"{topic}.dlq-resolutions", "tests")
    await resolutions.put([NewRecord(b"events/3/1", b"{}"), NewRecord(b"other", None)])
    await resolutions.close()
    assert await statuses(api) == {1: Status.OPEN}


async def dlq_verb(url: str, *arguments: str) -> tuple[int, str, str]:
    return await run_verb((sys.executable, "-P", "-m", "cli", "dlq", *arguments, "--url", url))


async def test_letters_are_listed_shown_redriven_and_dropped_from_the_command_line(
    writer: TopicDeadLetters, query_pool: asyncpg.Pool, backend: Backend, topic: str
) -> None:
    events = [created(original_filename="Отчёт [bold]\x1b[31m.pdf") for _ in range(230)]
    await writer.put([letter(event, number) for number, event in enumerate(events)])
    await writer.put([letter(created(), 300, value=b"\xff", reason=Reason.BREAKS_CONTRACT)])
    settings = QueryApiSettings(
        query_database_url="postgresql://unused",
        kafka_bootstrap_servers=backend.bootstrap_servers,
        file_events_topic=topic,
    )
    async with dead_letters_desk(query_pool, settings) as desk, served(query_app(query_pool, desk)) as url:
        code, out, err = await dlq_verb(url, "list")
        assert code == 0, err
        assert "undecodable" in out
        assert "Отчёт [bold]\\u001b[31m.pdf" in out
        assert "231 open, 0 resolved" in out

        code, out, _ = await dlq_verb(url, "show", "events/3/0", "--json")
        assert (code, json.loads(out)["record"]["file_id"]) == (0, str(events[0].file_id))
        code, out, _ = await dlq_verb(url, "redrive", "--all", "--dry-run")
        assert (code, "230 would be redriven" in out, "1 would be failed" in out) == (1, True, True)
        assert await cached(query_pool) == {}

        code, out, _ = await dlq_verb(url, "redrive", "--reason", "undecodable", "--actor", "Оля")
        assert (code, out) == (0, "230 redriven\n")
        assert await cached(query_pool) == {event.file_id: 1 for event in events}
        code, out, _ = await dlq_verb(url, "show", "events/3/0")
        assert (code, "Оля" in out, "\x1b" in out) == (0, True, False)

        code, out, _ = await dlq_verb(url, "redrive", "--all", "--json")
        answer = json.loads(out)
        assert (code, answer["outcomes"], answer["left"]) == (1, {"failed": 1}, 0)
        code, out, _ = await dlq_verb(url, "drop", "events/3/300", "--note", "theirs")
        assert (code, out) == (0, "1 dropped\n")
        code, _, err = await dlq_verb(url, "drop", "events/3/300")
        assert (code, "No open dead letter was read at events/3/300" in err) == (1, True)
        code, out, _ = await dlq_verb(url, "list", "--status", "dropped", "--json")
        assert [one["position"] for one in json.loads(out)["letters"]] == ["events/3/300"]

        for wrong in (("redrive",), ("drop", "--all", "--reason", "x"), ("show", "events")):
            assert (await dlq_verb(url, *wrong))[0] == 2
    code, _, err = await dlq_verb(url, "list")
    assert (code, "Traceback" in err) == (1, False)
