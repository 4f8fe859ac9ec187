"""Lanes do not wait for the disk; nothing is missed all the same when Postgres crashes."""

import asyncio
from collections.abc import Mapping

import asyncpg
import pytest
from aiokafka import AIOKafkaProducer

from consumer_query import durable
from producer_admin.outbox import shard_of
from runtime.kafka import group_lag
from schemas.codec import encode
from tests.integration.conftest import Running, Topic, cached
from tests.samples import created
from tests.waiting import settles

# What a crash takes back: a row, with the position that was written in its transaction.
TAKE_BACK = (
    "DELETE FROM file_metadata_cache_g1",
    "UPDATE projector_positions SET next_offset = 0",
)


async def test_what_a_crash_takes_back_comes_again_and_its_offsets_were_never_committed(
    query_pool: asyncpg.Pool,
    events_topic: Topic,
    running_projector: Running,
    group: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Although nothing is appended that would make the projector look at the partition again."""
    crashed = asyncio.Event()
    looked = durable.taken_back

    async def after_the_crash(pool: asyncpg.Pool, topic: str, applied: Mapping[int, int]) -> set[int]:
        await crashed.wait()
        return await looked(pool, topic, applied)

    monkeypatch.setattr("consumer_query.projector.taken_back", after_the_crash)
    event = created()
    # Not by a relay: the marker of its transaction would make the projector look.
    async with AIOKafkaProducer(bootstrap_servers=events_topic.bootstrap_servers) as producer:
        await producer.send_and_wait(
            events_topic.name, encode(event), str(event.file_id).encode(), partition=shard_of(event.file_id)
        )
    async with running_projector():
        await settles(cached(query_pool), {event.file_id: 1})
        async with query_pool.acquire() as connection, connection.transaction():
            for statement in TAKE_BACK:
                await connection.execute(statement)
        crashed.set()
        await settles(cached(query_pool), {event.file_id: 1})
        await settles(lambda: group_lag(events_topic.bootstrap_servers, group, events_topic.name), 0)


async def test_positions_that_are_not_stored_are_told(query_pool: asyncpg.Pool, events_topic: Topic) -> None:
    await query_pool.execute(
        "INSERT INTO projector_positions (generation, topic, partition, next_offset)"
        " SELECT 1, $1, unnest(ARRAY[0, 1]), 7",
        events_topic.name,
    )
    assert await durable.taken_back(query_pool, events_topic.name, {0: 7, 1: 8, 2: 0}) == {1, 2}


async def test_the_wait_reaches_the_disk(query_pool: asyncpg.Pool, events_topic: Topic) -> None:
    """Asked of Postgres: what was written without waiting is flushed when the answer comes."""
    async with query_pool.acquire() as connection:
        await connection.execute("SET synchronous_commit = off")
        await connection.execute("CREATE TABLE written (number int)")
        written = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
        await durable.taken_back(query_pool, events_topic.name, {})
        assert await connection.fetchval("SELECT pg_current_wal_flush_lsn() >= $1::pg_lsn", written)
