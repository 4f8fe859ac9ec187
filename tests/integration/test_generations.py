"""Writers hold the live generation, and a swap waits for them and they for it: no write falls between two of them."""

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from consumer_query import generations
from runtime.postgres import Connection

SOON = "SET LOCAL lock_timeout = '100ms'"
COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
DELETED = "INSERT INTO {table} (file_id, revision, deleted) VALUES ($1, $2, true)"


async def made(pool: asyncpg.Pool) -> int:
    """Another generation, with its indexes."""
    async with pool.acquire() as connection, connection.transaction():
        generation = await generations.make(connection)
        for statement in generations.INDEXES.values():
            await connection.execute(statement.format(table=generations.table_name(generation)))
    return generation


async def taken_over(connection: Connection) -> int:
    """The live generation, taken over for a moment and only if that can be had soon."""
    async with connection.transaction():
        await connection.execute(SOON)
        return await generations.take_over(connection)


async def test_a_swap_waits_for_a_writer_that_holds_the_live_generation(query_pool: asyncpg.Pool) -> None:
    async with query_pool.acquire() as writer, query_pool.acquire() as swapping:
        async with writer.transaction():
            await generations.hold_live(writer)
            with pytest.raises(asyncpg.LockNotAvailableError):
                await taken_over(swapping)
        assert await taken_over(swapping) == 1


async def test_a_writer_that_comes_while_a_swap_goes_on_writes_into_the_new_generation(
    query_pool: asyncpg.Pool,
) -> None:
    new = await made(query_pool)

    async def hold() -> int:
        async with query_pool.acquire() as writer, writer.transaction():
            return await generations.hold_live(writer)

    async with query_pool.acquire() as swapping:
        async with swapping.transaction():
            old = await generations.take_over(swapping)
            holding = asyncio.create_task(hold())
            done, _ = await asyncio.wait([holding], timeout=0.3)
            assert not done, "it did not wait for the swap"
            await generations.swap(swapping, old, new)
        assert await holding == new


async def test_writers_do_not_wait_for_each_other(query_pool: asyncpg.Pool) -> None:
    async with query_pool.acquire() as one, query_pool.acquire() as other, one.transaction(), other.transaction():
        await other.execute(SOON)
        assert await generations.hold_live(one) == await generations.hold_live(other) == 1


async def test_a_swap_that_does_not_commit_leaves_searches_and_writers_where_they_are(
    query_pool: asyncpg.Pool,
) -> None:
    new = await made(query_pool)
    async with query_pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await generations.swap(connection, await generations.take_over(connection), new)
        await transaction.rollback()
        assert await generations.live(connection) == 1
        assert await generations.previous(connection) is None
        view = await connection.fetchval("SELECT pg_get_viewdef('file_metadata_cache'::regclass)")
    assert generations.table_name(1) in view


async def test_after_a_swap_the_one_before_is_the_previous_one_and_after_the_way_back_the_other(
    query_pool: asyncpg.Pool,
) -> None:
    new = await made(query_pool)
    for old, to in ((1, new), (new, 1)):
        async with query_pool.acquire() as connection, connection.transaction():
            assert await generations.take_over(connection) == old
            await generations.swap(connection, old, to)
        previous = await generations.previous(query_pool)
        assert previous is not None
        assert (await generations.live(query_pool), previous.generation) == (to, old)


async def test_a_deletion_is_carried_over_unless_the_other_generation_knows_better(query_pool: asyncpg.Pool) -> None:
    new = await made(query_pool)
    forgotten, older, newer, known = (uuid4() for _ in range(4))
    live_table, new_table = generations.table_name(1), generations.table_name(new)
    for file_id in (forgotten, older, newer):
        await query_pool.execute(DELETED.format(table=live_table), file_id, 5)
    there = "INSERT INTO {table} (file_id, revision, deleted, description) VALUES ($1, $2, false, 'x')"
    await query_pool.execute(there.format(table=live_table), known, 3)
    await query_pool.execute(there.format(table=new_table), older, 4)
    await query_pool.execute(there.format(table=new_table), newer, 6)
    await query_pool.execute(generations.DELETIONS.format(table=new_table, live=live_table))
    rows = await query_pool.fetch(f"SELECT file_id, revision, deleted, description FROM {new_table}")
    assert {row["file_id"]: tuple(row)[1:] for row in rows} == {
        forgotten: (5, True, None),
        older: (5, True, None),
        newer: (6, False, "x"),
    }


async def test_the_type_in_which_rows_are_sent_has_the_columns_of_the_table(query_pool: asyncpg.Pool) -> None:
    table = await query_pool.fetch(COLUMNS, generations.table_name(1))
    assert await query_pool.fetch(COLUMNS, "cache_row") == table
