"""Whoever waits for room in the outbox says so, and says when nobody makes any."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import backpressure
from producer_admin.backlog import HeldRelay
from producer_admin.backpressure import wait_for_room
from tests.running import running
from tests.waiting import eventually

ADD = """
INSERT INTO outbox (shard, file_id, revision, event_id, event_type, actor, payload, occurred_at)
SELECT number % 12, gen_random_uuid(), 1, gen_random_uuid(), 'file:created', 'tests', '', now()
FROM generate_series(1, $1::int) AS number
"""
SEND = "DELETE FROM outbox WHERE outbox_id IN (SELECT outbox_id FROM outbox ORDER BY outbox_id LIMIT $1)"


@asynccontextmanager
async def waiter(engine: AsyncEngine, limit: int) -> AsyncIterator[tuple[asyncio.Task[None], list[str]]]:
    said: list[str] = []
    task = asyncio.create_task(wait_for_room(engine, limit, said.append))
    try:
        yield task, said
    finally:
        task.cancel()
        await asyncio.wait({task})


def saying(said: list[str], what: str) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return any(what in one for one in said)

    return look


async def test_with_room_or_without_a_limit_nobody_waits(admin_engine: AsyncEngine, admin_pool: asyncpg.Pool) -> None:
    await admin_pool.execute(ADD, 5)
    for limit in (5, 0):
        async with asyncio.timeout(5), waiter(admin_engine, limit) as (task, said):
            await task
            assert said == []


async def test_nobody_waits_for_a_relay_that_holds_publishing(
    admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    await admin_pool.execute(ADD, 6)
    async with waiter(admin_engine, 5) as (task, said):
        await eventually(saying(said, "Waiting for the relay"))
        async with running(HeldRelay(admin_pool)), asyncio.timeout(10):
            await task


async def test_it_says_that_nothing_is_sent_though_uploads_go_on(
    admin_engine: AsyncEngine, admin_pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backpressure, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(backpressure, "STILL_SECONDS", 0.5)
    await admin_pool.execute(ADD, 10)
    async with waiter(admin_engine, 5) as (task, said):

        async def stands() -> bool:
            await admin_pool.execute(ADD, 1)
            return any("has sent nothing for" in one for one in said)

        await eventually(stands)
        assert said[0].startswith("Waiting for the relay: 1")
        await admin_pool.execute("DELETE FROM outbox")
        async with asyncio.timeout(5):
            await task


async def test_it_does_not_complain_of_a_relay_that_uploads_outpace(
    admin_engine: AsyncEngine, admin_pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backpressure, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(backpressure, "STILL_SECONDS", 1.5)
    await admin_pool.execute(ADD, 10)
    async with waiter(admin_engine, 5) as (task, said):

        async def outgrown() -> bool:
            await admin_pool.execute(ADD, 5)
            await admin_pool.execute(SEND, 1)
            return bool(said) and int(said[-1].split()[4]) > 400

        await eventually(outgrown, seconds=60)
        assert not any("has sent nothing" in one for one in said)
        assert not task.done()
