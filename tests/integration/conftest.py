"""The services' parts over a real broker and a real Postgres, in this process."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from consumer_query.cache_guard import CacheGuard, Cure
from consumer_query.dead_letters import DeadLetter, TopicDeadLetters, from_record
from consumer_query.log_evidence import LogEvidence
from consumer_query.projector import Limits as ProjectorLimits
from consumer_query.projector import Projector
from consumer_query.read_model import teach
from consumer_query.rebuild import Rebuilder
from consumer_query.rebuild_worker import RebuildWorker
from consumer_query.records import RecordReader
from consumer_query.settings import MaintenanceSettings
from producer_admin import elements
from producer_admin.api_models import Limits
from producer_admin.api_process import admin_app
from producer_admin.elements import Elements
from producer_admin.outbox import OutboxRow, shard_of
from producer_admin.publisher import ShardPublisher
from producer_admin.saga_steps import Means
from runtime.engine import open_engine
from runtime.kafka import group_consumer, plain_consumer
from runtime.postgres import open_pool
from runtime.whole_topic import whole_topic
from schemas.codec import encode
from schemas.events import FileEvent
from schemas.topics import DEAD_LETTERS, topic_name
from tests.backends import Backend
from tests.running import running
from tests.waiting import eventually

Rebuilding = Callable[[], AbstractAsyncContextManager[None]]
Running = Callable[..., AbstractAsyncContextManager[Projector]]
MAX_UPLOAD_BYTES = 20 * 2**20
LIMITS = Limits(upload_bytes=MAX_UPLOAD_BYTES, name=255, description=10_000, tags=100, tag=100)


@pytest.fixture
async def admin_pool(admin_database: str) -> AsyncIterator[asyncpg.Pool]:
    async with await open_pool(admin_database, "tests", max_size=20) as pool:
        yield pool


@pytest.fixture
async def query_pool(query_database: str) -> AsyncIterator[asyncpg.Pool]:
    async with await open_pool(query_database, "tests", init=teach) as pool:
        yield pool


@pytest.fixture
async def admin_engine(admin_database: str) -> AsyncIterator[AsyncEngine]:
    engine = open_engine(admin_database, "tests")
    yield engine
    await engine.dispose()


@pytest.fixture
async def means(admin_engine: AsyncEngine, storage_folder: Path) -> Means:
    """One storage element, se-01, in `storage_folder`."""
    await elements.ensure(admin_engine, "se-01", storage_folder.as_uri())
    made = Means(admin_engine, Elements(admin_engine))
    await made.elements.refresh()
    return made


@pytest.fixture
async def admin(means: Means, admin_engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the Admin API."""
    transport = httpx.ASGITransport(admin_app(means, admin_engine, LIMITS), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin/api/v1/files") as client:
        yield client


class Topic:
    """A topic as a plain consumer and a well-behaved relay see it."""

    def __init__(self, backend: Backend, name: str) -> None:
        self.name = name
        self.bootstrap_servers = backend.bootstrap_servers

    async def announce(self, *events: FileEvent) -> None:
        """Put events on the topic as the relay does, in order."""
        for event in events:
            await self.write(event.file_id, [outbox_row(event)])

    async def write(self, file_id: UUID, rows: Sequence[OutboxRow]) -> None:
        publisher = await ShardPublisher.open(self.bootstrap_servers, self.name, shard_of(file_id))
        try:
            await publisher.publish(rows)
        finally:
            await publisher.close()

    async def records(self) -> list[ConsumerRecord[bytes, bytes]]:
        """All committed records, partition by partition, in the order of their offsets."""
        partitions = [TopicPartition(self.name, number) for number in range(12)]
        async with (
            plain_consumer(self.bootstrap_servers) as consumer,
            AIOKafkaConsumer(bootstrap_servers=self.bootstrap_servers) as uncommitted,
        ):
            consumer.assign(partitions)
            # A commit is answered before its markers are written: wait until no transaction of now is open.
            ends = await uncommitted.end_offsets(partitions)

            async def are_stable() -> bool:
                stable = await consumer.end_offsets(partitions)
                return all(stable[one] >= ends[one] for one in partitions)

            await eventually(are_stable, what=f"{ends} are stable")
            found: list[ConsumerRecord[bytes, bytes]] = []
            # Positions move over transaction markers; counting records would never come to an end.
            while any([await consumer.position(one) < ends[one] for one in partitions]):
                for batch in (await consumer.getmany(timeout_ms=100)).values():
                    found += batch
            return sorted(found, key=lambda record: (record.partition, record.offset))


@pytest.fixture
async def events_topic(backend: Backend, topic: str) -> Topic:
    return Topic(backend, topic)


@pytest.fixture
def group() -> str:
    return group_name()


def cache_guard(pool: asyncpg.Pool, topic: "Topic", cure: Cure = Cure.DEMAND) -> CacheGuard:
    return CacheGuard(pool, LogEvidence(topic.bootstrap_servers, topic.name), topic.name, cure)


@pytest.fixture
def running_projector(query_pool: asyncpg.Pool, events_topic: Topic, group: str) -> Running:
    @asynccontextmanager
    async def run(
        registry_url: str | None = None,
        batch_size: int = 100,
        consumers: Iterator[AIOKafkaConsumer] | None = None,
        cure: Cure = Cure.DEMAND,
    ) -> AsyncIterator[Projector]:
        servers = events_topic.bootstrap_servers
        projector = Projector(
            query_pool,
            lambda: (consumers and next(consumers, None)) or group_consumer(servers, group, "projector"),
            events_topic.name,
            group,
            TopicDeadLetters(servers, topic_name(DEAD_LETTERS, events_topic.name)),
            RecordReader(registry_url),
            ProjectorLimits(batch=batch_size, lanes=2, bad_share=0.5),
            cache_guard(query_pool, events_topic, cure),
        )
        async with running(projector):
            yield projector

    return run


def cached(pool: asyncpg.Pool) -> Callable[[], Any]:
    """Revisions of the files that search can see, by id."""

    async def look() -> dict[UUID, int]:
        rows = await pool.fetch("SELECT file_id, revision FROM file_metadata_cache")
        return {row["file_id"]: row["revision"] for row in rows}

    return look


async def dead_letters(topic: Topic) -> list[DeadLetter]:
    """All dead letters, repeats included."""
    records = whole_topic(topic.bootstrap_servers, topic_name(DEAD_LETTERS, topic.name))
    return [from_record(record) async for record in records]


async def produce(topic: Topic, file_id: UUID, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=topic.bootstrap_servers) as producer:
        await producer.send_and_wait(
            topic.name, value=value, key=str(file_id).encode(), partition=shard_of(file_id), headers=headers
        )


def outbox_row(event: FileEvent, outbox_id: int = 1) -> OutboxRow:
    return OutboxRow(
        outbox_id, event.file_id, event.revision, event.event_id, event.event_type, encode(event), 1_768_298_400_000
    )


def revisions(records: Sequence[ConsumerRecord[bytes, bytes]]) -> dict[str, list[int]]:
    """Revisions by file id, in the order of the topic, tombstones included."""
    found: dict[str, list[int]] = {}
    for record in records:
        assert record.key is not None
        found.setdefault(record.key.decode(), []).append(int(dict(record.headers)["revision"]))
    return found


def group_name() -> str:
    return f"group-{uuid4().hex[:12]}"


@pytest.fixture
def settings(query_database: str, events_topic: Topic, group: str) -> MaintenanceSettings:
    return MaintenanceSettings.model_validate(
        {
            "query_database_url": query_database,
            "kafka_bootstrap_servers": events_topic.bootstrap_servers,
            "file_events_topic": events_topic.name,
            "kafka_consumer_group": group,
        }
    )


@pytest.fixture
def worker(query_pool: asyncpg.Pool, settings: MaintenanceSettings) -> Rebuilding:
    """Runs a worker of rebuilds over the database and the topic."""

    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        letters = TopicDeadLetters(
            settings.kafka_bootstrap_servers, topic_name(DEAD_LETTERS, settings.file_events_topic)
        )
        async with running(
            RebuildWorker(Rebuilder(settings, query_pool, letters, None), query_pool, timedelta(hours=1))
        ):
            yield
        await letters.close()

    return run
