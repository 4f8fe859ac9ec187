"""The projector over a real topic and a real database: exactly the right rows, whatever happens on the way."""

import asyncio
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self
from uuid import uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from consumer_query import positions as stored_positions
from consumer_query import projector as projector_module
from consumer_query import read_model
from consumer_query.dead_letters import TopicDeadLetters
from consumer_query.errors import PositionMovedError
from consumer_query.migrations import run_migrate
from consumer_query.positions import Move
from consumer_query.projector import Limits, Projector
from consumer_query.read_model import Row
from consumer_query.records import Reason, RecordReader
from consumer_query.settings import QueryDatabaseSettings
from producer_admin.outbox import shard_of
from runtime.health import NotReadyError
from runtime.kafka import group_consumer, group_lag, transactional_producer
from runtime.topics import ensure_topics
from schemas.codec import encode
from schemas.events import FileEvent
from schemas.topics import DEAD_LETTERS, topic_name
from tests.backends import Backend
from tests.integration.conftest import Running, Topic, cache_guard, cached, dead_letters, produce
from tests.running import running
from tests.samples import created, deleted, updated
from tests.waiting import eventually, settles


def row_of(event: FileEvent) -> Row:
    return read_model.row_of(RecordReader(None).state_of(str(event.file_id).encode(), encode(event), {}))


async def everything(pool: asyncpg.Pool) -> list[Any]:
    """All rows whole, deletions too."""
    return [tuple(row) for row in await pool.fetch("SELECT * FROM file_metadata_cache_g1 ORDER BY file_id")]


def positions(pool: asyncpg.Pool) -> Callable[[], Any]:
    async def look() -> dict[int, int]:
        rows = await pool.fetch("SELECT partition, next_offset FROM projector_positions WHERE next_offset > 0")
        return {row["partition"]: row["next_offset"] for row in rows}

    return look


async def test_created_updated_and_deleted_do_what_they_say(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    first, second = created(), created(original_filename="b.txt", tags=())
    async with running_projector():
        await events_topic.announce(first, second)
        await settles(cached(query_pool), {first.file_id: 1, second.file_id: 1})
        await events_topic.announce(updated(first.file_id, 2, description=None), deleted(second.file_id, 2))
        await settles(cached(query_pool), {first.file_id: 2})
    row = await query_pool.fetchrow("SELECT * FROM file_metadata_cache")
    assert row is not None
    assert (row["description"], row["tags"], row["created_by_fullname"]) == (
        None,
        ["urgent", "contract"],
        "Иван Иванов",
    )


async def test_an_update_of_a_file_that_is_not_there_inserts_it(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    file_id = uuid4()
    await events_topic.announce(updated(file_id, 5))
    async with running_projector():
        await settles(cached(query_pool), {file_id: 5})


async def test_an_older_event_neither_overwrites_nor_resurrects(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    kept, gone, last = created(), created(), created()
    async with running_projector():
        await events_topic.announce(kept, updated(kept.file_id, 3, description="newer"))
        await events_topic.announce(gone, deleted(gone.file_id, 4))
        await settles(cached(query_pool), {kept.file_id: 3})
        await events_topic.announce(updated(kept.file_id, 2), updated(gone.file_id, 3), gone, last)
        await settles(cached(query_pool), {kept.file_id: 3, last.file_id: 1})
    description = "SELECT description FROM file_metadata_cache WHERE file_id = $1"
    assert await query_pool.fetchval(description, kept.file_id) == "newer"


async def test_a_tombstone_alone_deletes(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    """After compaction only the tombstone of a deleted file is left."""
    event = created()
    async with running_projector():
        await events_topic.announce(event)
        await settles(cached(query_pool), {event.file_id: 1})
        await produce(events_topic, event.file_id, None, [("revision", b"2")])
        await settles(cached(query_pool), {})


async def test_a_reset_of_the_group_backwards_replays_and_changes_nothing(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, group: str
) -> None:
    events = [created() for _ in range(20)]
    await events_topic.announce(*events, updated(events[0].file_id, 2), deleted(events[1].file_id, 2))
    expected = {event.file_id: 1 for event in events[2:]} | {events[0].file_id: 2}
    async with running_projector():
        await settles(cached(query_pool), expected)
        await settles(lambda: group_lag(events_topic.bootstrap_servers, group, events_topic.name), 0)
    before, stood = await everything(query_pool), await positions(query_pool)()
    await reset(events_topic, group, 0)
    async with running_projector():
        await settles(lambda: group_lag(events_topic.bootstrap_servers, group, events_topic.name), 0)
    assert await everything(query_pool) == before
    assert await positions(query_pool)() == stood


async def test_a_reset_of_the_group_forwards_skips_nothing(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, group: str
) -> None:
    first, second = created(), created()
    await events_topic.announce(first)
    async with running_projector():
        await settles(cached(query_pool), {first.file_id: 1})
    await events_topic.announce(second)
    await reset(events_topic, group, None)
    async with running_projector():
        await settles(cached(query_pool), {first.file_id: 1, second.file_id: 1})


async def test_an_emptied_database_is_filled_again_though_the_group_has_read_all(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    event = created()
    await events_topic.announce(event)
    async with running_projector():
        await settles(cached(query_pool), {event.file_id: 1})
    await query_pool.execute("TRUNCATE file_metadata_cache_g1, projector_positions")
    async with running_projector():
        await settles(cached(query_pool), {event.file_id: 1})


async def test_an_idle_group_has_no_lag_although_the_log_ends_in_transaction_markers(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, group: str
) -> None:
    event = created()
    await events_topic.announce(event)
    async with running_projector():
        await settles(cached(query_pool), {event.file_id: 1})
        await settles(lambda: group_lag(events_topic.bootstrap_servers, group, events_topic.name), 0)


async def test_committed_offsets_are_never_beyond_the_rows(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, group: str
) -> None:
    events = [created() for _ in range(30)]
    partitions = [TopicPartition(events_topic.name, number) for number in range(12)]
    async with (
        running_projector(batch_size=3),
        group_consumer(events_topic.bootstrap_servers, group, "observer") as observer,
    ):
        announcing = asyncio.create_task(events_topic.announce(*events))
        seen = 0
        while seen < len(events):
            committed = {one.partition: await observer.committed(one) or 0 for one in partitions}
            stored = await positions(query_pool)()
            assert all(offset <= stored.get(number, 0) for number, offset in committed.items())
            seen = len(await cached(query_pool)())
        await announcing


async def test_rows_that_cannot_be_written_hold_the_offsets_back_and_come_when_they_can(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, group: str
) -> None:
    await query_pool.execute("ALTER TABLE file_metadata_cache_g1 ADD CONSTRAINT closed CHECK (false)")
    event = created()
    partition = TopicPartition(events_topic.name, shard_of(event.file_id))
    async with running_projector() as projector:
        await events_topic.announce(event)
        await eventually(lambda: complains(projector, "closed"))
        async with group_consumer(events_topic.bootstrap_servers, group, "observer") as observer:
            assert not await observer.committed(partition)
        assert await positions(query_pool)() == {}
        await query_pool.execute("ALTER TABLE file_metadata_cache_g1 DROP CONSTRAINT closed")
        await settles(cached(query_pool), {event.file_id: 1})


async def test_what_a_relay_did_not_commit_is_not_applied(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    aborted, last = created(), created()
    producer = transactional_producer(events_topic.bootstrap_servers, f"test-{uuid4().hex[:8]}")
    async with running_projector(), producer:
        await producer.begin_transaction()
        await producer.send_and_wait(
            events_topic.name, value=encode(aborted), key=str(aborted.file_id).encode(), partition=0
        )
        await producer.abort_transaction()
        await events_topic.announce(last)
        await settles(cached(query_pool), {last.file_id: 1})


async def test_two_projectors_share_the_work_and_end_in_the_same_rows(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    events = [created() for _ in range(40)]
    async with running_projector():
        announcing = asyncio.create_task(events_topic.announce(*events))
        async with running_projector():
            await announcing
            await settles(cached(query_pool), {event.file_id: 1 for event in events}, seconds=40)
        last = created()
        await events_topic.announce(last)
        await settles(cached(query_pool), {event.file_id: 1 for event in [*events, last]}, seconds=40)


async def test_a_projector_survives_the_loss_of_its_database_connections(
    query_pool: asyncpg.Pool, query_database: str, events_topic: Topic, running_projector: Running
) -> None:
    first, second = created(), created()
    async with running_projector():
        await events_topic.announce(first)
        await settles(cached(query_pool), {first.file_id: 1})
        outsider = await asyncpg.connect(query_database)
        await outsider.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid != pg_backend_pid()"
        )
        await outsider.close()
        await events_topic.announce(second)
        await eventually(lambda: has(query_pool, second))


async def test_types_that_were_lost_and_made_anew_are_learned_without_a_restart(
    query_pool: asyncpg.Pool, query_database: str, events_topic: Topic, running_projector: Running
) -> None:
    first, second = created(), created()
    async with running_projector() as projector:
        await events_topic.announce(first)
        await settles(cached(query_pool), {first.file_id: 1})
        await query_pool.execute("DROP DOMAIN cache_rows; DROP TYPE cache_row")
        await query_pool.execute("UPDATE alembic_version SET version_num = '0008'")
        await events_topic.announce(second)
        await eventually(lambda: complains(projector, "unknown type"))
        await run_migrate(QueryDatabaseSettings.model_validate({"query_database_url": query_database}))
        await settles(cached(query_pool), {first.file_id: 1, second.file_id: 1})


async def has(pool: asyncpg.Pool, event: FileEvent) -> bool:
    try:
        return bool(await pool.fetchval("SELECT 1 FROM file_metadata_cache WHERE file_id = $1", event.file_id))
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return False


async def test_rows_that_are_too_much_for_one_value_go_in_portions(
    query_pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row_of(created()) for _ in range(7)]
    monkeypatch.setattr(read_model, "PORTION_BYTES", 2 * len(rows[0].record))
    async with query_pool.acquire() as connection, connection.transaction():
        assert await read_model.apply(connection, 1, rows[:2]) == 2
        assert await read_model.apply(connection, 1, rows) == 5
    assert await query_pool.fetchval("SELECT count(*) FROM file_metadata_cache") == 7


async def test_a_projector_that_lost_a_partition_moves_neither_its_position_nor_its_rows(
    query_pool: asyncpg.Pool, events_topic: Topic
) -> None:
    async def apply(event: FileEvent, since: int, upto: int) -> None:
        async with query_pool.acquire() as connection, connection.transaction():
            await read_model.apply(connection, 1, [row_of(event)])
            await stored_positions.move(connection, 1, events_topic.name, {3: Move(since, upto)})

    mine, late = created(), created()
    async with query_pool.acquire() as connection:
        await stored_positions.take(connection, 1, events_topic.name, {3: 5})
    await apply(mine, 5, 7)
    with pytest.raises(PositionMovedError):
        await apply(late, 5, 9)
    assert await positions(query_pool)() == {3: 7}
    assert await cached(query_pool)() == {mine.file_id: 1}


async def test_a_position_that_another_projector_moved_is_taken_up_again_and_nothing_is_missed(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    first, second = created(), created()
    async with running_projector():
        await events_topic.announce(first)
        await settles(cached(query_pool), {first.file_id: 1})
        await query_pool.execute("UPDATE projector_positions SET next_offset = 0")
        await events_topic.announce(second)
        await settles(cached(query_pool), {first.file_id: 1, second.file_id: 1})


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b"rubbish", [], Reason.UNDECODABLE),
        (None, [], Reason.BREAKS_CONTRACT),
        (encode(created()), [("revision", b"1")], Reason.BREAKS_CONTRACT),
        (None, [("revision", b"0")], Reason.BREAKS_CONTRACT),
    ],
    ids=["rubbish", "a tombstone without revision", "another file's event", "a revision below 1"],
)
async def test_a_bad_record_is_put_aside_whole_and_does_not_hold_up_the_others(
    query_pool: asyncpg.Pool,
    events_topic: Topic,
    running_projector: Running,
    value: bytes | None,
    headers: list[tuple[str, bytes]],
    reason: Reason,
) -> None:
    first = created()
    async with running_projector():
        await events_topic.announce(first)
        await produce(events_topic, first.file_id, value, headers)
        await events_topic.announce(updated(first.file_id, 2))
        await settles(cached(query_pool), {first.file_id: 2})
    [letter] = await dead_letters(events_topic)
    assert (letter.key, letter.value, list(letter.headers)) == (str(first.file_id).encode(), value, headers)
    assert letter.reason == reason
    assert (letter.topic, letter.partition) == (events_topic.name, shard_of(first.file_id))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"description": "a\x00b"}, Reason.UNSTORABLE_TEXT),
        ({"tags": ("fine", "\x00")}, Reason.UNSTORABLE_TEXT),
        ({"description": " ".join(f"word{number:x}" for number in range(120_000))}, Reason.TOO_MANY_WORDS),
        ({"file_size": -1}, Reason.OUT_OF_RANGE),
    ],
    ids=["NUL", "NUL in a tag", "more words than Postgres indexes", "a negative size"],
)
async def test_a_refused_revision_leaves_the_one_before_it_in_the_rows_though_both_were_in_one_batch(
    query_pool: asyncpg.Pool,
    events_topic: Topic,
    running_projector: Running,
    changes: dict[str, Any],
    reason: Reason,
) -> None:
    first, others = created(), [created() for _ in range(5)]
    await events_topic.announce(first, updated(first.file_id, 2), updated(first.file_id, 3, **changes), *others)
    async with running_projector():
        await settles(cached(query_pool), {first.file_id: 2} | {one.file_id: 1 for one in others})
    [letter] = await dead_letters(events_topic)
    assert letter.reason == reason


async def test_what_only_postgres_refuses_is_found_by_halving_and_all_else_is_applied(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    """A rule of the database that is no rule of the contract."""
    await query_pool.execute(
        "CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF new.description = 'odd' THEN RAISE 'odd' USING errcode = '22023'; END IF; RETURN new; END $$"
    )
    await query_pool.execute(
        "CREATE TRIGGER odd BEFORE INSERT OR UPDATE ON file_metadata_cache_g1 FOR EACH ROW EXECUTE FUNCTION odd()"
    )
    good, odd = [created() for _ in range(20)], [created(description="odd") for _ in range(3)]
    older = [created(one.file_id, description="even") for one in odd[:2]]
    odd = [updated(one.file_id, 2, description="odd") for one in odd]
    await events_topic.announce(*good[:10], *older, *odd, *good[10:])
    async with running_projector():
        await settles(cached(query_pool), {one.file_id: 1 for one in [*good, *older]})
    letters = await dead_letters(events_topic)
    assert {letter.key for letter in letters} == {str(one.file_id).encode() for one in odd}
    assert {letter.reason for letter in letters} == {Reason.REFUSED_BY_DATABASE}
    assert len(letters) == 3


@pytest.mark.parametrize(
    ("framing", "reason"),
    [
        (encode(created())[:2] + b"\x00" * 8, "fingerprint"),
        (b"\x00\x00\x00\x00\x07", "schema id 7"),
    ],
    ids=["an unknown fingerprint", "an unknown registry schema"],
)
async def test_a_record_of_an_unknown_schema_holds_its_partition_alone_and_says_so(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, framing: bytes, reason: str
) -> None:
    held = created()
    other = next(one for one in (created() for _ in range(100)) if shard_of(one.file_id) != shard_of(held.file_id))
    async with running_projector() as projector:
        await events_topic.announce(held)
        await produce(events_topic, held.file_id, framing + encode(updated(held.file_id, 2))[10:], [])
        await events_topic.announce(updated(held.file_id, 3))
        await eventually(lambda: complains(projector, reason))
        await events_topic.announce(other)
        await settles(cached(query_pool), {held.file_id: 1, other.file_id: 1})
        assert await complains(projector, f"partition {shard_of(held.file_id)} at offset")
    assert await dead_letters(events_topic) == []


async def test_a_held_partition_goes_on_by_itself_when_the_registry_has_the_schema(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    event = created()
    with Registry(8, Path("schemas/avro/file_event.v1.avsc").read_text()) as known:
        async with running_projector(registry_url=known.url) as projector:
            await produce(events_topic, event.file_id, b"\x00\x00\x00\x00\x07" + encode(event)[10:], [])
            await eventually(lambda: complains(projector, "schema 7"))
            known.schema_id = 7
            await settles(cached(query_pool), {event.file_id: 1})
            await eventually(lambda: works(projector))


async def works(projector: Projector) -> bool:
    return not await complains(projector, "")


class NotUtf8(str):
    """A header name as a client may write it that does not care."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


async def test_a_record_that_the_client_cannot_parse_holds_its_partition_and_loses_nothing_of_the_others(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    files = [created() for _ in range(40)]
    held = shard_of(files[0].file_id)
    before = [one for one in files if shard_of(one.file_id) != held] + files[:1]
    batch = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 2**20)
    value = encode(updated(files[0].file_id, 2))
    batch.append(0, 1, str(files[0].file_id).encode(), value, [(NotUtf8("x"), b"")])
    async with running_projector() as projector:
        await events_topic.announce(files[0])
        await settles(cached(query_pool), {files[0].file_id: 1})
        await produce_built(events_topic, held, bytes(batch.build()))
        await events_topic.announce(*before[:-1])
        await eventually(lambda: complains(projector, f"partition {held} at offset"))
        await settles(cached(query_pool), {one.file_id: 1 for one in before}, seconds=40)


class BrokenClient:
    """A consumer, one task of which has died once `error` is set: the real one, but for that."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self.error: BaseException | None = None
        self.failed = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int) -> Any:
        records = {} if self.error else await self._consumer.getmany(*partitions, timeout_ms=timeout_ms)
        if self.error is not None:
            self.failed.set()
            raise self.error
        return records


@pytest.mark.parametrize(
    "error",
    [RuntimeError("the handler is closed"), KafkaError("[15]"), asyncio.CancelledError()],
    ids=["ours", "Kafka's", "cancelled from within"],
)
async def test_a_client_that_is_broken_is_replaced_and_nothing_is_missed(
    query_pool: asyncpg.Pool,
    events_topic: Topic,
    running_projector: Running,
    group: str,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such a client raises the same error with each call for ever, and keeps its partitions."""
    monkeypatch.setattr(projector_module, "BROKEN_SECONDS", 1.0)
    monkeypatch.setattr(projector_module, "PROBE_SECONDS", 0.5)
    first, second = created(), created()
    client = BrokenClient(group_consumer(events_topic.bootstrap_servers, group, "broken"))
    await events_topic.announce(first)
    async with running_projector(consumers=iter([client])) as projector:
        await settles(cached(query_pool), {first.file_id: 1})
        client.error = error
        await events_topic.announce(second)
        await settles(cached(query_pool), {first.file_id: 1, second.file_id: 1})
        await eventually(lambda: works(projector))


@pytest.mark.usefixtures("query_pool")
async def test_a_projector_ends_when_told_to_while_its_client_fails(
    events_topic: Topic, running_projector: Running, group: str
) -> None:
    client = BrokenClient(group_consumer(events_topic.bootstrap_servers, group, "broken"))
    async with running_projector(consumers=iter([client])):
        client.error = KafkaError("[15]")
        await client.failed.wait()


async def produce_built(topic: Topic, partition: int, batch: bytes) -> None:
    """Put the bytes of a record batch on a partition as they are."""
    request = ProduceRequest(
        transactional_id=None,
        required_acks=-1,
        timeout=5_000,
        topics=[(topic.name, [(partition, batch)])],
    )
    async with AIOKafkaProducer(bootstrap_servers=topic.bootstrap_servers) as producer:
        await producer.partitions_for(topic.name)
        leader = producer.client.cluster.leader_for_partition(TopicPartition(topic.name, partition))
        answer = await producer.client.send(leader, request)
    assert all(errors[1] == 0 for _, found in answer.topics for errors in found)


async def test_a_projector_is_not_ready_without_its_topic_and_finds_it_when_it_is_made(
    query_pool: asyncpg.Pool, backend: Backend, group: str
) -> None:
    name, servers = f"late-{uuid4().hex[:8]}", backend.bootstrap_servers
    projector = Projector(
        query_pool,
        lambda: group_consumer(servers, group, "projector"),
        name,
        group,
        TopicDeadLetters(servers, topic_name(DEAD_LETTERS, name)),
        RecordReader(None),
        Limits(batch=100, lanes=2, bad_share=0.5),
        cache_guard(query_pool, Topic(backend, name)),
    )
    async with running(projector):
        await eventually(lambda: complains(projector, "waiting for partitions"))
        await ensure_topics(servers, name)
        event = created()
        await Topic(backend, name).announce(event)
        await settles(cached(query_pool), {event.file_id: 1}, seconds=40)


async def test_a_cache_of_another_shape_is_neither_written_nor_thrown_away(
    query_pool: asyncpg.Pool, query_database: str, events_topic: Topic, running_projector: Running
) -> None:
    first, second = created(), created()
    await events_topic.announce(first)
    async with running_projector() as projector:
        await settles(cached(query_pool), {first.file_id: 1})
        await query_pool.execute("UPDATE cache_generation SET shape = 1, analyzer = 1")
        await events_topic.announce(second)
        await eventually(lambda: complains(projector, "artstore rebuild"))
    await run_migrate(QueryDatabaseSettings.model_validate({"query_database_url": query_database}))
    assert await cached(query_pool)() == {first.file_id: 1}


async def test_when_nearly_all_records_are_bad_it_stops_and_says_so_instead_of_emptying_the_topic(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    file_id = uuid4()
    async with AIOKafkaProducer(bootstrap_servers=events_topic.bootstrap_servers) as producer:
        for _ in range(1_500):
            await producer.send(events_topic.name, b"rubbish", str(file_id).encode(), partition=shard_of(file_id))
    async with running_projector() as projector:
        await eventually(lambda: complains(projector, "systemic"))
        other = next(one for one in (created() for _ in range(100)) if shard_of(one.file_id) != shard_of(file_id))
        await events_topic.announce(other)
        await settles(cached(query_pool), {other.file_id: 1})
    assert len(await dead_letters(events_topic)) < 1_000


async def complains(projector: Projector, reason: str) -> bool:
    for check in (projector.partitions, projector.database.check):
        try:
            await check()
        except NotReadyError as error:
            if reason in str(error):
                return True
    return False


async def test_a_record_in_confluent_framing_is_read_with_the_schema_of_the_registry(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    event = created()
    with Registry(7, Path("schemas/avro/file_event.v1.avsc").read_text()) as known:
        async with running_projector(registry_url=known.url):
            await produce(events_topic, event.file_id, b"\x00\x00\x00\x00\x07" + encode(event)[10:], [])
            await settles(cached(query_pool), {event.file_id: 1})


class Registry:
    """A schema registry that knows one schema, as far as a reader asks one."""

    def __init__(self, schema_id: int, schema: str) -> None:
        self.schema_id = schema_id
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.path == f"/schemas/ids/{registry.schema_id}"
                self.send_response(200 if known else 404)
                self.end_headers()
                self.wfile.write(json.dumps({"schema": schema}).encode() if known else b"{}")

            def log_message(self, *_: object) -> None:
                return

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


async def reset(topic: Topic, group: str, offset: int | None) -> None:
    """Set the offsets of an idle group, to the log's end when None."""
    async with group_consumer(topic.bootstrap_servers, group, "operator") as consumer:
        partitions = [TopicPartition(topic.name, number) for number in range(12)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.commit(
            {one: OffsetAndMetadata(ends[one] if offset is None else offset, "") for one in partitions}
        )


async def test_the_index_has_no_pending_entries_soon_after_fresh_records(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    """Else each search would read through them, and some record would wait until they are sorted in."""
    await query_pool.execute("CREATE EXTENSION pgstattuple")

    async def pending() -> int:
        found: int = await query_pool.fetchval(
            "SELECT pending_tuples FROM pgstatginindex('file_metadata_cache_g1_search')"
        )
        return found

    event = created()
    async with running_projector():
        await events_topic.announce(event)
        await settles(cached(query_pool), {event.file_id: 1})
        await settles(pending, 0)
