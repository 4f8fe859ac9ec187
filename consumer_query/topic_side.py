"""The topic as a side of its own: what a rebuild would make of it, compared with the truth. Neither is written to.

All records are folded into a temporary table, the greater revision of a file winning, as in the cache. Looking again at
a file first reads on to the log's end, so what differs is confirmed by the same rules as for the cache.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer_query.admin_client import AdminSide
from consumer_query.binary_rows import record_of
from consumer_query.buffers import Record
from consumer_query.confirm import Confirmer, Patience
from consumer_query.findings import Findings
from consumer_query.full_sync import compare
from consumer_query.generations import PRIMARY_KEY, TABLE
from consumer_query.read_model import APPLY, send, teach
from consumer_query.records import BadRecordError, RecordReader
from consumer_query.sides import SECONDS, Standing, TableSide, set_up, states
from runtime.brokers import AnyBrokers
from runtime.kafka import REQUEST_TIMEOUT_MS, all_partitions, log_ends, plain_consumer
from runtime.postgres import Connection
from runtime.whole_topic import STALL_SECONDS

NAME: Final = "topic_files"
MAKE: Final = (
    TABLE.replace("CREATE TABLE", "CREATE TEMPORARY TABLE").format(table=NAME),
    PRIMARY_KEY.format(table=NAME),
)
WRITE: Final = APPLY.format(table=NAME)
DROP: Final = f"DROP TABLE IF EXISTS {NAME}"
KNOW: Final = f"ANALYZE {NAME}"
CHUNK: Final = 5_000
"""Records folded into one statement."""
SLICE: Final = 50
"""Records read before others have their turn."""
POLL_MS: Final = 200

Tell = Callable[[str], None]
Newest = dict[str, tuple[int, bytes]]
"""By file id: the greatest revision, and the row of that state, without what it is found by."""
NEVER: Final = (0, b"")


@dataclass(frozen=True)
class TopicReader:
    """Where the topic is, and by what its records are read."""

    bootstrap_servers: AnyBrokers
    topic: str
    schema_registry_url: str | None

    async def ends(self) -> Mapping[int, int]:
        """Where its partitions end, open transactions included."""
        return await log_ends(self.bootstrap_servers, self.topic)


class TopicSide(TableSide):
    """The topic, as far as it has been read into a table of this connection.

    Args:
        connection: of the Query database; the table goes with it
        consumer: started, and assigned to every partition from its beginning
        reader: of records
        tell: told how far it has come
    """

    def __init__(self, connection: Connection, consumer: AIOKafkaConsumer, reader: RecordReader, tell: Tell) -> None:
        super().__init__(self._snapshot)
        self._connection = connection
        self._consumer = consumer
        self._reader = reader
        self._tell = tell
        self._alone = asyncio.Lock()
        self.records = 0
        self.unreadable = 0
        """Records that no projector could apply either; the state before them stands."""

    async def standing(self, file_ids: Collection[UUID]) -> Standing:
        """Positions and files, after reading on to the end."""
        await self.read_on()
        async with self._snapshot() as (connection, table):
            return Standing(await self._positions(), await states(connection, table, file_ids))

    async def read_on(self) -> None:
        """Read up to where the log ends now.

        Raises:
            KafkaError: the broker is away.
            TimeoutError: it does not answer, or there was no progress for STALL_SECONDS.
            RegistryError, UnknownSchemaError: records cannot be read yet.
        """
        async with asyncio.timeout(STALL_SECONDS):
            ends = await self._consumer.end_offsets(list(self._consumer.assignment()))
        newest: Newest = {}
        folded = 0
        while True:
            async with asyncio.timeout(STALL_SECONDS):
                records = await self._next(ends)
            if not records:
                break
            for place, record in enumerate(records):
                if place % SLICE == 0:
                    await asyncio.sleep(0)
                await self._offer(newest, record)
            folded += len(records)
            if folded >= CHUNK:
                await self._write(newest)
                newest, folded = {}, 0
        await self._write(newest)

    async def _next(self, ends: Mapping[TopicPartition, int]) -> Sequence[Record]:
        while any([await self._consumer.position(one) < end for one, end in ends.items()]):
            fetched = await self._consumer.getmany(timeout_ms=POLL_MS)
            if fetched:
                return [record for records in fetched.values() for record in records]
        return []

    async def _offer(self, newest: Newest, record: Record) -> None:
        self.records += 1
        try:
            state = await self._reader.read(record.key, record.value, dict(record.headers))
            if state.revision > newest.get(state.file_id, NEVER)[0]:
                newest[state.file_id] = state.revision, record_of(state.columns, None)
        except BadRecordError:
            self.unreadable += 1

    async def _write(self, newest: Newest) -> None:
        if newest:
            async with self._alone:
                await send(self._connection, WRITE, [record for _, record in newest.values()])
            self._tell(f"reading the topic: {self.records:,} records")

    async def _positions(self) -> Mapping[int, int]:
        return {one.partition: await self._consumer.position(one) for one in self._consumer.assignment()}

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[tuple[Connection, str]]:
        async with self._alone, self._connection.transaction(isolation="repeatable_read"):
            await set_up(self._connection)
            yield self._connection, NAME


@asynccontextmanager
async def open_topic_side(pool: asyncpg.Pool, topic: TopicReader, tell: Tell) -> AsyncIterator[TopicSide]:
    """A side that has been read to the end once.

    Raises:
        KafkaError: the broker is away, or knows no such topic.
        TimeoutError: no progress within STALL_SECONDS.
    """
    consumer = plain_consumer(topic.bootstrap_servers, request_timeout_ms=REQUEST_TIMEOUT_MS)
    async with pool.acquire() as connection:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await consumer.start()
                consumer.assign(await all_partitions(topic.bootstrap_servers, topic.topic))
            await teach(connection)
            for statement in MAKE:
                await connection.execute(statement)
            side = TopicSide(connection, consumer, RecordReader(topic.schema_registry_url), tell)
            await side.read_on()
            await connection.execute(KNOW, timeout=SECONDS)
            yield side
        finally:
            await consumer.stop()
            if not connection.is_closed():
                await connection.execute(DROP)


async def compare_topic(
    pool: asyncpg.Pool,
    topic: TopicReader,
    admin: AdminSide,
    findings: Findings,
    tell: Tell,
    patience: Patience | None = None,
) -> None:
    """Find where the topic and the Admin module differ. Nothing is repaired. `findings` are up to date at any time.

    Raises:
        AdminAwayError, CannotCompareError: as `full_sync`.
        KafkaError, TimeoutError: the broker is away, or knows no such topic.
    """
    async with open_topic_side(pool, topic, tell) as side:
        tell("comparing")
        candidates = await compare(side, admin, findings)
        confirmed = await Confirmer(side, admin, topic.ends, patience or Patience(), tell).confirm(candidates)
        findings.note_found(confirmed.differences)
        findings.note_unconfirmed(confirmed.unconfirmed)
        findings.unreadable = side.unreadable
