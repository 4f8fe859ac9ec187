"""What each index costs whoever applies events: fresh files into a full table, with and without each.

Rows are applied as the projector applies them, over one connection, in its batches and with its session's settings. The
statements and commits alone are timed, and the pending list of the search index is sorted in before the clock stops.
After each run the fresh files are removed and the table is vacuumed, so that the next one finds the same.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import asyncpg

from bench import projecting, search_rows
from bench.report import Figure, ratio, turned
from bench.servers import Servers, Tell
from consumer_query import durable, pending_list, read_model
from consumer_query.generations import INDEXES, search_index_name, table_name
from consumer_query.projection import FileState
from consumer_query.read_model import Row
from runtime.postgres import Connection, open_pool

FRESH: Final = 50_000
"""Files applied in each run, or as many as the table has."""
BATCH: Final = 2_000
ALL: Final = "all indexes"
ALONE: Final = "primary key alone"
SEARCH: Final = "search"
SORTING: Final = ("created", "size", "name")
"""Of INDEXES, those that are left out one by one."""
SETTINGS: Final = {**durable.UNHURRIED, **pending_list.LONG, "maintenance_work_mem": "1GB"}
REMOVE: Final = "DELETE FROM {table} WHERE file_id = ANY($1::uuid[])"


async def measure(servers: Servers, rows: int, rounds: int, tell: Tell) -> list[Figure]:
    """Apply fresh files with all indexes, without each of the B-trees, and with the primary key alone, in all rounds.

    Args:
        servers: where to run
        rows: of the table before
        rounds: how many are reported
        tell: told what is being done
    """
    fresh = min(FRESH, rows)
    contenders = [ALL, *(f"without {name}" for name in SORTING), f"without {SEARCH}", ALONE]
    found: dict[str, list[float]] = {name: [] for name in contenders}
    async with servers.database() as database:
        await projecting.prepare(database)
        filled = await search_rows.fill(database, rows, tell)
        tell("Making fresh files")
        batches = await asyncio.to_thread(_batches, rows, fresh)
        settings = SETTINGS
        async with (
            await open_pool(
                database, "bench", max_size=1, command_timeout=3600, settings=settings, init=read_model.teach
            ) as pool,
            pool.acquire() as connection,
        ):
            for number, order in enumerate(turned(contenders, rounds), 1):
                for name in order:
                    tell(f"Round {number} of {rounds}: {name}")
                    without = _left_out(name)
                    await _drop(connection, filled.generation, without)
                    await servers.checkpoint()
                    found[name].append(
                        await _apply(connection, filled.generation, batches, search=SEARCH not in without)
                    )
                    await _back(connection, filled.generation, without, batches)
            sizes = [
                Figure(
                    f"size of the index {name}",
                    "MiB",
                    (await _size(connection, filled.generation, name),),
                    f"{name}_mib",
                )
                for name in INDEXES
            ]
    speeds = {name: Figure(name, "rows/s", tuple(values), _key(name)) for name, values in found.items()}
    return [
        *speeds.values(),
        *(
            ratio(f"{name} / {ALL}, rows/s", speeds[name], speeds[ALL], f"ratio_{_key(name)}")
            for name in contenders
            if name != ALL
        ),
        *sizes,
    ]


def _left_out(contender: str) -> Sequence[str]:
    if contender == ALONE:
        return [name for name in INDEXES if name != "pkey"]
    return [name for name in INDEXES if contender == f"without {name}"]


def _key(contender: str) -> str:
    return f"{contender.replace(' ', '_')}_rows_per_s" if contender == ALL else contender.replace(" ", "_")


def _batches(rows: int, fresh: int) -> list[list[Row]]:
    """Files that come after all of the table, in batches as the projector folds them."""
    states: list[FileState] = []
    for begin in range(rows, rows + fresh, search_rows.CHUNK):
        count = min(search_rows.CHUNK, rows + fresh - begin)
        states += [one.state for one in search_rows.files(begin, count, rows, seed=-1)]
    made = (states[begin : begin + BATCH] for begin in range(0, len(states), BATCH))
    return [[read_model.row_of(state) for state in sorted(some, key=lambda one: one.file_id)] for some in made]


async def _apply(connection: Connection, generation: int, batches: Sequence[Sequence[Row]], *, search: bool) -> float:
    """Rows a second."""
    begin = time.perf_counter()
    for batch in batches:
        async with connection.transaction():
            await read_model.apply(connection, generation, batch)
    if search:
        await connection.execute(pending_list.EMPTY, search_index_name(generation))
    return sum(map(len, batches)) / (time.perf_counter() - begin)


async def _drop(connection: Connection, generation: int, names: Sequence[str]) -> None:
    for name in names:
        await connection.execute(f"DROP INDEX {table_name(generation)}_{name}")


async def _back(
    connection: Connection, generation: int, dropped: Sequence[str], batches: Sequence[Sequence[Row]]
) -> None:
    table = table_name(generation)
    await connection.execute(REMOVE.format(table=table), [row.file_id for batch in batches for row in batch])
    await connection.execute(f"VACUUM (ANALYZE) {table}")
    for name in dropped:
        await connection.execute(INDEXES[name].format(table=table))


async def _size(connection: Connection, generation: int, name: str) -> float:
    try:
        size: int = await connection.fetchval(
            "SELECT pg_relation_size($1::text::regclass)", f"{table_name(generation)}_{name}"
        )
    except asyncpg.UndefinedTableError:
        return 0.0
    return size / 2**20
