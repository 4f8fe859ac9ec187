"""The guards as a team meets them: real processes, a topic that is compacted for real, and the tools that Kafka has."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from consumer_query.guards import allowed_seconds
from producer_admin import files
from producer_admin.files import FileRecord
from producer_admin.outbox import SHARDS, shard_of
from runtime.engine import open_engine
from runtime.kafka import admin_client, group_lag, plain_consumer
from tests.e2e.admin_side import AdminSide
from tests.e2e.kafka_tools import ACLS, GROUPS, kafka_tool
from tests.e2e.mending import start_admin
from tests.e2e.query_side import PARTITIONS, QuerySide, Scene, prepare, query_side
from tests.samples import created, deleted, metadata, updated
from tests.waiting import eventually, settles

RETENTION_MS: Final = 25_000
"""A rebuild has to read the topic within this time, or it begins again."""
FORGETFUL: Final = {
    "cleanup.policy": "compact",
    "compression.type": "producer",
    "segment.ms": "1000",
    "min.compaction.lag.ms": "0",
    "min.cleanable.dirty.ratio": "0.001",
    "delete.retention.ms": str(RETENTION_MS),
}
ALLOWED_SECONDS: Final = allowed_seconds(RETENTION_MS / 1000)
COMPACTED_SECONDS: Final = 120.0
DOUBTS: Final = "artstore_query_cache_doubts"
AWAY: Final = "SELECT extract(epoch FROM clock_timestamp() - max(caught_up_at))::float FROM projector_positions"
NEVER_SEEN: Final = "SELECT count(*) FROM projector_positions WHERE cluster_id IS NULL"


@pytest.fixture(scope="module")
async def query_servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QuerySide]:
    """With a broker that compacts at once, and that heeds ACLs where there are any."""
    properties = {
        "log.cleaner.backoff.ms": "1000",
        # Nobody kills this broker; on a busy machine it should not lose its leadership to itself.
        "broker.session.timeout.ms": "30000",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    with query_side(tmp_path_factory.mktemp("query-side"), **properties) as side:
        await prepare(side)
        yield side


async def start(scene: Scene, name: str, **environment: str) -> None:
    await asyncio.to_thread(scene.start, name, None, **environment)

    async def is_ready() -> bool:
        scene.require_alive()
        return await scene.unready(name) is None

    await eventually(is_ready, 60, f"{name} is ready")


async def stop(scene: Scene, name: str) -> None:
    assert await asyncio.to_thread(scene.stop, name)


def asked(scene: Scene, statement: str) -> Callable[[], Awaitable[Any]]:
    async def ask() -> Any:
        connection = await asyncpg.connect(scene.database)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return ask


async def found(scene: Scene) -> set[UUID]:
    """What search can find."""
    connection = await asyncpg.connect(scene.database)
    try:
        return {row[0] for row in await connection.fetch("SELECT file_id FROM file_metadata_cache")}
    finally:
        await connection.close()


async def mentioned(scene: Scene, name: str) -> str:
    """What a process that is ready says of the cache; empty when it says nothing."""
    async with httpx.AsyncClient(trust_env=False, timeout=3) as client:
        answer = await client.get(f"{scene.management[name]}/health/ready")
    assert answer.status_code == 200
    said: str = answer.json().get("reasons", {}).get("cache", "")
    assert answer.json()["status"] == ("degraded" if said else "ready")
    return said


@asynccontextmanager
async def admin_of(scene: Scene) -> AsyncIterator[tuple[AdminSide, AsyncEngine]]:
    admin = await start_admin(scene)
    engine = open_engine(admin.database, "tests")
    try:
        yield admin, engine
    finally:
        await engine.dispose()
        await asyncio.to_thread(admin.stop)


def one_of_each_partition() -> list[FileRecord]:
    by_shard: dict[int, FileRecord] = {}
    while len(by_shard) < SHARDS:
        record = FileRecord(uuid4(), 1, "se-01", metadata())
        by_shard.setdefault(shard_of(record.file_id), record)
    return list(by_shard.values())


async def keys_on(scene: Scene) -> set[bytes | None]:
    """Keys of all records of the topic, tombstones included, once no transaction is open."""
    servers = scene.side.kafka.bootstrap_servers
    partitions = [TopicPartition(scene.topic, number) for number in PARTITIONS]
    async with plain_consumer(servers) as consumer, AIOKafkaConsumer(bootstrap_servers=servers) as uncommitted:
        consumer.assign(partitions)

        async def unsettled() -> bool:
            return bool(await consumer.end_offsets(partitions) != await uncommitted.end_offsets(partitions))

        await settles(unsettled, expected=False)
        ends = await consumer.end_offsets(partitions)
        keys: set[bytes | None] = set()
        while any([await consumer.position(one) < ends[one] for one in partitions]):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                keys |= {record.key for record in records}
        return keys


async def forget(scene: Scene, engine: AsyncEngine, gone: set[UUID], living: list[FileRecord]) -> None:
    """Change other files until the broker has compacted away all that ever told of the deleted ones."""

    async def waiting() -> int:
        async with engine.connect() as connection:
            return int((await connection.execute(text("SELECT count(*) FROM outbox"))).scalar_one())

    async def is_forgotten() -> bool:
        async with engine.begin() as connection:
            for one in living:
                await files.change(connection, one.file_id, {"description": uuid4().hex}, "tests")
        await settles(waiting, 0, COMPACTED_SECONDS)
        return not await keys_on(scene) & {str(file_id).encode() for file_id in gone}

    await eventually(is_forgotten, COMPACTED_SECONDS, "the tombstones are gone from the topic")


@pytest.mark.timeout(400)
async def test_deleted_files_do_not_come_back_when_the_topic_has_forgotten_their_deletion(scene: Scene) -> None:
    async with admin_client(scene.side.kafka.bootstrap_servers) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, scene.topic, FORGETFUL)])
    living, doomed = one_of_each_partition(), one_of_each_partition()
    kept, gone = {one.file_id for one in living}, {one.file_id for one in doomed}
    async with admin_of(scene) as (admin, engine):
        async with engine.begin() as connection:
            await files.take_over(connection, living + doomed, "tests")
        await start(scene, "before")
        await settles(lambda: found(scene), kept | gone)
        await settles(asked(scene, NEVER_SEEN), 0)
        await stop(scene, "before")

        async with engine.begin() as connection:
            for file_id in gone:
                await files.delete(connection, file_id, "tests")
        await forget(scene, engine, gone, living)
        away = asked(scene, AWAY)

        async def long_enough() -> bool:
            return bool(await away() > ALLOWED_SECONDS)

        await eventually(long_enough, what="away longer than deletions can be relied upon")

        await start(scene, "after")
        await settles(lambda: scene.metric("after", DOUBTS), 1.0)
        await settles(scene.unread, 0)
        assert await found(scene) == kept | gone, "without the rebuild they would stay for ever"
        assert "away_too_long" in await mentioned(scene, "after")

        await asyncio.to_thread(scene.start_worker, "worker", None, ADMIN_API_URL=admin.urls["api"])
        await settles(lambda: found(scene), kept, 60)
        await settles(lambda: scene.metric("after", DOUBTS), 0.0)
        assert await mentioned(scene, "after") == ""
        assert await scene.unready("after") is None
        async with engine.begin() as connection:
            await files.delete(connection, living[0].file_id, "tests")
        await settles(lambda: found(scene), kept - {living[0].file_id})
        jobs = "SELECT array_agg((phase, force, requested_by)::text) FROM rebuild_jobs"
        assert await asked(scene, jobs)() == ["(swapped,f,projector)"]
    scene.require_alive()


@pytest.mark.timeout(300)
async def test_offsets_that_are_reset_with_kafkas_own_tool_replay_into_the_live_table_and_change_nothing(
    scene: Scene,
) -> None:
    servers = scene.side.kafka.bootstrap_servers
    events = [created() for _ in range(60)]
    await scene.events.announce(*events, *(updated(one.file_id, 2) for one in events[:20]))
    await scene.events.announce(*(deleted(one.file_id, 2) for one in events[20:30]))
    await start(scene, "before")
    await settles(lambda: group_lag(servers, scene.group, scene.topic), 0)
    await stop(scene, "before")
    rows, stored, ends = await scene.rows(), await scene.stored(), await scene.stable_ends()
    assert stored == ends

    told = await kafka_tool(
        GROUPS, servers, "--group", scene.group, "--topic", scene.topic, "--reset-offsets", "--to-earliest", "--execute"
    )
    assert scene.topic in told
    await start(scene, "after")
    await settles(lambda: group_lag(servers, scene.group, scene.topic), 0)
    assert await scene.metric("after", "artstore_query_events_received_total") == 100, "it did not replay"
    assert await scene.metric("after", "artstore_query_rows_applied_total") == 0
    assert await scene.rows() == rows
    assert await scene.stored() == stored
    assert await scene.metric("after", DOUBTS) == 0


@pytest.mark.timeout(300)
async def test_where_acls_hide_the_retention_a_shorter_one_is_taken_and_said(scene: Scene) -> None:
    servers = scene.side.kafka.bootstrap_servers
    anyone = ("--add", "--topic", scene.topic, "--operation")
    await kafka_tool(ACLS, servers, *anyone, "All", "--allow-principal", "User:ANONYMOUS")
    await kafka_tool(ACLS, servers, *anyone, "DescribeConfigs", "--deny-principal", "User:ANONYMOUS")
    event = created()
    await scene.events.announce(event)
    for name, hours, doubts in (("at-once", 20, 0.0), ("within-a-day", 23, 0.0), ("a-day-later", 0, 1.0)):
        await start(scene, name, CACHE_GUARD="demand")
        await settles(lambda: found(scene), {event.file_id})
        await settles(partial(scene.metric, name, DOUBTS), doubts)
        assert "does not tell delete.retention.ms" in scene.log(name).read_text()
        await settles(asked(scene, NEVER_SEEN), 0)
        await stop(scene, name)
        away = f"UPDATE projector_positions SET caught_up_at = caught_up_at - interval '{hours} h'"
        await asked(scene, away)()
    assert await asked(scene, "SELECT count(*) FROM rebuild_jobs")() == 0
