"""How long it takes to see that cache and truth are equal, and to name and confirm what is not.

The real Admin API as a process answers over HTTP; both databases are on one server, so both sides share its processors.
Rows are copies of the sample's files, in another order on each side. Nothing is joined by a topic: what differs is
confirmed against an empty log, and not repaired.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from bench.report import Figure
from bench.samples import events
from bench.servers import Servers, Tell
from consumer_query import read_model
from consumer_query.admin_client import AdminClient, AdminSide
from consumer_query.confirm import Patience
from consumer_query.findings import Findings
from consumer_query.full_sync import Order, Parties, full_sync
from consumer_query.generations import PRIMARY_KEY, SEARCH_INDEX, table_name
from consumer_query.migrations import run_migrate
from consumer_query.records import RecordReader
from consumer_query.settings import QueryDatabaseSettings
from consumer_query.sides import CacheSide
from local.health import unreadiness
from local.ports import LOOPBACK, free_ports
from local.process import Child, Command
from local.services import python
from local.settings import CHECKOUT
from runtime.kafka import log_ends
from runtime.postgres import open_pool
from schemas.codec import encode

TABLE: Final = table_name(1)
DIFFERENCES: Final = 100
SAMPLE: Final = 20_000
READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
FILL_SECONDS: Final = 1_800.0

_COLUMNS: Final = (
    "storage_element_id, original_filename, storage_filename, file_size, mime_type, created_at, updated_at, "
    "created_by_username, created_by_fullname, description, version, tags, storage_path, checksum, retention_expires_at"
)
COPY: Final = f"""
INSERT INTO {TABLE} (file_id, revision, deleted, search, {_COLUMNS})
SELECT gen_random_uuid(), revision, false, search, {_COLUMNS}
FROM generate_series(1, $1::integer) AS number
JOIN (SELECT row_number() OVER () AS place, * FROM sample) AS copied
  ON copied.place = number % (SELECT count(*) FROM sample) + 1
"""  # noqa: S608 - constants
SHUFFLED: Final = f"SELECT file_id, revision, {_COLUMNS} FROM {TABLE} ORDER BY hashtext(file_id::text)"  # noqa: S608
PLANT: Final = (
    f"DELETE FROM {TABLE} WHERE file_id = ANY($1)",  # noqa: S608 - a constant
    f"UPDATE {TABLE} SET revision = revision - 1 WHERE file_id = ANY($1)",  # noqa: S608 - a constant
    f"UPDATE {TABLE} SET revision = revision + 1 WHERE file_id = ANY($1)",  # noqa: S608 - a constant
    f"UPDATE {TABLE} SET version = 'another' WHERE file_id = ANY($1)",  # noqa: S608 - a constant
    f"UPDATE {TABLE} SET file_id = gen_random_uuid() WHERE file_id = ANY($1)",  # noqa: S608 - a constant
)
"""Missing, stale, ahead, another content; and the last is a ghost and another that is missing."""
EACH: Final = (20, 20, 20, 20, 10)
"""Together DIFFERENCES."""
SOME: Final = f"SELECT file_id FROM {TABLE} ORDER BY hashtext(file_id::text) LIMIT $1"  # noqa: S608 - a constant


@dataclass
class _Measured:
    equal: list[float] = field(default_factory=list)
    equal_requests: list[float] = field(default_factory=list)
    different: list[float] = field(default_factory=list)
    different_requests: list[float] = field(default_factory=list)


class WrongFindingsError(Exception):
    """What was found is not what was planted; its speed means nothing."""


async def measure(servers: Servers, rows: int, rounds: int, tell: Tell) -> list[Figure]:
    """Compare equal sides, then sides with differences, each round anew.

    Args:
        servers: of this run
        rows: files on each side
        rounds: of each comparison
        tell: called with what is being done

    Raises:
        WrongFindingsError: a comparison missed something, or made something up.
    """
    tell(f"Filling both sides with {rows:,} files")
    admin_url = await servers.admin_database()
    measured = _Measured()
    async with servers.database() as query_url, servers.topic() as topic:
        await _fill(query_url, admin_url, rows, servers.folder / "files.copy")
        await servers.checkpoint()
        with _admin_api(servers, admin_url) as url:
            async with _parties(servers, query_url, url, topic) as parties:
                for number in range(rounds):
                    tell(f"Round {number + 1} of {rounds}: equal sides")
                    await _equal(parties, measured)
                await _plant(query_url)
                for number in range(rounds):
                    tell(f"Round {number + 1} of {rounds}: {DIFFERENCES} differences")
                    await _different(parties, measured)
    return [
        Figure(f"{rows:,} equal files, compared", "s", tuple(measured.equal), "equal_s"),
        Figure("requests for that", "", tuple(measured.equal_requests), "equal_requests"),
        Figure(f"{DIFFERENCES} differences, found and confirmed", "s", tuple(measured.different), "different_s"),
        Figure("requests until found", "", tuple(measured.different_requests), "different_requests"),
    ]


async def _equal(parties: Parties, measured: _Measured) -> None:
    findings = await _compare(parties)
    if findings.candidates or findings.query_files != findings.admin_files:
        raise WrongFindingsError(f"Equal sides differ: {findings}")
    measured.equal.append(findings.compared_in_seconds)
    measured.equal_requests.append(findings.requests)


async def _different(parties: Parties, measured: _Measured) -> None:
    begin = time.perf_counter()
    findings = await _compare(parties)
    took = time.perf_counter() - begin
    if sum(findings.found.values()) != DIFFERENCES:
        raise WrongFindingsError(f"{DIFFERENCES} files differ, found: {findings}")
    measured.different.append(took)
    measured.different_requests.append(findings.requests)


async def _compare(parties: Parties) -> Findings:
    findings = Findings()
    await full_sync(parties, Order(dry_run=True), findings, lambda _: None)
    return findings


async def _fill(query_url: str, admin_url: str, rows: int, copied: Path) -> None:
    await run_migrate(QueryDatabaseSettings.model_validate({"query_database_url": query_url}))
    query, admin = await asyncpg.connect(query_url), await asyncpg.connect(admin_url)
    try:
        await read_model.teach(query)
        await query.execute(f"DROP INDEX {TABLE}_search")
        made = list(_rows(min(rows, SAMPLE)))
        for begin in range(0, len(made), 2_000):
            await read_model.apply(query, 1, made[begin : begin + 2_000])
        await query.execute(f"CREATE TABLE sample AS SELECT * FROM {TABLE}")  # noqa: S608 - a constant
        await query.execute(f"TRUNCATE {TABLE}")
        await query.execute(f"ALTER TABLE {TABLE} DROP CONSTRAINT {TABLE}_pkey")
        await query.execute(COPY, rows, timeout=FILL_SECONDS)
        await query.execute("DROP TABLE sample")
        await query.execute("SET maintenance_work_mem = '1GB'")
        for index in (PRIMARY_KEY, SEARCH_INDEX):
            await query.execute(index.format(table=TABLE), timeout=FILL_SECONDS)
        await query.execute(f"VACUUM (ANALYZE) {TABLE}", timeout=FILL_SECONDS)
        columns = ["file_id", "revision", *(one.strip() for one in _COLUMNS.split(","))]
        await query.copy_from_query(SHUFFLED, output=copied, format="binary", timeout=FILL_SECONDS)
        await admin.copy_to_table("files", source=copied, columns=columns, format="binary", timeout=FILL_SECONDS)
        await admin.execute("VACUUM (ANALYZE) files", timeout=FILL_SECONDS)
    finally:
        await query.close()
        await admin.close()
        await asyncio.to_thread(copied.unlink, missing_ok=True)


def _rows(count: int) -> Iterator[read_model.Row]:
    reader, seen = RecordReader(None), set[UUID]()
    for event in events(count):
        if event.metadata is not None and event.file_id not in seen:
            seen.add(event.file_id)
            yield read_model.row_of(reader.state_of(str(event.file_id).encode(), encode(event), {}))


async def _plant(query_url: str) -> None:
    connection = await asyncpg.connect(query_url)
    try:
        left = [row["file_id"] for row in await connection.fetch(SOME, sum(EACH), timeout=FILL_SECONDS)]
        for count, statement in zip(EACH, PLANT, strict=True):
            some, left = left[:count], left[count:]
            await connection.execute(statement, some)
    finally:
        await connection.close()


@asynccontextmanager
async def _parties(servers: Servers, query_url: str, url: str, topic: str) -> AsyncIterator[Parties]:
    client = AdminClient(url)
    try:
        async with await open_pool(query_url, "bench", max_size=3) as pool:
            cache = CacheSide(pool, topic)
            admin = AdminSide(client, await cache.probe())

            async def ends() -> Mapping[int, int]:
                return await log_ends(servers.bootstrap_servers, topic)

            yield Parties(cache, admin, client, ends, Patience())
    finally:
        await client.close()


@contextmanager
def _admin_api(servers: Servers, database: str) -> Iterator[str]:
    """URL of a real Admin API over a database."""
    port, management = free_ports(2)
    storage = servers.folder / "files"
    storage.mkdir(exist_ok=True)
    # Without bytecode that is kept it would take long to start.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    variables = {
        "ADMIN_DATABASE_URL": database,
        "STORAGE_ELEMENT_URL": storage.as_uri(),
        "ADMIN_API_PORT": str(port),
        "ADMIN_API_MANAGEMENT_PORT": str(management),
        "MANAGEMENT_HOST": LOOPBACK,
    }
    child = Child(
        Command(
            name="admin-api",
            argv=python("producer_admin", "api"),
            log=servers.folder / "admin-api.log",
            cwd=CHECKOUT,
            env=inherited | variables,
        )
    )
    try:
        child.wait_until(lambda: unreadiness(f"http://{LOOPBACK}:{management}/health/ready") is None, READY_SECONDS)
        yield f"http://{LOOPBACK}:{port}"
    finally:
        child.stop(STOP_SECONDS)
