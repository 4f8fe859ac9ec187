"""Whatever happens between any two questions, only what is really wrong is confirmed, and all of it."""

import asyncio
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer_query.confirm import IN_OUTBOX, RESTLESS, Confirmed, Confirmer, Patience
from consumer_query.errors import CannotCompareError
from consumer_query.reconcile import Class, Seen, Truth
from consumer_query.sides import Standing

PARTITIONS = 3
FILES = [UUID(int=number) for number in range(12)]
WRONG = {
    FILES[0]: (Class.MISSING, None),
    FILES[1]: (Class.AHEAD, Seen(9, 9)),
    FILES[2]: (Class.DIFFERS, Seen(1, 7)),
    FILES[3]: (Class.STALE, Seen(0, 0)),
}
"""What stands in the cache of files that nobody changes."""


@dataclass
class World:
    """Truth, outbox, log and cache. Between any two looks at it, something may happen."""

    chance: random.Random
    changes: int = 40
    """Left to be made."""
    relays: bool = True
    projects: bool = True
    truth: dict[UUID, Seen] = field(default_factory=lambda: {one: Seen(1, 1) for one in FILES})
    outbox: list[tuple[UUID, Seen]] = field(default_factory=list)
    log: dict[int, list[tuple[UUID, Seen]]] = field(default_factory=lambda: {one: [] for one in range(PARTITIONS)})
    applied: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))
    cache: dict[UUID, Seen] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cache = {one: seen for one, seen in self.truth.items() if one not in WRONG}
        self.cache |= {one: seen for one, (_, seen) in WRONG.items() if seen is not None}

    def goes_on(self) -> None:
        for _ in range(self.chance.randrange(4)):
            self.chance.choice((self.change, self.relay, self._project))()

    def change(self) -> None:
        if not self.changes:
            return
        self.changes -= 1
        one = self.chance.choice(FILES[len(WRONG) :])
        revision = self.truth[one].revision + 1
        self.truth[one] = Seen(revision, self.chance.choice((None, revision)))
        self.outbox.append((one, self.truth[one]))

    def relay(self) -> None:
        if self.relays and self.outbox:
            one, seen = self.outbox.pop(0)
            self.log[_partition(one)].append((one, seen))

    def _project(self) -> None:
        partition = self.chance.randrange(PARTITIONS)
        if self.projects and self.applied[partition] < len(self.log[partition]):
            one, seen = self.log[partition][self.applied[partition]]
            self.applied[partition] += 1
            if one not in self.cache or seen.revision > self.cache[one].revision:
                self.cache[one] = seen

    async def states(self, file_ids: Collection[UUID]) -> Mapping[UUID, Truth]:
        self.goes_on()
        waiting = {one for one, _ in self.outbox}
        found = {one: Truth(*self.truth[one], one in waiting, _partition(one)) for one in file_ids}
        self.goes_on()
        return found

    async def standing(self, file_ids: Collection[UUID]) -> Standing:
        self.goes_on()
        found = Standing(dict(self.applied), {one: self.cache[one] for one in file_ids if one in self.cache})
        self.goes_on()
        return found

    async def ends(self) -> Mapping[int, int]:
        self.goes_on()
        found = {partition: len(records) for partition, records in self.log.items()}
        self.goes_on()
        return found


def _partition(file_id: UUID) -> int:
    return file_id.int % PARTITIONS


def confirm(world: World, still_seconds: float = 5.0, turns: int = 10_000) -> Confirmed:
    patience = Patience(still_seconds=still_seconds, most_seconds=60, look_again_seconds=0, turns=turns)
    confirming = Confirmer(world, world, world.ends, patience).confirm(FILES)
    return asyncio.run(asyncio.wait_for(confirming, 30))


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_exactly_what_is_wrong_is_confirmed_whatever_happens_meanwhile(seed: int) -> None:
    found = confirm(World(random.Random(seed)))
    assert {one: difference.kind for one, difference in found.differences.items()} == {
        one: kind for one, (kind, _) in WRONG.items()
    }
    assert found.unconfirmed == {}


@pytest.mark.parametrize("stands", ["relays", "projects"])
def test_what_does_not_arrive_is_unconfirmed_with_what_stands_in_the_way(stands: str) -> None:
    world = World(random.Random(3), relays=stands != "relays", projects=stands != "projects")
    for _ in range(10):
        world.change()
        world.relay()
    found = confirm(world, still_seconds=0.2)
    assert {one for one in found.differences if one not in WRONG} == set()
    if stands == "relays":
        assert found.differences.keys() == WRONG.keys()
        assert set(found.unconfirmed.values()) == {IN_OUTBOX}
    else:
        assert all("is applied up to 0 of" in why for why in found.unconfirmed.values())
    assert found.unconfirmed


def test_a_file_thatchanges_all_the_time_is_given_up() -> None:
    class Restless(World):
        async def states(self, file_ids: Collection[UUID]) -> Mapping[UUID, Truth]:
            self.truth[FILES[0]] = Seen(self.truth[FILES[0]].revision + 1, 1)
            return await super().states(file_ids)

    found = confirm(Restless(random.Random(1), changes=0), turns=3)
    assert found.unconfirmed == {FILES[0]: RESTLESS}
    assert found.differences.keys() == WRONG.keys() - {FILES[0]}


def test_a_topic_with_fewer_partitions_than_the_truth_says_is_refused() -> None:
    world = World(random.Random(1), changes=0, log={0: [], 1: []})
    with pytest.raises(CannotCompareError, match="has 2 partitions"):
        confirm(world)
