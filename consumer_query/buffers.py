"""A partition's records wait here in order, and are in the hands of one lane at a time until they are applied.

What is taken stays in its buffer until it is applied: a batch that fails is simply taken again. Everything here is
decided on values, between two awaits; no I/O.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, TypeAlias

from aiokafka import ConsumerRecord, TopicPartition

from consumer_query.positions import Move

Record: TypeAlias = ConsumerRecord[bytes, bytes]

LIVE_RECORDS: Final = 500
"""A partition with fewer than this before it is near the log's end: its records belong to the express lane."""
BUFFERED_RECORDS: Final = 24_000
"""In memory at most over all partitions, but for what one fetch brings beyond it."""
BUFFERED_BYTES: Final = 48 * 1024 * 1024
"""Likewise, in bytes of values."""


@dataclass(eq=False)
class Buffer:
    """One partition of one assignment."""

    partition: TopicPartition
    applied: int
    """The rows hold everything below this offset."""
    fetched: int
    """The next offset that will be fetched."""
    end: int
    """Where the log ended when last heard of."""
    records: deque[Record] = field(default_factory=deque)
    bytes: int = 0
    put_aside: set[int] = field(default_factory=set)
    """Offsets from `applied` on that are among the dead letters; a batch that is tried again does not repeat them."""
    in_hand: bool = False
    alone: bool = False
    """Taken without others, because what failed was not understood and may lie here."""
    not_before: float = 0.0
    """Held until then, by the event loop's clock."""
    held: str | None = None
    """Why it is held."""
    unparsable: str | None = None
    """Why no more is fetched of it."""
    unparsable_until: float = 0.0
    """When that is tried again."""
    _unread_since: float | None = None
    """When it was first asked how old records are that were not fetched."""

    @property
    def live(self) -> bool:
        """Whether nearly all of the log is applied or in here."""
        return len(self.records) + max(0, self.end - self.fetched) < LIVE_RECORDS

    @property
    def trouble(self) -> str | None:
        """Why it does not go on; None when it does."""
        return self.held or self.unparsable

    @property
    def unapplied(self) -> int:
        """Offsets to be applied, 0 or more; 0 when there are only transaction markers before the log's end."""
        return max(0, self.end - self.applied) if self.records or self.fetched < self.end else 0

    def age(self, now: float) -> float:
        """Seconds since the oldest record that is not applied was written; 0 when there is none.

        Until it is fetched, since something that was not fetched was last heard of.

        Args:
            now: seconds since 1970
        """
        if not self.unapplied:
            self._unread_since = None
            return 0.0
        if self.records:
            self._unread_since = None
            return max(0.0, now - float(self.records[0].timestamp) / 1000)
        self._unread_since = now if self._unread_since is None else self._unread_since
        return max(0.0, now - self._unread_since)

    def is_free(self, now: float) -> bool:
        """Whether a lane may take it."""
        return not self.in_hand and self.not_before <= now

    @property
    def has_work(self) -> bool:
        """Whether there is anything to move over, if only transaction markers."""
        return bool(self.records) or self.fetched > self.applied

    def add(self, records: Sequence[Record], fetched: int, end: int) -> None:
        """Take in what a fetch brought; `fetched` is the consumer's position behind it."""
        if records:
            self.unparsable = None
        self.records.extend(records)
        self.bytes += sum(record.serialized_value_size for record in records)
        self.fetched = fetched
        self.end = end

    def drop(self, count: int, upto: int) -> None:
        """The first `count` records are applied, and the position is `upto`."""
        for _ in range(count):
            self.bytes -= self.records.popleft().serialized_value_size
        self.applied = upto
        self.put_aside = {offset for offset in self.put_aside if offset >= upto}

    def hold(self, reason: str, until: float) -> None:
        """Leave it alone for a while."""
        self.held = reason
        self.not_before = until

    def release(self) -> None:
        """It went well."""
        self.held = None
        self.not_before = 0.0
        self.alone = False


@dataclass(eq=False)
class Take:
    """What a lane has taken of a partition: the first `records` of its buffer."""

    buffer: Buffer
    records: list[Record]
    upto: int

    @property
    def move(self) -> Move:
        """How the partition's position moves when this is applied."""
        return Move(self.buffer.applied, self.upto)

    def cut(self, count: int) -> None:
        """Keep only the first `count` records."""
        self.upto = self.records[count].offset
        del self.records[count:]


def choose(buffers: Iterable[Buffer], *, express: bool, most: int, now: float) -> list[Take]:
    """What a lane takes next; each partition taken is marked as in hand.

    The express lane takes from partitions near the log's end, a little of each. Another takes the longest backlog
    first; when there is none and the express lane has too much to do, it helps. Not earlier: two transactions cost more
    than one of twice the size.

    Args:
        buffers: all of this assignment
        express: whether for the express lane
        most: records at most, over all partitions
        now: the event loop's clock
    """
    free = [one for one in buffers if one.records and one.is_free(now)]
    live = [one for one in free if one.live]
    if express:
        wanted = live
    else:
        backlogs = sorted((one for one in free if not one.live), key=lambda one: -len(one.records))
        wanted = backlogs or (live if sum(len(one.records) for one in live) >= LIVE_RECORDS else [])
    taken: list[Take] = []
    for one in wanted:
        if one.alone and taken:
            continue
        taken.append(take(one, most))
        most -= len(taken[-1].records)
        if most <= 0 or one.alone:
            break
    return taken


def choose_idle(buffers: Iterable[Buffer], now: float) -> list[Take]:
    """Partitions whose positions have only transaction markers to move over."""
    return [take(one, 0) for one in buffers if not one.records and one.has_work and one.is_free(now)]


def take(buffer: Buffer, most: int) -> Take:
    """Take the first records of a partition, at most `most`, and mark it as in hand."""
    buffer.in_hand = True
    records = list(islice(buffer.records, most))
    if len(records) == len(buffer.records):
        return Take(buffer, records, buffer.fetched)
    # Up to the next record, so over any gap that compaction or a marker left.
    return Take(buffer, records, buffer.records[len(records)].offset)


def to_pause(buffers: Sequence[Buffer], now: float) -> list[Buffer]:
    """Partitions that hold their share of memory, or that the client cannot fetch."""
    return [one for one in buffers if _fullness(one, len(buffers)) >= 1 or one.unparsable_until > now]


def to_resume(buffers: Sequence[Buffer], now: float) -> list[Buffer]:
    """Partitions with so much room that fetching should go on: half, so that it goes on before they run dry."""
    return [one for one in buffers if _fullness(one, len(buffers)) < 0.5 and one.unparsable_until <= now]


def _fullness(buffer: Buffer, partitions: int) -> float:
    return max(len(buffer.records) / BUFFERED_RECORDS, buffer.bytes / BUFFERED_BYTES) * partitions
