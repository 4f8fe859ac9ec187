"""The real projector as a process, timed from when it has found its start until the last record is in its rows."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import asyncpg
import psutil
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition

from bench.backlog import collecting_seldom
from bench.servers import Servers, until
from consumer_query.generations import table_name
from consumer_query.migrations import run_migrate
from consumer_query.settings import QueryDatabaseSettings
from local.ports import LOOPBACK, free_port
from local.process import Child, Command
from local.services import python
from local.settings import CHECKOUT
from producer_admin.outbox import SHARDS
from runtime.kafka import group_consumer, plain_consumer
from schemas.codec import Decoder

TABLE: Final = table_name(1)
VIEW: Final = "file_metadata_cache"
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
IDLE_SECONDS: Final = 30.0
SLOWEST: Final = 500
"""Events a second below which the projector has stopped rather than being slow."""
LOOK_AGAIN_SECONDS: Final = 0.01

SEEKED: Final = "SELECT count(*) FROM projector_positions WHERE topic = $1"
POSITIONS: Final = "SELECT partition, next_offset FROM projector_positions WHERE topic = $1"
FORGET_POSITIONS: Final = "DELETE FROM projector_positions WHERE topic = $1"

_groups: Final = count()


@dataclass(frozen=True)
class Log:
    """A topic that nobody writes any more."""

    topic: str
    records: int
    after_last: Mapping[int, int]
    """By partition: one more than the offset of the last record."""
    stable_ends: Mapping[int, int]
    """By partition: the last stable offset, behind the markers of the last transaction."""


@dataclass
class Run:
    """What one run of the process took."""

    seconds: float = 0.0
    most_rss_mib: float = 0.0


@dataclass
class _Watched:
    """Looks at the memory of a process as often as it is asked something else."""

    process: psutil.Process
    run: Run = field(default_factory=Run)

    def look(self) -> None:
        self.run.most_rss_mib = max(self.run.most_rss_mib, self.process.memory_info().rss / 2**20)


async def read(servers: Servers, topic: str) -> tuple[Log, float]:
    """Read and decode all of a topic, and do nothing with it.

    Returns:
        The topic as it is, and the seconds from the first fetch until the last record was decoded.
    """
    partitions = [TopicPartition(topic, number) for number in range(SHARDS)]
    decoder, after_last, found = Decoder(), dict.fromkeys(range(SHARDS), 0), 0
    async with collecting_seldom(), plain_consumer(servers.bootstrap_servers) as consumer:
        ends = await _ends(consumer, partitions)
        begin = time.perf_counter()
        consumer.assign(partitions)
        while not all([await consumer.position(one) >= ends[one.partition] for one in partitions]):
            for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    if record.value is not None:
                        decoder.read(record.value)
                found += len(records)
                after_last[partition.partition] = records[-1].offset + 1
        took = time.perf_counter() - begin
    return Log(topic, found, after_last, ends), took


async def _ends(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[int, int]:
    return {one.partition: end for one, end in (await consumer.end_offsets(partitions)).items()}


async def prepare(database: str) -> None:
    """Migrate a new Query database."""
    await run_migrate(QueryDatabaseSettings.model_validate({"query_database_url": database}))


async def project(
    servers: Servers, database: str, log: Log, group: str | None = None, **variables: str
) -> tuple[Run, str]:
    """Run the process on a prepared database until it has applied all of the topic, then end it.

    `variables` are set besides what it needs.

    Returns:
        What it took, and the group it ran in.

    Raises:
        ProcessError: it ended by itself.
        TimeoutError: it has stopped applying.
    """
    group = group or f"projector-{next(_groups)}"
    connection = await asyncpg.connect(database)
    with process(servers, "projector", database, log.topic, KAFKA_CONSUMER_GROUP=group, **variables) as child:
        watched = _Watched(psutil.Process(child.pid))

        def lives() -> None:
            if child.exit_code() is not None:
                raise child.died()

        async def seeked() -> bool:
            lives()
            return bool(await connection.fetchval(SEEKED, log.topic) == SHARDS)

        async def reached(targets: Mapping[int, int]) -> bool:
            lives()
            watched.look()
            positions = {row["partition"]: row["next_offset"] for row in await connection.fetch(POSITIONS, log.topic)}
            return all(positions[partition] >= target for partition, target in targets.items())

        await until(seeked, START_SECONDS, LOOK_AGAIN_SECONDS / 2)
        begin = time.perf_counter()
        most = IDLE_SECONDS + log.records / SLOWEST
        await until(lambda: reached(log.after_last), most, LOOK_AGAIN_SECONDS)
        watched.run.seconds = time.perf_counter() - begin
        # Idle, it has to follow over the markers of the last transactions; else its lag would never read 0.
        await until(lambda: reached(log.stable_ends), IDLE_SECONDS, LOOK_AGAIN_SECONDS)
    await connection.close()
    return watched.run, group


async def go_back(servers: Servers, database: str, log: Log, group: str) -> None:
    """Make an ended projector read all of the topic again: each record is stale then."""
    connection = await asyncpg.connect(database)
    # Else Postgres may begin it by itself, and whoever is measured then pays for what others wrote.
    await connection.execute(f"VACUUM (ANALYZE) {TABLE}")
    await connection.execute(FORGET_POSITIONS, log.topic)
    await connection.close()
    async with group_consumer(servers.bootstrap_servers, group, "bench") as consumer:
        starts = {TopicPartition(log.topic, number): OffsetAndMetadata(0, "") for number in range(SHARDS)}
        consumer.assign(list(starts))
        await consumer.commit(starts)


@contextmanager
def process(servers: Servers, verb: str, database: str, topic: str, **variables: str) -> Iterator[Child]:
    """A verb of the Query module in a process of its own, ended at the end; `variables` besides what each needs."""
    # Without bytecode that is kept it would take long to start.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    needed = {
        "KAFKA_BOOTSTRAP_SERVERS": servers.bootstrap_servers,
        "FILE_EVENTS_TOPIC": topic,
        "QUERY_DATABASE_URL": database,
        "MANAGEMENT_HOST": LOOPBACK,
        f"QUERY_{verb.upper()}_MANAGEMENT_PORT": str(free_port()),
    }
    child = Child(
        Command(
            name=f"query-{verb}",
            argv=python("consumer_query", verb),
            log=servers.folder / f"query-{verb}.log",
            cwd=CHECKOUT,
            env=inherited | needed | variables,
        )
    )
    try:
        yield child
    finally:
        child.stop(STOP_SECONDS)
