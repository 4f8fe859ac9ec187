"""How fast the relay drains a backlog, beside a bare producer that sends the same records to the same broker.

Each contender gets a new topic, started clients and finished records; its time begins with the first record and ends
when all are committed. The bare producer is idempotent, has the relay's acks (all), codec (zstd) and linger (none), and
knows neither outbox nor transactions; it runs once with the client's own batches of 16 KiB and once with the relay's of
512 KiB. The relay reads the rows from Postgres, sends them in transactions and moves them to the audit log.

All Python runs in this one process: bare producers with the garbage collector as Python sets it, the relay as its
process sets it. The servers share the machine with it.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaProducer

from bench import samples
from bench.report import Figure, ratio, turned
from bench.servers import Servers, Tell, until
from producer_admin.batches import Limits
from producer_admin.metrics import PUBLISHED
from producer_admin.outbox import SHARDS, shard_of
from producer_admin.publisher import ShardPublisher
from producer_admin.relay import Relay
from producer_admin.relay_process import PLANNER, collect_seldom
from producer_admin.settings import RelaySettings
from runtime.health import NotReadyError
from runtime.kafka import MAX_BATCH_BYTES, idempotent_producer
from runtime.postgres import Connection, open_pool
from schemas.codec import encode
from schemas.events import EVENT_ID_HEADER, REVISION_HEADER, EventType, FileEvent

PATIENCE_SECONDS: Final = 120.0
CLIENT_BATCH_BYTES: Final = 16 * 1024
"""aiokafka's own default."""
BARE: Final = "bare send()"
BARE_LARGE: Final = "bare send(), batches as large as the relay's"

BACKLOG_COLUMNS: Final = (
    "shard", "file_id", "revision", "event_id", "event_type", "actor", "payload", "occurred_at",
)  # fmt: skip


class Waiting(NamedTuple):
    """A row of the outbox, as it is copied there."""

    shard: int
    file_id: UUID
    revision: int
    event_id: UUID
    event_type: str
    actor: str
    payload: bytes
    occurred_at: datetime


class Record(NamedTuple):
    """A record of the topic, ready to be sent."""

    partition: int
    key: bytes
    value: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes]]


async def measure(servers: Servers, rows: int, rounds: int, tell: Tell) -> list[Figure]:
    """Run all contenders in all rounds.

    Returns:
        Records a second of each, and the relay's share of the bare producer's.
    """
    tell("Making events")
    backlog = [_waiting(event) for event in samples.events(rows)]
    records = [record for row in backlog for record in _records(row)]
    contenders: dict[str, Callable[[], Awaitable[float]]] = {
        BARE: lambda: bare(servers, records, CLIENT_BATCH_BYTES),
        BARE_LARGE: lambda: bare(servers, records, MAX_BATCH_BYTES),
        "bare send_batch()": lambda: batched(servers, records),
        "relay": lambda: relay(servers, backlog),
    }
    # The samples live for the whole run: walking them at each collection would slow down whoever allocates most.
    gc.collect()
    gc.freeze()
    tell("Warming up")
    for contender in contenders.values():
        await contender()
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for number, order in enumerate(turned(list(contenders), rounds), 1):
        for name in order:
            tell(f"Round {number} of {rounds}: {name}")
            speeds[name].append(len(records) / await contenders[name]())
    figures = {name: Figure(name, "records/s", tuple(found)) for name, found in speeds.items()}
    return [
        *figures.values(),
        *(ratio(f"relay / {bare}", figures["relay"], figures[bare]) for bare in (BARE, BARE_LARGE)),
    ]


async def bare(servers: Servers, records: Sequence[Record], batch_bytes: int) -> float:
    """Seconds for one send() a record, which the client packs into batches of `batch_bytes`."""
    async with _producer(servers, batch_bytes) as (producer, topic):
        begin = time.perf_counter()
        sent = [
            await producer.send(
                topic,
                one.value,
                one.key,
                partition=one.partition,
                timestamp_ms=one.timestamp_ms,
                headers=one.headers,
            )
            for one in records
        ]
        await asyncio.gather(*sent)
        return time.perf_counter() - begin


async def batched(servers: Servers, records: Sequence[Record]) -> float:
    """Seconds for the same in batches that are built here: the most that this client can do."""
    async with _producer(servers, MAX_BATCH_BYTES) as (producer, topic):
        begin = time.perf_counter()
        sent = []
        by_partition = sorted(records, key=lambda one: one.partition)
        for partition, group in groupby(by_partition, key=lambda one: one.partition):
            batch = producer.create_batch()
            for one in group:
                fields = {"timestamp": one.timestamp_ms, "key": one.key, "value": one.value, "headers": one.headers}
                if batch.append(**fields) is None:
                    sent.append(await producer.send_batch(batch, topic, partition=partition))
                    batch = producer.create_batch()
                    batch.append(**fields)
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*sent)
        return time.perf_counter() - begin


async def relay(servers: Servers, backlog: Sequence[Waiting]) -> float:
    """Seconds in which a relay that is up, with its own defaults, empties an outbox that fills at one stroke."""
    database = await servers.admin_database()
    defaults = {name: field.default for name, field in RelaySettings.model_fields.items()}
    in_flight = defaults["relay_in_flight"]
    async with (
        _collecting_seldom(),
        servers.topic() as topic,
        await open_pool(database, "bench", max_size=in_flight + 4, settings=PLANNER) as pool,
    ):
        one = Relay(
            pool,
            partial(ShardPublisher.open, servers.bootstrap_servers, topic),
            Limits(defaults["relay_batch_size"], defaults["relay_batch_bytes"]),
            in_flight,
        )
        stopping = asyncio.Event()
        running = asyncio.create_task(one.run(stopping))
        try:
            await until(lambda: _ready(one), PATIENCE_SECONDS)
            async with pool.acquire() as connection, connection.transaction():
                await _fill(connection, backlog)
            begin, already = time.perf_counter(), _published()
            await until(lambda: _empty(pool, already + len(backlog)), PATIENCE_SECONDS)
            return time.perf_counter() - begin
        finally:
            stopping.set()
            await running


async def _empty(pool: asyncpg.Pool, published: float) -> bool:
    """Whether as many are published, and all are marked too; the database is only asked at the end."""
    return _published() >= published and not await pool.fetchval("SELECT EXISTS (SELECT FROM outbox)")


async def _fill(connection: Connection, backlog: Sequence[Waiting]) -> None:
    await connection.copy_records_to_table("outbox", records=backlog, columns=BACKLOG_COLUMNS)
    await connection.execute("SELECT pg_notify('outbox', shard::text) FROM generate_series(0, $1 - 1) AS shard", SHARDS)


@asynccontextmanager
async def _producer(servers: Servers, batch_bytes: int) -> AsyncIterator[tuple[AIOKafkaProducer, str]]:
    """A started bare producer that has written to each partition of its topic."""
    async with (
        servers.topic() as topic,
        idempotent_producer(servers.bootstrap_servers, "bench", max_batch_size=batch_bytes) as producer,
    ):
        for partition in range(SHARDS):
            await producer.send_and_wait(topic, b"", b"", partition=partition)
        yield producer, topic


@asynccontextmanager
async def _collecting_seldom() -> AsyncIterator[None]:
    before = gc.get_threshold()
    collect_seldom()
    try:
        yield
    finally:
        gc.set_threshold(*before)


async def _ready(one: Relay) -> bool:
    try:
        await one.database.check()
        await one.broker()
    except NotReadyError:
        return False
    return True


def _published() -> float:
    samples_of_all = (sample for metric in PUBLISHED.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples_of_all if sample.name.endswith("_total"))


def _waiting(event: FileEvent) -> Waiting:
    return Waiting(
        shard_of(event.file_id),
        event.file_id,
        event.revision,
        event.event_id,
        event.event_type,
        "bench",
        encode(event),
        event.occurred_at,
    )


def _records(row: Waiting) -> list[Record]:
    """What the relay makes of a row: a deletion is followed by its tombstone."""
    headers = [(REVISION_HEADER, str(row.revision).encode()), (EVENT_ID_HEADER, str(row.event_id).encode())]
    timestamp_ms = int(row.occurred_at.timestamp() * 1000)
    values = (row.payload, None) if row.event_type == EventType.DELETED else (row.payload,)
    return [Record(row.shard, str(row.file_id).encode(), value, timestamp_ms, headers) for value in values]
