"""The group's lag as someone outside it sees it, beside the figures that another client of Kafka gives."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import GroupLoadInProgressError
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel
from confluent_kafka import TopicPartition as OtherPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from consumer_query.api_process import query_app
from consumer_query.commits import BEAT_SECONDS
from consumer_query.lag import GroupLag, PartitionLag, Status
from consumer_query.lag_watch import LagWatch, _Clients
from local.kafka import EmbeddedKafka
from local.ports import free_port
from producer_admin.outbox import shard_of
from runtime.kafka import ABANDON_SECONDS, admin_client, group_consumer, transactional_producer
from schemas.topics import FILE_EVENTS, cards
from tests.backends import Backend
from tests.integration.conftest import Running, Topic, cached, produce
from tests.integration.test_projector import NotUtf8, produce_built
from tests.running import running
from tests.samples import created
from tests.waiting import eventually, settles

PARTITIONS = range(12)


class Figures(NamedTuple):
    """Of one partition, as kafka-consumer-groups would list it."""

    committed: int | None
    end: int


def figures(servers: str, group: str, topic: str) -> dict[int, Figures]:
    """Asked for by librdkafka."""
    admin = AdminClient({"bootstrap.servers": servers})
    partitions = [OtherPartition(topic, number) for number in PARTITIONS]
    asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, partitions)])
    committed = {one.partition: one.offset for one in asked[group].result(10).topic_partitions}
    ends = admin.list_offsets(
        {one: OffsetSpec.latest() for one in partitions},  # type: ignore[no-untyped-call]
        isolation_level=IsolationLevel.READ_COMMITTED,
    )
    return {
        one.partition: Figures(
            committed[one.partition] if committed[one.partition] >= 0 else None, end.result(10).offset
        )
        for one, end in ends.items()
    }


@pytest.fixture
async def watch(events_topic: Topic, group: str) -> AsyncIterator[LagWatch]:
    async with running(LagWatch(events_topic.bootstrap_servers, events_topic.name, group)) as watching:
        yield watching


async def seen(watch: LagWatch, expected: Callable[[GroupLag], object], seconds: float = 40) -> GroupLag:
    """The next report that is as expected and equals what the other client tells."""
    after = datetime.now(UTC)

    async def look() -> GroupLag | None:
        report = watch.report
        if report is None or report.at < after or not expected(report.group):
            return None
        told = await asyncio.to_thread(figures, str(watch._servers), watch.group, watch._topic)
        same = {one.partition: Figures(one.committed, one.end) for one in report.group.partitions} == told
        return report.group if same else None

    found = await eventually(look, seconds, f"a report as expected; the last: {watch.report}")
    assert found is not None
    return found


def behind(lag: GroupLag) -> dict[int, int]:
    return {one.partition: one.events for one in lag.partitions if one.events}


def of(lag: GroupLag, partition: int) -> PartitionLag:
    return lag.partitions[partition]


async def commit(topic: Topic, group: str, positions: Mapping[int, int]) -> None:
    """As a member that is gone again."""
    async with group_consumer(topic.bootstrap_servers, group, "test", session_timeout_ms=6_000) as consumer:
        consumer.assign([TopicPartition(topic.name, number) for number in PARTITIONS])
        await consumer.commit(
            {TopicPartition(topic.name, number): OffsetAndMetadata(at, "") for number, at in positions.items()}
        )


async def write(topic: Topic, partition: int, count: int, *, aborted: bool = False) -> None:
    """Records of one transaction."""
    async with transactional_producer(topic.bootstrap_servers, f"test-{uuid4()}") as producer:
        await producer.begin_transaction()
        for _ in range(count):
            await producer.send(topic.name, b"x", key=b"k", partition=partition)
        await (producer.abort_transaction() if aborted else producer.commit_transaction())


async def test_a_group_that_never_committed_has_all_of_the_log_before_it(events_topic: Topic, watch: LagWatch) -> None:
    event = created()
    await events_topic.announce(event)
    lag = await seen(watch, lambda lag: lag.events)
    partition = of(lag, shard_of(event.file_id))
    # One record and the marker of its transaction.
    assert (partition.committed, partition.events, partition.status) == (None, 2, Status.STOP)
    assert (lag.members, lag.status) == (0, Status.STOP)
    assert behind(lag) == {partition.partition: 2}


async def test_the_lag_in_seconds_is_the_age_of_the_oldest_record_that_was_not_applied(
    events_topic: Topic, watch: LagWatch
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=events_topic.bootstrap_servers) as producer:
        for minutes in (50, 20, 5):
            moment = datetime.now(UTC) - timedelta(minutes=minutes)
            await producer.send_and_wait(
                events_topic.name, b"x", b"k", partition=3, timestamp_ms=int(moment.timestamp() * 1000)
            )
    assert 3000 <= of(await seen(watch, lambda lag: lag.events), 3).seconds < 3060
    await commit(events_topic, watch.group, {3: 1})
    assert 1200 <= of(await seen(watch, lambda lag: lag.events == 2), 3).seconds < 1260
    await commit(events_topic, watch.group, {3: 3})
    lag = await seen(watch, lambda lag: not lag.events)
    assert (lag.seconds, lag.status) == (0.0, Status.OK)


async def test_a_clock_that_is_ahead_gives_no_negative_lag(events_topic: Topic, watch: LagWatch) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    async with AIOKafkaProducer(bootstrap_servers=events_topic.bootstrap_servers) as producer:
        await producer.send_and_wait(
            events_topic.name, b"x", b"k", partition=3, timestamp_ms=int(later.timestamp() * 1000)
        )
    assert 0.0 <= (await seen(watch, lambda lag: lag.events == 1)).seconds < 60
    # Otherwise it would hide for an hour that it waits.
    await seen(watch, lambda lag: lag.seconds > 3)


def built(timestamp: int, *headers: tuple[Any, bytes]) -> bytes:
    """A batch of one record, as no client of ours would write it."""
    batch = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 2**20)
    batch.append(0, timestamp, b"k", b"x", list(headers))
    return bytes(batch.build())


async def test_a_record_that_cannot_be_parsed_behind_markers_is_as_old_as_it_was_seen_to_be_there(
    events_topic: Topic, watch: LagWatch
) -> None:
    await commit(events_topic, watch.group, {5: 0})
    await write(events_topic, 5, 1, aborted=True)
    await seen(watch, lambda lag: lag.partitions[5].end == 2 and not lag.events)
    await produce_built(events_topic, 5, built(1, (NotUtf8("x"), b"")))
    assert (await seen(watch, lambda lag: lag.events)).seconds < 60
    # It keeps nobody from being told of others.
    await write(events_topic, 6, 1)
    await seen(watch, lambda lag: lag.partitions[6].events == 2)


async def test_the_first_unread_records_of_forty_partitions_are_read_in_one_look(backend: Backend, group: str) -> None:
    topic, partitions = f"test-{uuid4()}", range(40)
    async with admin_client(backend.bootstrap_servers) as admin:
        await admin.create_topics([NewTopic(topic, len(partitions), 1)])
    moment = int((datetime.now(UTC) - timedelta(hours=1)).timestamp() * 1000)
    async with AIOKafkaProducer(bootstrap_servers=backend.bootstrap_servers, linger_ms=100) as producer:
        for number in partitions:
            await producer.send(topic, b"x" * 1000, b"k", partition=number, timestamp_ms=moment)
    watch = LagWatch(backend.bootstrap_servers, topic, group)
    async with running(watch):
        report = await eventually(lambda: reported(watch))
    assert report is not None
    assert [one.partition for one in report.partitions if one.seconds < 3000] == []


async def reported(watch: LagWatch) -> GroupLag | None:
    return None if watch.report is None else watch.report.group


class LoadingAdmin:
    """A coordinator that has just begun: for a moment it knows of no group."""

    async def describe_topics(self, _topics: list[str]) -> list[dict[str, Any]]:
        return [{"error_code": 0, "partitions": [0]}]

    async def describe_consumer_groups(self, groups: list[str]) -> list[Any]:
        return [SimpleNamespace(groups=[(GroupLoadInProgressError.errno, groups[0], "", "", "", [])])]


async def test_a_coordinator_that_knows_no_members_yet_is_not_believed_that_there_are_none() -> None:
    watch = LagWatch("nowhere:1", "events", "group")
    with pytest.raises(GroupLoadInProgressError):
        await watch._look(_Clients(LoadingAdmin(), None))
    assert watch.report is None


async def test_a_partition_that_is_held_is_committed_again_while_others_go_on(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, group: str
) -> None:
    """Otherwise it would show as one that nobody commits, though its projector is well."""
    first = created()
    held = TopicPartition(events_topic.name, shard_of(first.file_id))

    async def stamp() -> str:
        async with admin_client(events_topic.bootstrap_servers) as admin:
            found = await admin.list_consumer_group_offsets(group, partitions=[held])
        return str(found[held].metadata)

    async def differs(before: str) -> bool:
        # Commits of the others never rest for as long as one that moves nothing waits.
        await events_topic.announce(next(one for one in iter(created, None) if shard_of(one.file_id) != held.partition))
        return await stamp() not in ("", before)

    async with running_projector():
        await events_topic.announce(first)
        await settles(cached(query_pool), {first.file_id: 1})
        await produce(events_topic, first.file_id, b"\xc3\x01" + bytes(8) + b"x", [])
        await eventually(lambda: differs(""))
        before = await stamp()
        await eventually(lambda: differs(before), 4 * BEAT_SECONDS)


async def is_told(watch: LagWatch, what: str) -> bool:
    return what in (watch.trouble or "")


async def test_a_broker_that_hangs_does_not_hold_up_the_end(
    tmp_path_factory: pytest.TempPathFactory, group: str
) -> None:
    kafka = EmbeddedKafka(tmp_path_factory.mktemp("kafka"), free_port())
    with kafka:
        async with admin_client(kafka.bootstrap_servers) as admin:
            await admin.create_topics([NewTopic("events", len(PARTITIONS), 1)])
        watch, stopping = LagWatch(kafka.bootstrap_servers, "events", group), asyncio.Event()
        task = asyncio.create_task(watch.run(stopping))
        await eventually(lambda: reported(watch))
        assert kafka.child is not None
        os.kill(kafka.child.pid, signal.SIGSTOP)
        try:
            await eventually(lambda: is_troubled(watch), 40)
            begin = time.monotonic()
            stopping.set()
            await task
            assert time.monotonic() - begin < 3 * ABANDON_SECONDS
        finally:
            os.kill(kafka.child.pid, signal.SIGCONT)


async def is_troubled(watch: LagWatch) -> bool:
    return watch.trouble is not None


async def test_a_group_without_members_that_has_read_all_is_ok(events_topic: Topic, watch: LagWatch) -> None:
    await commit(events_topic, watch.group, dict.fromkeys(PARTITIONS, 0))
    lag = await seen(watch, lambda lag: not lag.members)
    assert (lag.status, lag.events, lag.seconds) == (Status.OK, 0, 0.0)


async def test_an_idle_projector_has_no_lag_though_the_log_ends_in_markers(
    query_pool: asyncpg.Pool, events_topic: Topic, running_projector: Running, watch: LagWatch
) -> None:
    event = created()
    async with running_projector():
        await events_topic.announce(event)
        await settles(cached(query_pool), {event.file_id: 1})
        lag = await seen(watch, lambda lag: not lag.events and lag.members)
        partition = of(lag, shard_of(event.file_id))
        assert partition.committed == partition.end == 2
        assert (lag.seconds, lag.status, lag.members) == (0.0, Status.OK, 1)


async def test_a_projector_that_has_nothing_to_do_commits_again_so_that_it_can_be_told_from_one_that_is_gone(
    events_topic: Topic, running_projector: Running, group: str
) -> None:
    async def stamps() -> set[str]:
        async with admin_client(events_topic.bootstrap_servers) as admin:
            return {one.metadata for one in (await admin.list_consumer_group_offsets(group)).values()}

    async with running_projector():
        first = await eventually(stamps)
        await eventually(lambda: differs(stamps, first))


async def differs(look: Callable[[], Awaitable[set[str]]], before: set[str]) -> bool:
    return not (await look()) & before


async def test_markers_and_aborted_records_alone_are_no_lag(events_topic: Topic, watch: LagWatch) -> None:
    await write(events_topic, 5, 3)
    await write(events_topic, 5, 4, aborted=True)
    await commit(events_topic, watch.group, {5: 3})
    lag = await seen(watch, lambda lag: lag.partitions[5].committed == 3)
    assert (of(lag, 5).end, behind(lag), lag.seconds, lag.status) == (9, {}, 0.0, Status.OK)


async def test_what_was_deleted_before_the_position_of_the_group_is_no_lag(
    events_topic: Topic, watch: LagWatch
) -> None:
    await write(events_topic, 5, 10)
    await commit(events_topic, watch.group, {5: 2})
    async with admin_client(events_topic.bootstrap_servers) as admin:
        # A topic that is only compacted refuses.
        both = {"cleanup.policy": "compact,delete", "retention.ms": "-1"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, events_topic.name, both)])
        await admin.delete_records({TopicPartition(events_topic.name, 5): RecordsToDelete(before_offset=8)})
    lag = await seen(watch, lambda lag: lag.partitions[5].events == 3)
    assert of(lag, 5).committed == 2


async def test_a_reset_backwards_is_a_rewind_until_nothing_is_left_to_read(
    events_topic: Topic, watch: LagWatch
) -> None:
    await write(events_topic, 5, 9)
    await commit(events_topic, watch.group, {5: 10})
    await seen(watch, lambda lag: not lag.events)
    await commit(events_topic, watch.group, {5: 4})
    lag = await seen(watch, lambda lag: lag.events)
    assert (of(lag, 5).events, lag.status) == (6, Status.REWIND)


async def test_a_topic_made_anew_is_a_rewind_and_all_of_it_is_unread(events_topic: Topic, watch: LagWatch) -> None:
    await write(events_topic, 5, 9)
    await commit(events_topic, watch.group, {5: 10})
    await seen(watch, lambda lag: not lag.events)
    async with admin_client(events_topic.bootstrap_servers) as admin:
        await admin.delete_topics([events_topic.name])
        card = cards()[FILE_EVENTS]
        new = NewTopic(events_topic.name, card.partitions, 1)

        async def is_made() -> bool:
            # Deleting is answered before it is done.
            [(_, code, *_)] = (await admin.create_topics([new])).topic_errors
            return bool(code == 0)

        await eventually(is_made)
    await write(events_topic, 5, 3)

    def begun_anew(lag: GroupLag) -> bool:
        return lag.partitions[5].end == 4 and lag.events > 0

    # Kafka forgets what a group committed for a topic that is deleted, or does not.
    lag = await seen(watch, begun_anew)
    assert (of(lag, 5).events, of(lag, 5).status in (Status.REWIND, Status.STOP)) == (4, True)


async def test_while_the_broker_is_away_the_last_report_stands_and_says_why(
    query_pool: asyncpg.Pool, tmp_path_factory: pytest.TempPathFactory, group: str
) -> None:
    kafka = EmbeddedKafka(tmp_path_factory.mktemp("kafka"), free_port())
    with kafka:
        topic = Topic(Backend(kafka.bootstrap_servers, ""), "events")
        async with admin_client(kafka.bootstrap_servers) as admin:
            await admin.create_topics([NewTopic(topic.name, len(PARTITIONS), 1)])
        async with running(LagWatch(kafka.bootstrap_servers, topic.name, group)) as watch:
            transport = httpx.ASGITransport(query_app(query_pool, watch=watch))
            async with httpx.AsyncClient(transport=transport, base_url="http://query") as client:
                answer = await client.get("/api/v1/admin/lag")
                assert (answer.status_code, answer.json()["title"]) == (503, "Lag not known")
                await write(topic, 0, 1)
                await seen(watch, lambda lag: lag.events == 2)
                kafka.kill()

                async def told() -> dict[str, object]:
                    answer = await client.get("/api/v1/admin/lag")
                    assert answer.status_code == 200
                    return answer.json() if answer.json()["trouble"] else {}

                assert (await eventually(told, 40))["events"] == 2
                kafka.start()
                await write(topic, 0, 1)
                await seen(watch, lambda lag: lag.events == 4, 60)
                assert (await client.get("/api/v1/admin/lag")).json()["trouble"] is None


async def test_without_kafka_the_route_says_what_to_set(query_pool: asyncpg.Pool) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(query_app(query_pool)), base_url="http://query"
    ) as client:
        answer = await client.get("/api/v1/admin/lag")
    assert answer.status_code == 503
    assert "KAFKA_BOOTSTRAP_SERVERS" in answer.json()["detail"]
