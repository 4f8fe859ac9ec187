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
from typing import Final

from aiokafka import AIOKafkaProducer

from bench import samples
from bench.backlog import Record, Waiting, relayed, send_in_batches
from bench.report import Figure, ratio, turned
from bench.servers import Servers, Tell
from producer_admin.outbox import SHARDS
from runtime.kafka import MAX_BATCH_BYTES, idempotent_producer
from schemas.events import EventType, record_headers

CLIENT_BATCH_BYTES: Final = 16 * 1024
"""aiokafka's own default."""
BARE: Final = "bare send()"
BARE_LARGE: Final = "bare send(), batches as large as the relay's"


async def measure(servers: Servers, rows: int, rounds: int, tell: Tell) -> list[Figure]:
    """Run all contenders in all rounds.

    Returns:
        Records a second of each, and the relay's share of the bare producer's.
    """
    tell("Making events")
    backlog = [Waiting.of(event) for event in samples.events(rows)]
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
    """Seconds for the same in batches that are built here."""
    async with _producer(servers, MAX_BATCH_BYTES) as (producer, topic):
        begin = time.perf_counter()
        await send_in_batches(producer, topic, records)
        return time.perf_counter() - begin


async def relay(servers: Servers, backlog: Sequence[Waiting]) -> float:
    """Seconds in which the relay empties the outbox."""
    async with servers.topic() as topic:
        return await relayed(servers, topic, backlog)


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


def _records(row: Waiting) -> list[Record]:
    """What the relay makes of a row: a deletion is followed by its tombstone."""
    headers = record_headers(row.revision, row.event_id)
    timestamp_ms = int(row.occurred_at.timestamp() * 1000)
    values = (row.payload, None) if row.event_type == EventType.DELETED else (row.payload,)
    return [Record(row.shard, str(row.file_id).encode(), value, timestamp_ms, headers) for value in values]
