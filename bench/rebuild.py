"""How long a rebuild takes, beside the least that it could take and beside replaying the topic into the live table.

- ours: the real maintenance process, from the request to the swap: parity with the live generation and all
- floor: rows that are decoded already, into a table without indexes by COPY, then the same indexes. Words are made as
  in the product, by one process
- live: the real projector on an empty table that has its indexes, over the same topic

How it grows with the files is looked at by ours alone, each size into an empty cache and then beside the full one.
"""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import Any, Final

import asyncpg
import psutil

from bench import full_table, projecting, samples
from bench.backlog import Record, Waiting, relayed, send_in_batches
from bench.full_table import ROW_COLUMNS, Expected
from bench.projecting import Log
from bench.report import Figure, ratio, turned
from bench.servers import Servers, Tell, until
from consumer_query import analysis, generations, rebuild_jobs
from consumer_query.migrations import run_migrate
from consumer_query.rebuild_jobs import Job, Kind, Phase
from consumer_query.settings import MaintenanceSettings, QueryDatabaseSettings
from local.process import Child
from runtime.kafka import idempotent_producer
from runtime.postgres import open_pool
from schemas.events import FileEvent

OURS: Final = "rebuild"
FLOOR: Final = "floor: rows in memory, COPY, indexes"
LIVE: Final = "projector into the live table"
COPY_ROWS: Final = 10_000
INTO_EMPTY: Final = "into an empty cache"
BESIDE_FULL: Final = "beside a full one"
CHUNK: Final = 100_000
"""Events that are in memory at once."""
FLOOR_TABLE: Final = "floor"
SLOWEST: Final = 300
"""Files a second below which a rebuild has stopped rather than being slow."""


@dataclass
class _Seen:
    """What runs took, by what ran."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    phases: dict[str, list[float]] = field(default_factory=dict)
    rss_mib: dict[str, list[float]] = field(default_factory=dict)

    def note(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def memory(self) -> list[Figure]:
        """The most that each kind of process held."""
        return [
            Figure(f"most memory of {name}", "MiB", tuple(values), f"{name.replace(' ', '_')}_rss_mib")
            for name, values in self.rss_mib.items()
        ]


@dataclass
class _Input:
    servers: Servers
    newest: Sequence[FileEvent]
    """Of each file."""
    expected: Expected
    log: Log
    readers: int
    seen: _Seen = field(default_factory=_Seen)


async def measure(servers: Servers, files: int, rounds: int, readers: int, tell: Tell) -> list[Figure]:
    """Run all in all rounds; every row is compared after each.

    Returns:
        Seconds of each, how often longer ours took than the floor, how often longer the live table took than ours.
    """
    tell("Making events")
    events = list(samples.twice_each(files))
    async with servers.topic() as topic:
        tell("Writing the topic through the relay")
        await relayed(servers, topic, [Waiting.of(event) for event in events])
        log, _ = await projecting.read(servers, topic)
        given = _Input(servers, events[files:], await Expected.of(servers, events), log, readers)
        del events
        gc.collect()
        gc.freeze()
        contenders = {OURS: _ours, FLOOR: _floor}
        for number, order in enumerate(turned(list(contenders), rounds), 1):
            for name in order:
                tell(f"Round {number} of {rounds}, {name}")
                await contenders[name](given)
    return _figures(given)


async def growth(servers: Servers, sizes: Sequence[int], readers: int, tell: Tell) -> list[Figure]:
    """Rebuild caches of several sizes, each from a topic of its own.

    Returns:
        Seconds of each, microseconds for a file, and the most memory.
    """
    figures: list[Figure] = []
    for files in sizes:
        seen = _Seen()
        async with servers.topic() as topic, servers.database() as url:
            tell(f"{files:,} files, writing the topic")
            async with idempotent_producer(servers.bootstrap_servers, "bench") as producer:
                events = samples.twice_each(files)
                while some := [Record.of(event) for event in islice(events, CHUNK)]:
                    await send_in_batches(producer, topic, some)
            await run_migrate(QueryDatabaseSettings.model_validate({"query_database_url": url}))
            await _grown(seen, servers, topic, url, files, readers, tell)
        for name, key in ((INTO_EMPTY, "empty"), (BESIDE_FULL, "full")):
            took = tuple(seen.seconds[name])
            figures.append(Figure(f"{files:,} files, {name}", "s", took, f"{key}_{files}_s"))
            a_file = tuple(1e6 * one / files for one in took)
            figures.append(Figure("  for a file", "µs", a_file, f"{key}_{files}_us_a_file"))
        figures += [replace(one, key=f"{one.key}_{files}") for one in seen.memory()]
    return figures


async def _grown(seen: _Seen, servers: Servers, topic: str, url: str, files: int, readers: int, tell: Tell) -> None:
    variables = {"REBUILD_READERS": str(readers), "SYNC_INTERVAL_SECONDS": "0", "LEXEMES_INTERVAL_SECONDS": "0"}
    async with await open_pool(url, "bench", max_size=3) as pool:
        with projecting.process(servers, "maintenance", url, topic, **variables) as child:
            for name in (INTO_EMPTY, BESIDE_FULL):
                tell(f"{files:,} files, {name}")
                await servers.checkpoint()
                job = await _rebuilt(seen, name, files, pool, child)
                async with pool.acquire() as connection:
                    table = generations.table_name(await generations.live(connection))
                    rows = await connection.fetchval(f"SELECT count(*) FROM {table}", timeout=600)  # noqa: S608 - ours
                if job.phase is not Phase.SWAPPED or rows != files:
                    raise full_table.WrongRowsError(f"{job.phase} with {rows:,} rows: {job.trouble}")


async def _ours(given: _Input) -> None:
    """Fill the live table by the projector first: a rebuild is compared with it, and replaying is what it replaces."""
    servers, log = given.servers, given.log
    async with servers.database() as url:
        await run_migrate(QueryDatabaseSettings.model_validate({"query_database_url": url}))
        await servers.checkpoint()
        live, _ = await projecting.project(servers, url, log)
        given.seen.note(LIVE, live.seconds)
        await _let_it_settle(url)
        await servers.checkpoint()
        async with await open_pool(url, "bench", max_size=3) as pool:
            with projecting.process(
                servers, "maintenance", url, log.topic, REBUILD_READERS=str(given.readers), SYNC_INTERVAL_SECONDS="0"
            ) as child:
                job = await _rebuilt(given.seen, OURS, len(given.newest), pool, child)
            if job.phase is not Phase.SWAPPED:
                raise full_table.WrongRowsError(f"The rebuild ended as {job.phase}: {job.trouble}")
            async with pool.acquire() as connection:
                table = generations.table_name(await generations.live(connection))
                full_table.compare(OURS, await full_table.files(connection, projecting.VIEW), given.expected.files)
                full_table.compare(OURS, await full_table.deletions(connection, table), given.expected.deletions)


async def _let_it_settle(url: str) -> None:
    """Have done what autovacuum does with a table that is in service: else who looks first pays for it."""
    connection = await asyncpg.connect(url)
    await connection.execute(f"VACUUM (ANALYZE) {projecting.TABLE}", timeout=3600)
    await connection.close()


async def _rebuilt(seen: _Seen, name: str, files: int, pool: asyncpg.Pool, child: Child) -> Job:
    """Request a rebuild and wait for its end, noting what each phase took and what its processes hold."""
    job = await rebuild_jobs.request(pool, Kind.REBUILD, requested_by="bench", reason="bench")
    main = psutil.Process(child.pid)
    begun_at: dict[Phase, float] = {}
    most = [0.0, 0.0]
    found = job

    async def over() -> bool:
        nonlocal found
        if child.exit_code() is not None:
            raise child.died()
        found = await rebuild_jobs.get(pool, job.job_id)
        begun_at.setdefault(found.phase, time.perf_counter())
        children = [_rss(one) for one in main.children(recursive=True)]
        most[0] = max(most[0], _rss(main))
        most[1] = max([most[1], *children])
        return found.finished_at is not None

    await until(over, 60 + files / SLOWEST, look_again_seconds=0.05)
    assert found.finished_at is not None  # noqa: S101 - just looked
    seen.note(name, (found.finished_at - found.requested_at).total_seconds())
    moments = list(begun_at.items())
    for (phase, begun), (_, ended) in pairwise(moments):
        seen.phases.setdefault(phase, []).append(ended - begun)
    seen.rss_mib.setdefault("worker", []).append(most[0])
    seen.rss_mib.setdefault("one reader", []).append(most[1])
    return found


def _rss(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


async def _floor(given: _Input) -> None:
    rows = [full_table.row(event) for event in given.newest]
    async with given.servers.database() as url:
        memory = MaintenanceSettings.model_fields["rebuild_index_memory"].default
        async with (
            await open_pool(
                url,
                "bench",
                max_size=1,
                command_timeout=3600,
                settings={"maintenance_work_mem": memory},
                init=_send_vectors,
            ) as pool,
            pool.acquire() as connection,
        ):
            await connection.execute(generations.TABLE.format(table=FLOOR_TABLE))
            await given.servers.checkpoint()
            begin = time.perf_counter()
            for start in range(0, len(rows), COPY_ROWS):
                some = [(*row, _words(row)) for row in rows[start : start + COPY_ROWS]]
                await connection.copy_records_to_table(FLOOR_TABLE, records=some, columns=(*ROW_COLUMNS, "search"))
            for statement in generations.INDEXES.values():
                await connection.execute(statement.format(table=FLOOR_TABLE))
            given.seen.note(FLOOR, time.perf_counter() - begin)
            await connection.execute("CREATE VIEW floor_files AS SELECT * FROM floor WHERE NOT deleted")
            full_table.compare(FLOOR, await full_table.files(connection, "floor_files"), given.expected.files)
            full_table.compare(FLOOR, await full_table.deletions(connection, FLOOR_TABLE), given.expected.deletions)


async def _send_vectors(connection: asyncpg.Connection) -> None:
    await connection.set_builtin_type_codec("tsvector", schema="pg_catalog", codec_name="bytea", format="binary")


def _words(row: tuple[Any, ...]) -> bytes | None:
    known = dict(zip(ROW_COLUMNS, row, strict=True))
    if known["deleted"]:
        return None
    return analysis.search_vector(
        known["original_filename"],
        known["tags"],
        known["description"],
        known["created_by_username"],
        known["created_by_fullname"],
    )


def _figures(given: _Input) -> list[Figure]:
    keys = {OURS: "rebuild_s", FLOOR: "floor_s", LIVE: "live_s"}
    figures = {name: Figure(name, "s", tuple(given.seen.seconds[name]), key) for name, key in keys.items()}
    phases = [Figure(f"of it {phase}", "s", tuple(took), f"{phase}_s") for phase, took in given.seen.phases.items()]
    return [
        *figures.values(),
        ratio("rebuild / floor, time", figures[OURS], figures[FLOOR], "ratio_floor_time"),
        ratio("live table / rebuild, time", figures[LIVE], figures[OURS], "ratio_live"),
        *phases,
        *given.seen.memory(),
    ]
