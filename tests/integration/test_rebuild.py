"""Rebuilds over a real topic and a real database: the next generation is right, and nothing is left of a failed one."""

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from consumer_query import generations, positions, rebuild_jobs
from consumer_query.rebuild_jobs import Job, Kind, Phase, Wish
from tests.integration.conftest import Rebuilding, Running, Topic, cached, dead_letters, produce
from tests.samples import created, deleted, updated
from tests.waiting import eventually, settles


async def ask(pool: asyncpg.Pool, kind: Kind = Kind.REBUILD, **how: Any) -> Job:
    return await rebuild_jobs.request(pool, kind, requested_by="tests", reason="a test", **how)


async def ended(pool: asyncpg.Pool, job: Job) -> Job:
    async def look() -> Job | None:
        found = await rebuild_jobs.get(pool, job.job_id)
        return found if found.finished_at is not None else None

    found = await eventually(look, seconds=60, what=f"the end of job {job.job_id}")
    assert found is not None
    return found


async def live_rows(pool: asyncpg.Pool) -> list[tuple[Any, ...]]:
    """All rows of the live generation whole, deletions too."""
    table = generations.table_name(await generations.live(pool))
    return [tuple(row) for row in await pool.fetch(f"SELECT * FROM {table} ORDER BY file_id")]


async def tables(pool: asyncpg.Pool) -> set[str]:
    rows = await pool.fetch("SELECT tablename FROM pg_tables WHERE tablename LIKE 'file_metadata_cache_g%'")
    return {row["tablename"] for row in rows}


async def test_a_rebuilt_generation_equals_the_live_one_row_for_row(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Rebuilding
) -> None:
    kept, changed, gone = created(), created(), created()
    await events_topic.announce(kept, changed, gone)
    await events_topic.announce(updated(changed.file_id, 2, description="Новое"), deleted(gone.file_id, 2))
    async with running_projector(), worker():
        await settles(cached(query_pool), {kept.file_id: 1, changed.file_id: 2})
        before = await live_rows(query_pool)
        job = await ended(query_pool, await ask(query_pool))
        assert (job.phase, job.trouble) == (Phase.SWAPPED, None)
        assert job.parity is not None
        assert (job.parity["speaks_against"], job.parity["live_rows"], job.parity["new_rows"]) == (0, 2, 2)
        assert await generations.live(query_pool) == 2
        assert await live_rows(query_pool) == before
        later = created()
        await events_topic.announce(later, deleted(kept.file_id, 2))
        await settles(cached(query_pool), {changed.file_id: 2, later.file_id: 1})


async def test_a_swap_leaves_projectors_where_they_are(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Rebuilding
) -> None:
    events = [created() for _ in range(20)]
    await events_topic.announce(*events)
    async with running_projector(), worker():
        await settles(cached(query_pool), {one.file_id: 1 for one in events})
        await ended(query_pool, await ask(query_pool))
        old, new = [await positions.stored(query_pool, one, events_topic.name) for one in (1, 2)]
        assert old == new


async def test_the_newest_record_that_is_good_stands_for_a_file_whose_newest_is_bad(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Rebuilding
) -> None:
    good, other = created(), created()
    await events_topic.announce(good, updated(good.file_id, 2), other)
    await produce(events_topic, good.file_id, b"rubbish", [("revision", b"3")])
    async with running_projector(), worker():
        await settles(cached(query_pool), {good.file_id: 2, other.file_id: 1})
        await eventually(lambda: dead_letters(events_topic))
        job = await ended(query_pool, await ask(query_pool))
        assert job.phase == Phase.SWAPPED
        assert await cached(query_pool)() == {good.file_id: 2, other.file_id: 1}
    assert len(await dead_letters(events_topic)) == 1


async def test_what_no_projector_has_come_to_is_put_aside_by_the_rebuild(
    query_pool: asyncpg.Pool, events_topic: Topic, worker: Rebuilding
) -> None:
    good = created()
    await events_topic.announce(good)
    await produce(events_topic, uuid4(), b"rubbish", [])
    async with worker():
        job = await ended(query_pool, await ask(query_pool))
    assert job.phase == Phase.SWAPPED
    assert await cached(query_pool)() == {good.file_id: 1}
    assert len(await dead_letters(events_topic)) == 1


async def test_a_deletion_that_the_topic_has_forgotten_is_taken_over(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Rebuilding
) -> None:
    forgotten = uuid4()
    kept = created()
    await events_topic.announce(kept)
    async with running_projector(), worker():
        await settles(cached(query_pool), {kept.file_id: 1})
        await query_pool.execute(
            "INSERT INTO file_metadata_cache_g1 (file_id, revision, deleted) VALUES ($1, 7, true)", forgotten
        )
        await ended(query_pool, await ask(query_pool))
        await events_topic.announce(updated(forgotten, 6), updated(kept.file_id, 2))
        await settles(cached(query_pool), {kept.file_id: 2})


async def test_a_file_that_only_the_live_generation_has_stops_the_swap_unless_forced(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Rebuilding
) -> None:
    first, second = created(), created()
    await events_topic.announce(first, second)
    async with running_projector(), worker():
        await settles(cached(query_pool), {first.file_id: 1, second.file_id: 1})
        await query_pool.execute(
            "UPDATE file_metadata_cache_g1 SET file_id = $2 WHERE file_id = $1", first.file_id, uuid4()
        )
        job = await ended(query_pool, await ask(query_pool))
        assert job.phase == Phase.REFUSED
        assert job.parity is not None
        assert job.parity["classes"] == {"missing_in_new": 1, "missing_in_live": 1}
        assert await tables(query_pool) == {"file_metadata_cache_g1"}
        job = await ended(query_pool, await ask(query_pool, force=True))
        assert job.phase == Phase.SWAPPED
        assert await cached(query_pool)() == {first.file_id: 1, second.file_id: 1}


async def test_a_rollback_brings_the_previous_generation_back_caught_up(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Rebuilding
) -> None:
    first, second = created(), created()
    await events_topic.announce(first)
    async with running_projector(), worker():
        await settles(cached(query_pool), {first.file_id: 1})
        await ended(query_pool, await ask(query_pool))
        await events_topic.announce(second, updated(first.file_id, 2))
        await settles(cached(query_pool), {first.file_id: 2, second.file_id: 1})
        before = await live_rows(query_pool)
        job = await ended(query_pool, await ask(query_pool, Kind.ROLLBACK))
        assert (job.phase, job.trouble) == (Phase.SWAPPED, None)
        assert await generations.live(query_pool) == 1
        assert await live_rows(query_pool) == before
        await events_topic.announce(deleted(second.file_id, 2))
        await settles(cached(query_pool), {first.file_id: 2})


async def test_a_rebuild_that_is_cancelled_leaves_nothing_behind(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Rebuilding
) -> None:
    events = [created() for _ in range(40)]
    await events_topic.announce(*events)
    expected = {one.file_id: 1 for one in events}
    async with running_projector(), worker():
        await settles(cached(query_pool), expected)
        job = await ask(query_pool, rows_per_second=2)
        await eventually(lambda: has_rows(query_pool, job))
        await rebuild_jobs.wish(query_pool, job.job_id, Wish.CANCEL)
        assert (await ended(query_pool, job)).phase == Phase.CANCELLED
        assert await tables(query_pool) == {"file_metadata_cache_g1"}
        assert await cached(query_pool)() == expected


async def test_a_rebuild_that_was_paused_goes_on_where_it_stood(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Rebuilding
) -> None:
    events = [created() for _ in range(40)]
    await events_topic.announce(*events)
    expected = {one.file_id: 1 for one in events}
    async with running_projector(), worker():
        await settles(cached(query_pool), expected)
        job = await ask(query_pool, rows_per_second=4)
        await eventually(lambda: has_rows(query_pool, job))
        await rebuild_jobs.wish(query_pool, job.job_id, Wish.PAUSE)
        await eventually(lambda: unattended(query_pool, job))
        rows = (await rebuild_jobs.loaded(query_pool, job.job_id)).rows
        assert 0 < rows < len(events)
        await rebuild_jobs.wish(query_pool, job.job_id, Wish.RUN, throttle=None, set_throttle=True)
        assert (await ended(query_pool, job)).phase == Phase.SWAPPED
        assert await cached(query_pool)() == expected
    assert (await rebuild_jobs.loaded(query_pool, job.job_id)).rows == len(events)


async def test_there_is_one_rebuild_at_a_time(query_pool: asyncpg.Pool) -> None:
    await ask(query_pool)
    with pytest.raises(rebuild_jobs.RebuildRunsError):
        await ask(query_pool)


async def has_rows(pool: asyncpg.Pool, job: Job) -> bool:
    return (await rebuild_jobs.loaded(pool, job.job_id)).rows > 0


async def unattended(pool: asyncpg.Pool, job: Job) -> bool:
    return not (await rebuild_jobs.get(pool, job.job_id)).attended
