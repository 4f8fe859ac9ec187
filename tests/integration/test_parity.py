"""Two generations are compared within one moment, and what differs is found whichever bucket it hides in."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from consumer_query import generations, parity, rebuild_jobs
from consumer_query.dead_letters import TopicDeadLetters
from consumer_query.generations import table_name
from consumer_query.parity import ArbiterAwayError, Class, Parity, State
from consumer_query.points import RebuildPoint
from consumer_query.rebuild import Rebuilder
from consumer_query.rebuild_jobs import Kind, Phase
from consumer_query.rebuild_worker import RebuildWorker
from consumer_query.settings import MaintenanceSettings
from schemas.topics import DEAD_LETTERS, topic_name
from tests.integration.conftest import Running, Topic, cached
from tests.running import running
from tests.samples import created
from tests.waiting import eventually, settles

THERE = "INSERT INTO {table} (file_id, revision, deleted, description) VALUES ($1, $2, false, $3)"
GONE = "INSERT INTO {table} (file_id, revision, deleted) VALUES ($1, $2, true)"
SAME_BUCKET = """
SELECT id FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 100000)) AS ids
WHERE uuid_hash(id) & 4095 = uuid_hash($1) & 4095 LIMIT 1
"""
# In one statement, so that it is done the moment its lock is there.
SNEAK_IN = """
INSERT INTO file_metadata_cache_g1 (file_id, revision, deleted, description)
SELECT gen_random_uuid(), 1, false, 'sneaked in' FROM (SELECT live FROM cache_generation FOR SHARE) AS held
"""


@pytest.fixture
async def two(query_pool: asyncpg.Pool) -> tuple[str, str]:
    """The live table and another one."""
    async with query_pool.acquire() as connection, connection.transaction():
        return table_name(1), table_name(await generations.make(connection))


class Knowing:
    """An Admin module that answers some questions and is away then."""

    def __init__(self, truth: Mapping[UUID, State], answers: int = 1_000) -> None:
        self.truth = truth
        self.answers = answers

    async def states(self, file_ids: Sequence[UUID]) -> Mapping[UUID, State]:
        self.answers -= 1
        if self.answers < 0:
            raise ArbiterAwayError("away")
        return {one: self.truth[one] for one in file_ids if one in self.truth}


async def compared(pool: asyncpg.Pool, arbiter: Knowing | None = None) -> Parity:
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        return await parity.compare(connection, 1, 2, arbiter)


async def test_equal_generations_have_no_difference_whatever_deletions_they_remember(
    query_pool: asyncpg.Pool, two: tuple[str, str]
) -> None:
    file_id = uuid4()
    for table in two:
        await query_pool.execute(THERE.format(table=table), file_id, 2, "договор")
    await query_pool.execute(GONE.format(table=two[0]), uuid4(), 3)
    await query_pool.execute(GONE.format(table=two[1]), uuid4(), 4)
    found = await compared(query_pool)
    assert (found.live_rows, found.new_rows, found.classes, found.speaks_against) == (1, 1, {}, 0)


async def test_each_class_of_difference_is_found_and_named_with_its_file(
    query_pool: asyncpg.Pool, two: tuple[str, str]
) -> None:
    live, new = two
    ghost, missing, stale, other, same = (uuid4() for _ in range(5))
    for table, rows in ((live, [(ghost, 1), (missing, 1), (stale, 1), (same, 1)]), (new, [(stale, 2), (same, 1)])):
        for file_id, revision in rows:
            await query_pool.execute(THERE.format(table=table), file_id, revision, "a")
    await query_pool.execute(GONE.format(table=new), ghost, 2)
    await query_pool.execute(THERE.format(table=live), other, 1, "a")
    await query_pool.execute(THERE.format(table=new), other, 1, "b")
    found = await compared(query_pool)
    expected = {
        Class.GHOST_IN_LIVE: ghost,
        Class.MISSING_IN_NEW: missing,
        Class.STALE_IN_LIVE: stale,
        Class.UNDECIDED: other,
    }
    assert found.examples == {name.value: [str(file_id)] for name, file_id in expected.items()}
    assert found.speaks_against == 2


async def test_where_contents_cannot_be_compared_a_file_is_missed_that_shares_bucket_and_revision_with_another(
    query_pool: asyncpg.Pool, two: tuple[str, str]
) -> None:
    live, new = two
    one = uuid4()
    other = await query_pool.fetchval(SAME_BUCKET, one)
    await query_pool.execute(THERE.format(table=live), one, 1, "a")
    await query_pool.execute(THERE.format(table=new), other, 1, "a")
    await query_pool.execute("UPDATE generations SET shape = shape - 1 WHERE generation = 1")
    found = await compared(query_pool)
    assert not found.content_compared
    assert found.classes == {Class.MISSING_IN_NEW: 1, Class.MISSING_IN_LIVE: 1}


async def test_once_the_admin_module_is_away_the_rest_is_judged_without_it(
    query_pool: asyncpg.Pool, two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "PAGE", 2)
    files = [uuid4() for _ in range(5)]
    for file_id in files:
        await query_pool.execute(THERE.format(table=two[0]), file_id, 1, "a")
    deleted = {file_id: State(2, deleted=True, digest=None) for file_id in files}
    found = await compared(query_pool, Knowing(deleted, answers=1))
    assert found.asked_admin
    assert found.classes == {Class.GHOST_IN_LIVE: 2, Class.MISSING_IN_NEW: 3}
    assert (await compared(query_pool, Knowing(deleted))).classes == {Class.GHOST_IN_LIVE: 5}


async def test_what_is_written_the_moment_writers_are_let_go_is_not_held_against_the_new_generation(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, query_database: str, group: str
) -> None:
    event = created()
    await events_topic.announce(event)
    sneaking: list[asyncio.Task[str]] = []

    def sneak(point: RebuildPoint) -> None:
        if point is RebuildPoint.EQUAL and not sneaking:
            sneaking.append(asyncio.create_task(writer.execute(SNEAK_IN)))

    settings = MaintenanceSettings.model_validate(
        {
            "query_database_url": query_database,
            "kafka_bootstrap_servers": events_topic.bootstrap_servers,
            "file_events_topic": events_topic.name,
            "kafka_consumer_group": group,
        }
    )
    letters = TopicDeadLetters(events_topic.bootstrap_servers, topic_name(DEAD_LETTERS, events_topic.name))
    async with (
        query_pool.acquire() as writer,
        running_projector(),
        running(RebuildWorker(Rebuilder(settings, query_pool, letters, None, sneak), query_pool, timedelta(hours=1))),
    ):
        await settles(cached(query_pool), {event.file_id: 1})
        job = await rebuild_jobs.request(query_pool, Kind.REBUILD, requested_by="tests", reason="a test")

        async def ended() -> bool:
            return (await rebuild_jobs.get(query_pool, job.job_id)).finished_at is not None

        await eventually(ended, 60)
        await sneaking[0]
    await letters.close()
    found = await rebuild_jobs.get(query_pool, job.job_id)
    assert (found.phase, found.parity and found.parity["classes"]) == (Phase.SWAPPED, {})
