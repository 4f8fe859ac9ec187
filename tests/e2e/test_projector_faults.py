"""The projector as real processes: whatever is killed or stopped under load, the rows are what was written, exactly."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import psutil
import pytest

from consumer_query.points import Point
from local.process import Child
from tests.e2e.observer import observed
from tests.e2e.query_side import AWAY, PARTITIONS, SESSION_SECONDS, Scene
from tests.e2e.writers import Writers
from tests.mortal_projector import Orders
from tests.waiting import eventually

LIFE_SECONDS = 60.0
"""How long it may take until a process has reached the point at which it dies."""
SETTLE_SECONDS = 60.0
SUCCESSION_SECONDS = 20.0
"""The session of the one before, and as long as its transaction may last."""
POISON = 0.01
FAILURES = "artstore_query_events_processing_failures_total"
DATABASE_UP = "artstore_query_database_up"
BROKER_UP = "artstore_query_broker_up"
REBALANCES = (Point.REVOKING, Point.REVOKED, Point.SEEKED)
"""Points that come again only when members come and go."""
VISITS = {
    Point.SEEKED: (1, 2),
    Point.DEAD_LETTERS_SENT: (1, 3),
    # The first is at the first join, with nothing in hand.
    Point.REVOKING: (2, 3),
    Point.REVOKED: (2, 3),
}
"""At which of its visits a process dies there; elsewhere it is one of the first eight."""
LONGER_THAN_A_START = {"KAFKA_SESSION_TIMEOUT_MS": "10000"}
"""As sessions are in service; a member that is not back in time has left the group."""
SHORT_SESSION = {"KAFKA_SESSION_TIMEOUT_MS": "1000"}
"""Where many die: until its session is over, a dead member holds all others up."""


@pytest.fixture
def seed() -> int:
    """Printed when the test fails; FAULTS_SEED=… makes the same choices again."""
    chosen = int(os.environ.get("FAULTS_SEED", "0")) or random.randrange(1, 10**9)
    print(f"FAULTS_SEED={chosen}")
    return chosen


@asynccontextmanager
async def load(scene: Scene, seed: int, rate: float, poison: float = POISON) -> AsyncIterator[Writers]:
    """Writes all the time; what was begun is finished at the end."""
    writers = Writers(scene.side.kafka.bootstrap_servers, scene.topic, seed, rate, poison)
    stopping = asyncio.Event()
    task = asyncio.create_task(writers.run(stopping))
    try:
        yield writers
        assert not task.done(), "the writers ended by themselves"
    finally:
        stopping.set()
        async with asyncio.timeout(SETTLE_SECONDS):
            await task


async def applied_upto(scene: Scene, target: int) -> bool:
    """Whether all positions together are that far; False while they cannot be read."""
    try:
        return await scene.applied() >= target
    except AWAY:
        return False


async def some_more_applied(scene: Scene, seconds: float = 40, count: int = 200) -> None:
    """Wait until positions have moved by `count`."""
    await eventually(lambda: applied_upto(scene, 0), seconds, "positions that can be read")
    target = await scene.applied() + count
    await eventually(lambda: applied_upto(scene, target), seconds, f"{count} more records applied")


class Death(NamedTuple):
    """How one process ends: at a point, at its n-th visit; or at a moment, that many seconds after its start."""

    point: Point | None
    after: float


def deaths(chance: random.Random, each_point: int, at_random: int) -> list[Death]:
    """Every point as often, and moments, in a random order."""
    found = [Death(point, chance.randint(*VISITS.get(point, (1, 8)))) for point in Point for _ in range(each_point)]
    found += [Death(None, chance.uniform(0.5, 5.0)) for _ in range(at_random)]
    chance.shuffle(found)
    return found


async def live_and_die(scene: Scene, name: str, death: Death) -> None:
    """One process from its start to its end."""
    if death.point is None:
        child = await asyncio.to_thread(scene.start, name, None, **SHORT_SESSION)
        await asyncio.sleep(death.after)
        assert child.exit_code() is None, child.died()
        await asyncio.to_thread(scene.kill, name)
        return
    notes = scene.side.folder / f"{scene.topic}-{name}.notes"
    orders = Orders(death.point.name, int(death.after), str(notes))
    child = await asyncio.to_thread(scene.start, name, orders, **SHORT_SESSION)
    guests = asyncio.create_task(come_and_go(scene, f"{name}-guest", child)) if death.point in REBALANCES else None
    await eventually(lambda: ended(child.exit_code), LIFE_SECONDS, f"{name}: visit {death.after} to {death.point!r}")
    if guests is not None:
        await guests
    assert child.exit_code() == -9, child.died()
    assert notes.read_text().split() == [death.point.name]
    del scene.processes[name]


async def come_and_go(scene: Scene, name: str, host: Child) -> None:
    """Each member that joins or leaves is a rebalance for all others."""
    while host.exit_code() is None:
        await asyncio.to_thread(scene.start, name, None, **SHORT_SESSION)
        await eventually(lambda: is_ready(scene, name, host), LIFE_SECONDS, f"{name} is ready")
        await asyncio.to_thread(scene.stop, name)


async def ended(exit_code: Callable[[], int | None]) -> bool:
    return exit_code() is not None


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("each_point", "at_random", "rate"),
    [
        pytest.param(1, 2, 600.0, id="each point once"),
        pytest.param(6, 40, 400.0, id="100 kills", marks=pytest.mark.soak),
    ],
)
async def test_projectors_killed_at_named_points_and_at_random_lose_nothing_and_commit_nothing_too_early(
    scene: Scene, seed: int, each_point: int, at_random: int, rate: float
) -> None:
    chance = random.Random(seed)
    to_come = iter(list(enumerate(deaths(chance, each_point, at_random))))
    async with load(scene, seed, rate) as writers, observed(scene) as observer:

        async def slot() -> None:
            """Two processes at a time, so that one's death is the other's rebalance."""
            for number, death in to_come:
                await live_and_die(scene, f"mortal-{number}", death)

        await asyncio.gather(slot(), slot())
        await asyncio.to_thread(scene.start, "last")
        await some_more_applied(scene)
    await scene.require_exact(writers.truth, SETTLE_SECONDS)
    assert writers.poisoned > 0
    scene.require_alive()
    report(
        writers,
        f"{each_point * len(Point) + at_random} kills, {observer.moved} of {observer.seen} looks found offsets moved",
    )


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victim", ["postgres", "kafka"])
@pytest.mark.parametrize("times", [pytest.param(1, id="once"), pytest.param(10, id="10 times", marks=pytest.mark.soak)])
async def test_a_killed_server_costs_a_pause_and_neither_a_record_nor_a_process(
    scene: Scene, seed: int, victim: str, times: int
) -> None:
    chance = random.Random(seed)
    server = scene.side.postgres if victim == "postgres" else scene.side.kafka
    for name in ("first", "second"):
        await asyncio.to_thread(scene.start, name)
    async with load(scene, seed, 400.0) as writers, observed(scene):
        for _ in range(times):
            await some_more_applied(scene)
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(chance.uniform(0.0, 2.0))
            await asyncio.to_thread(server.start)
        await some_more_applied(scene)
    await scene.require_exact(writers.truth, SETTLE_SECONDS)
    scene.require_alive()
    report(writers, f"{victim} killed {times} times")


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("steps", [pytest.param(2, id="few"), pytest.param(30, id="many", marks=pytest.mark.soak)])
async def test_three_projectors_that_join_leave_and_are_stopped_past_their_session_end_in_the_same_rows(
    scene: Scene, seed: int, steps: int
) -> None:
    chance = random.Random(seed)
    names = [f"member-{number}" for number in range(3 + steps)]
    for name in names[:3]:
        await asyncio.to_thread(scene.start, name)
    await eventually(lambda: are_ready(scene), 40, "three that are ready")
    what = ["leave", "pause two", "pause"]
    async with load(scene, seed, 500.0) as writers, observed(scene):
        await some_more_applied(scene)
        for step in range(steps):
            doing = what[step % len(what)] if steps <= len(what) else chance.choice(what)
            chosen = chance.sample(list(scene.processes), 2 if doing == "pause two" else 1)
            if doing == "leave":
                assert await asyncio.to_thread(scene.stop, chosen[0]), "it did not end in order"
                await asyncio.to_thread(scene.start, names[3 + step])
                await eventually(lambda: are_ready(scene), 40, "three that are ready")
            else:
                for name in chosen:
                    scene.pause(name)
                # The others take the partitions over: they move again only once the session is over.
                await asyncio.sleep(SESSION_SECONDS + chance.uniform(0.2, 1.5))
                await some_more_applied(scene)
                for name in chosen:
                    scene.resume(name)
            await some_more_applied(scene)
            scene.require_alive()
    await scene.require_exact(writers.truth, SETTLE_SECONDS)
    state, members = await scene.members()
    assert (state, len(members)) == ("Stable", 3)
    report(writers, f"{steps} steps")


@pytest.mark.timeout(600)
async def test_a_projector_with_a_name_that_was_killed_takes_its_partitions_up_again_and_told_to_stop_leaves_them(
    scene: Scene, seed: int
) -> None:
    for name in ("first", "second"):
        await asyncio.to_thread(scene.start, name, None, KAFKA_GROUP_INSTANCE_ID=name, **LONGER_THAN_A_START)
    async with load(scene, seed, 300.0) as writers, observed(scene):
        await eventually(lambda: are_ready(scene), 40, "both are ready")
        await some_more_applied(scene)
        assigned = scene.assignments("second")
        await asyncio.to_thread(scene.kill, "first")
        await asyncio.to_thread(scene.start, "first", None, KAFKA_GROUP_INSTANCE_ID="first", **LONGER_THAN_A_START)
        await eventually(lambda: are_ready(scene), 40, "both are ready")
        await some_more_applied(scene)
        assert scene.assignments("second") == assigned
        await asyncio.to_thread(scene.stop, "first")
        # Long before the session of the one that left would have ended.
        await eventually(lambda: has_all(scene, "second"), 5, "the other has all partitions")
        await some_more_applied(scene)
    await scene.require_exact(writers.truth, SETTLE_SECONDS)
    report(writers, "killed once, stopped once")


async def has_all(scene: Scene, name: str) -> bool:
    return await scene.metric(name, "artstore_query_assigned_partitions") == len(PARTITIONS)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=() if point is Point.MOVED else pytest.mark.soak)
        for point in (Point.PREPARED, Point.ROWS_WRITTEN, Point.DEAD_LETTERS_SENT, Point.MOVED, Point.APPLIED)
    ],
)
async def test_a_projector_stopped_with_its_transaction_open_holds_its_successor_up_for_a_moment_only(
    scene: Scene, seed: int, point: Point
) -> None:
    orders = Orders(point.name, 3, str(scene.side.folder / f"{scene.topic}.notes"), "SIGSTOP")
    zombie = psutil.Process((await asyncio.to_thread(scene.start, "zombie", orders)).pid)
    async with load(scene, seed, 300.0) as writers, observed(scene):
        await eventually(lambda: is_stopped(zombie), LIFE_SECONDS, f"visit 3 to {point!r}")
        await asyncio.to_thread(scene.start, "successor")
        await eventually(lambda: is_ready(scene, "successor"), SUCCESSION_SECONDS, "its successor has the partitions")
        target = await scene.ends()
        await eventually(lambda: applied_upto(scene, target), SUCCESSION_SECONDS, "nothing is stuck")
        scene.resume("zombie")
        await some_more_applied(scene)
        await eventually(lambda: are_ready(scene), 40, "both share the work")
    await scene.require_exact(writers.truth, SETTLE_SECONDS)
    scene.require_alive()
    report(writers, f"stopped at {point!r}")


async def is_stopped(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_STOPPED


class Looks(NamedTuple):
    """What was seen of a process and of its group, with moments."""

    unready: list[tuple[float, str | None]]
    groups: set[tuple[str, frozenset[str]]]


async def look_on(scene: Scene, name: str, looks: Looks, enough: asyncio.Event) -> None:
    """Ask health and group until it is enough."""
    while not enough.is_set():
        reason = await scene.unready(name)
        looks.unready.append((time.monotonic(), reason))
        looks.groups.add(await scene.members())
        await asyncio.sleep(0.2)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "away_seconds", [pytest.param(8.0, id="8 s"), pytest.param(120.0, id="2 minutes", marks=pytest.mark.soak)]
)
async def test_a_projector_without_postgres_keeps_its_place_in_the_group_says_so_and_catches_up(
    scene: Scene, seed: int, away_seconds: float
) -> None:
    await asyncio.to_thread(scene.start, "only")
    looks, seen_enough = Looks([], set()), asyncio.Event()
    async with load(scene, seed, 300.0, poison=0.0) as writers, observed(scene):
        await some_more_applied(scene)
        await eventually(lambda: is_ready(scene, "only"), 10, "readiness")
        failures = await scene.metric("only", FAILURES)
        looking = asyncio.create_task(look_on(scene, "only", looks, seen_enough))
        await asyncio.sleep(0.5)
        going = time.monotonic()
        await asyncio.to_thread(scene.side.postgres.kill)
        gone = time.monotonic()
        await asyncio.sleep(away_seconds)
        told = {name: await scene.metric("only", name) for name in (FAILURES, DATABASE_UP, BROKER_UP)}
        await asyncio.to_thread(scene.side.postgres.start)
        back, target = time.monotonic(), await scene.ends()
        backlog = target - await scene.applied()
        await eventually(lambda: applied_upto(scene, target), 10, "what waited is applied")
        caught_up = time.monotonic()
        await eventually(lambda: is_ready(scene, "only"), 10, "readiness")
        await some_more_applied(scene)
        seen_enough.set()
        await looking
        assert await scene.metric("only", DATABASE_UP) == 1
    assert told[FAILURES] > failures
    assert (told[DATABASE_UP], told[BROKER_UP]) == (0, 1)
    # A look's moment is when it was answered.
    assert {reason for at, reason in looks.unready if at < going} == {None}
    meanwhile = [reason for at, reason in looks.unready if gone + 3 < at < back - 3]
    assert meanwhile
    assert None not in meanwhile
    assert "no answer" not in meanwhile
    assert {state for state, _ in looks.groups} == {"Stable"}
    assert len({members for _, members in looks.groups}) == 1, "the group was rebalanced"
    await scene.require_exact(writers.truth, SETTLE_SECONDS)
    assert await scene.put_aside() == {}
    report(writers, f"{backlog} records waited {away_seconds:g} s, all applied {caught_up - back:.1f} s later")


async def is_ready(scene: Scene, name: str, unless: Child | None = None) -> bool:
    """Whether a process is ready, or another one has ended."""
    return await scene.unready(name) is None or (unless is not None and unless.exit_code() is not None)


async def are_ready(scene: Scene) -> bool:
    return all([await is_ready(scene, name) for name in scene.processes])


def report(writers: Writers, what: str) -> None:
    print(
        f"{what}; {writers.written} events written, {writers.poisoned} of them bad, {writers.aborted} aborted, "
        f"{writers.again} transactions written again, {len(writers.truth)} files"
    )
