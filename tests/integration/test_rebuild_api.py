"""Rebuilds over REST and the command line: what is asked for is written down, and what is told is what is there."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from consumer_query import generations, positions, rebuild_jobs
from consumer_query.analysis import ANALYZER
from consumer_query.api_process import query_app
from consumer_query.parity import Class, Parity
from consumer_query.rebuild_jobs import Job, Kind, Phase, Wish
from tests.running import run_verb, served
from tests.waiting import eventually

Client = httpx.AsyncClient
Hear = Callable[[str], Awaitable[str]]
Watched = Callable[..., Awaitable[tuple[Hear, asyncio.subprocess.Process]]]
JOBS = "http://query/api/v1/admin/rebuild"
PROBLEM = "application/problem+json"
TOPIC = "events"

PLAN = """
INSERT INTO rebuild_partitions (job_id, partition, first_offset, next_offset, target_offset, records, rows, loaded_at)
VALUES ($1, 0, 100, 2100, 2100, 300, 200, now()), ($1, 1, 0, 1000, 6000, 100, 90, NULL)
"""
AGE = "UPDATE rebuild_jobs SET phase_since = phase_since - interval '1 hour' WHERE job_id = $1"


@pytest.fixture
async def api(query_pool: asyncpg.Pool) -> AsyncIterator[Client]:
    transport = httpx.ASGITransport(query_app(query_pool), raise_app_exceptions=False)
    async with Client(transport=transport, base_url=JOBS) as client:
        yield client


async def ask(pool: asyncpg.Pool, kind: Kind = Kind.REBUILD, **how: Any) -> Job:
    return await rebuild_jobs.request(pool, kind, requested_by="tests", reason="a test", **how)


class Worker:
    """Does nothing but say so: what a real one writes down, in the order in which it does."""

    def __init__(self, pool: asyncpg.Pool, job: Job, token: UUID) -> None:
        self._pool = pool
        self.job = job
        self._token = token

    @classmethod
    async def of_the_job(cls, pool: asyncpg.Pool) -> "Worker":
        claimed = await rebuild_jobs.claim(pool)
        assert claimed is not None
        return cls(pool, *claimed)

    async def reach(self, phase: Phase, generation: int | None = 2, **found: Any) -> None:
        async with self._pool.acquire() as connection, connection.transaction():
            await rebuild_jobs.advance(connection, self.job, self._token, phase, generation=generation, **found)

    async def tell(self, trouble: str) -> None:
        await rebuild_jobs.tell(self._pool, self.job.job_id, self._token, trouble)

    async def let_go(self) -> None:
        await rebuild_jobs.let_go(self._pool, self.job.job_id, self._token)


async def next_generation(pool: asyncpg.Pool, *indexes: str) -> int:
    async with pool.acquire() as connection, connection.transaction():
        made = await generations.make(connection)
        for name in indexes:
            statement = generations.INDEXES[name]
            await connection.execute(statement.format(table=generations.table_name(made)))
    return made


async def swap_to_next(pool: asyncpg.Pool) -> None:
    """Generation 2 becomes live and generation 1 the previous one."""
    made = await next_generation(pool, *generations.INDEXES)
    async with pool.acquire() as connection, connection.transaction():
        await positions.take(connection, 1, TOPIC, {0: 7})
        await generations.swap(connection, await generations.take_over(connection), made)


async def told(api: Client, job: Job) -> dict[str, Any]:
    answer = await api.get(f"/{job.job_id}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_a_request_is_a_job_that_waits_for_a_worker_at_its_location(
    api: Client, query_pool: asyncpg.Pool
) -> None:
    order = {"kind": "rebuild", "force": True, "rows_per_second": 5_000, "reason": "новый словарь"}
    answer = await api.post(JOBS, json=order, headers={"X-Actor": "%D0%9E%D0%BB%D1%8F"})
    assert answer.status_code == 202
    job = answer.json()
    assert (await api.get(f"http://query{answer.headers['location']}")).json()["job_id"] == job["job_id"]
    assert {name: job[name] for name in order} == order
    assert (job["requested_by"], job["phase"], job["wish"], job["attended"]) == ("Оля", "queued", "run", False)
    assert (job["percent"], job["eta_seconds"], job["finished_at"]) == (0, None, None)
    stored = await rebuild_jobs.get(query_pool, UUID(job["job_id"]))
    assert (stored.requested_by, stored.force, stored.rows_per_second) == ("Оля", True, 5_000)
    assert (await api.get(JOBS)).json()["under_way"]["job_id"] == job["job_id"]


async def test_nothing_but_a_post_is_needed_for_a_plain_rebuild(api: Client) -> None:
    job = (await api.post(JOBS, json={})).json()
    assert (job["kind"], job["force"], job["rows_per_second"], job["requested_by"]) == (
        "rebuild",
        False,
        None,
        "anonymous",
    )


async def test_a_second_job_is_refused_until_the_first_has_ended(api: Client, query_pool: asyncpg.Pool) -> None:
    first = await ask(query_pool)
    refused = await api.post(JOBS, json={})
    assert (refused.status_code, refused.headers["content-type"]) == (409, PROBLEM)
    assert refused.json()["title"] == "A rebuild is under way"
    await (await Worker.of_the_job(query_pool)).reach(Phase.FAILED, trouble="no")
    assert (await api.post(JOBS, json={})).status_code == 202
    overview = (await api.get(JOBS)).json()
    assert [job["phase"] for job in overview["jobs"]] == ["queued", "failed"]
    assert [job["job_id"] for job in (await api.get(JOBS, params={"limit": 1})).json()["jobs"]] != [str(first.job_id)]


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "swap"},
        {"force": "perhaps"},
        {"rows_per_second": 0},
        {"rows_per_second": 2**31},
        {"reason": "a\x00b"},
        {"reason": "x" * 1_001},
        {"throttle": 5},
    ],
)
async def test_a_request_that_cannot_be_taken_is_refused_and_leaves_no_job(
    api: Client, query_pool: asyncpg.Pool, body: dict[str, Any]
) -> None:
    answer = await api.post(JOBS, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    assert answer.json()["errors"][0]["field"] == next(iter(body))
    assert await rebuild_jobs.newest(query_pool, 1) == []


async def test_an_actor_that_cannot_be_logged_is_refused(api: Client) -> None:
    for call in (api.post(JOBS, json={}, headers={"X-Actor": "%FF"}), api.delete("/previous", headers={"X-Actor": ""})):
        answer = await call
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "X-Actor")


async def test_a_job_that_is_not_there_is_404_and_an_id_that_is_none_422(api: Client) -> None:
    for path, expected in ((f"/{uuid4()}", 404), ("/first", 422)):
        answers = [
            await api.get(path),
            await api.patch(path, json={"rows_per_second": None}),
            *[await api.post(f"{path}/{verb}") for verb in ("pause", "resume", "cancel")],
        ]
        assert [(one.status_code, one.headers["content-type"]) for one in answers] == [(expected, PROBLEM)] * 5


async def test_every_error_is_documented_as_a_problem(api: Client) -> None:
    described = (await api.get("http://query/openapi.json")).json()
    operations = {
        (path, method): operation["responses"]
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
        if path.startswith("/api/v1/admin/rebuild")
    }
    problem = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    errors = {place: {status for status in found if status >= "400"} for place, found in operations.items()}
    of_any = {"400", "401", "403", "408", "413", "414", "421", "429", "431"}  # runtime.http documents them
    assert all(found[status]["content"] == problem for place, found in operations.items() for status in errors[place])
    one = "/api/v1/admin/rebuild/{job_id}"
    assert {place: found - of_any for place, found in errors.items()} == {
        ("/api/v1/admin/rebuild", "post"): {"409", "422", "503"},
        ("/api/v1/admin/rebuild", "get"): {"422", "503"},
        ("/api/v1/admin/rebuild/previous", "delete"): {"409", "422", "503"},
        (one, "get"): {"404", "422", "503"},
        (one, "patch"): {"404", "409", "422", "503"},
        (f"{one}/pause", "post"): {"404", "409", "422", "503"},
        (f"{one}/resume", "post"): {"404", "409", "422", "503"},
        (f"{one}/cancel", "post"): {"404", "409", "422", "503"},
    }


async def test_a_job_is_paused_resumed_throttled_and_cancelled_by_what_is_wished(
    api: Client, query_pool: asyncpg.Pool
) -> None:
    job = await ask(query_pool)
    for verb, wished in (("pause", Wish.PAUSE), ("pause", Wish.PAUSE), ("resume", Wish.RUN), ("cancel", Wish.CANCEL)):
        answer = await api.post(f"/{job.job_id}/{verb}")
        assert (answer.status_code, answer.json()["wish"]) == (202, wished)
        assert (await rebuild_jobs.get(query_pool, job.job_id)).wish is wished
        for rate in (700, None):
            answer = await api.patch(f"/{job.job_id}", json={"rows_per_second": rate})
            assert (answer.status_code, answer.json()["rows_per_second"], answer.json()["wish"]) == (200, rate, wished)
    for body in ({}, {"rows_per_second": 0}):
        assert (await api.patch(f"/{job.job_id}", json=body)).status_code == 422


async def test_what_is_being_cancelled_or_has_ended_cannot_be_told_anything_else(
    api: Client, query_pool: asyncpg.Pool
) -> None:
    job = await ask(query_pool)
    await api.post(f"/{job.job_id}/cancel")
    for verb in ("pause", "resume"):
        answer = await api.post(f"/{job.job_id}/{verb}")
        assert (answer.status_code, "is being cancelled" in answer.json()["detail"]) == (409, True)
    assert (await api.post(f"/{job.job_id}/cancel")).status_code == 202
    await (await Worker.of_the_job(query_pool)).reach(Phase.CANCELLED)
    answers = [
        await api.patch(f"/{job.job_id}", json={"rows_per_second": 1}),
        *[await api.post(f"/{job.job_id}/{verb}") for verb in ("pause", "resume", "cancel")],
    ]
    assert [(one.status_code, one.json()["title"]) for one in answers] == [(409, "This rebuild has ended")] * 4
    ended = await told(api, job)
    assert (ended["phase"], ended["percent"], ended["attended"]) == ("cancelled", None, False)


async def test_loading_is_told_by_offsets_with_its_records_rows_and_pace(api: Client, query_pool: asyncpg.Pool) -> None:
    job = await ask(query_pool)
    worker = await Worker.of_the_job(query_pool)
    await worker.reach(Phase.LOADING)
    assert (await told(api, job))["percent"] == 0
    await query_pool.execute(PLAN, job.job_id)
    await query_pool.execute("UPDATE rebuild_partitions SET begun_at = begun_at - interval '10 s'")
    await worker.tell("Kafka is slow")
    found = await told(api, job)
    assert found["percent"] == pytest.approx(0.75 * 3_000 / 8_000 * 100, abs=0.1)
    assert (found["records"], found["rows"], found["partitions"], found["partitions_loaded"]) == (400, 290, 2, 1)
    assert 20 < found["records_per_second"] <= 40
    assert 16 < found["eta_seconds"] < 60
    assert (found["attended"], found["trouble"], found["behind"]) == (True, "Kafka is slow", None)
    await worker.let_go()
    assert ((await told(api, job))["attended"], (await told(api, job))["eta_seconds"]) == (False, None)


async def test_indexing_is_told_by_the_indexes_that_are_there_and_the_one_that_is_being_made(
    api: Client, query_pool: asyncpg.Pool, query_database: str
) -> None:
    made = await next_generation(query_pool)
    table = generations.table_name(made)
    await query_pool.execute(
        f"INSERT INTO {table} (file_id, revision, deleted) SELECT gen_random_uuid(), 1, false "
        "FROM generate_series(1, 2000)"
    )
    await query_pool.execute(
        "CREATE FUNCTION slow(uuid) RETURNS uuid IMMUTABLE LANGUAGE plpgsql "
        "AS $$ BEGIN PERFORM pg_sleep(0.005); RETURN $1; END $$"
    )
    job = await ask(query_pool)
    await (await Worker.of_the_job(query_pool)).reach(Phase.INDEXING, made)

    async def percent() -> float:
        found: float = (await told(api, job))["percent"]
        return found

    begun = await percent()
    connection = await asyncpg.connect(query_database)
    building = asyncio.create_task(connection.execute(f"CREATE INDEX ON {table} (slow(file_id))"))

    async def has_come_on() -> float | None:
        found = await percent()
        return found if found > begun else None

    on_the_way = await eventually(has_come_on, what="the index that is being made is told")
    await query_pool.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index")
    with pytest.raises(asyncpg.QueryCanceledError):
        await building
    await connection.close()
    await query_pool.execute(generations.PRIMARY_KEY.format(table=table))
    one_made = await percent()
    assert on_the_way is not None
    assert begun == 75 < on_the_way < one_made == 78.8
    for name, statement in generations.INDEXES.items():
        if name != "pkey":
            await query_pool.execute(statement.format(table=table))
    assert await percent() == 94


async def test_catching_up_tells_how_far_the_live_generation_is_ahead(api: Client, query_pool: asyncpg.Pool) -> None:
    made = await next_generation(query_pool)
    async with query_pool.acquire() as connection:
        await positions.take(connection, 1, TOPIC, {0: 2_600, 1: 6_050, 2: 10})
        await positions.take(connection, made, TOPIC, {0: 2_200, 1: 6_100})
        await positions.take(connection, made, "another topic", {0: 1})
    job = await ask(query_pool)
    worker = await Worker.of_the_job(query_pool)
    await worker.reach(Phase.LOADING, made)
    await query_pool.execute(PLAN, job.job_id)
    await worker.reach(Phase.CATCHING_UP, made)
    await query_pool.execute("UPDATE rebuild_jobs SET phase_since = phase_since - interval '10 s'")
    found = await told(api, job)
    assert (found["behind"], found["percent"]) == (400, 94)
    assert found["seconds_in_phase"] >= 10
    assert found["eta_seconds"] == pytest.approx(400 / 200 * found["seconds_in_phase"])
    await worker.reach(Phase.SWAPPED, made, parity=asdict(Parity(1, made)))
    found = await told(api, job)
    assert (found["behind"], found["percent"], found["parity"]["classes"]) == (None, 100, {})


async def test_the_generations_are_shown_with_age_and_shape(api: Client, query_pool: asyncpg.Pool) -> None:
    first = (await api.get(JOBS)).json()
    assert (first["live"]["generation"], first["previous"], first["under_way"], first["jobs"]) == (1, None, None, [])
    await swap_to_next(query_pool)
    await query_pool.execute(
        "UPDATE generations SET retired_at = retired_at - interval '1 h', shape = 1 WHERE generation = 1"
    )
    await query_pool.execute("UPDATE cache_generation SET since = since - interval '1 h'")
    found = (await api.get(JOBS)).json()
    live, previous = found["live"], found["previous"]
    assert (live["generation"], live["shape"], live["is_current"]) == (2, generations.SHAPE, True)
    assert (previous["generation"], previous["shape"], previous["is_current"]) == (1, 1, False)
    assert 3_600 <= live["live_seconds"] < 3_700
    assert 3_600 <= previous["retired_seconds"] < 3_700


async def test_a_rollback_needs_a_previous_generation_that_this_program_can_write(
    api: Client, query_pool: asyncpg.Pool
) -> None:
    refused = await api.post(JOBS, json={"kind": "rollback"})
    assert (refused.status_code, refused.json()["title"]) == (409, "No previous generation")
    await swap_to_next(query_pool)
    await query_pool.execute("UPDATE generations SET analyzer = 99 WHERE generation = 1")
    refused = await api.post(JOBS, json={"kind": "rollback"})
    assert (refused.status_code, "analyzer 99" in refused.json()["detail"]) == (409, True)
    assert await rebuild_jobs.newest(query_pool, 1) == []
    await query_pool.execute("UPDATE generations SET analyzer = $1 WHERE generation = 1", ANALYZER)
    accepted = await api.post(JOBS, json={"kind": "rollback"})
    assert (accepted.status_code, accepted.json()["kind"]) == (202, "rollback")


async def test_a_purge_removes_what_was_live_before_and_nothing_else(api: Client, query_pool: asyncpg.Pool) -> None:
    assert (await api.delete("/previous")).json() == {"generations": []}
    await swap_to_next(query_pool)
    await ask(query_pool)
    filling = await next_generation(query_pool)
    assert (await api.delete("/previous")).json() == {"generations": [1]}
    assert await tables(query_pool) == {generations.table_name(2), generations.table_name(filling)}
    async with query_pool.acquire() as connection:
        assert await positions.stored(connection, 1, TOPIC) == {}
    assert (await api.get("http://query/api/v1/files/search", params={"query": "x"})).status_code == 200


async def test_a_purge_leaves_alone_what_a_rollback_is_about_to_swap_in(api: Client, query_pool: asyncpg.Pool) -> None:
    await swap_to_next(query_pool)
    await ask(query_pool, Kind.ROLLBACK)
    worker = await Worker.of_the_job(query_pool)
    for generation in (None, 1):
        await worker.reach(Phase.CATCHING_UP, generation)
        refused = await api.delete("/previous")
        assert (refused.status_code, "Cancel it first" in refused.json()["detail"]) == (409, True)
    assert generations.table_name(1) in await tables(query_pool)
    await worker.reach(Phase.CANCELLED)
    assert (await api.delete("/previous")).json() == {"generations": [1]}


async def test_a_purge_waits_a_moment_for_a_search_and_gives_up_without_harm(
    api: Client, query_pool: asyncpg.Pool, query_database: str
) -> None:
    await swap_to_next(query_pool)
    searching = await asyncpg.connect(query_database)
    await searching.execute("BEGIN; SELECT count(*) FROM file_metadata_cache_g1")
    refused = await api.delete("/previous")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["title"] == "The previous generation is in use"
    assert generations.table_name(1) in await tables(query_pool)
    await searching.close()
    assert (await api.delete("/previous")).json() == {"generations": [1]}


async def test_a_purge_gives_way_to_a_swap_that_has_begun(api: Client, query_pool: asyncpg.Pool) -> None:
    await swap_to_next(query_pool)
    async with query_pool.acquire() as connection, connection.transaction():
        assert await generations.take_over(connection) == 2
        assert (await api.delete("/previous")).status_code == 503
        await generations.swap(connection, 2, 1)
    assert (await api.delete("/previous")).json() == {"generations": [2]}


async def tables(pool: asyncpg.Pool) -> set[str]:
    rows = await pool.fetch("SELECT tablename FROM pg_tables WHERE tablename LIKE 'file_metadata_cache_g%'")
    return {row["tablename"] for row in rows}


@pytest.fixture
async def url(query_pool: asyncpg.Pool) -> AsyncIterator[str]:
    async with served(query_app(query_pool)) as found:
        yield found


def command(url: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "cli", "rebuild", *arguments, "--url", url)


async def verb(url: str, *arguments: str) -> tuple[int, str, str]:
    return await run_verb(command(url, *arguments))


async def test_a_job_is_started_shown_paused_resumed_and_cancelled_from_the_command_line(
    url: str, query_pool: asyncpg.Pool
) -> None:
    code, out, err = await verb(url, "--status")
    assert (code, "Live: generation 1" in out, "Previous: none." in out) == (0, True, True), err
    order = ("--throttle", "900", "--force", "--reason", "a [bold]\x1b[31m test", "--actor", "Оля")
    code, out, err = await verb(url, *order, "--no-wait", "--json")
    job = await rebuild_jobs.under_way(query_pool)
    assert job is not None, err
    assert (code, json.loads(out)["job_id"]) == (0, str(job.job_id))
    assert (job.rows_per_second, job.force, job.requested_by) == (900, True, "Оля")

    code, out, err = await verb(url, "--status")
    assert (code, "queued" in out, "Оля" in out, "[bold]\\u001b[31m" in out, "\x1b" in out) == (
        0,
        True,
        True,
        True,
        False,
    )
    code, _, err = await verb(url)
    assert (code, "409" in err, "Traceback" in err) == (1, True, False)

    code, out, _ = await verb(url, "--pause")
    assert (code, "queued (paused)" in out) == (0, True)
    code, _, _ = await verb(url, "--resume", "--throttle", "0", "--no-wait")
    job = await rebuild_jobs.get(query_pool, job.job_id)
    assert (code, job.wish, job.rows_per_second) == (0, Wish.RUN, None)
    code, out, _ = await verb(url, "--cancel", "--json")
    assert (code, json.loads(out)["wish"]) == (0, "cancel")
    await (await Worker.of_the_job(query_pool)).reach(Phase.CANCELLED)

    for without_job in ("--watch", "--pause", "--resume", "--cancel"):
        code, _, err = await verb(url, without_job)
        assert (code, "No rebuild is under way" in err) == (1, True)
    for wrong in (
        ("--pause", "--cancel"),
        ("--status", "--force"),
        ("--pause", "--throttle", "5"),
        ("--throttle", "-1"),
    ):
        assert (await verb(url, *wrong))[0] == 2


async def test_a_rollback_and_a_purge_from_the_command_line(url: str, query_pool: asyncpg.Pool) -> None:
    code, _, err = await verb(url, "--rollback")
    assert (code, "There is no previous generation" in err) == (1, True)
    await swap_to_next(query_pool)
    code, out, _ = await verb(url, "--rollback", "--no-wait", "--json")
    assert (code, json.loads(out)["kind"]) == (0, "rollback")
    code, _, err = await verb(url, "--purge")
    assert (code, "Cancel it first" in err) == (1, True)
    await (await Worker.of_the_job(query_pool)).reach(Phase.CANCELLED)
    code, out, _ = await verb(url, "--purge")
    assert (code, "Removed generation 1" in out) == (0, True)
    code, out, _ = await verb(url, "--purge")
    assert (code, out) == (0, "There is no previous generation.\n")


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    """Begins a verb: a function that reads its standard error until some words have been said, and the process."""
    begun: list[asyncio.subprocess.Process] = []

    async def begin(url: str, *arguments: str) -> tuple[Hear, asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *command(url, *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ
        )
        begun.append(process)
        assert process.stderr is not None
        stderr, said = process.stderr, [""]

        async def hear(words: str) -> str:
            async with asyncio.timeout(30):
                while words not in said[0]:
                    read = await stderr.readline()
                    assert read, f"{words!r} was not said: {said[0]}"
                    said[0] += read.decode()
            return said[0]

        return hear, process

    yield begin
    for one in begun:
        if one.returncode is None:
            one.kill()
            await one.communicate()


async def finished(process: asyncio.subprocess.Process) -> tuple[int, str]:
    async with asyncio.timeout(30):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_the_verb_follows_its_job_to_the_swap_and_says_what_came_of_it(
    url: str, query_pool: asyncpg.Pool, watched: Watched
) -> None:
    hear, process = await watched(url)
    await hear("queued")
    worker = await Worker.of_the_job(query_pool)
    await worker.reach(Phase.LOADING)
    await query_pool.execute(PLAN, worker.job.job_id)
    assert "400 records, 290 rows" in await hear("loading")
    await worker.reach(Phase.VERIFYING)
    await hear("verifying")
    await worker.reach(Phase.SWAPPED, parity=asdict(Parity(1, 2, live_rows=290, new_rows=290)))
    code, out = await finished(process)
    assert (code, "Generation 2 is live, 290 rows of 400 records" in out, "No difference" in out) == (0, True, True)


@pytest.mark.parametrize(
    ("end", "expected", "words"),
    [
        (Phase.REFUSED, 2, ("Refused by parity", "3 missing_in_new", "1 ghost_in_live", "--force")),
        (Phase.FAILED, 1, ("Failed", "There is no topic")),
        (Phase.CANCELLED, 1, ("Cancelled",)),
    ],
)
async def test_an_end_without_a_swap_has_its_exit_code_and_its_reason(
    url: str, query_pool: asyncpg.Pool, watched: Watched, end: Phase, expected: int, words: tuple[str, ...]
) -> None:
    found = Parity(1, 2, live_rows=4, new_rows=1)
    for kind in (Class.MISSING_IN_NEW, Class.MISSING_IN_NEW, Class.MISSING_IN_NEW, Class.GHOST_IN_LIVE):
        found.note(uuid4(), kind)
    hear, process = await watched(url)
    await hear("queued")
    worker = await Worker.of_the_job(query_pool)
    await worker.reach(end, parity=asdict(found) if end is Phase.REFUSED else None, trouble="There is no topic events.")
    code, out = await finished(process)
    assert code == expected
    assert [one for one in words if one not in out] == []


async def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(
    url: str, query_pool: asyncpg.Pool, watched: Watched
) -> None:
    hear, process = await watched(url)
    await hear("queued")
    process.send_signal(signal.SIGINT)
    assert "artstore rebuild --watch" in await hear("The job goes on")
    assert (await finished(process))[0] == 130
    job = await rebuild_jobs.under_way(query_pool)
    assert job is not None
    assert job.wish is Wish.RUN

    hear, process = await watched(url, "--watch", "--json")
    await hear("queued")
    await (await Worker.of_the_job(query_pool)).reach(Phase.SWAPPED)
    code, out = await finished(process)
    assert (code, json.loads(out)["phase"]) == (0, "swapped")


async def test_a_job_without_a_worker_is_named_with_what_to_start_unless_it_is_paused(
    url: str, query_pool: asyncpg.Pool, watched: Watched
) -> None:
    job = await ask(query_pool)
    await query_pool.execute(AGE, job.job_id)
    hear, process = await watched(url, "--watch")
    await hear("python -m consumer_query maintenance")
    await (await Worker.of_the_job(query_pool)).reach(Phase.CANCELLED)
    assert (await finished(process))[0] == 1
    paused = await ask(query_pool)
    await query_pool.execute(AGE, paused.job_id)
    code, _, err = await verb(url, "--status")
    assert (code, "python -m consumer_query maintenance" in err) == (0, True)
    await rebuild_jobs.wish(query_pool, paused.job_id, Wish.PAUSE)
    code, _, err = await verb(url, "--status")
    assert (code, err) == (0, "")


async def test_while_the_api_is_away_the_verb_asks_again(query_pool: asyncpg.Pool, watched: Watched) -> None:
    await ask(query_pool)
    async with served(query_app(query_pool)) as url:
        hear, process = await watched(url, "--watch")
        await hear("queued")
    await hear("asking again")
    await (await Worker.of_the_job(query_pool)).reach(Phase.SWAPPED)
    async with served(query_app(query_pool), port=int(url.rpartition(":")[2])):
        code, _ = await finished(process)
    assert code == 0
