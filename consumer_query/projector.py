"""Nothing is applied from a partition before it was seeked to its start for this assignment.

The consumer group gives partitions; a feeder fetches them into buffers, lanes apply what is buffered, commits follow.
All of aiokafka's records are taken over at once, because what lies unread in the client keeps it from fetching any
other partition; a partition whose buffer is full is paused instead. The group's membership is kept through every
outage of Postgres: polling goes on, with everything paused.

When partitions are taken away, batches in hand are finished; if one takes too long it is dropped, and should its
transaction commit all the same, the compare-and-set of its positions decides.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CorruptRecordException, IllegalStateError, KafkaError
from prometheus_client import Gauge

from consumer_query import buffers
from consumer_query.breaker import Breaker
from consumer_query.buffers import Buffer, Record, Take
from consumer_query.cache_guard import Applying, CacheGuard
from consumer_query.commits import Commits
from consumer_query.dead_letters import DeadLetterWriter
from consumer_query.durable import taken_back
from consumer_query.errors import PositionMovedError, QueryError
from consumer_query.faults import Fault, fault_of
from consumer_query.freshness_beat import tell_freshness
from consumer_query.generations import WrongShapeError
from consumer_query.lanes import Held, Lane, SystemicFaultError
from consumer_query.metrics import BROKER_UP, BUFFERED, DATABASE_UP, FAILURES, HELD, PARTITIONS, SEARCHABLE_SECONDS
from consumer_query.pending_list import LEAVE_TO_OTHERS, keep_empty
from consumer_query.points import Point, Watch, unwatched
from consumer_query.read_model import teach
from consumer_query.records import RecordReader
from consumer_query.starts import begin
from consumer_query.usual_rows import COMPILED
from runtime.health import Condition, NotReadyError
from runtime.kafka import is_being_cancelled
from runtime.postgres import Connection
from runtime.retries import backoff, pause
from runtime.tracing import BatchSpans

POLL_MS: Final = 200
"""How long a poll waits for records at most."""
EXPRESS_RECORDS: Final = 500
"""In one transaction of the express lane: about 20 ms."""
IDLE_MOVE_SECONDS: Final = 1.0
"""How soon an idle partition's position follows over transaction markers, so that its lag reads 0."""
REVOKE_SECONDS: Final = 5.0
"""How long batches in hand may take when their partitions are taken away."""
LONGEST_BACKOFF_SECONDS: Final = 2.0
"""So that all goes on soon after Postgres is back."""
HOLD_SECONDS: Final = 5.0
"""Between looks for a schema that was unknown, or whether a systemic fault has been mended."""
UNPARSABLE_SECONDS: Final = 60.0
"""Likewise, whether a record that the client cannot parse is gone; looking stalls the other partitions for a moment."""
BROKEN_SECONDS: Final = 20.0
"""A client that fails for so long while the broker answers is replaced: a task of it may be dead."""
TELL_AGAIN_SECONDS: Final = 30.0
"""Between log lines of one fault that stays."""
PROBE_SECONDS: Final = 5.0
"""Between questions to an idle broker, each with as much time for its answer."""

_log = structlog.get_logger()


class ClientBrokenError(QueryError):
    """The Kafka client will not recover by itself."""


@dataclass(frozen=True)
class Limits:
    """How much is done at once."""

    batch: int
    """Records in one transaction at most."""
    lanes: int
    """Beside the express lane; each has a connection."""
    bad_share: float
    """Of the last records; more stops what is bad from going to the dead letters."""


class Projector(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of the consumer group.

    Args:
        pool: at least `limits.lanes` + 7 connections
        open_consumer: makes a member of the group, not started; called again when one turns out to be broken
        topic: of file events
        group: the consumer's group
        dead_letters: where refused records go
        reader: decodes records
        limits: see there
        guard: looks whether the rows are of this log, and whether they are ours to write
        watch: called at each point
        spans: told of each batch that is applied; None while nothing is traced
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        open_consumer: Callable[[], AIOKafkaConsumer],
        topic: str,
        group: str,
        dead_letters: DeadLetterWriter,
        reader: RecordReader,
        limits: Limits,
        guard: CacheGuard,
        watch: Watch = unwatched,
        spans: BatchSpans | None = None,
    ) -> None:
        self._pool = pool
        self._open_consumer = open_consumer
        self._topic = topic
        self._group = group
        self._dead_letters = dead_letters
        self._reader = reader
        self._limits = limits
        self.guard = guard
        self._applying = Applying(lambda: [one.partition for one in self._buffers], self._seek_all_again)
        self._watch = watch
        self._spans = spans
        self._breaker = Breaker(limits.bad_share)
        self._consumer: AIOKafkaConsumer
        self._commits: Commits
        self._unseeked: dict[TopicPartition, bool] = {}
        """Partitions to seek, and whether their log was found to begin anew."""
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._desk = asyncio.Lock()
        """Had by the one lane that works in Python; the express lane does not need it."""
        self._changed = asyncio.Event()
        """Set when lanes should look again: records came, a partition is free, a hold is over."""
        self._assignment: object | None = None
        """Another one for each assignment; None while there is none."""
        self._follow_markers = False
        self._changed_rows = 0
        self._told, self._told_at = "", 0.0
        self._probed_at = 0.0
        """When the broker last answered, by the event loop's clock."""
        self._in_hand: set[asyncio.Task[None]] = set()
        self.broker = Condition("not connected yet")
        self.database = Condition("not connected yet")

    async def partitions(self) -> None:
        """Raise NotReadyError while partitions are not seeked or held back, with the reasons."""
        if self.guard.barred:
            raise NotReadyError(self.guard.barred)
        if self._assignment is None:
            raise NotReadyError("waiting for partitions")
        if self._unseeked:
            raise NotReadyError(f"{len(self._unseeked)} partitions are not at their start yet")
        if not self._buffers and not self._consumer.partitions_for_topic(self._topic):
            raise NotReadyError(f"there is no topic {self._topic}")
        held = [
            f"partition {one.partition.partition} at offset {one.applied}: {one.trouble}"
            for one in self._buffers.values()
            if one.trouble
        ]
        if held:
            raise NotReadyError("; ".join(held))

    def behind(self) -> Iterator[tuple[int, int, float]]:
        """How far this projector is behind: partition, offsets not applied, age of the oldest record in seconds."""
        now = time.time()
        for one in self._buffers.values():
            yield one.partition.partition, one.unapplied, one.age(now)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Finish the batches in hand, then forget the assignment. Called by the consumer."""
        self._watch(Point.REVOKING)
        self._assignment = None
        self._unseeked.clear()
        await self._let_go()
        await self._commits.flush()
        self._buffers = {}
        self._commits.forget()
        PARTITIONS.set(0)
        self._watch(Point.REVOKED)
        _log.info("partitions revoked", partitions=sorted(one.partition for one in revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take note of the assignment; the feeder seeks. Called by the consumer, which would swallow an error here."""
        self._unseeked = dict.fromkeys(assigned, False)
        self._buffers = {}
        self._assignment = object()
        PARTITIONS.set(len(self._unseeked))
        _log.info("partitions assigned", partitions=sorted(one.partition for one in self._unseeked))

    async def run(self, stopping: asyncio.Event) -> None:
        """Apply until `stopping`, finish what is in hand, then leave the group."""
        _log.info("projector starts", rows="compiled" if COMPILED else "in Python, a third slower")
        async with asyncio.TaskGroup() as tasks:
            guarding = tasks.create_task(_lasting(self.guard.run(self._applying)))
            try:
                await self._apply_until(stopping)
            finally:
                guarding.cancel()
                await self._dead_letters.close()

    async def _apply_until(self, stopping: asyncio.Event) -> None:
        """Be a member of the group, whenever the live generation is ours to write."""
        waits = backoff(LONGEST_BACKOFF_SECONDS)
        while await self.guard.admitted(stopping) and await self._connect(stopping):
            try:
                await self._serve(stopping)
            except* ClientBrokenError as broken:
                _log.warning("the client is broken; taking another", error=str(broken.exceptions[0]))
                self._say_broker(str(broken.exceptions[0]))
            except* WrongShapeError as wrong:
                _log.warning("leaving the group", reason=str(wrong.exceptions[0]))
            finally:
                await self._consumer.stop()
            await pause(next(waits), stopping)

    async def _connect(self, stopping: asyncio.Event) -> bool:
        """Start a consumer, trying as long as it takes; False when told to stop before."""
        waits = backoff()
        while not stopping.is_set():
            self._consumer = self._open_consumer()
            self._commits = Commits(self._consumer, self._watch, self._settle)
            self._assignment = None
            self._unseeked = {}
            self._buffers = {}
            self._consumer.subscribe([self._topic], listener=self)
            try:
                await self._consumer.start()
            except KafkaError as error:
                if self._say_broker(f"broker: {error}"):
                    _log.warning("broker away, trying again", error=str(error))
                await self._consumer.stop()
                await pause(next(waits), stopping)
            else:
                return True
        return False

    async def _serve(self, stopping: asyncio.Event) -> None:
        """Feed and apply over one consumer until `stopping`.

        Raises:
            BaseExceptionGroup: of ClientBrokenError, when the consumer has to be replaced; of WrongShapeError, when
                others have to apply.
        """
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(_lasting(work))
                for work in (
                    self._feed(stopping),
                    self._commits.run(),
                    self._probe(),
                    keep_empty(self._pool, lambda: self._changed_rows, self._in_backlog),
                    tell_freshness(self._pool, self._topic, self._consumer, lambda: list(self._buffers.values())),
                )
            ]
            lanes = [
                tasks.create_task(_lasting(self._work(stopping, express=number == 0)))
                for number in range(self._limits.lanes + 1)
            ]
            await stopping.wait()
            self._changed.set()
            await asyncio.wait(lanes, timeout=REVOKE_SECONDS)
            for one in (*lanes, *background):
                one.cancel()
        await self._commits.flush()

    async def _feed(self, stopping: asyncio.Event) -> None:
        """Seek what is new, and fetch into buffers."""
        waits = backoff(LONGEST_BACKOFF_SECONDS)
        seek_not_before = 0.0
        idle_moved_at = 0.0
        failing_since: float | None = None
        while not stopping.is_set():
            try:
                if self._unseeked and _now() >= seek_not_before:
                    try:
                        await self._seek()
                        waits = backoff(LONGEST_BACKOFF_SECONDS)
                    except WrongShapeError:
                        raise
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again and told
                        self._tell(error)
                        seek_not_before = _now() + next(waits)
                await self._fetch()
                failing_since = None
                if _now() - idle_moved_at >= IDLE_MOVE_SECONDS:
                    idle_moved_at = _now()
                    self._follow_markers = True
                self._changed.set()
            except KafkaError as error:
                self._tell(error)
                failing_since = failing_since or _now()
                if self._probed_at - failing_since > BROKEN_SECONDS:
                    raise ClientBrokenError(f"{type(error).__name__}: {error}") from error
                await pause(next(waits), stopping)

    async def _fetch(self) -> None:
        """Take over what the client has, waiting a moment for it when there is nothing."""
        unseeked = [one for one in self._unseeked if one in self._consumer.assignment()]
        if unseeked:
            self._consumer.pause(*unseeked)
        assignment = self._assignment
        fetched = await self._poll()
        if self._assignment != assignment:
            return  # of an assignment that is gone; what is assigned now will be seeked
        for partition, buffer in list(self._buffers.items()):
            records: Sequence[Record] = fetched.get(partition, ())
            if records and records[0].offset < buffer.fetched:
                self._begin_anew(buffer, records[0].offset)
            elif records or not buffer.records:
                try:
                    upto = await self._consumer.position(partition)
                    buffer.add(records, upto, self._consumer.last_stable_offset(partition) or upto)
                except IllegalStateError:
                    return  # a rebalance has begun; this assignment is over
        if fetched:
            self._watch(Point.FETCHED)
        self._pause_and_resume()

    async def _poll(self) -> Mapping[TopicPartition, Sequence[Record]]:
        """Take records over from the client.

        When one cannot even be parsed by the client, it raises, and what it had drained of other partitions by then is
        lost to us: fetch that again, each partition by itself, and hold the one that raises again.

        Raises:
            KafkaError: the broker refuses.
            ClientBrokenError: the client raises with nothing to parse.
        """
        try:
            everything: Mapping[TopicPartition, Sequence[Record]] = await self._consumer.getmany(timeout_ms=POLL_MS)
        except Exception as error:
            suspects = [one for one in self._buffers.values() if one.partition in self._consumer.assignment()]
            for one in suspects:
                self._consumer.seek(one.partition, one.fetched)
            if isinstance(error, KafkaError) and not isinstance(error, CorruptRecordException):
                raise
        else:
            return everything
        suspects = [one for one in suspects if one.partition not in self._consumer.paused()]
        await self._require_whole_client(suspects)
        fetched: dict[TopicPartition, Sequence[Record]] = {}
        for one in suspects:
            try:
                fetched |= await self._consumer.getmany(one.partition, timeout_ms=POLL_MS)
            except IllegalStateError:
                break  # a rebalance has begun; this assignment is over
            except Exception as error:  # noqa: BLE001 - whatever it is, this partition is held for it
                self._count(error)
                _log.error(
                    "partition held: the client cannot parse a record",
                    partition=one.partition.partition,
                    offset=one.fetched,
                    error=f"{type(error).__name__}: {error}",
                )
                self._consumer.seek(one.partition, one.fetched)
                one.unparsable_until = _now() + UNPARSABLE_SECONDS
                one.unparsable = f"the client cannot parse a record behind {one.fetched}: {error}"
        return fetched

    async def _require_whole_client(self, suspects: Sequence[Buffer]) -> None:
        """Ask with everything paused: with no record to parse, only the client itself can be at fault.

        Raises:
            ClientBrokenError: it is; a task of it has died, and its error comes again with each call.
        """
        partitions = [one.partition for one in suspects]
        self._consumer.pause(*partitions)
        try:
            await self._consumer.getmany(timeout_ms=0)
        except Exception as error:
            raise ClientBrokenError(f"{type(error).__name__}: {error}") from error
        self._consumer.resume(*partitions)

    def _in_backlog(self) -> bool:
        return not all(one.live for one in self._buffers.values())

    def _pause_and_resume(self) -> None:
        """Pause what is full, resume what has room. Again after each poll: a rebalance makes the client forget it.

        Nothing of a partition is left in the client at this point; it would be thrown away and fetched again.
        """
        all_buffers = list(self._buffers.values())
        assigned, paused = self._consumer.assignment(), self._consumer.paused()
        full = {one.partition for one in buffers.to_pause(all_buffers, _now())} & assigned
        roomy = {one.partition for one in buffers.to_resume(all_buffers, _now())} & assigned
        if more := full - paused:
            self._consumer.pause(*more)
        if less := (roomy & paused) - set(self._unseeked):
            self._consumer.resume(*less)
        BUFFERED.set(sum(len(one.records) for one in all_buffers))
        HELD.set(sum(bool(one.trouble) for one in all_buffers))

    def _begin_anew(self, buffer: Buffer, first: int) -> None:
        """The log is shorter than what was read of it, so the client went back to its beginning: apply all of it."""
        _log.warning("the log began anew", partition=buffer.partition.partition, offset=first, expected=buffer.fetched)
        self._seek_all_again()
        self._unseeked[buffer.partition] = True

    def _seek_all_again(self) -> None:
        """What is known of one partition may concern all of them."""
        for buffer in list(self._buffers.values()):
            self._seek_again(buffer)

    def _seek_again(self, buffer: Buffer) -> None:
        if self._buffers.get(buffer.partition) is buffer:
            del self._buffers[buffer.partition]
            self._unseeked.setdefault(buffer.partition, False)

    async def _seek(self) -> None:
        """Seek every partition that is new in this assignment to its start."""
        assignment, wanted = self._assignment, dict(self._unseeked)
        begun = await begin(
            self._pool, self._consumer, self._topic, self.guard, wanted, lambda: assignment == self._assignment
        )
        for one, (position, end) in begun.items():
            self._applying.last.pop(one.partition, None)
            self._consumer.seek(one, position)
            self._consumer.resume(one)
            self._buffers[one] = Buffer(one, position, position, end)
            self._commits.owe(one, position)
            del self._unseeked[one]
        if begun:
            self._watch(Point.SEEKED)

    async def _settle(self, applied: Mapping[TopicPartition, int]) -> Mapping[TopicPartition, int]:
        """Wait until positions are on disk; partitions of which a crash has taken some back are seeked again."""
        by_number = {one.partition: position for one, position in applied.items()}
        lost = await taken_back(self._pool, self._topic, by_number)
        for one in applied:
            if one.partition in lost and (buffer := self._buffers.get(one)):
                _log.warning("rows were taken back; seeking again", partition=one.partition, offset=applied[one])
                self._seek_again(buffer)
        return {one: position for one, position in applied.items() if one.partition not in lost}

    async def _work(self, stopping: asyncio.Event, *, express: bool) -> None:
        """Be a lane: own a connection, take and apply until `stopping`."""
        lane = Lane(
            self._topic,
            self._group,
            self._reader,
            self._dead_letters,
            self._breaker,
            self._watch,
            spans=self._spans,
            desk=None if express else self._desk,
        )
        waits = backoff(LONGEST_BACKOFF_SECONDS)
        while not stopping.is_set():
            try:
                async with self._pool.acquire() as connection:
                    await teach(connection)
                    if express:
                        await connection.execute(LEAVE_TO_OTHERS)
                    self._say_database()
                    while not stopping.is_set():
                        await self._apply_next(lane, connection, express=express)
                        waits = backoff(LONGEST_BACKOFF_SECONDS)
            except WrongShapeError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, nothing is skipped: try again
                self._tell(error)
                await pause(next(waits), stopping)

    async def _apply_next(self, lane: Lane, connection: Connection, *, express: bool) -> None:
        """Take a batch and apply it, or wait until there may be one.

        Raises:
            Exception: what the lane met, unless it was mended here.
        """
        self._changed.clear()
        takes = self._take(express=express)
        if not takes:
            await self._changed.wait()
            return
        # A task of its own, so that it can be dropped when its partitions are taken away.
        applying = asyncio.create_task(self._apply(lane, connection, takes))
        self._in_hand.add(applying)
        try:
            await applying
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            partitions = [one.buffer.partition.partition for one in takes]
            _log.warning("batch in hand dropped: its partitions were taken away", partitions=partitions)
            raise ConnectionError("the connection was in the middle of a dropped batch") from None
        finally:
            self._in_hand.discard(applying)
            for one in takes:
                one.buffer.in_hand = False
            self._changed.set()

    def _take(self, *, express: bool) -> list[Take]:
        if self._assignment is None:
            return []
        all_buffers = self._buffers.values()
        if express and self._follow_markers:
            self._follow_markers = False
            if idle := buffers.choose_idle(all_buffers, _now()):
                return idle
        most = EXPRESS_RECORDS if express else self._limits.batch
        return buffers.choose(all_buffers, express=express, most=min(most, self._limits.batch), now=_now())

    async def _apply(self, lane: Lane, connection: Connection, takes: list[Take]) -> None:
        try:
            batch = await lane.apply(connection, takes)
        except PositionMovedError as error:
            self._count(error)
            partitions = [take.buffer.partition.partition for take in takes]
            _log.warning("position moved by another projector; seeking again", partitions=partitions, error=str(error))
            for take in takes:
                self._seek_again(take.buffer)
        except SystemicFaultError as error:
            self._count(error)
            _log.error("systemic fault: nothing bad is put aside until it is mended", error=str(error))
            self._hold(takes, f"systemic fault: {error}")
        except Exception as error:
            unknown = fault_of(error) is Fault.UNKNOWN
            for take in takes:
                take.buffer.alone = unknown
            # Told until it goes well, so that readiness does not depend on who looked last.
            alone = unknown and len(takes) == 1
            self._hold(takes, f"{type(error).__name__}: {error}", HOLD_SECONDS if alone else 0.0)
            raise
        else:
            self._changed_rows += batch.changed
            if batch.changed and batch.changed == len(batch.rows):
                # Of a batch that was applied in part before it is not known what is new.
                now = time.time()
                SEARCHABLE_SECONDS.observe([now - one.timestamp / 1000 for take in takes for one in take.records])
            self._accept(batch.takes, batch.held)
            self._say_database()

    def _accept(self, takes: Sequence[Take], held: Sequence[Held]) -> None:
        """What was taken is applied."""
        for take in takes:
            take.buffer.drop(len(take.records), take.upto)
            take.buffer.release()
            if self._buffers.get(take.buffer.partition) is take.buffer:
                self._commits.owe(take.buffer.partition, take.upto)
                if take.records:
                    self._applying.last[take.buffer.partition.partition] = take.records[-1]
        for one in held:
            self._count(one.error)
            _log.warning(
                "partition held until its schema is known",
                partition=one.take.buffer.partition.partition,
                offset=one.take.upto,
                error=str(one.error),
            )
            self._hold([one.take], str(one.error))

    def _hold(self, takes: Iterable[Take], reason: str, seconds: float = HOLD_SECONDS) -> None:
        for take in takes:
            take.buffer.hold(reason, _now() + seconds)

    def _tell(self, error: Exception) -> None:
        """Say what goes wrong, in log, metric and health."""
        reason = f"{type(error).__name__}: {error}"
        self._count(error)
        if reason != self._told or _now() - self._told_at > TELL_AGAIN_SECONDS:
            self._told, self._told_at = reason, _now()
            _log.warning("not applied, trying again", error=reason)
        if isinstance(error, KafkaError):
            self._say_broker(reason)
        else:
            self._say_database(reason)

    def _say_broker(self, trouble: str | None = None) -> bool:
        """Say in health and metric that the broker is there, or why it is not. Returns whether that is news."""
        return _say(self.broker, BROKER_UP, trouble)

    def _say_database(self, trouble: str | None = None) -> None:
        """The same of the database."""
        _say(self.database, DATABASE_UP, trouble)

    def _count(self, error: Exception) -> None:
        FAILURES.labels(type(error).__name__).inc()

    async def _let_go(self) -> None:
        """Wait for the batches in hand, and drop those that take too long."""
        if self._in_hand:
            _, late = await asyncio.wait(set(self._in_hand), timeout=REVOKE_SECONDS)
            for one in late:
                one.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)

    async def _probe(self) -> None:
        """Ask the broker for the log's ends from time to time: an idle fetch would not notice that it hangs."""
        while True:
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    assigned = list(self._buffers)
                    ends = await self._consumer.end_offsets(assigned) if assigned else {}
                    if not assigned:
                        await self._consumer.topics()
                for partition, end in ends.items():
                    if buffer := self._buffers.get(partition):
                        buffer.end = max(buffer.end, end)
                self._probed_at = _now()
                self._say_broker()
            except (KafkaError, TimeoutError) as error:
                self._say_broker(f"{type(error).__name__}: {error}")
            await asyncio.sleep(PROBE_SECONDS)


async def _lasting(work: Coroutine[None, None, None]) -> None:
    """Work that ends because it is done or told to: a group of tasks does not notice one that is cancelled from within.

    Raises:
        ClientBrokenError: the client has cancelled what the work waited for.
    """
    try:
        await work
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        raise ClientBrokenError("the client has given up") from error


def _say(condition: Condition, up: Gauge, trouble: str | None) -> bool:
    up.set(trouble is None)
    return condition.met() if trouble is None else condition.unmet(trouble)


def _now() -> float:
    return asyncio.get_running_loop().time()
