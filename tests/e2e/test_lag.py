"""Lag as an operator meets it: who is frozen, killed or blocked is told of from outside, and so is the end of it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import NewTopic

from consumer_query.commits import COMMIT_SECONDS
from consumer_query.lag import WINDOW_SECONDS
from consumer_query.lag_watch import LOOK_SECONDS, READ_AGAIN_SECONDS
from runtime.kafka import admin_client, group_consumer, plain_consumer
from tests.e2e.query_side import SESSION_SECONDS, QuerySide, Scene, prepare, query_side
from tests.e2e.test_projector_faults import load
from tests.waiting import eventually

NOTICED_SECONDS: Final = 15.0
JUDGED_SECONDS: Final = WINDOW_SECONDS + SESSION_SECONDS + 4 * LOOK_SECONDS
"""A full window, whose first look may come late and whose last one too."""
WELL_SECONDS: Final = 60.0

Look = Callable[[], Awaitable[dict[str, Any]]]


@pytest.fixture(scope="module")
async def query_servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[QuerySide]:
    """With a broker that compacts at once."""
    with query_side(tmp_path_factory.mktemp("query-side"), **{"log.cleaner.backoff.ms": "1000"}) as side:
        await prepare(side)
        yield side


@asynccontextmanager
async def watched(scene: Scene) -> AsyncIterator[Look]:
    """What the API answers of the lag, whatever else it can."""
    url = await asyncio.to_thread(scene.start_api, "api")
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=5) as client:

        async def look() -> dict[str, Any]:
            try:
                answer = await client.get("/api/v1/admin/lag")
            except httpx.TransportError:
                return {"status": "no answer", "events": 0, "seconds": 0.0, "members": 0}
            told: dict[str, Any] = answer.json()
            return told

        await eventually(lambda: holds(look, lambda lag: "partitions" in lag), 30, "a first look")
        yield look


async def holds(look: Look, expected: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    found = await look()
    return found if expected(found) else {}


async def is_well(scene: Scene, look: Look) -> None:
    """Wait until the projectors keep up again."""

    async def well() -> bool:
        scene.require_alive()
        found = await look()
        return bool(found["status"] == "ok" and found["members"] == 1 and found["seconds"] < 3)

    await eventually(well, WELL_SECONDS, "ok again by itself")


async def grows(look: Look) -> None:
    """Wait until the lag is seen to grow, in offsets and in seconds."""
    first = await eventually(lambda: holds(look, lambda lag: lag["events"] > 300), NOTICED_SECONDS / 2, "a lag")
    await eventually(
        lambda: holds(look, lambda lag: lag["events"] > first["events"] and lag["seconds"] > first["seconds"] + 1),
        NOTICED_SECONDS / 2,
        f"more than {first['events']} and {first['seconds']} s",
    )


@pytest.mark.timeout(400)
async def test_a_projector_that_is_frozen_or_killed_shows_as_growing_lag_then_as_stop_and_its_return_as_ok(
    scene: Scene,
) -> None:
    await asyncio.to_thread(scene.start, "only")
    async with watched(scene) as look, load(scene, 1, 300.0, poison=0.0):
        await is_well(scene, look)
        scene.pause("only")
        await grows(look)
        await eventually(lambda: holds(look, lambda lag: lag["status"] == "stop"), JUDGED_SECONDS, "stop")
        scene.resume("only")
        await is_well(scene, look)
        scene.kill("only")
        await grows(look)
        found = await eventually(lambda: holds(look, lambda lag: lag["status"] == "stop"), JUDGED_SECONDS, "stop")
        assert found["members"] == 0
        await asyncio.to_thread(scene.start, "only")
        await is_well(scene, look)


@pytest.mark.timeout(400)
async def test_a_projector_that_cannot_write_shows_as_stall(scene: Scene) -> None:
    await asyncio.to_thread(scene.start, "only")
    async with watched(scene) as look, load(scene, 1, 300.0, poison=0.0):
        await is_well(scene, look)
        connection = await asyncpg.connect(scene.database)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE projector_positions IN ACCESS EXCLUSIVE MODE")
                await grows(look)
                stalled = JUDGED_SECONDS + 2 * COMMIT_SECONDS
                found = await eventually(lambda: holds(look, lambda lag: lag["status"] == "stall"), stalled, "stall")
                assert found["members"] == 1
        finally:
            await connection.close()
        await is_well(scene, look)


async def test_a_gap_that_compaction_left_is_no_lag(scene: Scene) -> None:
    topic, partition = f"{scene.topic}-compacted", 5
    config = {"cleanup.policy": "compact", "segment.ms": "500", "min.cleanable.dirty.ratio": "0.001"}
    async with admin_client(scene.side.kafka.bootstrap_servers) as admin:
        await admin.create_topics([NewTopic(topic, 12, 1, topic_configs=config)])
    where = TopicPartition(topic, partition)
    async with group_consumer(scene.side.kafka.bootstrap_servers, scene.group, "test") as consumer:
        consumer.assign([where])
        await consumer.commit({where: OffsetAndMetadata(0, "")})
    scene.topic = topic
    async with watched(scene) as look, AIOKafkaProducer(bootstrap_servers=scene.side.kafka.bootstrap_servers) as writer:

        async def first_and_end() -> tuple[int, int]:
            """Write one more, so that the segment before it may be compacted."""
            sent = await writer.send_and_wait(topic, b"x", b"k", partition=partition)
            async with plain_consumer(scene.side.kafka.bootstrap_servers) as reader:
                reader.assign([where])
                await reader.seek_to_beginning(where)
                first = await reader.getone(where)
            return first.offset, sent.offset + 1

        async def gap() -> tuple[int, int] | None:
            first, end = await first_and_end()
            return (first, end) if first > 1 else None

        found = await eventually(gap, 60, "a gap at the log's beginning")
        assert found is not None
        first, end = found

        def is_known(lag: dict[str, Any]) -> bool:
            one = lag["partitions"][partition]
            # What is compacted later makes it less.
            return bool(one["end"] == end and one["committed"] == 0 and 0 < one["events"] <= end - first)

        await eventually(lambda: holds(look, is_known), READ_AGAIN_SECONDS + NOTICED_SECONDS, "the gap is left out")
