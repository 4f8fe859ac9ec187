"""How far the group is behind, and whether that gets better, follows from what a broker tells; no threshold decides.

A look is what one answer of the broker said of a partition: where the log ends, what the group has committed, and what
was written beside the commit, which is another after each commit even where the position is not. A window of looks is
judged as Burrow judges one of commits (its rules for consumer lag), from outside the group: a projector that is dead
commits nothing, which is a sight like any other.

    OK      there was nothing to read at some look, or the group gains on the log
    WARN    it moves, and is further behind at each look
    STALL   it commits, and does not move
    STOP    it does not commit, or has no members
    REWIND  its position went back, or is none of this log
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Final

WINDOW_SECONDS: Final = 20.0
"""Looks so far apart are judged together: some commits of an idle group, which come each few seconds."""


BLIND_SECONDS: Final = WINDOW_SECONDS / 2
"""Looks further apart are not judged together: the broker was away, and who could not commit is not to blame for it."""


class Status(StrEnum):
    """How it stands with a partition, or with a group by its worst partition. The worst comes last."""

    OK = "ok"
    WARN = "warn"
    REWIND = "rewind"
    STALL = "stall"
    STOP = "stop"


_BY_BADNESS: Final = {status: place for place, status in enumerate(Status)}


@dataclass(frozen=True)
class Look:
    """One partition at one moment."""

    at: float
    """Seconds of a clock that never goes back."""
    committed: int | None
    """The next offset that the group will read; None when it never committed."""
    stamp: str
    """What was written beside the commit."""
    begin: int
    """The first offset that the log still has."""
    end: int
    """The last stable offset."""

    @property
    def position(self) -> int:
        """Where the group goes on, and where it will begin if its own position is none of this log's."""
        return self.committed if self.committed is not None and self.begin <= self.committed <= self.end else self.begin

    @property
    def is_beside_the_log(self) -> bool:
        """Whether the position is of a log that was longer: the topic was made anew or was cut."""
        return self.committed is not None and self.committed > self.end


@dataclass(frozen=True)
class PartitionLag:
    """What is said of one partition."""

    partition: int
    committed: int | None
    end: int
    events: int
    """Offsets between position and end; 0 when there are only transaction markers between them. Compaction leaves gaps,
    so there may be fewer records."""
    seconds: float
    """Age of the oldest record that was not applied; 0 when there is none."""
    status: Status


@dataclass(frozen=True)
class GroupLag:
    """What is said of the group."""

    status: Status
    members: int
    state: str
    """As the broker calls it: Stable, PreparingRebalance, CompletingRebalance, Empty, Dead."""
    partitions: Sequence[PartitionLag]

    @property
    def events(self) -> int:
        """Of all partitions together."""
        return sum(one.events for one in self.partitions)

    @property
    def seconds(self) -> float:
        """Of the partition that is furthest behind."""
        return max((one.seconds for one in self.partitions), default=0.0)


def unread(look: Look, oldest: int | None) -> int:
    """How many offsets are to be read, 0 or more.

    Args:
        look: of the partition
        oldest: offset of the first record at or behind the position; None when there is none
    """
    return 0 if oldest is None else look.end - max(oldest, look.position)


def moment(timestamp: int) -> float | None:
    """When a record was written, in seconds since 1970; None when it does not say.

    Args:
        timestamp: of the record, in milliseconds; -1 is Kafka's for none
    """
    return timestamp / 1000 if timestamp > 0 else None


def age(now: float, written_at: float | None, seen_for: float = 0.0) -> float:
    """Seconds since a record was written, 0 or more: the clock of whoever wrote it may be ahead, by any time.

    Args:
        now: seconds since 1970
        written_at: see `moment`
        seen_for: seconds for which it was seen to be there, by our own clock; it is no younger
    """
    return max(seen_for, 0.0 if written_at is None else now - written_at)


def status_of(window: Sequence[tuple[Look, int]], members: int) -> Status:
    """Judge one partition.

    Args:
        window: looks from the oldest to the newest, each with what was unread; at least one
        members: of the group now
    """
    looks = [look for look, _ in window]
    lags = [lag for _, lag in window]
    if looks[-1].is_beside_the_log or any(_went_back(one, other) for one, other in pairwise(looks)):
        return Status.REWIND
    if not lags[-1]:
        return Status.OK
    if not members:
        return Status.STOP
    unbroken = _unbroken(looks)
    looks, lags = looks[unbroken:], lags[unbroken:]
    if not all(lags) or looks[-1].at - looks[0].at < WINDOW_SECONDS:
        return Status.OK
    commits = {(look.committed, look.stamp) for look in looks}
    if len(commits) == 1:
        return Status.STOP
    if looks[0].committed == looks[-1].committed:
        return Status.STALL
    if lags[0] < lags[-1] and all(one <= other for one, other in pairwise(lags)):
        return Status.WARN
    return Status.OK


def worst(statuses: Mapping[int, Status]) -> Status:
    """The status of a group whose partitions have these; OK of one without partitions."""
    return max(statuses.values(), key=_BY_BADNESS.__getitem__, default=Status.OK)


def _unbroken(looks: Sequence[Look]) -> int:
    """The place of the first look behind which no two are too far apart."""
    places = range(len(looks) - 1, 0, -1)
    return next((place for place in places if looks[place].at - looks[place - 1].at > BLIND_SECONDS), 0)


def _went_back(one: Look, other: Look) -> bool:
    return one.committed is not None and (other.committed is None or other.committed < one.committed)
