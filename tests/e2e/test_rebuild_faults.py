"""A rebuild under load: whatever is killed in whichever phase, it goes on where it stood; search notices nothing."""

import asyncio
import os
import random
from collections.abc import Sequence

import pytest

from consumer_query.points import RebuildPoint
from consumer_query.rebuild_jobs import Kind, Phase
from tests.e2e.query_side import Scene
from tests.e2e.rebuilding import Rebuilding, readers, rebuilding, require_not_loaded_again
from tests.waiting import eventually

FILES = 3_000
SLOWLY = 150
"""Rows a second, in chunks of as many for two readers: so that a partition is half loaded for a while."""
SOME = 200
"""Rows."""
HELD_UP_SECONDS = 10.0
"""By a worker that does not move: locks are let go of after 4 s, then what has queued up is done."""


@pytest.fixture
def seed() -> int:
    """Printed when the test fails; FAULTS_SEED=… makes the same choices again."""
    chosen = int(os.environ.get("FAULTS_SEED", "0")) or random.randrange(1, 10**9)
    print(f"FAULTS_SEED={chosen}")
    return chosen


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "points",
    [
        pytest.param((RebuildPoint.INDEXED, RebuildPoint.EQUAL, RebuildPoint.SWAPPING), id="a few points"),
        pytest.param(tuple(RebuildPoint), id="each point", marks=pytest.mark.soak),
    ],
)
async def test_a_worker_killed_in_each_phase_is_followed_by_one_that_goes_on_where_it_stood(
    scene: Scene, seed: int, points: Sequence[RebuildPoint]
) -> None:
    async with rebuilding(scene, seed, FILES) as one:
        job = await one.ask(rows_per_second=SLOWLY)
        if RebuildPoint.PLANNED in points:
            await one.dies(one.start(RebuildPoint.PLANNED), RebuildPoint.PLANNED)
        half = one.start()
        await one.is_half_loaded(job, SOME)
        await asyncio.to_thread(scene.kill, half)
        loaded, before = await one.is_half_loaded(job, SOME), await one.places(job)
        assert len(before) == loaded.rows
        await one.hurry(job)
        await one.end_lease()
        for point in points:
            if point is not RebuildPoint.PLANNED:
                await one.dies(one.start(point), point)
        one.start()
        found = await one.ended(job)
        assert (found.phase, found.trouble, found.generation) == (Phase.SWAPPED, None, 2)
        assert found.parity is not None
        assert found.parity["classes"] == {}
        require_not_loaded_again(before, await one.places(job))
        assert (await one.loaded(job)).rows > loaded.rows
        await one.require_each_loaded_once(job)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("victim", ["postgres", "kafka"])
@pytest.mark.parametrize(
    "points",
    [
        pytest.param((RebuildPoint.CAUGHT_UP,), id="one point", marks=pytest.mark.soak),
        pytest.param(tuple(RebuildPoint), id="each point", marks=pytest.mark.soak),
    ],
)
async def test_a_server_killed_in_each_phase_is_waited_for_by_the_worker_which_goes_on_where_it_stood(
    scene: Scene, seed: int, victim: str, points: Sequence[RebuildPoint]
) -> None:
    async with rebuilding(scene, seed, FILES) as one:
        job = await one.ask(rows_per_second=SLOWLY)
        name = one.start()
        await one.is_half_loaded(job, SOME)
        await restart(one, victim)
        loaded, before = await one.loaded(job), await one.places(job)
        await one.hurry(job)
        for point in points:
            if point is RebuildPoint.PLANNED:
                continue
            # The one before waits for servers or does what comes next: it is killed, and another stops itself there.
            await asyncio.to_thread(scene.kill, name)
            await one.end_lease()
            name = one.start(point, "SIGSTOP")
            await one.stands_still(name, point)
            await restart(one, victim)
            scene.resume(name)
        found = await one.ended(job)
        assert (found.phase, found.generation) == (Phase.SWAPPED, 2)
        require_not_loaded_again(before, await one.places(job))
        assert (await one.loaded(job)).records > loaded.records
        await one.require_each_loaded_once(job)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("point", [RebuildPoint.EQUAL, RebuildPoint.SWAPPING])
async def test_a_worker_that_is_stopped_under_its_locks_holds_up_search_and_projectors_for_seconds_only(
    scene: Scene, seed: int, point: RebuildPoint
) -> None:
    async with rebuilding(scene, seed, FILES) as one:
        job = await one.ask()
        name = one.start(point, "SIGSTOP")
        await one.stands_still(name, point)
        await looks_again(one, HELD_UP_SECONDS)
        stood = await scene.applied()

        async def is_applied() -> bool:
            return await scene.applied() > stood + SOME

        await eventually(is_applied, HELD_UP_SECONDS, "what was written while all waited is applied")
        scene.resume(name)
        assert (await one.ended(job)).phase is Phase.SWAPPED


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_readers_that_are_killed_are_replaced_and_those_of_a_killed_worker_end_by_themselves(
    scene: Scene, seed: int
) -> None:
    async with rebuilding(scene, seed, FILES) as one:
        job = await one.ask(rows_per_second=SLOWLY)
        name = one.start()
        loaded = await one.is_half_loaded(job, SOME)
        for reader in readers(scene.processes[name]):
            reader.kill()
        before = await one.places(job)
        await one.is_half_loaded(job, loaded.rows + SOME)
        worker = scene.processes.pop(name)
        orphans = readers(worker)
        assert orphans
        os.kill(worker.pid, 9)
        worker.wait(10)

        async def are_gone() -> bool:
            return not any(orphan.is_running() for orphan in orphans)

        await eventually(are_gone, 10, "the end of readers whose worker is dead")
        await one.hurry(job)
        await one.end_lease()
        one.start()
        assert (await one.ended(job)).phase is Phase.SWAPPED
        require_not_loaded_again(before, await one.places(job))
        await one.require_each_loaded_once(job)


@pytest.mark.timeout(600)
async def test_the_way_back_is_as_safe_as_the_way_there(scene: Scene, seed: int) -> None:
    async with rebuilding(scene, seed, FILES) as one:
        there = one.start()
        assert (await one.ended(await one.ask())).phase is Phase.SWAPPED
        assert await asyncio.to_thread(scene.stop, there), "it did not end in order"
        job = await one.ask(Kind.ROLLBACK)
        for point in (RebuildPoint.EQUAL, RebuildPoint.SWAPPING):
            await one.dies(one.start(point), point)
        one.start()
        found = await one.ended(job)
        assert (found.phase, found.generation) == (Phase.SWAPPED, 1)


async def restart(one: Rebuilding, victim: str) -> None:
    """Kill a server and start it again; searches may fail meanwhile if it is the one that answers them."""
    server = one.scene.side.postgres if victim == "postgres" else one.scene.side.kafka
    one.onlooker.excused = victim == "postgres"
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    await looks_again(one, 60)
    one.onlooker.excused = False


async def looks_again(one: Rebuilding, seconds: float) -> None:
    """Wait until searches are answered that begin now."""
    looks = one.onlooker.looks + 2

    async def has_looked() -> bool:
        return one.onlooker.looks >= looks

    await eventually(has_looked, seconds, "searches are answered again")
