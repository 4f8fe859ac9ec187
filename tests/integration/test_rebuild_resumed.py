"""A rebuild that goes on in the middle of a partition knows what was bad in the part that it does not read again."""

import asyncpg

from consumer_query import rebuild_jobs
from consumer_query.rebuild_jobs import Phase, Wish
from producer_admin.outbox import shard_of
from tests.integration.conftest import Rebuilding, Running, Topic, cached, dead_letters, produce
from tests.integration.test_rebuild import ask, ended, unattended
from tests.samples import created
from tests.waiting import eventually, settles

HALF = """
SELECT count(*) FROM rebuild_partitions WHERE job_id = $1 AND next_offset > first_offset + 4 AND loaded_at IS NULL
"""


async def test_a_bad_record_before_the_place_where_loading_goes_on_does_not_cost_its_file(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Rebuilding
) -> None:
    first = created()
    others = [one for one in (created() for _ in range(400)) if shard_of(one.file_id) == shard_of(first.file_id)]
    assert len(others) > 10
    await events_topic.announce(first)
    await produce(events_topic, first.file_id, b"rubbish", [("revision", b"2")])
    await events_topic.announce(*others)
    expected = {one.file_id: 1 for one in (first, *others)}
    async with running_projector(), worker():
        await settles(cached(query_pool), expected)
        await eventually(lambda: dead_letters(events_topic))
        job = await ask(query_pool, rows_per_second=4)
        await eventually(lambda: query_pool.fetchval(HALF, job.job_id))
        await rebuild_jobs.wish(query_pool, job.job_id, Wish.PAUSE)
        await eventually(lambda: unattended(query_pool, job))
        assert await query_pool.fetchval(HALF, job.job_id)
        await rebuild_jobs.wish(query_pool, job.job_id, Wish.RUN, throttle=None, set_throttle=True)
        found = await ended(query_pool, job)
        assert (found.phase, found.trouble) == (Phase.SWAPPED, None)
        assert await cached(query_pool)() == expected
