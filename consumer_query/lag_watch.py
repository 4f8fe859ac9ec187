"""Someone outside the group looks every few seconds how far it is behind, and needs neither the group nor the database.

    what the group committed  →  where the log begins and ends  →  the first unread record, for its age

Asked in this order, so that an end is never older than the position it is compared with. A broker that does not answer
leaves the last report standing, with its moment: nobody knows more.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CorruptRecordException, KafkaConnectionError, KafkaError, for_code

from consumer_query.lag import WINDOW_SECONDS, GroupLag, Look, PartitionLag, age, moment, status_of, unread, worst
from consumer_query.metrics import note_lag
from runtime.brokers import AnyBrokers
from runtime.kafka import (
    FETCH_WAIT_MS,
    REQUEST_TIMEOUT_MS,
    admin_client,
    is_being_cancelled,
    partition_count,
    plain_consumer,
)
from runtime.retries import backoff, pause

LOOK_SECONDS: Final = 2.0
"""Between looks; a handful of requests each."""
ANSWER_SECONDS: Final = 10.0
"""For one look. A broker that takes longer is away."""
READ_SECONDS: Final = 2.0
"""For the first unread records of all partitions; the others' turn comes with the next look."""
READ_AGAIN_SECONDS: Final = 10.0
"""Where a group stands still, compaction may take its next record away: reading it again costs a whole batch."""
HISTORY: Final = 150
"""Looks that are kept to be drawn: five minutes."""
LONGEST_BACKOFF_SECONDS: Final = 5.0
_ONE_BATCH: Final = 1
"""Bytes of a fetch: a broker sends a whole batch in any case, and one is enough."""
_POLL_MS: Final = 100

_log = structlog.get_logger()


class Point(NamedTuple):
    """The group at one look."""

    at: datetime
    events: int
    seconds: float


@dataclass(frozen=True)
class Report:
    """What was seen last."""

    at: datetime
    group: GroupLag


class _Oldest(NamedTuple):
    """The first record at or behind a position."""

    position: int
    end: int
    """Where the log ended then."""
    offset: int | None
    """None: there is none below the end."""
    written_at: float | None
    """Of the record, by the clock of whoever wrote it; seconds since 1970."""
    read_at: float
    """By the clock of looks."""
    seen_at: float
    """When it was first seen to be there, by the same clock."""

    def holds(self, look: Look) -> bool:
        """Whether a look would find the same, but for what was compacted a moment ago."""
        is_same = self.position == look.position and (self.offset is not None or self.end == look.end)
        return is_same and look.at - self.read_at < READ_AGAIN_SECONDS

    def waits_in(self, look: Look) -> bool:
        """Whether something that was seen with it is unread at a look, so that what is unread then is no older."""
        return self.offset is not None and self.position <= look.position < self.end <= look.end


class _Clients(NamedTuple):
    admin: AIOKafkaAdminClient
    consumer: AIOKafkaConsumer


class LagWatch:
    """Looks at one group on one topic.

    Args:
        bootstrap_servers: where the broker is
        topic: of file events
        group: of the projectors
    """

    def __init__(self, bootstrap_servers: AnyBrokers, topic: str, group: str) -> None:
        self._servers = bootstrap_servers
        self._topic = topic
        self.group = group
        self._windows: defaultdict[int, deque[tuple[Look, int]]] = defaultdict(deque)
        self._oldest: dict[int, _Oldest] = {}
        self._turn = 0
        """The partition whose first unread record is read first, so that slow reading leaves none out for good."""
        self.report: Report | None = None
        self.history: deque[Point] = deque(maxlen=HISTORY)
        self.trouble: str | None = "not looked yet"
        """Why there is no newer report; None when there is none to be had yet."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Look until `stopping`, which a broker that does not answer does not hold up."""
        looking = asyncio.create_task(self._keep_looking(stopping))
        try:
            await stopping.wait()
        finally:
            looking.cancel()
            await asyncio.wait([looking])

    async def _keep_looking(self, stopping: asyncio.Event) -> None:
        waits = backoff(LONGEST_BACKOFF_SECONDS)
        while not stopping.is_set():
            try:
                async with self._clients() as clients:
                    while not stopping.is_set():
                        async with asyncio.timeout(ANSWER_SECONDS):
                            await self._look(clients)
                        waits = backoff(LONGEST_BACKOFF_SECONDS)
                        await pause(LOOK_SECONDS, stopping)
            except asyncio.CancelledError:
                if is_being_cancelled():
                    raise
                self._tell(KafkaConnectionError("the client has given up"))
                await pause(next(waits), stopping)
            except Exception as error:  # noqa: BLE001 - whatever the client raises, others in this process go on
                self._tell(error)
                await pause(next(waits), stopping)

    @asynccontextmanager
    async def _clients(self) -> AsyncIterator[_Clients]:
        async with admin_client(self._servers) as admin:
            # Made when there is a broker: one that is never started has to be stopped too.
            consumer = plain_consumer(
                self._servers,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
                fetch_max_wait_ms=FETCH_WAIT_MS,
                max_partition_fetch_bytes=_ONE_BATCH,
            )
            try:
                await consumer.start()
                yield _Clients(admin, consumer)
            finally:
                await consumer.stop()

    async def _look(self, clients: _Clients) -> None:
        partitions = [TopicPartition(self._topic, n) for n in range(await partition_count(clients.admin, self._topic))]
        if not partitions:
            raise LookupError(f"there is no topic {self._topic}")
        [answer] = await clients.admin.describe_consumer_groups([self.group])
        code, _, state, _, _, members, *_ = answer.groups[0]
        if code:
            # A coordinator that has just begun knows no members yet, and tells of none.
            raise for_code(code)(f"the coordinator of {self.group} cannot tell yet")
        committed = await clients.admin.list_consumer_group_offsets(self.group, partitions=partitions)
        if len(committed) < len(partitions):
            # The client passes over an error that concerns the whole group.
            raise LookupError(f"the coordinator of {self.group} cannot tell its offsets yet")
        begins = await clients.consumer.beginning_offsets(partitions)
        ends = await clients.consumer.end_offsets(partitions)
        now = time.monotonic()
        looks = {
            one.partition: Look(
                now,
                committed[one].offset if committed[one].offset >= 0 else None,
                committed[one].metadata or "",
                begins[one],
                ends[one],
            )
            for one in partitions
        }
        await self._find_oldest(clients.consumer, looks)
        self._judge(looks, state, len(members))

    async def _find_oldest(self, consumer: AIOKafkaConsumer, looks: Mapping[int, Look]) -> None:
        """Read the first unread record of partitions where another one than before may be the first."""
        before, self._oldest, wanted = self._oldest, {}, []
        for number in sorted(looks, key=lambda number: (number < self._turn, number)):
            look, known = looks[number], before.get(number)
            if look.position >= look.end:
                continue
            if known is not None and known.holds(look):
                self._oldest[number] = known
                continue
            wanted.append(TopicPartition(self._topic, number))
            waited = known is not None and known.waits_in(look)
            # As long as it is not read.
            self._oldest[number] = _Oldest(
                look.position,
                look.end,
                look.position,
                known.written_at if known is not None and waited else None,
                look.at,
                known.seen_at if known is not None and waited and known.position == look.position else look.at,
            )
        if not wanted:
            return
        consumer.assign(wanted)
        for one in wanted:
            consumer.seek(one, looks[one.partition].position)
        # One after the other: while something that was fetched waits to be read, the client fetches nothing else.
        consumer.pause(*wanted)
        try:
            async with asyncio.timeout(READ_SECONDS):
                for one in wanted:
                    self._turn = one.partition + 1
                    guess = self._oldest[one.partition]
                    self._oldest[one.partition] = await _first(consumer, one, looks[one.partition], guess)
        except TimeoutError:
            _log.info("not all unread records were read in time", partition=self._turn - 1)

    def _judge(self, looks: Mapping[int, Look], state: str, members: int) -> None:
        now, monotonic = time.time(), time.monotonic()
        self._windows = defaultdict(deque, {number: self._windows[number] for number in looks})
        found: list[PartitionLag] = []
        for number, look in sorted(looks.items()):
            oldest = self._oldest.get(number) if look.position < look.end else None
            events = 0 if oldest is None else unread(look, oldest.offset)
            window = self._windows[number]
            window.append((look, events))
            # One that is older than the window stays, so that what is left spans it.
            while len(window) > 2 and monotonic - window[1][0].at >= WINDOW_SECONDS:
                window.popleft()
            waits = oldest is not None and events
            seconds = age(now, oldest.written_at, monotonic - oldest.seen_at) if oldest is not None and waits else 0.0
            found.append(
                PartitionLag(number, look.committed, look.end, events, seconds, status_of(list(window), members))
            )
        group = GroupLag(worst({one.partition: one.status for one in found}), members, state, found)
        before = self.report.group.status if self.report is not None else None
        at = datetime.now(UTC)
        self.report, self.trouble = Report(at, group), None
        self.history.append(Point(at, group.events, group.seconds))
        note_lag(group, at)
        if group.status is not before and before is not None:
            _log.warning("the group's status changed", status=group.status, before=before, events=group.events)

    def _tell(self, error: Exception) -> None:
        is_silence = isinstance(error, TimeoutError) and not str(error)
        trouble = f"{type(error).__name__}: {error}".removeprefix("LookupError: ")
        trouble = f"the broker did not answer within {ANSWER_SECONDS:g} s" if is_silence else trouble
        if trouble != self.trouble:
            _log.warning("no look at the group's lag", error=trouble)
        self.trouble = trouble


async def _first(consumer: AIOKafkaConsumer, partition: TopicPartition, look: Look, guess: _Oldest) -> _Oldest:
    """The first record at or behind the position, which may lie far behind it, where compaction left a gap.

    Args:
        consumer: with the partition assigned and paused, as it is again at the end
        partition: which
        look: at it
        guess: what is returned when there is a record that cannot be read

    Raises:
        aiokafka.errors.KafkaError: the broker refuses.
    """
    none = guess._replace(offset=None, written_at=None)
    consumer.resume(partition)
    try:
        while True:
            fetched = await consumer.getmany(partition, timeout_ms=_POLL_MS, max_records=1)
            if records := fetched.get(partition):
                first = records[0]
                if first.offset >= look.end:
                    return none
                return guess._replace(offset=first.offset, written_at=moment(first.timestamp))
            # Markers and aborted records are passed over in silence.
            if await consumer.position(partition) >= look.end:
                return none
    except Exception as error:
        if isinstance(error, KafkaError) and not isinstance(error, CorruptRecordException):
            raise
        _log.info(
            "an unread record cannot be parsed", partition=partition.partition, error=f"{type(error).__name__}: {error}"
        )
        return guess
    finally:
        # Nothing more is fetched of it, and the rest of its batch is let go of.
        consumer.pause(partition)
        consumer.seek(partition, look.position)
