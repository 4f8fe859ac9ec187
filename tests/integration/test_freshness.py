"""How far the index is behind, told over a real log and a real database that stop and go; waiting for a revision."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from consumer_query import freshness, freshness_beat, generations, positions, rebuild_jobs
from consumer_query.dead_letters import TopicDeadLetters
from consumer_query.freshness import NotYetVisibleError, Token, lag_seconds, wait_for
from consumer_query.freshness_beat import LogEnd
from consumer_query.projector import Limits, Projector
from consumer_query.rebuild_jobs import Kind
from consumer_query.records import RecordReader
from local.kafka import EmbeddedKafka
from local.ports import free_port
from producer_admin.outbox import shard_of
from runtime.kafka import group_consumer
from runtime.topics import ensure_topics
from schemas.codec import encode
from schemas.topics import DEAD_LETTERS, topic_name
from tests.backends import Backend
from tests.integration.conftest import Running, Topic, cache_guard, cached
from tests.running import running
from tests.samples import created, deleted, updated
from tests.waiting import eventually, settles

SMALL = 3.0
"""Seconds. At rest about one is usual: the machine has other things to do."""
NEVER_MORE = 2 * SMALL
"""Of all moments that are looked at, the worst."""
FRESH_AT = """
SELECT coalesce(min(fresh_at), 'epoch') FROM projector_positions
WHERE generation = (SELECT live FROM cache_generation)
"""
NOW = "SELECT clock_timestamp()"


async def is_fresh(pool: asyncpg.Pool) -> bool:
    lag = await lag_seconds(pool)
    return lag is not None and lag < SMALL


async def grows_beyond(pool: asyncpg.Pool, seconds: float) -> None:
    """Wait for a lag of so many seconds, which is known all the time."""

    async def look() -> bool:
        lag = await lag_seconds(pool)
        assert lag is not None
        return lag > seconds

    await eventually(look)


async def greatest_lag(pool: asyncpg.Pool, renewals: int) -> float:
    """What is seen of the lag until the whole index was told to be fresh so many times; it is always known."""
    greatest, told = 0.0, 0
    moment: datetime = await pool.fetchval(FRESH_AT)

    async def look() -> bool:
        nonlocal greatest, told, moment
        lag = await lag_seconds(pool)
        assert lag is not None
        greatest = max(greatest, lag)
        newer: datetime = await pool.fetchval(FRESH_AT)
        told += newer > moment
        moment = newer
        return told >= renewals

    await eventually(look, seconds=60)
    return greatest


async def test_nobody_knows_the_lag_before_anything_was_read(query_pool: asyncpg.Pool, events_topic: Topic) -> None:
    assert await lag_seconds(query_pool) is None
    async with query_pool.acquire() as connection:
        await positions.take(connection, 1, events_topic.name, {0: 0, 1: 0})
        assert await lag_seconds(connection) is None
        await connection.execute("UPDATE projector_positions SET fresh_at = clock_timestamp() WHERE partition = 0")
        assert await lag_seconds(connection) is None


async def test_an_idle_projector_is_fresh_all_the_time(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    await events_topic.announce(*(created() for _ in range(5)))
    async with running_projector():
        await eventually(lambda: is_fresh(query_pool))
        assert await greatest_lag(query_pool, renewals=5) < NEVER_MORE


async def test_it_is_fresh_though_there_is_always_something_new(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    event = created()
    stopped = asyncio.Event()
    last = 0

    async def go_on(producer: AIOKafkaProducer) -> None:
        nonlocal last
        while not stopped.is_set():
            last += 1
            value = encode(updated(event.file_id, last))
            key = str(event.file_id).encode()
            await producer.send_and_wait(events_topic.name, value, key, partition=shard_of(event.file_id))

    async with (
        running_projector(),
        AIOKafkaProducer(bootstrap_servers=events_topic.bootstrap_servers) as producer,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(go_on(producer))
        await eventually(lambda: is_fresh(query_pool))
        assert await greatest_lag(query_pool, renewals=4) < NEVER_MORE
        stopped.set()
    assert last > 100


async def test_the_lag_grows_while_nothing_runs_and_is_gone_soon_after(
    query_pool: asyncpg.Pool, running_projector: Running
) -> None:
    async with running_projector():
        await eventually(lambda: is_fresh(query_pool))
    await grows_beyond(query_pool, SMALL + 1)
    async with running_projector():
        await eventually(lambda: is_fresh(query_pool))


async def test_the_lag_grows_while_the_database_takes_nothing_and_is_told_in_hindsight_of_no_moment_of_it(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    event = created()
    async with running_projector():
        await eventually(lambda: is_fresh(query_pool))
        async with query_pool.acquire() as holding, holding.transaction():
            await holding.execute("LOCK TABLE projector_positions IN EXCLUSIVE MODE")
            await events_topic.announce(event)
            announced: datetime = await holding.fetchval(NOW)
            await grows_beyond(query_pool, SMALL + 1)
            assert await query_pool.fetchval(FRESH_AT) < announced

        async def looks() -> bool:
            # In one snapshot, so that the row cannot come between.
            row = await query_pool.fetchrow(
                f"SELECT ({FRESH_AT}) AS moment, (SELECT count(*) FROM file_metadata_cache)"
            )
            assert row is not None
            assert row["moment"] < announced or row["count"] == 1
            return bool(row["count"])

        await eventually(looks)
        await eventually(lambda: is_fresh(query_pool))


async def test_what_waits_in_the_database_is_told_of_the_moment_that_was_meant(
    query_pool: asyncpg.Pool, events_topic: Topic
) -> None:
    async with query_pool.acquire() as connection:
        await positions.take(connection, 1, events_topic.name, {0: 5})
    loop = asyncio.get_running_loop()
    async with query_pool.acquire() as holding, holding.transaction():
        await holding.execute("LOCK TABLE projector_positions IN EXCLUSIVE MODE")
        meant: datetime = await holding.fetchval(NOW)
        end = LogEnd(5, loop.time())
        telling = asyncio.create_task(freshness_beat._store(query_pool, events_topic.name, {0: end}))

        async def a_second_later() -> bool:
            found: bool = await holding.fetchval("SELECT clock_timestamp() > $1::timestamptz + interval '1 s'", meant)
            return found

        await eventually(a_second_later)
    assert await telling == [0]
    told: datetime = await query_pool.fetchval(FRESH_AT)
    assert abs(told - meant) < timedelta(seconds=0.5)


async def test_a_partition_whose_rows_are_elsewhere_than_was_thought_is_not_told_to_be_fresh(
    query_pool: asyncpg.Pool, events_topic: Topic
) -> None:
    """Such as by a projector that lost it, or from a backup."""
    async with query_pool.acquire() as connection:
        await positions.take(connection, 1, events_topic.name, {0: 5, 1: 5, 2: 5})
        await positions.take(connection, 2, events_topic.name, {0: 9, 1: 9, 2: 9})
    now = asyncio.get_running_loop().time()
    ends = {0: LogEnd(4, now), 1: LogEnd(5, now), 2: LogEnd(6, now), 3: LogEnd(0, now)}
    assert set(await freshness_beat._store(query_pool, events_topic.name, ends)) == {0, 1}
    rows = await query_pool.fetch("SELECT generation, partition FROM projector_positions WHERE fresh_at IS NOT NULL")
    assert {tuple(row) for row in rows} == {(1, 0), (1, 1)}


async def test_rows_that_a_lane_is_about_to_move_are_left_for_the_next_time(
    query_pool: asyncpg.Pool, events_topic: Topic
) -> None:
    async with query_pool.acquire() as connection:
        await positions.take(connection, 1, events_topic.name, {0: 5, 1: 5})
    async with query_pool.acquire() as lane, lane.transaction():
        await positions.move(lane, 1, events_topic.name, {0: positions.Move(5, 6)})
        now = asyncio.get_running_loop().time()
        ends = {0: LogEnd(5, now), 1: LogEnd(5, now)}
        async with asyncio.timeout(5):
            assert await freshness_beat._store(query_pool, events_topic.name, ends) == [1]


async def test_a_partition_that_is_held_makes_the_lag_grow(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    event = created()
    async with running_projector():
        await eventually(lambda: is_fresh(query_pool))
        await query_pool.execute("ALTER TABLE file_metadata_cache_g1 ADD CONSTRAINT closed CHECK (revision < 1)")
        await events_topic.announce(event)
        await grows_beyond(query_pool, SMALL + 1)
        await query_pool.execute("ALTER TABLE file_metadata_cache_g1 DROP CONSTRAINT closed")
        await settles(cached(query_pool), {event.file_id: 1})
        await eventually(lambda: is_fresh(query_pool))


@pytest.mark.soak
async def test_the_lag_grows_while_the_broker_is_away(query_pool: asyncpg.Pool, tmp_path: Path, group: str) -> None:
    kafka = EmbeddedKafka(tmp_path / "kafka", free_port())
    await asyncio.to_thread(kafka.start)
    try:
        servers = kafka.bootstrap_servers
        await ensure_topics(servers, "events")
        topic = Topic(Backend(servers, ""), "events")
        projector = Projector(
            query_pool,
            lambda: group_consumer(servers, group, "projector"),
            topic.name,
            group,
            TopicDeadLetters(servers, topic_name(DEAD_LETTERS, topic.name)),
            RecordReader(None),
            Limits(batch=100, lanes=2, bad_share=0.5),
            cache_guard(query_pool, topic),
        )
        async with running(projector):
            await eventually(lambda: is_fresh(query_pool))
            await asyncio.to_thread(kafka.kill)
            await grows_beyond(query_pool, SMALL + 1)
            await asyncio.to_thread(kafka.start)
            await eventually(lambda: is_fresh(query_pool), seconds=60)
    finally:
        await asyncio.to_thread(kafka.stop)


async def test_a_swap_to_a_rebuilt_generation_leaves_the_lag_as_it_is(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Callable[[], Any]
) -> None:
    await events_topic.announce(*(created() for _ in range(5)))
    async with running_projector(), worker():
        await eventually(lambda: is_fresh(query_pool))
        await rebuild_jobs.request(query_pool, Kind.REBUILD, requested_by="tests", reason="tests")
        greatest = 0.0

        async def swapped() -> bool:
            nonlocal greatest
            greatest = max(greatest, await greatest_lag(query_pool, renewals=1))
            return await generations.live(query_pool) == 2

        await eventually(swapped, seconds=120)
        assert max(greatest, await greatest_lag(query_pool, renewals=3)) < SMALL + 1


async def test_what_is_known_of_another_generation_holds_only_where_the_live_one_is_as_far(
    query_pool: asyncpg.Pool, events_topic: Topic
) -> None:
    async with query_pool.acquire() as connection:
        await positions.take(connection, 1, events_topic.name, {0: 5})
        await positions.take(connection, 2, events_topic.name, {0: 5})
        await connection.execute(
            "UPDATE projector_positions SET fresh_at = clock_timestamp() - interval '7 s' WHERE generation = 1"
        )
        await connection.execute("UPDATE cache_generation SET live = 2")
        lag = await lag_seconds(connection)
        assert lag is not None
        assert 7 <= lag < 9
        await positions.take(connection, 2, events_topic.name, {0: 4})
        assert await lag_seconds(connection) is None


async def test_a_moment_to_come_says_nothing(query_pool: asyncpg.Pool, events_topic: Topic) -> None:
    """Told before the clock of the database was set back."""
    async with query_pool.acquire() as connection:
        await positions.take(connection, 1, events_topic.name, {0: 5})
        await connection.execute("UPDATE projector_positions SET fresh_at = clock_timestamp() + interval '1 h'")
        assert await lag_seconds(connection) is None


async def test_who_waits_for_a_revision_goes_on_when_search_sees_it(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    file, gone = created(), created()
    tokens = [Token(file.file_id, 2), Token(file.file_id, 1), Token(gone.file_id, 2)]
    async with running_projector():
        waiting = asyncio.create_task(wait_for(query_pool, tokens, 20))
        await events_topic.announce(file, gone)
        await settles(cached(query_pool), {file.file_id: 1, gone.file_id: 1})
        assert not waiting.done()
        await events_topic.announce(deleted(gone.file_id, 2))
        await settles(cached(query_pool), {file.file_id: 1})
        assert not waiting.done()
        await events_topic.announce(updated(file.file_id, 3))
        await settles(cached(query_pool), {file.file_id: 3})
        async with asyncio.timeout(1):
            await waiting
    await wait_for(query_pool, tokens, 0)
    await wait_for(query_pool, [], 0)


async def test_who_waits_in_vain_is_told_in_time_how_far_it_is(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    known, unknown = created(), uuid4()
    await events_topic.announce(known)
    async with running_projector():
        await settles(cached(query_pool), {known.file_id: 1})
        await eventually(lambda: is_fresh(query_pool))
    loop = asyncio.get_running_loop()
    for seconds in (0.0, 0.4):
        began = loop.time()
        with pytest.raises(NotYetVisibleError) as refused:
            await wait_for(query_pool, [Token(known.file_id, 3), Token(unknown, 1), Token(known.file_id, 1)], seconds)
        assert seconds <= loop.time() - began < seconds + 1
    error = refused.value
    assert (error.status, error.retryable) == (504, True)
    assert [(one.field, one.message) for one in error.errors] == [
        ("at_least", f"file {known.file_id} is at revision 1, and not yet at 3"),
        ("at_least", f"file {unknown} is not there yet at any revision, nor at 1"),
    ]
    assert "s behind" in str(error)


async def test_who_waits_looks_into_the_generation_that_is_live_by_then(query_pool: asyncpg.Pool) -> None:
    token = Token(uuid4(), 4)
    async with query_pool.acquire() as connection:
        async with connection.transaction():
            made = await generations.make(connection)
            await connection.execute(
                f"INSERT INTO {generations.table_name(made)} (file_id, revision, deleted) VALUES ($1, 4, true)",
                token.file_id,
            )
        waiting = asyncio.create_task(wait_for(query_pool, [token], 20))
        with suppress(TimeoutError):
            async with asyncio.timeout(4 * freshness.POLL_SECONDS):
                await asyncio.shield(waiting)
        assert not waiting.done()
        # One that is gone by the time that it is looked at is no error: the next look is at another.
        await connection.execute("UPDATE cache_generation SET live = 99")
        assert await freshness._revisions(query_pool, [token.file_id]) == {}
        async with connection.transaction():
            await generations.swap(connection, 1, made)
        async with asyncio.timeout(5):
            await waiting
