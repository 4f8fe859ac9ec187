"""A trace has to be told while things are broken: each part is asked by itself, for seconds, and says why it is silent.

What does not answer in time is let go of, not waited for: a client of a broker or of a database that hangs takes longer
to end than anybody wants to wait.
"""

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import asyncpg
import structlog
from aiokafka import TopicPartition

from consumer_query import generations
from consumer_query.admin_client import AdminClient
from consumer_query.dead_letter_log import DeadLetterLog, Listed, told
from consumer_query.dead_letters import DeadLetter
from consumer_query.errors import QueryError
from consumer_query.lag_watch import LagWatch
from consumer_query.records import revision_in
from consumer_query.trace import Cached, Facts, HeldUpBy, Letter, Letters, Log, Part, Row, Unread, judge
from runtime.brokers import AnyBrokers
from runtime.kafka import REQUEST_TIMEOUT_MS, plain_consumer
from runtime.whole_topic import upto
from schemas.keys import partition_of
from schemas.trace_views import AdminTrace

PART_SECONDS: Final = 2.0
"""For each part."""
CLOSE_SECONDS: Final = 5.0
"""As long as a client takes to be abandoned that was being started."""
OLD_SECONDS: Final = 10.0
"""What the broker said of the group longer ago is not how it is."""
MOST_LETTERS: Final = 10_000
"""Dead letters that are looked at, the newest."""
MOST_UNREAD: Final = 50_000
"""Records behind the position that are looked at."""

# All by primary keys. Of the live table, so that deletions are seen too.
ROW: Final = "SELECT revision, deleted FROM {table} WHERE file_id = $1"
POSITION: Final = """
SELECT next_offset, greatest(next_offset, reached_offset) AS reached,
       greatest(0, extract(epoch FROM clock_timestamp() - moved_at))::float8 AS idle
FROM projector_positions WHERE generation = $1 AND topic = $2 AND partition = $3
"""

Told = TypeVar("Told")
_log = structlog.get_logger()


class SilentError(Exception):
    """A part does not tell; the message says why."""


class Tracer:
    """Finds out how far the newest change of a file has come.

    Args:
        pool: of the Query database
        topic: of file events
        servers: where Kafka is, if that is set
        admin: the Admin API, if it is set
        letters: the dead letters, if Kafka is set
        watch: who looks at the projectors' group, if Kafka is set
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        topic: str,
        servers: AnyBrokers | None = None,
        admin: AdminClient | None = None,
        letters: DeadLetterLog | None = None,
        watch: LagWatch | None = None,
    ) -> None:
        self._pool = pool
        self._topic = topic
        self._servers = servers
        self._admin = admin
        self._letters = letters
        self._watch = watch
        self._working: set[asyncio.Task[Any]] = set()

    async def facts(self, file_id: UUID) -> Facts:
        """All that can be found out. Never raises for a part that is away: see `Facts.troubles`."""
        found = await self._ask_all(file_id)
        if judge(found) is HeldUpBy.CACHE:
            # The parts were asked at slightly different moments: what looks wrong may have been on its way.
            found = await self._ask_all(file_id)
        return found

    async def close(self) -> None:
        """End what was let go of, as far as it ends within CLOSE_SECONDS."""
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working, timeout=CLOSE_SECONDS)

    async def _ask_all(self, file_id: UUID) -> Facts:
        troubles: dict[Part, str] = {}
        partition = partition_of(file_id)
        admin, cached, letters = await asyncio.gather(
            self._part(troubles, Part.ADMIN, self._limited(self._ask_admin(file_id))),
            self._part(troubles, Part.DATABASE, self._limited(self._ask_database(file_id, partition))),
            self._part(troubles, Part.DEAD_LETTERS, self._find_letters(file_id)),
        )
        log = self._ask_watch(partition, troubles)
        unread = None
        if admin is None and cached is not None and self._servers is not None:
            reading = self._find_unread(self._servers, file_id, TopicPartition(self._topic, partition), cached)
            unread = await self._part(troubles, Part.TOPIC, reading)
        if troubles:
            _log.info("parts of a trace are silent", file_id=str(file_id), partition=partition, troubles=troubles)
        return Facts(file_id, partition, admin, cached, log, letters, unread, troubles)

    async def _part(self, troubles: dict[Part, str], part: Part, asking: Awaitable[Told]) -> Told | None:
        try:
            return await asking
        except Exception as error:  # noqa: BLE001 - whatever keeps one part from telling, the others tell
            foreseen = isinstance(error, (SilentError, QueryError))
            troubles[part] = str(error) if foreseen else f"{type(error).__name__}: {error}"
            return None

    async def _limited(self, work: Coroutine[Any, Any, Told]) -> Told:
        """What comes of it within PART_SECONDS; else it ends when it can.

        Raises:
            SilentError: it took longer.
        """
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._let_go)
        try:
            await asyncio.wait({task}, timeout=PART_SECONDS)
            if not task.done():
                raise SilentError(f"no answer within {PART_SECONDS:g} s")
            if task.cancelled():
                raise SilentError("the client gave up")  # by itself: nobody else has told it to by then
            return task.result()
        finally:
            task.cancel()

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        self._working.discard(task)
        if not task.cancelled():
            task.exception()  # it may have no reader any more

    async def _ask_admin(self, file_id: UUID) -> AdminTrace:
        if self._admin is None:
            raise SilentError("ADMIN_API_URL is not set")
        return await self._admin.trace(file_id)

    async def _ask_database(self, file_id: UUID, partition: int) -> Cached:
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            live: int | None = await connection.fetchval(generations.LIVE)
            if live is None:
                raise SilentError("there is no cache yet; run the verb migrate")
            row = await connection.fetchrow(ROW.format(table=generations.table_name(live)), file_id)
            at = await connection.fetchrow(POSITION, live, self._topic, partition)
        return Cached(
            live,
            None if row is None else Row(row["revision"], row["deleted"]),
            None if at is None else at["next_offset"],
            0 if at is None else at["reached"],
            None if at is None else at["idle"],
        )

    def _ask_watch(self, partition: int, troubles: dict[Part, str]) -> Log | None:
        """What was seen of the group last: the watch asks the broker all the time."""
        if self._watch is None:
            troubles[Part.LAG] = "KAFKA_BOOTSTRAP_SERVERS is not set"
            return None
        report = self._watch.report
        lag = next((one for one in report.group.partitions if one.partition == partition), None) if report else None
        if report is None or lag is None:
            troubles[Part.LAG] = self._watch.trouble or "the broker does not know the partition"
            return None
        ago = (datetime.now(UTC) - report.at).total_seconds()
        if self._watch.trouble is not None or ago > OLD_SECONDS:
            troubles[Part.LAG] = f"what the broker told is {ago:.0f} s old: {self._watch.trouble or 'no answer'}"
        return Log(lag.committed, lag.end, lag.status, report.group.members, report.at)

    async def _find_letters(self, file_id: UUID) -> Letters:
        """The file's letters among the newest of all; those that were found when the time was over."""
        if self._letters is None:
            raise SilentError("KAFKA_BOOTSTRAP_SERVERS is not set")
        found = _Found[Letter]()
        try:
            await self._limited(self._read_letters(self._letters, file_id, found))
        except SilentError:
            if not found.seen:
                raise
            return Letters(tuple(found.items), complete=False)
        return Letters(tuple(found.items), complete=found.from_the_beginning)

    async def _read_letters(self, log: DeadLetterLog, file_id: UUID, found: "_Found[Letter]") -> None:
        async with aclosing(log.read(-MOST_LETTERS)) as letters:
            async for one in letters:
                if not found.seen:
                    found.from_the_beginning = one.offset == 0
                found.seen += 1
                if one.letter.topic == self._topic and _file_of(one.letter) == file_id:
                    found.items.append(_letter(one))

    async def _find_unread(
        self, servers: AnyBrokers, file_id: UUID, partition: TopicPartition, cached: Cached
    ) -> Unread | None:
        """The newest record of the file behind the position.

        Raises:
            SilentError: there was no time for all; and none was found so far.
        """
        found = _Found[Unread]()
        try:
            await self._limited(_read_unread(servers, str(file_id).encode(), partition, cached.position or 0, found))
        except SilentError:
            if not found.items:
                raise
        if not found.items and found.seen > MOST_UNREAD:
            raise SilentError(f"of the records that are not applied {found.seen:,} were looked at, not all")
        return max(found.items, key=lambda one: one.revision, default=None)


@dataclass
class _Found(Generic[Told]):
    """What reading has found so far: it stays when the time is over."""

    items: list[Told] = field(default_factory=list)
    seen: int = 0
    from_the_beginning: bool = True


async def _read_unread(
    servers: AnyBrokers, key: bytes, partition: TopicPartition, position: int, found: _Found[Unread]
) -> None:
    consumer = plain_consumer(servers, request_timeout_ms=REQUEST_TIMEOUT_MS)
    try:
        await consumer.start()
        if partition.topic not in await consumer.topics():
            raise SilentError("the broker does not know the topic")  # asked for its offsets, the client would wait
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        begin = (await consumer.beginning_offsets([partition]))[partition]
        consumer.seek(partition, max(position, begin))
        async with aclosing(upto(consumer, partition, end)) as fetched:
            async for records in fetched:
                found.seen += len(records)
                for record in records:
                    if record.key == key and (revision := revision_in(record.headers)) is not None:
                        found.items.append(Unread(record.offset, revision))
                if found.seen > MOST_UNREAD:
                    return
    finally:
        await consumer.stop()


def _file_of(letter: DeadLetter) -> UUID | None:
    """By the key, which needs no schema; of a letter whose key is no id by what it says inside."""
    try:
        return UUID((letter.key or b"").decode())
    except ValueError:
        return told(letter).file_id


def _letter(one: Listed) -> Letter:
    letter = one.letter
    return Letter(
        letter.position, letter.offset, told(letter).revision, letter.reason, letter.error, one.status, letter.at
    )
