"""The relay over a real outbox and a real broker: all of it, in order per file, from one owner a shard."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from aiokafka.errors import KafkaError

from local.kafka import EmbeddedKafka
from local.ports import free_port
from producer_admin import outbox, shards
from producer_admin.batches import Limits
from producer_admin.outbox import OutboxRow, Receipt, shard_of
from producer_admin.publisher import ShardPublisher
from producer_admin.relay import OpenPublisher, Relay
from runtime.health import NotReadyError
from runtime.topics import ensure_topic
from schemas.codec import Decoder
from schemas.topics import FILE_EVENTS, cards
from tests.integration.conftest import Topic, outbox_row, revisions
from tests.running import running
from tests.samples import created, updated
from tests.waiting import eventually, settles

Running = Callable[[], AbstractAsyncContextManager[Relay]]
LIMITS = Limits(rows=100, payload_bytes=2**20)


def opener(topic: Topic) -> OpenPublisher:
    return partial(ShardPublisher.open, topic.bootstrap_servers, topic.name)


@pytest.fixture
def running_relay(admin_pool: asyncpg.Pool, events_topic: Topic) -> Running:
    return lambda: running(Relay(admin_pool, opener(events_topic), LIMITS))


async def upload(admin: httpx.AsyncClient, name: str = "a.txt") -> str:
    answer = await admin.post("/upload", files={"file": (name, b"x")})
    assert answer.status_code == 201
    return str(answer.json()["file_id"])


def unsent(pool: asyncpg.Pool) -> Callable[[], Any]:
    return lambda: pool.fetchval("SELECT count(*) FROM outbox")


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
    # The audit log remembers where each record is.
    rows = await admin_pool.fetch("SELECT shard, record_offset, event_id FROM outbox_sent")
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
        took = await admin_pool.fetchval("SELECT extract(epoch FROM sent_at - occurred_at)::float8 FROM outbox_sent")
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


class Lossy:
    """A publisher whose relay never gets to mark what the broker has committed, `times` times."""

    def __init__(self, inner: ShardPublisher, times: list[int]) -> None:
        self._inner = inner
        self._times = times

    async def publish(self, rows: Sequence[OutboxRow]) -> list[Receipt]:
        receipts = await self._inner.publish(rows)
        if self._times:
            self._times.pop()
            raise TimeoutError("the answer was lost")
        return receipts

    async def close(self) -> None:
        await self._inner.close()


async def test_a_batch_whose_mark_was_lost_repeats_revisions_but_never_goes_back(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, events_topic: Topic
) -> None:
    files = [await upload(admin, f"{number}.txt") for number in range(3)]
    for number in range(3):
        for file_id in files:
            await admin.patch(f"/{file_id}", json={"description": str(number)})
    left = [1] * 6

    async def open_publisher(shard: int) -> Lossy:
        return Lossy(await opener(events_topic)(shard), left)  # type: ignore[arg-type]

    async with running(Relay(admin_pool, open_publisher, LIMITS)):
        await settles(unsent(admin_pool), 0)
    seen = revisions(await events_topic.records())
    assert not left
    assert sum(map(len, seen.values())) > 12
    for of_one in seen.values():
        assert of_one == sorted(of_one)
        assert set(of_one) == {1, 2, 3, 4}


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


async def test_shards_that_were_given_back_are_taken_at_once_and_not_at_the_next_renewal(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, running_relay: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "RENEW_SECONDS", 60)
    async with AsyncExitStack() as stays:
        async with running_relay() as first:
            await eventually(lambda: ready(first))
            second = await stays.enter_async_context(running_relay())
            await eventually(lambda: ready(second))
        await upload(admin)
        await settles(unsent(admin_pool), 0, shards.LEASE_SECONDS - 5)


async def test_only_the_owner_of_a_shard_may_say_what_was_sent(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool
) -> None:
    await upload(admin)
    await shards.prepare(admin_pool, outbox.SHARDS)
    owner = uuid4()
    async with admin_pool.acquire() as connection:
        await shards.claim(connection, owner)
    row = await admin_pool.fetchrow("SELECT * FROM outbox")
    assert row is not None
    receipts = [Receipt(row["outbox_id"], 7)]
    assert not await outbox.mark_sent(admin_pool, row["shard"], uuid4(), receipts)
    assert await unsent(admin_pool)() == 1
    assert await admin_pool.fetchval("SELECT count(*) FROM outbox_sent") == 0
    assert await outbox.mark_sent(admin_pool, row["shard"], owner, receipts)
    assert await unsent(admin_pool)() == 0
    sent = await admin_pool.fetchrow("SELECT * FROM outbox_sent")
    assert sent is not None
    assert {name: sent[name] for name in row.keys()} == dict(row)  # noqa: SIM118 - a Record iterates over values
    assert sent["record_offset"] == 7


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
        took = await pool.fetchval("SELECT sent_at - occurred_at FROM outbox_sent WHERE file_id = $1", UUID(file_id))
        if took > timedelta(milliseconds=250):
            return False
    return True


async def uploaded(admin: httpx.AsyncClient) -> bool:
    answer = await admin.post("/upload", files={"file": ("a.txt", b"x")})
    assert answer.status_code in {201, 503}
    return answer.status_code == 201


class Recorder:
    """Publishes nowhere, and remembers each batch."""

    def __init__(self) -> None:
        self.batches: list[list[OutboxRow]] = []

    async def publish(self, rows: Sequence[OutboxRow]) -> list[Receipt]:
        self.batches.append(list(rows))
        return [Receipt(row.outbox_id, len(self.batches)) for row in rows]

    async def close(self) -> None:
        return


def files_of_one_shard(count: int) -> list[UUID]:
    found: list[UUID] = []
    while len(found) < count:
        if shard_of(file_id := uuid4()) == 0:
            found.append(file_id)
    return found


async def put(pool: asyncpg.Pool, rows: Sequence[tuple[UUID, int]]) -> None:
    await pool.executemany(
        "INSERT INTO outbox (shard, file_id, revision, event_id, event_type, actor, payload, occurred_at) "
        "VALUES (0, $1, $2, gen_random_uuid(), 'file:updated', 'a', 'x', now())",
        rows,
    )


async def test_a_file_with_many_changes_waiting_holds_up_no_other_and_is_read_once(
    admin_pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot, *others = files_of_one_shard(21)
    await put(admin_pool, [(hot, revision) for revision in range(1, 501)])
    await put(admin_pool, [(file_id, revision) for revision in (1, 2) for file_id in others])
    recorder = Recorder()
    read: list[int] = []
    real = outbox.unsent

    async def counted(*arguments: Any) -> list[OutboxRow]:
        rows = await real(*arguments)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(outbox, "unsent", counted)

    async def open_publisher(_: int) -> Recorder:
        return recorder

    async with running(Relay(admin_pool, open_publisher, Limits(rows=50, payload_bytes=2**20), count=1)):
        await settles(unsent(admin_pool), 0, 60)
    order: dict[UUID, list[int]] = {}
    for batch in recorder.batches:
        assert len({row.file_id for row in batch}) == len(batch)
        assert len(batch) <= 50
        for row in batch:
            order.setdefault(row.file_id, []).append(row.revision)
    assert order == {hot: list(range(1, 501)), **{file_id: [1, 2] for file_id in others}}
    last_of_others = max(
        number for number, batch in enumerate(recorder.batches) for row in batch if row.file_id in others
    )
    assert last_of_others < 6
    assert sum(read) < 2 * 540


async def test_a_relay_that_lost_a_shard_lets_go_of_it_though_nothing_waits_there(
    admin_pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "RENEW_SECONDS", 0.1)
    closed: list[int] = []

    class Noting(Recorder):
        async def close(self) -> None:
            closed.append(1)

    async def open_publisher(_: int) -> Recorder:
        return Noting()

    async with running(Relay(admin_pool, open_publisher, LIMITS, count=1)) as relay:
        await eventually(lambda: ready(relay))
        await admin_pool.execute(
            "UPDATE relay_shards SET owner = gen_random_uuid(), lease_until = now() + interval '1 hour'"
        )
        await eventually(lambda: asyncio.sleep(0, closed))


async def test_after_the_broker_was_dead_all_is_sent_soon_and_the_relay_ends_at_once_while_it_is(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, tmp_path: Path
) -> None:
    kafka = EmbeddedKafka(tmp_path, free_port())
    with kafka:
        await ensure_topic(kafka.bootstrap_servers, cards()[FILE_EVENTS], name="events")
        open_publisher = partial(ShardPublisher.open, kafka.bootstrap_servers, "events")
        async with running(Relay(admin_pool, open_publisher, LIMITS)) as relay:
            await eventually(lambda: ready(relay))
            before = asyncio.all_tasks()
            await asyncio.to_thread(kafka.kill)
            for number in range(30):
                await upload(admin, f"{number}.txt")
            # Long enough for transactions to be given up, and tried again.
            await eventually(lambda: not_sending(relay, "Unable to bootstrap"), 30, "shards that cannot be opened")
            begin = time.monotonic()
            await asyncio.to_thread(kafka.start)
            answered = time.monotonic()
            await settles(unsent(admin_pool), 0)
            assert time.monotonic() - answered < 10, f"the broker took {answered - begin} s"
            await eventually(lambda: ready(relay))
            # What was given up has gone, with all its tasks: each producer has a few.
            await eventually(
                lambda: asyncio.sleep(0, len(asyncio.all_tasks()) <= len(before) + 2), 10, "tasks that end"
            )
            await asyncio.to_thread(kafka.kill)
            await upload(admin)
            await eventually(lambda: not_sending(relay, ""), 30)
            begin = time.monotonic()
        assert time.monotonic() - begin < 10
        assert await admin_pool.fetchval("SELECT count(*) FROM relay_shards WHERE owner IS NOT NULL") == 0
        await asyncio.to_thread(kafka.start)


async def not_sending(relay: Relay, reason: str) -> bool:
    try:
        await relay.broker()
    except NotReadyError as error:
        return reason in str(error)
    return False


async def never_opened(_: int) -> Recorder:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_relay_asked_to_end_does_not_wait_for_a_producer_that_never_starts(admin_pool: asyncpg.Pool) -> None:
    async with asyncio.timeout(5), running(Relay(admin_pool, never_opened, LIMITS)):
        await eventually(lambda: admin_pool.fetchval("SELECT count(*) FROM relay_shards WHERE owner IS NOT NULL"))
    assert await admin_pool.fetchval("SELECT count(*) FROM relay_shards WHERE owner IS NOT NULL") == 0


async def test_a_fault_that_nobody_foresaw_ends_the_relay_rather_than_half_of_it(
    admin_pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "RENEW_SECONDS", 0.1)
    real = shards.claim
    claims: list[int] = []

    async def claim(*arguments: Any) -> Any:
        claims.append(1)
        if len(claims) > 2:
            raise ZeroDivisionError
        return await real(*arguments)

    monkeypatch.setattr(shards, "claim", claim)

    async def open_publisher(_: int) -> Recorder:
        return Recorder()

    async with asyncio.timeout(5):
        with pytest.raises(ZeroDivisionError):
            await Relay(admin_pool, open_publisher, LIMITS).run(asyncio.Event())
