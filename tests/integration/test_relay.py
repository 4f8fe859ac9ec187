"""The relay over a real outbox and a real broker: all of it, in order per file, from one owner a shard."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from aiokafka.errors import KafkaError

from producer_admin import outbox, shards
from producer_admin.outbox import Receipt, shard_of
from producer_admin.publisher import ShardPublisher
from producer_admin.relay import Relay
from runtime.health import NotReadyError
from schemas.codec import Decoder
from tests.integration.conftest import Topic, outbox_row, revisions
from tests.samples import created, updated
from tests.waiting import eventually, settles

Running = Callable[[], AbstractAsyncContextManager[Relay]]


@pytest.fixture
def running_relay(admin_pool: asyncpg.Pool, events_topic: Topic) -> Running:
    @asynccontextmanager
    async def run() -> AsyncIterator[Relay]:
        relay = Relay(admin_pool, events_topic.bootstrap_servers, events_topic.name, batch_size=100)
        stopping = asyncio.Event()
        task = asyncio.create_task(relay.run(stopping))
        try:
            yield relay
        finally:
            stopping.set()
            await task

    return run


async def upload(admin: httpx.AsyncClient, name: str = "a.txt") -> str:
    answer = await admin.post("/upload", files={"file": (name, b"x")})
    assert answer.status_code == 201
    return str(answer.json()["file_id"])


def unsent(pool: asyncpg.Pool) -> Callable[[], Any]:
    return lambda: pool.fetchval("SELECT count(*) FROM outbox WHERE sent_at IS NULL")


async def test_every_change_reaches_the_topic_once_and_in_order_per_file(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, events_topic: Topic, running_relay: Running
) -> None:
    files = [await upload(admin, f"{number}.txt") for number in range(5)]
    for number in range(3):
        for file_id in files:
            await admin.patch(f"/{file_id}", json={"description": str(number)})
    async with running_relay():
        await settles(unsent(admin_pool), 0)
    records = await events_topic.records()
    assert revisions(records) == {file_id: [1, 2, 3, 4] for file_id in files}
    # The outbox remembers where each record is.
    rows = await admin_pool.fetch("SELECT shard, record_offset, event_id FROM outbox")
    assert {(row["shard"], row["record_offset"], row["event_id"]) for row in rows} == {
        (record.partition, record.offset, Decoder().decode(record.value or b"").event_id) for record in records
    }


async def test_an_event_is_sent_at_once_not_at_the_next_poll(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, running_relay: Running
) -> None:
    async with running_relay() as relay:
        await eventually(lambda: ready(relay))
        await upload(admin)
        await settles(unsent(admin_pool), 0)
        took = await admin_pool.fetchval("SELECT extract(epoch FROM sent_at - occurred_at)::float8 FROM outbox")
    assert took < 0.5


async def ready(relay: Relay) -> bool:
    try:
        await relay.broker()
        await relay.database.check()
    except NotReadyError:
        return False
    return True


async def test_a_deletion_is_followed_by_its_tombstone_and_both_carry_the_revision(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, events_topic: Topic, running_relay: Running
) -> None:
    file_id = await upload(admin)
    await admin.delete(f"/{file_id}")
    async with running_relay():
        await settles(unsent(admin_pool), 0)
    records = await events_topic.records()
    assert revisions(records) == {file_id: [1, 2, 2]}
    assert [record.value is None for record in records] == [False, False, True]
    assert dict(records[1].headers)["event_id"] == dict(records[2].headers)["event_id"]


async def test_a_batch_holds_at_most_one_revision_of_a_file(admin: httpx.AsyncClient, admin_pool: asyncpg.Pool) -> None:
    file_id = await upload(admin)
    await admin.patch(f"/{file_id}", json={"description": "two"})
    [row] = await admin_pool.fetch("SELECT DISTINCT shard FROM outbox")
    [first] = await outbox.unsent(admin_pool, row["shard"], 100)
    assert first.revision == 1


async def test_a_crash_between_commit_and_mark_repeats_revisions_but_never_goes_back(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, events_topic: Topic, running_relay: Running
) -> None:
    file_id = await upload(admin)
    for number in range(3):
        await admin.patch(f"/{file_id}", json={"description": str(number)})
        async with running_relay():
            await settles(unsent(admin_pool), 0)
        # As if the relay had died after the broker's commit of its last batch.
        await admin_pool.execute("UPDATE outbox SET sent_at = NULL WHERE revision = $1", number + 2)
    async with running_relay():
        await settles(unsent(admin_pool), 0)
    [seen] = revisions(await events_topic.records()).values()
    assert seen == sorted(seen)
    assert set(seen) == {1, 2, 3, 4}
    assert len(seen) > 4


async def test_a_relay_that_was_replaced_cannot_write_behind_its_successor(events_topic: Topic) -> None:
    event = created()
    shard = shard_of(event.file_id)
    old = await ShardPublisher.open(events_topic.bootstrap_servers, events_topic.name, shard)
    await old.publish([outbox_row(event)])
    new = await ShardPublisher.open(events_topic.bootstrap_servers, events_topic.name, shard)
    await new.publish([outbox_row(updated(event.file_id, 2))])
    with pytest.raises(KafkaError):
        await old.publish([outbox_row(event)])
    await old.close()
    await new.close()
    assert revisions(await events_topic.records()) == {str(event.file_id): [1, 2]}


async def test_a_shard_has_one_owner_until_its_lease_runs_out_or_is_given_back(admin_pool: asyncpg.Pool) -> None:
    async with admin_pool.acquire() as connection:
        first, second = uuid4(), uuid4()
        await shards.prepare(admin_pool, 3)
        assert await shards.claim(connection, first) == {0, 1, 2}
        assert await shards.claim(connection, second) == set()
        await admin_pool.execute("UPDATE relay_shards SET lease_until = now() - interval '1 second' WHERE shard = 1")
        assert not await shards.holds(admin_pool, first, 1)
        assert await shards.claim(connection, second) == {1}
        await shards.release(admin_pool, first)
        assert await shards.claim(connection, second) == {0, 1, 2}


async def test_only_the_owner_of_a_shard_may_say_what_was_sent(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool
) -> None:
    await upload(admin)
    await shards.prepare(admin_pool, outbox.SHARDS)
    owner = uuid4()
    async with admin_pool.acquire() as connection:
        await shards.claim(connection, owner)
    row = await admin_pool.fetchrow("SELECT outbox_id, shard FROM outbox")
    assert row is not None
    receipts = [Receipt(row["outbox_id"], 7)]
    assert not await outbox.mark_sent(admin_pool, row["shard"], uuid4(), receipts)
    assert await unsent(admin_pool)() == 1
    assert await outbox.mark_sent(admin_pool, row["shard"], owner, receipts)
    assert await unsent(admin_pool)() == 0


async def test_a_relay_survives_the_loss_of_its_database_connections(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, admin_database: str, running_relay: Running
) -> None:
    async with running_relay() as relay:
        await eventually(lambda: ready(relay))
        outsider = await asyncpg.connect(admin_database)
        await outsider.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid != pg_backend_pid()"
        )
        await outsider.close()
        await eventually(lambda: uploaded(admin))
        await settles(unsent(admin_pool), 0)
        # It also listens again: not every event waits for a poll.
        await eventually(lambda: sent_at_once(admin, admin_pool))


async def sent_at_once(admin: httpx.AsyncClient, pool: asyncpg.Pool) -> bool:
    """Four in a row, which a poll a second would hardly manage."""
    for _ in range(4):
        file_id = await upload(admin)
        await settles(unsent(pool), 0)
        took = await pool.fetchval("SELECT sent_at - occurred_at FROM outbox WHERE file_id = $1", UUID(file_id))
        if took > timedelta(milliseconds=250):
            return False
    return True


async def uploaded(admin: httpx.AsyncClient) -> bool:
    answer = await admin.post("/upload", files={"file": ("a.txt", b"x")})
    assert answer.status_code in {201, 503}
    return answer.status_code == 201
