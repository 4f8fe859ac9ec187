"""What would make the cache silently wrong is noticed, said and cured; and nothing else is taken for it."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import asyncpg
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from prometheus_client import REGISTRY

from consumer_query import cache_guard, doubts, generations, guards, positions, rebuild_jobs
from consumer_query.analysis import ANALYZER
from consumer_query.cache_guard import Applying, Cure
from consumer_query.generations import SHAPE
from consumer_query.guards import KAFKA_RETENTION_SECONDS, Reason
from consumer_query.log_evidence import LogEvidence
from consumer_query.projector import Projector
from consumer_query.rebuild_jobs import Job, Kind, Phase, Wish
from producer_admin.outbox import shard_of
from runtime.health import NotReadyError
from runtime.kafka import admin_client, group_lag
from runtime.topics import ensure_topics
from schemas.events import FileEvent
from tests.integration.conftest import Running, Topic, cached
from tests.integration.conftest import cache_guard as cache_guard_of
from tests.samples import created, deleted, updated
from tests.waiting import eventually, settles

WEEK = "interval '7 days'"
"""delete.retention.ms on the topic's card."""

CAUGHT_UP = """
SELECT coalesce(min(caught_up_at), 'epoch') FROM projector_positions
WHERE generation = (SELECT live FROM cache_generation)
"""


@pytest.fixture(autouse=True)
def _watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_guard, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(guards, "RENEW_SECONDS", 0.3)


async def reasons(pool: asyncpg.Pool) -> set[Reason]:
    """What the live generation is doubted for."""
    live = await pool.fetchval("SELECT live FROM cache_generation")
    return {one.reason for one in await doubts.of(pool, live)}


async def jobs(pool: asyncpg.Pool) -> list[Job]:
    return await rebuild_jobs.newest(pool, 10)


def metric(reason: Reason) -> float | None:
    return REGISTRY.get_sample_value("artstore_query_cache_doubts", {"reason": reason})


async def degraded(projector: Projector) -> str:
    """What the guard says in readiness; empty when it says nothing."""
    try:
        await projector.guard.check()
    except NotReadyError as error:
        return str(error)
    return ""


async def says(projector: Projector, what: str) -> bool:
    return what in await degraded(projector)


async def barred(projector: Projector, what: str) -> bool:
    try:
        await projector.partitions()
    except NotReadyError as error:
        return what in str(error)
    return False


async def is_ready(projector: Projector) -> bool:
    try:
        await projector.partitions()
    except NotReadyError:
        return False
    return True


async def caught_up(pool: asyncpg.Pool) -> datetime:
    """When the projector was last known to have read all partitions to their ends."""
    found: datetime = await pool.fetchval(CAUGHT_UP)
    return found


async def renewed(pool: asyncpg.Pool, times: int = 1) -> None:
    """Wait for renewals of all partitions that began after this."""
    for _ in range(times):
        now = await pool.fetchval("SELECT clock_timestamp()")

        async def later(since: datetime = now) -> bool:
            return await caught_up(pool) > since

        await eventually(later, what="a renewal of all partitions")


async def turn_back(pool: asyncpg.Pool, interval: str) -> None:
    """As if nothing had run for so long."""
    await pool.execute(f"UPDATE projector_positions SET caught_up_at = caught_up_at - {interval}")


async def applied(pool: asyncpg.Pool, topic: Topic, running_projector: Running, *events: FileEvent, **how: Any) -> None:
    """A projector that has applied these, knows the log by witnesses, and has ended in order."""
    await topic.announce(*events)
    async with running_projector(**how):
        await settles(cached(pool), {one.file_id: one.revision for one in events})
        await renewed(pool, 2)


def beside(event: FileEvent) -> FileEvent:
    """A file in the same partition."""
    return next(one for one in iter(created, None) if shard_of(one.file_id) == shard_of(event.file_id))


async def test_one_that_was_away_longer_than_tombstones_are_kept_says_so_and_asks_for_a_rebuild_once(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    first, second = created(), created()
    await applied(query_pool, events_topic, running_projector, first)
    await turn_back(query_pool, WEEK)
    await events_topic.announce(second)
    async with running_projector(cure=Cure.REBUILD) as projector:
        await eventually(lambda: says(projector, "away_too_long"))
        await settles(cached(query_pool), {first.file_id: 1, second.file_id: 1})
        await eventually(lambda: is_ready(projector))
        assert metric(Reason.AWAY_TOO_LONG) == 1
        [job] = await jobs(query_pool)
        assert (job.kind, job.force, job.requested_by) == (Kind.REBUILD, False, "projector")
        assert "away_too_long" in job.reason
        await renewed(query_pool)
        await query_pool.execute("UPDATE rebuild_jobs SET phase = 'cancelled', finished_at = now()")
        await eventually(lambda: says(projector, "ended as cancelled"))
        await renewed(query_pool)
    async with running_projector(cure=Cure.REBUILD) as projector:
        await eventually(lambda: says(projector, "ended as cancelled"))
    assert await reasons(query_pool) == {Reason.AWAY_TOO_LONG}
    assert len(await jobs(query_pool)) == 1


async def test_where_people_decide_a_rebuild_is_only_demanded(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    await applied(query_pool, events_topic, running_projector, created())
    await turn_back(query_pool, WEEK)
    async with running_projector(cure=Cure.DEMAND) as projector:
        await eventually(lambda: says(projector, "Run: artstore rebuild"))
        await renewed(query_pool)
    assert await jobs(query_pool) == []


async def test_a_rebuild_takes_the_doubt_away(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Callable[[], Any]
) -> None:
    event = created()
    await applied(query_pool, events_topic, running_projector, event)
    await turn_back(query_pool, WEEK)
    async with running_projector(cure=Cure.REBUILD) as projector, worker():
        await eventually(lambda: says(projector, "away_too_long"))
        await settles(lambda: generations.live(query_pool), 2, seconds=60)
        await settles(lambda: degraded(projector), "")
        assert metric(Reason.AWAY_TOO_LONG) == 0
        await renewed(query_pool)
        assert await reasons(query_pool) == set()
        assert len(await jobs(query_pool)) == 1
        async with query_pool.acquire() as connection, connection.transaction():
            await generations.drop(connection, 1)
        assert await query_pool.fetchval("SELECT count(*) FROM cache_doubts") == 0
    assert await cached(query_pool)() == {event.file_id: 1}


async def test_a_rebuild_under_way_is_waited_for_and_one_is_asked_for_when_it_did_not_help(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    await applied(query_pool, events_topic, running_projector, created())
    other = await rebuild_jobs.request(query_pool, Kind.REBUILD, requested_by="tests", reason="another one")
    await turn_back(query_pool, WEEK)
    async with running_projector(cure=Cure.REBUILD) as projector:
        await eventually(lambda: says(projector, f"Rebuild {other.job_id} is under way"))
        await rebuild_jobs.wish(query_pool, other.job_id, Wish.CANCEL)
        await query_pool.execute("UPDATE rebuild_jobs SET phase = 'cancelled', finished_at = now()")

        async def asked() -> bool:
            return [one.requested_by for one in await jobs(query_pool)] == ["projector", "tests"]

        await eventually(asked)


async def test_one_that_stood_still_too_long_while_it_ran_says_so_and_never_forgets_it(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    """Such as a frozen machine, or a database that was away: there is no seek to notice it at."""
    await events_topic.announce(created())
    async with running_projector() as projector:
        await renewed(query_pool)
        await turn_back(query_pool, WEEK)
        await eventually(lambda: says(projector, "away_too_long"))
        await renewed(query_pool)
    async with running_projector() as projector:
        await eventually(lambda: says(projector, "away_too_long"))


async def test_ordinary_restarts_rebalances_idle_nights_and_absences_are_not_doubted(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, group: str
) -> None:
    event = created()
    await applied(query_pool, events_topic, running_projector, event)
    await turn_back(query_pool, "interval '6 days'")
    async with running_projector(cure=Cure.REBUILD) as first:
        await renewed(query_pool)
        async with running_projector(cure=Cure.REBUILD) as second:
            await eventually(lambda: is_ready(second))
            await events_topic.announce(updated(event.file_id, 2))
            await settles(cached(query_pool), {event.file_id: 2})
            await renewed(query_pool)
        await settles(lambda: group_lag(events_topic.bootstrap_servers, group, events_topic.name), 0)
        await renewed(query_pool, 3)
        assert await degraded(first) == ""
    assert await reasons(query_pool) == set()
    assert await jobs(query_pool) == []


async def test_the_end_counts_as_reached_though_there_is_always_something_new(
    query_pool: asyncpg.Pool, events_topic: Topic
) -> None:
    """What was the end when it was heard has been passed, and the end has moved on each time one looks."""
    event = created()
    partition, topic = shard_of(event.file_id), events_topic.name

    async def stand_at(offset: int) -> datetime:
        async with query_pool.acquire() as connection:
            await positions.take(connection, 1, topic, {partition: offset})
        return await caught_up(query_pool)

    await events_topic.announce(event)
    stood = await stand_at(0)
    guarding = asyncio.create_task(
        cache_guard_of(query_pool, events_topic).run(Applying(lambda: [partition], lambda: None))
    )
    try:
        await eventually(lambda: query_pool.fetchval("SELECT cluster_id FROM projector_positions"))
        assert await caught_up(query_pool) == stood
        [first] = await events_topic.records()
        await events_topic.announce(updated(event.file_id, 2))
        await stand_at(first.offset + 2)

        async def passed() -> bool:
            return await caught_up(query_pool) > stood

        await eventually(passed)
        assert await reasons(query_pool) == set()
    finally:
        guarding.cancel()


async def test_a_partition_that_is_held_does_not_count_as_read_to_its_end(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    first = created()
    await applied(query_pool, events_topic, running_projector, first)
    await query_pool.execute("ALTER TABLE file_metadata_cache_g1 ADD CONSTRAINT closed CHECK (revision < 2)")
    of_it = "SELECT caught_up_at FROM projector_positions WHERE partition = $1"
    others = "SELECT min(caught_up_at) FROM projector_positions WHERE partition <> $1"
    async with running_projector():
        await events_topic.announce(updated(first.file_id, 2))
        held = shard_of(first.file_id)
        stood = await query_pool.fetchval(of_it, held)

        async def left_behind() -> bool:
            found: bool = await query_pool.fetchval(f"SELECT ({others}) > ({of_it}) + interval '1 second'", held)
            return found

        await eventually(left_behind)
        written = await query_pool.fetchval("SELECT clock_timestamp()")
        assert stood <= await query_pool.fetchval(of_it, held) < written
        await query_pool.execute("ALTER TABLE file_metadata_cache_g1 DROP CONSTRAINT closed")
        await renewed(query_pool)


async def test_with_a_broker_that_does_not_tell_the_retention_the_default_of_kafka_is_taken(backend: Any) -> None:
    """It answers like this for a topic that it does not know, and for one that it must not tell about."""
    facts = await LogEvidence(backend.bootstrap_servers, "no-such-topic").facts()
    assert facts.retention_seconds == KAFKA_RETENTION_SECONDS


async def test_the_retention_and_the_cluster_are_what_the_broker_says(events_topic: Topic) -> None:
    async with admin_client(events_topic.bootstrap_servers) as admin:
        cluster = await admin.describe_cluster()
    assert await LogEvidence(events_topic.bootstrap_servers, events_topic.name).facts() == (
        cluster["cluster_id"],
        7 * 86_400,
    )


async def make_anew(topic: Topic) -> None:
    """Delete the topic and make one of the same name."""
    async with admin_client(topic.bootstrap_servers) as admin:
        await admin.delete_topics([topic.name])
        await eventually(lambda: is_gone(admin, topic.name))
    await ensure_topics(topic.bootstrap_servers, topic.name)


async def is_gone(admin: AIOKafkaAdminClient, name: str) -> bool:
    return name not in await admin.list_topics()


@pytest.mark.parametrize("longer", [True, False], ids=["longer than what was read", "shorter"])
async def test_a_topic_made_anew_while_nothing_ran_is_noticed_and_read_from_its_beginning(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, *, longer: bool
) -> None:
    old = created()
    early, late = beside(old), beside(old)
    await applied(query_pool, events_topic, running_projector, old, beside(old))
    await make_anew(events_topic)
    more = [*(updated(early.file_id, revision) for revision in range(2, 9)), late]
    new = [early, *(more if longer else [])]
    await events_topic.announce(*new)
    async with running_projector(cure=Cure.REBUILD) as projector:
        await eventually(lambda: says(projector, "another_log"))
        newest = {one.file_id: one.revision for one in new}
        await eventually(lambda: holds(query_pool, newest))
        await eventually(lambda: is_ready(projector))
        await renewed(query_pool, 2)
    assert await reasons(query_pool) == {Reason.ANOTHER_LOG}
    assert len(await jobs(query_pool)) == 1
    await query_pool.execute("DELETE FROM cache_doubts")
    async with running_projector() as projector:
        await eventually(lambda: is_ready(projector))
        await renewed(query_pool)
    assert await reasons(query_pool) == set()


async def holds(pool: asyncpg.Pool, revisions: dict[Any, int]) -> bool:
    found: dict[Any, int] = await cached(pool)()
    return revisions.items() <= found.items()


async def test_a_topic_made_anew_while_it_ran_is_noticed_although_it_is_longer_already(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    old, other = created(), created()
    new = beside(old)
    history = [new, *(updated(new.file_id, revision) for revision in range(2, 9)), beside(other)]
    await events_topic.announce(old, other)
    async with running_projector() as projector:
        await settles(cached(query_pool), {old.file_id: 1, other.file_id: 1})
        await renewed(query_pool, 2)
        await make_anew(events_topic)
        await events_topic.announce(*history)
        await eventually(lambda: says(projector, "another_log"), seconds=40)
        await eventually(lambda: holds(query_pool, {one.file_id: one.revision for one in history}), seconds=40)
    assert await reasons(query_pool) == {Reason.ANOTHER_LOG}


async def test_one_that_runs_reads_the_witness_back_before_a_newer_one_takes_its_place(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    """A topic that was made anew so quickly that the client saw nothing of it would else provide its own alibi."""
    event, later = created(), created()
    await events_topic.announce(event)
    async with running_projector() as projector:
        await settles(cached(query_pool), {event.file_id: 1})
        await renewed(query_pool, 2)
        await query_pool.execute("UPDATE projector_positions SET witness = 'x' WHERE witness IS NOT NULL")
        await query_pool.execute("TRUNCATE file_metadata_cache_g1")
        await eventually(lambda: says(projector, "another_log"))
        await settles(cached(query_pool), {event.file_id: 1})
        await events_topic.announce(later)
        await settles(cached(query_pool), {event.file_id: 1, later.file_id: 1})


async def test_one_partition_of_another_log_has_all_read_from_their_beginnings(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    """A position without a witness, beside one that shows that the topic is another one."""
    known, unknown = created(), created()
    await applied(query_pool, events_topic, running_projector, known, unknown)
    await query_pool.execute("TRUNCATE file_metadata_cache_g1")
    await query_pool.execute(
        "UPDATE projector_positions SET witness = CASE WHEN partition = $1 THEN 'x'::bytea END", shard_of(known.file_id)
    )
    async with running_projector():
        await settles(cached(query_pool), {known.file_id: 1, unknown.file_id: 1})
    assert await reasons(query_pool) == {Reason.ANOTHER_LOG}


async def test_another_cluster_is_another_log_unless_the_same_records_stand_there(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running
) -> None:
    event = created()
    await applied(query_pool, events_topic, running_projector, event)
    ours = await query_pool.fetchval("SELECT min(cluster_id) FROM projector_positions")
    await query_pool.execute("UPDATE projector_positions SET cluster_id = 'mirrored' WHERE witness IS NOT NULL")
    async with running_projector() as projector:
        await eventually(lambda: is_ready(projector))
        await renewed(query_pool)
        await settles(lambda: clusters(query_pool), {ours})
    assert await reasons(query_pool) == set()
    await query_pool.execute("UPDATE projector_positions SET cluster_id = 'theirs', witness = NULL")
    async with running_projector() as projector:
        await eventually(lambda: says(projector, "another_log"))
        await settles(lambda: clusters(query_pool), {ours})


async def clusters(pool: asyncpg.Pool) -> set[str | None]:
    return {row[0] for row in await pool.fetch("SELECT DISTINCT cluster_id FROM projector_positions")}


@pytest.mark.parametrize(
    ("also_unread", "expected"), [(False, set()), (True, {Reason.LOG_CUT})], ids=["read before", "unread"]
)
async def test_records_that_were_removed_are_missed_only_by_who_had_not_read_them(
    query_pool: asyncpg.Pool,
    events_topic: Topic,
    running_projector: Running,
    expected: set[Reason],
    *,
    also_unread: bool,
) -> None:
    """Then no witness is left either, which is no evidence."""
    first, second = created(), created()
    await applied(query_pool, events_topic, running_projector, first)
    if also_unread:
        await events_topic.announce(beside(first))
    async with admin_client(events_topic.bootstrap_servers) as admin:
        partition = TopicPartition(events_topic.name, shard_of(first.file_id))
        # A topic that is only compacted refuses.
        both = {"cleanup.policy": "compact,delete", "retention.ms": "-1"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, events_topic.name, both)])
        await admin.delete_records({partition: RecordsToDelete(before_offset=-1)})
    await events_topic.announce(second)
    async with running_projector() as projector:
        await settles(cached(query_pool), {first.file_id: 1, second.file_id: 1})
        await eventually(lambda: is_ready(projector))
        await renewed(query_pool)
    assert await reasons(query_pool) == expected


@pytest.mark.parametrize(
    ("age", "expected"),
    [("interval '6 days'", set()), (WEEK, {Reason.AWAY_TOO_LONG})],
    ids=["younger than tombstones are kept", "older"],
)
async def test_a_database_restored_from_a_backup_is_read_up_from_there_and_doubted_only_when_it_is_too_old(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, age: str, expected: set[Reason]
) -> None:
    first, second, third = created(), created(), created()
    await applied(query_pool, events_topic, running_projector, first)
    saved = ("file_metadata_cache_g1", "projector_positions")
    for table in saved:
        await query_pool.execute(f"CREATE TABLE backup_of_{table} AS TABLE {table}")
    await events_topic.announce(second, deleted(first.file_id, 2))
    async with running_projector():
        await settles(cached(query_pool), {second.file_id: 1})
    for table in saved:
        await query_pool.execute(f"TRUNCATE {table}")
        await query_pool.execute(f"INSERT INTO {table} TABLE backup_of_{table}")
    await turn_back(query_pool, age)
    await events_topic.announce(third)
    async with running_projector() as projector:
        await settles(cached(query_pool), {second.file_id: 1, third.file_id: 1})
        await eventually(lambda: is_ready(projector))
        await renewed(query_pool)
    assert await reasons(query_pool) == expected


async def members(topic: Topic, group: str) -> int:
    async with admin_client(topic.bootstrap_servers) as admin:
        [answer] = await admin.describe_consumer_groups([group])
    found: Any = answer.groups[0]
    return len(found[5])


async def reshape(pool: asyncpg.Pool, shape: int, analyzer: int = ANALYZER) -> None:
    """As if another version of the program had made the live generation."""
    for table in ("cache_generation", "generations"):
        await pool.execute(f"UPDATE {table} SET shape = $1, analyzer = $2", shape, analyzer)


async def test_beside_a_cache_of_an_older_shape_it_joins_nothing_has_it_rebuilt_and_goes_on_by_itself(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, worker: Callable[[], Any], group: str
) -> None:
    first, second = created(), created()
    await applied(query_pool, events_topic, running_projector, first)
    await reshape(query_pool, SHAPE - 1)
    await events_topic.announce(second)
    async with running_projector(cure=Cure.REBUILD) as projector:
        await eventually(lambda: barred(projector, f"shape {SHAPE - 1}"))
        await eventually(lambda: says(projector, "other_shape"))
        [job] = await eventually(lambda: jobs(query_pool))
        assert metric(Reason.OTHER_SHAPE) == 1
        assert await members(events_topic, group) == 0
        assert await cached(query_pool)() == {first.file_id: 1}
        async with worker():
            await settles(cached(query_pool), {first.file_id: 1, second.file_id: 1}, seconds=60)
            await eventually(lambda: is_ready(projector))
            await settles(lambda: degraded(projector), "")
        assert (await rebuild_jobs.get(query_pool, job.job_id)).phase is Phase.SWAPPED
        third = created()
        await events_topic.announce(third)
        await settles(cached(query_pool), {one.file_id: 1 for one in (first, second, third)})


@pytest.mark.parametrize(("shape", "analyzer"), [(SHAPE + 1, ANALYZER), (SHAPE, ANALYZER + 1)])
async def test_an_old_one_leaves_the_group_when_a_newer_shape_is_swapped_in_and_does_not_have_it_rebuilt(
    query_pool: asyncpg.Pool,
    events_topic: Topic,
    running_projector: Running,
    group: str,
    shape: int,
    analyzer: int,
) -> None:
    """In a rolling upgrade, though it has nothing to write that would tell it; and it goes on when its own is back."""
    first, second = created(), created()
    await events_topic.announce(first)
    async with running_projector(cure=Cure.REBUILD) as projector:
        await settles(cached(query_pool), {first.file_id: 1})
        await settles(lambda: group_lag(events_topic.bootstrap_servers, group, events_topic.name), 0)
        await renewed(query_pool)
        await reshape(query_pool, shape, analyzer)
        await eventually(lambda: barred(projector, "artstore rebuild"))
        await settles(lambda: members(events_topic, group), 0)
        await events_topic.announce(second)
        assert await cached(query_pool)() == {first.file_id: 1}
        assert await jobs(query_pool) == []
        await reshape(query_pool, SHAPE)
        await settles(cached(query_pool), {first.file_id: 1, second.file_id: 1})
        await eventually(lambda: is_ready(projector))
    assert await jobs(query_pool) == []
    assert await reasons(query_pool) == set()


async def test_a_projector_that_waits_for_another_shape_ends_when_told_to(
    query_pool: asyncpg.Pool, running_projector: Running
) -> None:
    await reshape(query_pool, SHAPE + 1)
    async with running_projector() as projector:
        await eventually(lambda: barred(projector, "artstore rebuild"))
