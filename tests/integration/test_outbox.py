"""The outbox and its audit log over a real Postgres: partitions, held publishing, history, sending again."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from local.ports import free_port
from local.settings import CHECKOUT
from producer_admin import audit_partitions, backlog, outbox
from producer_admin.audit import history
from producer_admin.audit_partitions import keep_partitions
from producer_admin.outbox import SHARDS, shard_of
from producer_admin.relay_process import PLANNER
from producer_admin.requeue import Requeued, requeue, sent_between
from runtime.postgres import open_pool
from tests.backends import Backend
from tests.integration.conftest import Topic, revisions
from tests.waiting import eventually, settles

DAYS = 30


async def partitions(pool: asyncpg.Pool) -> set[str]:
    return {row["relname"] for row in await pool.fetch(audit_partitions.PARTITIONS)}


async def today(pool: asyncpg.Pool) -> date:
    moment: datetime = await pool.fetchval("SELECT now()")
    return moment.astimezone(UTC).date()


def named(day: date) -> str:
    return f"outbox_sent_{day:%Y%m%d}"


async def make_partition(pool: asyncpg.Pool, day: date) -> str:
    name = named(day)
    await pool.execute(f"CREATE TABLE {name} PARTITION OF outbox_sent FOR VALUES FROM ('{day}Z') TO ('{day + ONE}Z')")
    return name


ONE = timedelta(1)
SENT = """
INSERT INTO outbox_sent (outbox_id, shard, file_id, revision, event_id, event_type, actor, payload, occurred_at,
                         sent_at, record_offset)
VALUES (1, 0, gen_random_uuid(), 1, gen_random_uuid(), 'file:created', 'a', '', now(), $1, 0)
RETURNING tableoid::regclass::text
"""
WAITING = """
INSERT INTO outbox (shard, file_id, revision, event_id, event_type, actor, payload, occurred_at)
VALUES ($1, $2, $3, gen_random_uuid(), 'file:updated', 'a', $4, now())
"""


async def test_the_audit_log_has_a_partition_for_each_day_of_the_coming_week_and_rows_go_there(
    admin_pool: asyncpg.Pool,
) -> None:
    assert await keep_partitions(admin_pool, DAYS)
    assert await keep_partitions(admin_pool, DAYS)
    now = await today(admin_pool)
    assert await partitions(admin_pool) == {named(now + number * ONE) for number in range(8)}
    # The first and the last moment of the day, by UTC, wherever the server is.
    begin = datetime(now.year, now.month, now.day, tzinfo=UTC)
    for moment in (begin, begin + ONE - timedelta(microseconds=1)):
        assert await admin_pool.fetchval(SENT, moment) == named(now)


async def test_days_whose_time_is_over_are_dropped_and_waiting_events_never_are(admin_pool: asyncpg.Pool) -> None:
    now = await today(admin_pool)
    old = await make_partition(admin_pool, now - (DAYS + 1) * ONE)
    kept = await make_partition(admin_pool, now - DAYS * ONE)
    fallen = datetime.now(UTC) - (DAYS + 9) * ONE
    assert await admin_pool.fetchval(SENT, fallen) == "outbox_sent_default"
    assert await admin_pool.fetchval(SENT, datetime.now(UTC) - (DAYS - 5) * ONE) == "outbox_sent_default"
    await admin_pool.execute(WAITING, 0, uuid4(), 1, b"")
    await admin_pool.execute("UPDATE outbox SET occurred_at = now() - interval '1 year'")
    assert await keep_partitions(admin_pool, DAYS)
    assert kept in await partitions(admin_pool)
    assert old not in await partitions(admin_pool)
    assert await admin_pool.fetchval("SELECT count(*) FROM outbox_sent_default") == 1
    assert await admin_pool.fetchval("SELECT count(*) FROM outbox") == 1


async def test_a_day_whose_rows_lie_in_the_default_partition_stays_there_and_keeps_no_other_from_its_own(
    admin_pool: asyncpg.Pool,
) -> None:
    now = await today(admin_pool)
    begin = datetime(now.year, now.month, now.day, tzinfo=UTC)
    await admin_pool.fetchval(SENT, begin)
    await admin_pool.fetchval(SENT, begin + 3 * ONE)
    for _ in range(2):
        assert await keep_partitions(admin_pool, DAYS)
        assert await partitions(admin_pool) == {named(now + number * ONE) for number in (1, 2, 4, 5, 6, 7)}
    assert await admin_pool.fetchval("SELECT count(*) FROM outbox_sent") == 2


async def test_only_one_keeps_the_partitions_at_a_time(admin_pool: asyncpg.Pool) -> None:
    async with admin_pool.acquire() as other:
        await other.execute("SELECT pg_advisory_lock($1)", audit_partitions.ONE_AT_A_TIME)
        assert not await keep_partitions(admin_pool, DAYS)
        assert await partitions(admin_pool) == set()
    await asyncio.gather(*(keep_partitions(admin_pool, DAYS) for _ in range(5)))
    assert len(await partitions(admin_pool)) == 8


async def test_a_long_reader_of_the_audit_log_delays_the_drop_not_the_relay(admin_pool: asyncpg.Pool) -> None:
    now = await today(admin_pool)
    await keep_partitions(admin_pool, DAYS)
    old = await make_partition(admin_pool, now - (DAYS + 1) * ONE)
    async with admin_pool.acquire() as reader:
        reading = reader.transaction()
        await reading.start()
        await reader.execute("SELECT count(*) FROM outbox_sent")
        keeping = asyncio.create_task(keep_partitions(admin_pool, DAYS))
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'outbox_sent'::regclass"
        await eventually(lambda: admin_pool.fetchval(waits), what="a drop that waits for its lock")
        # Behind the drop in the queue, and yet soon through.
        async with asyncio.timeout(5):
            await admin_pool.execute(SENT, datetime.now(UTC))
        assert not await keeping
        assert old in await partitions(admin_pool)
        await reading.rollback()
    assert await keep_partitions(admin_pool, DAYS)
    assert old not in await partitions(admin_pool)


async def test_a_backlog_is_read_by_its_key_though_the_plan_was_made_while_the_outbox_was_empty(
    admin_database: str,
) -> None:
    async with await open_pool(admin_database, "tests", max_size=1, settings=PLANNER) as pool, pool.acquire() as one:
        await one.execute("VACUUM ANALYZE outbox")
        for name, types, statement in (
            ("unsent", "integer, uuid[], bigint, bigint", outbox.UNSENT),
            ("mark", "bigint[], bigint[], integer, uuid", outbox.MARK_SENT),
        ):
            await one.execute(f"PREPARE {name} ({types}) AS {statement}")
        await one.execute("SET plan_cache_mode = force_generic_plan")
        plans = {}
        for filled in (False, True):
            if filled:
                await one.execute(
                    "INSERT INTO outbox (shard, file_id, revision, event_id, event_type, actor, payload, occurred_at) "
                    "SELECT n % 12, gen_random_uuid(), 1, gen_random_uuid(), '', '', '', now() "
                    "FROM generate_series(1, 20000) AS n"
                )
            for execute in ("unsent (1, '{}', 10, 1000)", "mark ('{1}', '{1}', 1, NULL)"):
                found = await one.fetch(f"EXPLAIN EXECUTE {execute}")
                plans[execute, filled] = "\n".join(row[0] for row in found)
    for plan in plans.values():
        assert "Index Scan using outbox_pkey" in plan
        assert "Sort" not in plan
        assert "Hash" not in plan


async def test_what_is_read_at_once_is_bounded_in_rows_and_bytes_and_leaves_files_out(
    admin_pool: asyncpg.Pool,
) -> None:
    files = [uuid4() for _ in range(4)]
    for size, file_id in zip((10, 700, 20, 3000), files, strict=True):
        await admin_pool.execute(WAITING, 3, file_id, 1, b"x" * size)

    async def read(limit: int, max_bytes: int, without: Sequence[UUID] = ()) -> list[UUID]:
        return [row.file_id for row in await outbox.unsent(admin_pool, 3, limit, max_bytes, without)]

    assert await read(10, 10_000) == files
    assert await read(2, 10_000) == files[:2]
    assert await read(10, 710) == files[:2]
    assert await read(10, 709) == files[:1]
    assert await read(10, 0) == files[:1]
    assert await read(10, 10, files[:1]) == files[1:2]
    assert await read(10, 10_000, files[1:3]) == [files[0], files[3]]


@contextmanager
def relay_process(backend: Backend, topic: str, database: str, port: int, **settings: str) -> Iterator[None]:
    """The real process; it has to end well when asked to."""
    environment = {
        **os.environ,
        "ADMIN_DATABASE_URL": database,
        "KAFKA_BOOTSTRAP_SERVERS": backend.bootstrap_servers,
        "FILE_EVENTS_TOPIC": topic,
        "ADMIN_RELAY_MANAGEMENT_PORT": str(port),
        **settings,
    }
    popen = subprocess.Popen([sys.executable, "-P", "-m", "producer_admin", "relay"], cwd=CHECKOUT, env=environment)
    try:
        yield
        popen.terminate()
        assert popen.wait(20) == 0
    finally:
        popen.kill()
        popen.wait()


async def test_held_publishing_loses_nothing_and_is_not_called_ill(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, admin_database: str, backend: Backend, events_topic: Topic
) -> None:
    files = [await upload(admin) for _ in range(3)]
    port = free_port()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as management:
        with relay_process(backend, events_topic.name, admin_database, port, EVENT_PUBLISH_ENABLED="false"):
            await eventually(lambda: answers(management, "/health/ready", '"ready"'))
            await eventually(lambda: answers(management, "/metrics", "artstore_admin_outbox_unsent_events 3.0"))
            assert await answers(management, "/metrics", "artstore_admin_publishing_held 1.0")
            found = await stats(admin_pool)
            assert (found.held, found.relayed, found.waiting) == (True, False, 3)
            # The audit log is looked after all the same.
            await eventually(lambda: partitions(admin_pool))
            await admin.patch(f"/{files[0]}", json={"description": "changed meanwhile"})
        assert not (await stats(admin_pool)).held
        assert await admin_pool.fetchval("SELECT count(*) FROM outbox") == 4
        with relay_process(backend, events_topic.name, admin_database, port):
            await settles(lambda: admin_pool.fetchval("SELECT count(*) FROM outbox"), 0)
            found = await stats(admin_pool)
            assert (found.held, found.relayed, found.waiting) == (False, True, 0)
            assert (found.sent_last_minute, found.sent_last_hour) == (4, 4)
    # Asked to end, it gives its shards back.
    assert not (await stats(admin_pool)).relayed
    assert revisions(await events_topic.records()) == {
        str(file_id): [1, 2] if file_id == files[0] else [1] for file_id in files
    }


async def answers(client: httpx.AsyncClient, path: str, text: str) -> bool:
    try:
        answer = await client.get(path)
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and text in answer.text


async def stats(pool: asyncpg.Pool) -> backlog.OutboxStats:
    async with pool.acquire() as connection:
        return await backlog.stats(connection)


async def upload(admin: httpx.AsyncClient) -> UUID:
    answer = await admin.post("/upload", files={"file": ("a.txt", b"x")})
    assert answer.status_code == 201
    return UUID(answer.json()["file_id"])


@pytest.fixture
async def send_all(admin_pool: asyncpg.Pool) -> Callable[[], Any]:
    """Marks all that waits as sent, shard by shard, as its owner would; the offset is the outbox id."""
    owner = uuid4()
    async with admin_pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO relay_shards SELECT shard, $1, 'infinity' FROM generate_series(0, $2 - 1) AS shard",
            owner,
            SHARDS,
        )

    async def send() -> None:
        for shard in range(SHARDS):
            if rows := await outbox.unsent(admin_pool, shard, 1000, 2**20):
                receipts = [outbox.Receipt(row.outbox_id, row.outbox_id) for row in rows]
                assert await outbox.mark_sent(admin_pool, shard, owner, receipts)

    return send


async def waiting(pool: asyncpg.Pool) -> list[tuple[UUID, int]]:
    rows = await pool.fetch("SELECT file_id, revision FROM outbox ORDER BY outbox_id")
    return [(row["file_id"], row["revision"]) for row in rows]


async def again(pool: asyncpg.Pool, *arguments: Any, **options: Any) -> Requeued:
    async with pool.acquire() as connection:
        return await requeue(connection, *arguments, **options)


async def test_only_a_files_newest_event_is_sent_again(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, send_all: Callable[[], Any]
) -> None:
    changed, gone, untouched = [await upload(admin) for _ in range(3)]
    await send_all()
    await admin.patch(f"/{changed}", json={"description": "two"})
    await admin.delete(f"/{gone}")
    await send_all()
    before = await admin_pool.fetch("SELECT * FROM outbox_sent ORDER BY outbox_id")
    asked = [changed, gone, untouched, uuid4(), changed]
    expected = Requeued(requeued=3, superseded=2, unknown=1)
    assert await again(admin_pool, asked, dry_run=True) == expected
    assert await waiting(admin_pool) == []
    assert await again(admin_pool, asked) == expected
    assert sorted(await waiting(admin_pool)) == sorted([(changed, 2), (gone, 2), (untouched, 1)])
    # The same events, behind all that went before.
    columns = "file_id, revision, event_id, event_type, actor, payload, occurred_at, shard"
    assert await admin_pool.fetchval("SELECT min(outbox_id) FROM outbox") > before[-1]["outbox_id"]
    same = f"SELECT {columns} FROM outbox EXCEPT SELECT {columns} FROM outbox_sent"
    assert await admin_pool.fetch(same) == []
    # And not twice.
    assert await again(admin_pool, asked) == Requeued(waiting=3, superseded=2, unknown=1)
    assert len(await waiting(admin_pool)) == 3


async def test_a_change_that_waits_supersedes_what_was_sent(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, send_all: Callable[[], Any]
) -> None:
    file_id = await upload(admin)
    await send_all()
    await admin.patch(f"/{file_id}", json={"description": "two"})
    assert await again(admin_pool, [file_id]) == Requeued(superseded=1)
    assert await waiting(admin_pool) == [(file_id, 2)]


async def test_a_change_under_way_is_waited_for_and_supersedes(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, send_all: Callable[[], Any]
) -> None:
    file_id = await upload(admin)
    await send_all()
    async with admin_pool.acquire() as changer:
        change = changer.transaction()
        await change.start()
        await changer.execute("UPDATE files SET revision = 2 WHERE file_id = $1", file_id)
        requeueing = asyncio.create_task(again(admin_pool, [file_id]))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%'"
        await eventually(lambda: admin_pool.fetchval(waits), what="requeue waits for the row's lock")
        await change.commit()
    assert await requeueing == Requeued(superseded=1)
    assert await waiting(admin_pool) == []


async def test_what_was_sent_in_some_time_is_sent_again_as_far_as_it_is_the_newest(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, send_all: Callable[[], Any]
) -> None:
    first, second, third = [await upload(admin) for _ in range(3)]
    await send_all()
    begin = await admin_pool.fetchval("SELECT clock_timestamp()")
    await admin.patch(f"/{first}", json={"description": "in time"})
    await admin.patch(f"/{second}", json={"description": "in time"})
    await send_all()
    end = await admin_pool.fetchval("SELECT clock_timestamp()")
    await admin.patch(f"/{second}", json={"description": "after it"})
    await send_all()
    async with admin_pool.acquire() as connection:
        wanted = await sent_between(connection, begin, end)
    assert set(wanted) == {first, second}
    assert await again(admin_pool, wanted, begin, end) == Requeued(requeued=1, superseded=1)
    assert await waiting(admin_pool) == [(first, 2)]
    assert third not in wanted


async def test_the_history_of_a_file_says_who_changed_what_and_where_it_is(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, send_all: Callable[[], Any]
) -> None:
    file_id = await upload(admin)
    await admin.patch(f"/{file_id}", json={"description": "two", "tags": ["a"]})
    await send_all()
    await admin.delete(f"/{file_id}")
    async with admin_pool.acquire() as connection:
        entries = await history(connection, file_id)
        assert await history(connection, uuid4()) == []
    assert [(one.revision, one.event_type, one.changed) for one in entries] == [
        (1, "file:created", None),
        (2, "file:updated", ("description", "tags")),
        (3, "file:deleted", ()),
    ]
    assert [one.partition for one in entries] == [shard_of(file_id)] * 3
    assert [one.record_offset is None for one in entries] == [False, False, True]
    assert [one.sent_at is None for one in entries] == [False, False, True]
    assert all(one.actor for one in entries)


def artstore(database: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "cli", "outbox", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, "ADMIN_DATABASE_URL": database},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def test_the_command_line_shows_the_outbox_and_sends_again(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, admin_database: str, send_all: Callable[[], Any]
) -> None:
    def run(*arguments: str) -> Any:
        return asyncio.to_thread(artstore, admin_database, *arguments)

    empty = await run("stats")
    assert empty.returncode == 0, empty.stderr
    assert "Nothing waits. Sent: 0 in the last minute, 0 in the last hour." in empty.stdout
    file_id = await upload(admin)
    await send_all()
    await admin.patch(f"/{file_id}", json={"description": "two"})
    found = json.loads((await run("stats", "--json")).stdout)
    assert (found["waiting"], found["sent_last_hour"], len(found["shards"])) == (1, 1, SHARDS)
    assert found["shards"][shard_of(file_id)]["waiting"] == 1
    shown = await run("audit", str(file_id))
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("\n") == 3
    assert "description" in shown.stdout
    assert "waiting" in shown.stdout
    assert [one["revision"] for one in json.loads((await run("audit", str(file_id), "--json")).stdout)] == [1, 2]
    nothing = await run("audit", str(uuid4()))
    assert (nothing.returncode, nothing.stdout) == (1, "")
    await send_all()
    dry = await run("requeue", str(file_id), "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "1 events would be put back" in dry.stdout
    assert "1 are superseded" in dry.stdout
    assert json.loads((await run("requeue", "--since", "2026-01-01", "--json")).stdout)["requeued"] == 1
    assert await waiting(admin_pool) == [(file_id, 2)]
    assert (await run("requeue", str(uuid4()))).returncode == 1
    assert (await run("requeue")).returncode == 2
    assert (
        "Nothing was sent in that time."
        in (await run("requeue", "--since", "2000-01-01", "--until", "2001-01-01")).stdout
    )
    gone = await asyncio.to_thread(artstore, admin_database.replace("admin_", "missing_"), "stats")
    assert gone.returncode == 1
    assert "The Admin database does not answer" in gone.stderr
