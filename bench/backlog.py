"""Events wait in the outbox, and the real relay takes them to the topic: transactions, markers and tombstones too."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaProducer

from bench.servers import Servers, until
from producer_admin.batches import Limits
from producer_admin.metrics import PUBLISHED
from producer_admin.outbox import SHARDS, shard_of
from producer_admin.publisher import ShardPublisher
from producer_admin.relay import Relay
from producer_admin.relay_process import PLANNER
from producer_admin.settings import RelaySettings
from runtime.health import NotReadyError
from runtime.postgres import Connection, open_pool
from runtime.process import collect_seldom
from schemas.codec import encode
from schemas.events import FileEvent, record_headers

READY_SECONDS: Final = 120.0
SLOWEST: Final = 500
"""Events a second below which a relay has stopped rather than being slow."""

COLUMNS: Final = (
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

    @classmethod
    def of(cls, event: FileEvent) -> "Waiting":
        """The row that a saga would have written."""
        return cls(
            shard_of(event.file_id),
            event.file_id,
            event.revision,
            event.event_id,
            event.event_type,
            "bench",
            encode(event),
            event.occurred_at,
        )


class Record(NamedTuple):
    """A record of a topic, ready to be sent."""

    partition: int
    key: bytes
    value: bytes | None
    timestamp_ms: int
    headers: list[tuple[str, bytes]]

    @classmethod
    def of(cls, event: FileEvent) -> "Record":
        """What a relay would send; a deletion without its tombstone."""
        headers = record_headers(event.revision, event.event_id)
        moment = int(event.occurred_at.timestamp() * 1000)
        return cls(shard_of(event.file_id), str(event.file_id).encode(), encode(event), moment, headers)


async def relayed(servers: Servers, topic: str, backlog: Sequence[Waiting]) -> float:
    """Seconds in which a relay that is up, with its own defaults, empties an outbox that fills at one stroke."""
    database = await servers.admin_database()
    defaults = {name: field.default for name, field in RelaySettings.model_fields.items()}
    in_flight = defaults["relay_in_flight"]
    async with (
        collecting_seldom(),
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
            await until(lambda: _ready(one), READY_SECONDS)
            async with pool.acquire() as connection, connection.transaction():
                await _fill(connection, backlog)
            begin, already = time.perf_counter(), _published()
            await until(lambda: _empty(pool, already + len(backlog)), READY_SECONDS + len(backlog) / SLOWEST)
            return time.perf_counter() - begin
        finally:
            stopping.set()
            await running


async def send_in_batches(producer: AIOKafkaProducer, topic: str, records: Iterable[Record]) -> None:
    """Send records in batches that are built here, each partition's in order: the most that this client can do."""
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


async def _empty(pool: asyncpg.Pool, published: float) -> bool:
    """Whether as many are published, and all are marked too; the database is only asked at the end."""
    return _published() >= published and not await pool.fetchval("SELECT EXISTS (SELECT FROM outbox)")


async def _fill(connection: Connection, backlog: Sequence[Waiting]) -> None:
    seconds = READY_SECONDS + len(backlog) / SLOWEST
    await connection.copy_records_to_table("outbox", records=backlog, columns=COLUMNS, timeout=seconds)
    await connection.execute("SELECT pg_notify('outbox', shard::text) FROM generate_series(0, $1 - 1) AS shard", SHARDS)


@asynccontextmanager
async def collecting_seldom() -> AsyncIterator[None]:
    """Python's garbage collector as our processes set it."""
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
