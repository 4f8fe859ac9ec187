"""A difference counts only if it is still there when all that was on its way has arrived, and nothing has changed.

    Admin: no event waits  →  the log's end  →  the cache is beyond it: compare  →  Admin: still the same

The Admin module is asked before and after the cache is looked at. If it says the same both times, and its last event
had been applied by then, the cache should have been equal: what is not is wrong. A file that changes meanwhile has
another turn. What does not arrive because relay or projector stand still is no difference: it is told as unconfirmed.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from consumer_query.errors import CannotCompareError
from consumer_query.reconcile import Class, Seen, Truth, classify
from consumer_query.sides import Standing

IN_OUTBOX: Final = "an event of it waits in the Admin module's outbox; is the relay running?"
RESTLESS: Final = "it was changed each time that it was looked at"


class Difference(NamedTuple):
    """One file that is wrong."""

    kind: Class
    ours: Seen | None
    truth: Truth


@dataclass(frozen=True)
class Patience:
    """How long what is on its way may take."""

    still_seconds: float = 30.0
    """Without any progress."""
    most_seconds: float = 900.0
    """In all: a backlog is worked off meanwhile, but a report must end."""
    look_again_seconds: float = 0.25
    turns: int = 10
    """Of a file that changes all the time."""


@dataclass
class Confirmed:
    """What was still there, and what could not be told."""

    differences: dict[UUID, Difference] = field(default_factory=dict)
    unconfirmed: dict[UUID, str] = field(default_factory=dict)
    """With what stands in the way."""


class Cache(Protocol):
    """The cache and how far it has come."""

    async def standing(self, file_ids: Collection[UUID]) -> Standing:
        """Positions and files, both as of one moment."""
        ...


class Admin(Protocol):
    """The truth."""

    async def states(self, file_ids: Collection[UUID]) -> Mapping[UUID, Truth]:
        """What is true of each of these files, known or not."""
        ...


LogEnds = Callable[[], Awaitable[Mapping[int, int]]]
"""Where the partitions of the topic end, open transactions included: a commit is answered before its markers are."""


class _Clock:
    """Runs out when there is no progress, or after all too long."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._begun = self._moved = _now()
        self._last: object = None

    def is_up(self, state: object) -> bool:
        """Whether to give up, seeing that this is the state of things now."""
        if state != self._last:
            self._last, self._moved = state, _now()
        return _now() - self._moved > self._patience.still_seconds or self.is_over

    @property
    def is_over(self) -> bool:
        """Whether it took all too long."""
        return _now() - self._begun > self._patience.most_seconds


class Confirmer:
    """Looks again at files that differed.

    Args:
        cache: ours
        admin: the truth
        log_ends: of the topic
        patience: with relay and projector
        tell: told what is being waited for
    """

    def __init__(
        self,
        cache: Cache,
        admin: Admin,
        log_ends: LogEnds,
        patience: Patience,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._cache = cache
        self._admin = admin
        self._log_ends = log_ends
        self._patience = patience
        self._tell = tell

    async def confirm(self, file_ids: Collection[UUID]) -> Confirmed:
        """Find out which of these files are really different. Raises what its sides raise."""
        confirmed = Confirmed()
        turns: Counter[UUID] = Counter()
        clock = _Clock(self._patience)
        left = set(file_ids)
        while left:
            truths = await self._admin.states(left)
            seen = (await self._cache.standing(left)).states
            left = {one for one in left if classify(seen.get(one), truths[one]) is not None}
            waiting = {one: truths[one].revision for one in left if truths[one].waiting}
            await self._settled({one: truths[one] for one in left - waiting.keys()}, clock, turns, confirmed)
            left -= confirmed.differences.keys() | confirmed.unconfirmed.keys()
            if waiting and clock.is_up(waiting):
                confirmed.unconfirmed |= dict.fromkeys(waiting, IN_OUTBOX)
                left -= waiting.keys()
            if left:
                self._tell(f"{len(left)} files: waiting for what is on its way")
                await asyncio.sleep(self._patience.look_again_seconds)
        return confirmed

    async def _settled(
        self, truths: Mapping[UUID, Truth], clock: _Clock, turns: Counter[UUID], confirmed: Confirmed
    ) -> None:
        """Look at files of which no event waits, once the cache holds what the topic holds of them."""
        if not truths:
            return
        log = await self._log_ends()
        partitions = {truth.partition for truth in truths.values()}
        if partitions - log.keys():
            raise CannotCompareError(f"The topic has {len(log)} partitions, the Admin module writes to {partitions}.")
        ends = {partition: log[partition] for partition in partitions}
        behind = await self._reach(ends)
        confirmed.unconfirmed |= {
            one: behind[truth.partition] for one, truth in truths.items() if truth.partition in behind
        }
        there = [one for one, truth in truths.items() if truth.partition not in behind]
        standing = await self._cache.standing(there)
        # A generation that was swapped in meanwhile may be behind; its files have another turn.
        there = [
            one for one in there if standing.positions.get(truths[one].partition, 0) >= ends[truths[one].partition]
        ]
        different = {one: kind for one in there if (kind := classify(standing.states.get(one), truths[one]))}
        again = await self._admin.states(different) if different else {}
        for one, kind in different.items():
            if again[one] == truths[one]:
                confirmed.differences[one] = Difference(kind, standing.states.get(one), truths[one])
            else:
                turns[one] += 1
                if turns[one] >= self._patience.turns or clock.is_over:
                    confirmed.unconfirmed[one] = RESTLESS

    async def _reach(self, ends: Mapping[int, int]) -> Mapping[int, str]:
        """Wait until the cache is beyond these ends: the partitions that it does not reach, and where they stand."""
        clock = _Clock(self._patience)
        while True:
            positions = (await self._cache.standing(())).positions
            behind = {
                partition: (positions.get(partition, 0), end)
                for partition, end in ends.items()
                if positions.get(partition, 0) < end
            }
            if not behind or clock.is_up(behind):
                break
            self._tell(f"the projector is {sum(end - place for place, end in behind.values())} records behind")
            await asyncio.sleep(self._patience.look_again_seconds)
        return {
            partition: f"partition {partition} is applied up to {place} of {end}; is the projector running, and ready?"
            for partition, (place, end) in behind.items()
        }


def _now() -> float:
    return asyncio.get_running_loop().time()
