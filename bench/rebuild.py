"""How long a rebuild takes, beside the least that it could take and beside replaying the topic into the live table.

- ours: the real maintenance process, from the request to the swap: parity with the live generation and all
- floor: rows that are decoded already, into a table without indexes by COPY, then the same indexes. Words are made as
  in the product, by one process
- live: the real projector on an empty table that has its indexes, over the same topic
"""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import asyncpg
import psutil

from bench import full_table, projecting, samples
from bench.backlog import Waiting, relayed
from bench.full_table import ROW_COLUMNS, Expected
from bench.projecting import Log
from bench.report import Figure, ratio, turned
from bench.servers import Servers, Tell, until
from consumer_query import analysis, generations, read_model, rebuild_jobs
from consumer_query.migrations import run_migrate
from consumer_query.rebuild_jobs import Job, Kind, Phase
from consumer_query.settings import MaintenanceSettings, QueryDatabaseSettings
from local.process import Child
from runtime.postgres import open_pool
from schemas.events import FileEvent

OURS: Final = "rebuild"
FLOOR: Final = "floor: rows in memory, COPY, indexes"
LIVE: Final = "projector into the live table"
COPY_ROWS: Final = 10_000
FLOOR_TABLE: Final = "floor"
SLOWEST: Final = 300
"""Files a second below which a rebuild has stopped rather than being slow."""


@dataclass
class _Input:
    servers: Servers
    newest: Sequence[FileEvent]
    """Of each file."""
    expected: Expected
    log: Log
    readers: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    phases: dict[str, list[float]] = field(default_factory=dict)
    rss_mib: dict[str, list[float]] = field(default_factory=dict)

    def note(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)


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


async def _ours(given: _Input) -> None:
    """Fill the live table by the projector first: a rebuild is compared with it, and replaying is what it replaces."""
    servers, log = given.servers, given.log
    async with servers.database() as url:
        await run_migrate(QueryDatabaseSettings.model_validate({"query_database_url": url}))
        await servers.checkpoint()
        live, _ = await projecting.project(servers, url, log)
        given.note(LIVE, live.seconds)
        await _let_it_settle(url)
        await servers.checkpoint()
        async with await open_pool(url, "bench", max_size=3, init=read_model.teach) as pool:
            with projecting.process(
                servers, "maintenance", url, log.topic, REBUILD_READERS=str(given.readers), SYNC_INTERVAL_SECONDS="0"
            ) as child:
                job = await _rebuilt(given, pool, child)
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


async def _rebuilt(given: _Input, pool: asyncpg.Pool, child: Child) -> Job:
    """Request a rebuild and wait for its end, noting what each phase took and what its processes hold."""
    job = await rebuild_jobs.request(pool, Kind.REBUILD, requested_by="bench", reason="bench")
    main = psutil.Process(child.pid)
    seen: dict[Phase, float] = {}
    most = [0.0, 0.0]
    found = job

    async def over() -> bool:
        nonlocal found
        if child.exit_code() is not None:
            raise child.died()
        found = await rebuild_jobs.get(pool, job.job_id)
        seen.setdefault(found.phase, time.perf_counter())
        children = [_rss(one) for one in main.children(recursive=True)]
        most[0] = max(most[0], _rss(main))
        most[1] = max([most[1], *children])
        return found.finished_at is not None

    await until(over, 60 + len(given.newest) / SLOWEST, look_again_seconds=0.05)
    assert found.finished_at is not None  # noqa: S101 - just looked
    given.note(OURS, (found.finished_at - found.requested_at).total_seconds())
    moments = list(seen.items())
    for (phase, begun), (_, ended) in pairwise(moments):
        given.phases.setdefault(phase, []).append(ended - begun)
    given.rss_mib.setdefault("worker", []).append(most[0])
    given.rss_mib.setdefault("one reader", []).append(most[1])
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
                init=read_model.teach,
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
            given.note(FLOOR, time.perf_counter() - begin)
            await connection.execute("CREATE VIEW floor_files AS SELECT * FROM floor WHERE NOT deleted")
            full_table.compare(FLOOR, await full_table.files(connection, "floor_files"), given.expected.files)
            full_table.compare(FLOOR, await full_table.deletions(connection, FLOOR_TABLE), given.expected.deletions)


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
    figures = {name: Figure(name, "s", tuple(given.seconds[name]), key) for name, key in keys.items()}
    phases = [Figure(f"of it {phase}", "s", tuple(took), f"{phase}_s") for phase, took in given.phases.items()]
    memory = [
        Figure(f"most memory of {name}", "MiB", tuple(values), f"{name.replace(' ', '_')}_rss_mib")
        for name, values in given.rss_mib.items()
    ]
    return [
        *figures.values(),
        ratio("rebuild / floor, time", figures[OURS], figures[FLOOR], "ratio_floor_time"),
        ratio("live table / rebuild, time", figures[LIVE], figures[OURS], "ratio_live"),
        *phases,
        *memory,
    ]
