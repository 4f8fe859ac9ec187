"""Bad records among good ones, through real processes: exactly they are put aside, and nobody loses by them."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import uuid4

import asyncpg
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from local.ports import LOOPBACK, free_port
from local.settings import CHECKOUT
from producer_admin.outbox import shard_of
from runtime.process import http_server
from schemas.codec import CONFLUENT_MAGIC, SINGLE_OBJECT_MARKER, encode
from tests.e2e.mending import REFUSE, START_SECONDS, Mending, Position, require_exactly_the_bad_ones
from tests.e2e.observer import observed
from tests.e2e.poison import KINDS, TOO_MANY_WORDS, Written, plain, story, write
from tests.e2e.query_side import PARTITIONS, QuerySide, Scene
from tests.samples import created
from tests.waiting import eventually, settles

HELD: Final = "artstore_query_held_partitions"
FAILURES: Final = "artstore_query_events_processing_failures_total"
SHARE: Final = 0.01
SLOWEST: Final = 500
"""Records a second below which the projector has stopped rather than being slow."""
LEAST_RATIO: Final = 0.5
MOST_LETTERS: Final = 1_000
POISON: Final = 3_000
SCHEMA_ID: Final = 77
_FINGERPRINT_END: Final = len(SINGLE_OBJECT_MARKER) + 8


@pytest.fixture
def seed() -> int:
    """Printed when the test fails; POISON_SEED=… makes the same log again."""
    chosen = int(os.environ.get("POISON_SEED", "0")) or random.randrange(1, 10**9)
    print(f"POISON_SEED={chosen}")
    return chosen


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("events", "large", "rounds"),
    [
        pytest.param(10_000, 2, 1, id="10,000 events"),
        pytest.param(100_000, 10, 3, id="100,000 events", marks=pytest.mark.soak),
    ],
)
async def test_exactly_the_bad_ones_are_put_aside_all_others_are_applied_and_a_redrive_resolves_every_letter(
    query_servers: QuerySide, seed: int, events: int, large: int, rounds: int
) -> None:
    """`large` of the bad records are 1 MB each: as many as of the other kinds would be another benchmark."""
    told = story(seed, events, int(events * SHARE), large)
    assert told.kinds().keys() == {kind.name for kind in (*KINDS, TOO_MANY_WORDS)}
    best = best_clean = 0.0
    for number in range(1, rounds + 1):
        async with query_servers.scene() as clean:
            clean_speed, _ = await applied(clean, told.good)
            best_clean = max(best_clean, clean_speed)
            await clean.require_rows(told.truth)
            assert await clean.put_aside() == {}
        async with query_servers.scene() as scene:
            speed, places = await applied(scene, told.records)
            best = max(best, speed)
            print(f"records/s: {clean_speed:,.0f} clean, {speed:,.0f} with bad ones, ratio {speed / clean_speed:.2f}")
            letters = await require_exactly_the_bad_ones(scene, dict(zip(places, told.records, strict=True)))
            await scene.require_rows(told.truth)
            if number == rounds:
                await Mending(scene, dict(told.truth), letters).run()
    print(f"{len(letters)} letters of {dict(told.kinds())}")
    # What else the machine does can only make a run slower, and a single short one says little.
    assert rounds == 1 or best >= LEAST_RATIO * best_clean


async def applied(scene: Scene, records: Sequence[Written]) -> tuple[float, list[Position]]:
    """Write a log, and have a projector apply all of it.

    Returns:
        Records a second, from when it was seeked; partition and offset of each record.
    """
    places = await write(scene.side.kafka.bootstrap_servers, scene.topic, records)
    connection = await asyncpg.connect(scene.database)
    await connection.execute(REFUSE)
    await connection.close()
    ends = await scene.stable_ends()
    await asyncio.to_thread(scene.start, "only")

    async def is_seeked() -> bool:
        return len(await scene.stored()) == len(PARTITIONS)

    async def is_applied() -> bool:
        scene.require_alive()
        return await scene.stored() == ends

    await eventually(is_seeked, START_SECONDS, "the projector is at its start")
    begin = time.perf_counter()
    await eventually(is_applied, START_SECONDS + len(records) / SLOWEST, "all is applied")
    return len(records) / (time.perf_counter() - begin), places


async def test_an_unknown_schema_holds_its_partition_and_no_other_until_the_registry_knows_it(scene: Scene) -> None:
    servers, known = scene.side.kafka.bootstrap_servers, dict[int, str]()
    event, *others = (created(original_filename=f"{number}.pdf") for number in range(400))
    partition = shard_of(event.file_id)
    behind = [one for one in others[200:] if shard_of(one.file_id) == partition]
    elsewhere = [one for one in others[200:] if shard_of(one.file_id) != partition]
    assert behind
    framed = CONFLUENT_MAGIC + SCHEMA_ID.to_bytes(4, "big") + encode(event)[_FINGERPRINT_END:]
    truth = {one.file_id: one for one in others[:200]}
    async with registry(known) as url:
        await asyncio.to_thread(scene.start, "only", None, SCHEMA_REGISTRY_URL=url)
        await write(servers, scene.topic, plain(*others[:200]))
        [held] = await write(servers, scene.topic, [Written(event.file_id, 1, framed, b"1")])

        async def is_told() -> bool:
            told = await scene.unready("only") or ""
            return f"partition {partition} at offset {held[1]}: " in told and f"schema {SCHEMA_ID}" in told

        await eventually(is_told, START_SECONDS, "readiness names partition, offset and schema")
        await write(servers, scene.topic, plain(*behind, *elsewhere))
        truth |= {one.file_id: one for one in elsewhere}
        await settles(scene.unread, 1 + len(behind))
        await scene.require_rows(truth)
        assert (await scene.stored())[partition] == held[1]
        await settles(lambda: scene.metric("only", HELD), 1.0)
        assert await is_told()

        known[SCHEMA_ID] = (CHECKOUT / "schemas" / "avro" / "file_event.v1.avsc").read_text()
        await settles(scene.unread, 0)
        await settles(lambda: scene.unready("only"), None)
        await settles(lambda: scene.metric("only", HELD), 0.0)
    await scene.require_rows(truth | {one.file_id: one for one in (event, *behind)})
    assert await scene.put_aside() == {}


@asynccontextmanager
async def registry(known: Mapping[int, str]) -> AsyncIterator[str]:
    """URL of a schema registry that knows these schemas."""

    async def schema(request: Request) -> JSONResponse:
        found = known.get(request.path_params["number"])
        if found is None:
            return JSONResponse({"error_code": 40403, "message": "Schema not found"}, status_code=404)
        return JSONResponse({"schema": found})

    stopping, port = asyncio.Event(), free_port()
    app = Starlette(routes=[Route("/schemas/ids/{number:int}", schema)])
    task = asyncio.create_task(http_server(app, LOOPBACK, port)(stopping))
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        stopping.set()
        await task


async def test_when_all_is_bad_it_stops_within_a_thousand_records_and_goes_on_when_an_operator_says_so(
    scene: Scene,
) -> None:
    servers = scene.side.kafka.bootstrap_servers
    good = [created() for _ in range(300)]
    await asyncio.to_thread(scene.start, "only")
    await write(servers, scene.topic, plain(*good))
    await settles(scene.unread, 0, START_SECONDS)
    async with observed(scene):
        bad: set[Position] = set()
        while len(bad) < POISON:
            # In small steps, so that the first of them come to it one by one.
            bad |= set(await write(servers, scene.topic, [rubbish() for _ in range(20)]))
        await settles(lambda: scene.metric("only", HELD), float(len(PARTITIONS)))
        assert "systemic fault" in str(await scene.unready("only"))
        failures = await scene.metric("only", FAILURES)

        async def was_tried_again() -> bool:
            return await scene.metric("only", FAILURES) >= failures + 2

        await eventually(was_tried_again, 20, "it looks again whether that was mended")
        stored = await scene.stored()
        aside = (await scene.put_aside()).keys()
        assert len(aside) < MOST_LETTERS
        assert {one for one in bad if one[1] < stored[one[0]]} <= aside <= bad
        print(f"{len(aside)} letters of {len(bad)} bad records")
        await scene.require_rows({one.file_id: one for one in good})

        assert await asyncio.to_thread(scene.stop, "only")
        await asyncio.to_thread(scene.start, "told", None, DEAD_LETTER_MAX_SHARE="1.01")
        await settles(scene.unread, 0, START_SECONDS)
        await settles(lambda: scene.unready("told"), None)
    assert (await scene.put_aside()).keys() == bad
    await scene.require_rows({one.file_id: one for one in good})


def rubbish() -> Written:
    return Written(uuid4(), 1, b"no event", b"1")
