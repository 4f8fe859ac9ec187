"""A change is one trace from its request to its row, over three processes that know nothing of each other."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from uuid import UUID

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from consumer_query.batch_spans import spans_of_applying
from consumer_query.dead_letters import TopicDeadLetters
from consumer_query.projector import Limits, Projector
from consumer_query.records import RecordReader
from producer_admin import audit, requeue
from producer_admin.api_process import admin_app
from producer_admin.batches import Limits as RelayLimits
from producer_admin.publisher import ShardPublisher, spans_of_sending
from producer_admin.relay import Relay
from producer_admin.saga_recovery import recover
from producer_admin.saga_steps import Means
from runtime.kafka import group_consumer
from runtime.settings import ProcessSettings
from runtime.tracing import tracing
from schemas.topics import DEAD_LETTERS, topic_name
from tests.collector import Collector, Got, collector
from tests.integration.conftest import LIMITS, Topic, cache_guard, cached
from tests.running import running
from tests.waiting import settles

CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{CLIENT}-00f067aa0ba902b7-01"


@pytest.fixture
def kept() -> Iterator[Collector]:
    with collector() as made:
        yield made


class Scene:
    """The three processes, one after the other, each with its own tracing."""

    def __init__(
        self, kept: Collector, means: Means, engine: AsyncEngine, pools: tuple[asyncpg.Pool, asyncpg.Pool], topic: Topic
    ) -> None:
        self._settings = ProcessSettings(otel_exporter_otlp_endpoint=kept.url)
        self._means = means
        self._engine = engine
        self.admin_pool, self.query_pool = pools
        self._topic = topic

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[httpx.AsyncClient]:
        with tracing("admin-api", self._settings):
            transport = httpx.ASGITransport(admin_app(self._means, self._engine, LIMITS))
            async with httpx.AsyncClient(transport=transport, base_url="http://admin/api/v1/files") as client:
                yield client

    async def relay(self) -> None:
        with tracing("admin-relay", self._settings):
            spans = spans_of_sending(self._topic.name)
            opened = partial(ShardPublisher.open, self._topic.bootstrap_servers, self._topic.name, spans=spans)
            async with running(Relay(self.admin_pool, opened, RelayLimits(100, 2**20))):
                await settles(lambda: self.admin_pool.fetchval("SELECT count(*) FROM outbox"), 0)

    async def project(self, expected: dict[UUID, int], group: str) -> None:
        servers, name = self._topic.bootstrap_servers, self._topic.name
        with tracing("query-projector", self._settings):
            projector = Projector(
                self.query_pool,
                lambda: group_consumer(servers, group, "projector"),
                name,
                group,
                TopicDeadLetters(servers, topic_name(DEAD_LETTERS, name)),
                RecordReader(None),
                Limits(batch=100, lanes=2, bad_share=0.5),
                cache_guard(self.query_pool, self._topic),
                spans=spans_of_applying(name),
            )
            async with running(projector):
                await settles(cached(self.query_pool), expected)


@pytest.fixture
def scene(
    kept: Collector,
    means: Means,
    admin_engine: AsyncEngine,
    admin_pool: asyncpg.Pool,
    query_pool: asyncpg.Pool,
    events_topic: Topic,
) -> Scene:
    return Scene(kept, means, admin_engine, (admin_pool, query_pool), events_topic)


async def upload(client: httpx.AsyncClient, **headers: str) -> UUID:
    answer = await client.post("/upload", files={"file": ("a.txt", b"x")}, headers=headers)
    assert answer.status_code == 201
    return UUID(answer.json()["file_id"])


def chain(spans: list[Got], leaf: Got) -> list[str]:
    """Names from a span up to its root, as far as the collector knows them."""
    by_id = {one.span: one for one in spans}
    names, at = [], by_id.get(leaf.span)
    while at is not None:
        names.append(at.name)
        at = by_id.get(at.parent)
    return names


async def test_one_trace_goes_from_the_clients_request_to_the_row(scene: Scene, kept: Collector, group: str) -> None:
    async with scene.admin() as admin:
        file_id = await upload(admin, traceparent=TRACEPARENT, **{"X-Request-ID": "mine"})
    await scene.relay()
    await scene.project({file_id: 1}, group)
    ours = [one for one in kept.spans if one.trace == CLIENT]
    assert {one.service for one in ours} == {"admin-api", "admin-relay", "query-projector"}
    way = ["record_creation", "saga upload", "POST /api/v1/files/upload"]
    for name in ("send file event", "apply file event"):
        [found] = [one for one in ours if one.name == name]
        assert chain(kept.spans, found) == [name, *way]
        assert found.attributes["artstore.file_id"] == str(file_id)
    applied = kept.one("apply file event")
    [record] = await scene._topic.records()
    assert applied.attributes["artstore.outcome"] == "visible"
    assert applied.attributes["messaging.kafka.offset"] == record.offset
    assert applied.attributes["messaging.destination.partition.id"] == str(record.partition)
    async with scene.admin_pool.acquire() as connection:
        [entry] = await audit.history(connection, file_id)
    assert entry.traceparent is not None
    assert entry.traceparent.split("-")[1:3] == [CLIENT, applied.parent]
    assert kept.one("POST /api/v1/files/upload").attributes["artstore.request_id"] == "mine"


async def test_what_is_done_for_many_traces_is_a_span_that_each_of_them_is_linked_to(
    scene: Scene, kept: Collector, group: str
) -> None:
    async with scene.admin() as admin:
        files = {await upload(admin): 1 for _ in range(5)}
    await scene.relay()
    await scene.project(files, group)
    for each, batch in (("send file event", "send batch"), ("apply file event", "apply batch")):
        batches = {(one.trace, one.span): one for one in kept.named(batch)}
        found = kept.named(each)
        assert len({one.trace for one in found}) == 5
        assert all(batches[one.links[0]].trace != one.trace for one in found)
        assert sum(one.attributes["messaging.batch.message_count"] for one in batches.values()) == 5


async def test_what_is_sent_again_and_delivered_again_keeps_its_parent(
    scene: Scene, kept: Collector, group: str
) -> None:
    async with scene.admin() as admin:
        file_id = await upload(admin)
    await scene.relay()
    async with scene.admin_pool.acquire() as connection:
        assert (await requeue.requeue(connection, [file_id])).requeued == 1
    await scene.relay()
    await scene.project({file_id: 1}, group)
    await scene.project({file_id: 1}, f"{group}-other")
    parents = [one.parent for one in kept.spans if one.name in ("send file event", "apply file event")]
    assert len(parents) >= 4
    assert set(parents) == {kept.one("record_creation").span}


async def test_changes_that_nobody_traces_are_stored_and_sent_without_a_context(
    admin: httpx.AsyncClient, scene: Scene, kept: Collector, group: str
) -> None:
    file_id = await upload(admin, traceparent=TRACEPARENT)
    await scene.relay()
    await scene.project({file_id: 1}, group)
    assert await scene.admin_pool.fetchval("SELECT count(*) FROM outbox_sent WHERE traceparent IS NOT NULL") == 0
    [record] = await scene._topic.records()
    assert [name for name, _ in record.headers] == ["revision", "event_id"]
    assert kept.spans == []


@pytest.mark.parametrize("flags", ["00", "01"])
async def test_a_trace_that_its_client_does_not_sample_is_not_made(
    scene: Scene, kept: Collector, group: str, flags: str
) -> None:
    async with scene.admin() as admin:
        file_id = await upload(admin, traceparent=f"{TRACEPARENT[:-2]}{flags}")
    await scene.relay()
    await scene.project({file_id: 1}, group)
    assert any(one.trace == CLIENT for one in kept.spans) == (flags == "01")
    [record] = await scene._topic.records()
    assert ("traceparent" in dict(record.headers)) == (flags == "01")


@pytest.mark.parametrize("context", [b"", b"\xff\xfe", b"00-zz-zz-01", b"0" * 1000])
async def test_a_context_that_is_none_stops_nothing(scene: Scene, kept: Collector, group: str, context: bytes) -> None:
    async with scene.admin() as admin:
        file_id = await upload(admin)
    await scene.admin_pool.execute("UPDATE outbox SET traceparent = $1", context.decode("latin-1"))
    await scene.relay()
    await scene.project({file_id: 1}, group)
    assert kept.named("apply file event") == []


async def test_a_saga_that_another_process_takes_up_stays_in_its_trace(
    scene: Scene, kept: Collector, means: Means
) -> None:
    async with scene.admin() as admin:
        file_id = await upload(admin)
        await admin.delete(f"/{file_id}", headers={"traceparent": TRACEPARENT})
    # As if its process had died before it removed the bytes.
    await scene.admin_pool.execute(
        "UPDATE sagas SET state = 'recorded', lease_until = '-infinity' WHERE kind = 'delete'"
    )
    async with scene.admin():
        assert await recover(means) == 1
    taken_up = kept.one("saga taken up")
    assert (taken_up.trace, taken_up.parent) == (CLIENT, kept.one("saga delete").span)
    assert [chain(kept.spans, one)[1] for one in kept.named("remove_doomed")] == ["saga delete", "saga taken up"]
