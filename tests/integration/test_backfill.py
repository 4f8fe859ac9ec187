"""A take-over of an older system: every row once, files and events in one transaction, whatever stops it on the way."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import elements, files
from producer_admin.backfill import Options, Totals, backfill
from producer_admin.backfill_mapping import Mapping, read_mapping
from producer_admin.backfill_source import open_source
from producer_admin.batches import Limits
from producer_admin.errors import BackfillOvertakenError, MappingError, SourceError, UnknownElementError
from producer_admin.publisher import ShardPublisher
from producer_admin.relay import Relay
from producer_admin.republish import republish_files
from schemas.codec import Decoder
from schemas.events import EventType
from tests.backends import Backend
from tests.conftest import execute
from tests.integration.conftest import Topic, revisions
from tests.running import run_verb, running
from tests.waiting import eventually, settles

EXAMPLE = Path("tests/examples/storage_element_2026_01.sql").read_text(encoding="utf-8")
DOCUMENTS = read_mapping(Path("tests/examples/documents.toml").read_text(encoding="utf-8"))
GOOD = [UUID(f"0a6b2f5e-3c1d-4e8f-9a70-00000000000{number}") for number in range(1, 9)]
MANY = """
CREATE TABLE file_metadata AS
SELECT gen_random_uuid() AS file_id, 'se-01' AS storage_element_id, 'Файл ' || number AS original_filename,
       number || '.bin' AS storage_filename, number AS file_size, 'text/plain' AS mime_type,
       timestamptz '2026-01-13T10:00:00Z' AS created_at, 'ivanov' AS created_by_username,
       'files/active' AS storage_path,
       CASE WHEN number % 100 = 0 THEN 'none' ELSE encode(sha256(number::text::bytea), 'hex') END AS checksum
FROM generate_series(1, {rows}) AS number;
ALTER TABLE file_metadata ADD PRIMARY KEY (file_id);
ANALYZE file_metadata
"""


@pytest.fixture
async def old_database(backend: Backend) -> AsyncIterator[str]:
    """URL of an empty database in which an older system may be set up."""
    name = f"old_{uuid4().hex[:12]}"
    await execute(backend.url("postgres"), f"CREATE DATABASE {name}")
    yield backend.url(name)
    await execute(backend.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def example(old_database: str, admin_engine: AsyncEngine, storage_folder: Path) -> str:
    """URL of the example database, its storage elements registered."""
    await execute(old_database, EXAMPLE)
    for element_id in ("se-01", "se-02"):
        await elements.ensure(admin_engine, element_id, (storage_folder / element_id).as_uri())
    return old_database


@pytest.fixture
async def many(old_database: str, admin_engine: AsyncEngine, storage_folder: Path) -> str:
    """URL of a database with 3,000 rows, each hundredth bad."""
    await execute(old_database, MANY.format(rows=3_000))
    await elements.ensure(admin_engine, "se-01", storage_folder.as_uri())
    return old_database


class Told:
    """What a backfill said of its progress."""

    def __init__(self) -> None:
        self.said: list[tuple[int, int | None, str]] = []

    def __call__(self, done: int, total: int | None, text: str) -> None:
        self.said.append((done, total, text))


async def run(url: str, engine: AsyncEngine, mapping: Mapping | None = None, **options: Any) -> Totals:
    async with open_source(url) as source:
        return await backfill(source, engine, mapping or Mapping(), Options(**options), Told())


def counts(totals: Totals) -> tuple[int, int, int]:
    return totals.taken, totals.present, totals.refused


async def stored(pool: asyncpg.Pool) -> tuple[int, int, int, int]:
    """Files, events, files without exactly one event of their revision, refusals."""
    row = await pool.fetchrow(
        """
        SELECT (SELECT count(*) FROM files), (SELECT count(*) FROM outbox),
               (SELECT count(*) FROM files WHERE 1 <> (
                    SELECT count(*) FROM outbox
                    WHERE outbox.file_id = files.file_id AND outbox.revision = files.revision)),
               (SELECT count(*) FROM backfill_refusals)
        """
    )
    assert row is not None
    return tuple(row)


async def test_good_rows_become_files_with_one_event_each_and_bad_rows_are_kept_with_their_reasons(
    example: str, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    totals = await run(example, admin_engine)
    assert counts(totals) == (8, 0, 8)
    assert await stored(admin_pool) == (8, 8, 0, 8)
    refused = {row["key"][-2:]: row["reason"] for row in await admin_pool.fetch("SELECT * FROM backfill_refusals")}
    assert {key: reason.partition(":")[0] for key, reason in refused.items()} == {
        "id": "file_id",
        "b2": "checksum",
        "b3": "file_size",
        "b4": "original_filename",
        "b5": "original_filename",
        "b6": "original_filename",
        "b7": "created_at",
        "b8": "storage_path",
    }
    assert {(one.key[-2:], one.reason) for one in totals.first_refusals} == set(refused.items())
    assert totals.remarks == ("Moments in created_at that name no time zone are taken as UTC.",)


async def test_a_file_is_recorded_and_announced_as_its_row_describes_it(
    example: str, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    await run(example, admin_engine, batch=3)
    async with admin_engine.connect() as connection:
        records = {one: await files.get(connection, one) for one in GOOD}
    payloads = await admin_pool.fetch("SELECT file_id, actor, payload FROM outbox")
    for row in payloads:
        event = Decoder().decode(row["payload"])
        assert row["actor"] == "backfill"
        assert event.event_type is EventType.CREATED
        assert (event.file_id, event.revision) == (row["file_id"], 1)
        assert event.metadata == records[row["file_id"]].metadata
        # The change is the take-over: it happened now, and has waited for the topic no longer than that.
        assert event.occurred_at == event.metadata.updated_at > event.metadata.created_at
    assert len(payloads) == 8
    first, second = records[GOOD[0]].metadata, records[GOOD[1]].metadata
    assert first.original_filename == "Договор поставки №17.pdf"
    assert first.tags == ("срочно", "договор")
    assert first.created_at.isoformat() == "2026-01-13T10:00:00+00:00"
    assert first.retention_expires_at is not None
    assert first.retention_expires_at.isoformat() == "2027-01-13T10:00:00+00:00"
    assert (second.checksum, second.storage_path) == ("sha256:" + "0f" * 32, "files/active")
    assert second.created_at.isoformat() == "2026-01-14T08:30:15.250000+00:00"
    assert records[GOOD[3]].storage_element_id == "se-02"
    assert records[GOOD[3]].object.key == "files/archive/2025/photo_smith_20260116.jpg"
    used = await admin_pool.fetch("SELECT element_id, sum(used_bytes)::bigint AS used FROM storage_usage GROUP BY 1")
    assert {row["element_id"]: row["used"] for row in used} == {
        "se-01": 1048576 + 20480 + 52311 + 777 + 12,
        "se-02": 9999999 + 5368709120,
    }


async def test_a_mapping_reads_a_table_with_other_names_and_another_key(
    example: str, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    totals = await run(example, admin_engine, DOCUMENTS, batch=1)
    assert counts(totals) == (1, 1, 2)
    assert [(one.key, one.reason.partition(":")[0]) for one in totals.first_refusals] == [
        ("2", "bytes"),
        ("3", "added"),
    ]
    [row] = await admin_pool.fetch("SELECT * FROM files")
    assert (row["original_filename"], row["tags"], row["storage_path"]) == (
        "Акт приёмки.pdf",
        ["акт", "приёмка"],
        "files/documents",
    )
    # The same file twice on one page is one file too.
    assert counts(await run(example, admin_engine, DOCUMENTS, restart=True)) == (0, 2, 2)
    await admin_pool.execute("DELETE FROM files")
    assert counts(await run(example, admin_engine, DOCUMENTS, restart=True)) == (1, 1, 2)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uuid", "gen_random_uuid()"),
        ("text", "CASE number % 3 WHEN 0 THEN upper(md5(number::text)) WHEN 1 THEN 'ё' ELSE 'a''' END || number"),
        ("varchar(8)", "'k' || number"),
        ("bigint", "number * 7 - 20"),
        ("integer", "number"),
        ("smallint", "-number"),
    ],
)
async def test_pages_by_a_key_of_any_type_hold_each_row_once(old_database: str, kind: str, value: str) -> None:
    await execute(
        old_database,
        f"""
        CREATE SCHEMA "Old";
        CREATE TABLE "Old"."The ""old"" Files" AS
        SELECT ({value})::{kind} AS "Key "" of it", number AS "it's" FROM generate_series(1, 25) AS number;
        CREATE UNIQUE INDEX ON "Old"."The ""old"" Files" ("Key "" of it")
        """,
    )
    seen: list[int] = []
    async with open_source(old_database) as source:
        table = await source.table('"Old"."The ""old"" Files"')
        key, after = 'Key " of it', None
        await source.check_key(table, key)
        while page := await source.page(table, key, {"number": "it's"}, after, 2):
            after = page[-1].key
            seen += [json.loads(row.row)["number"] for row in page]
    assert sorted(seen) == list(range(1, 26))
    assert table.identity.endswith('/Old.The "old" Files')


async def test_a_second_run_finds_nothing_and_a_restart_finds_all_present(
    example: str, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    first = await run(example, admin_engine, batch=5)
    again = await run(example, admin_engine)
    assert counts(again) == counts(first)
    assert (again.looked_at, again.first_refusals) == (0, first.first_refusals)
    async with admin_engine.begin() as connection:
        await files.delete(connection, GOOD[0], "tests")
    await execute(example, "UPDATE file_metadata SET file_size = 5 WHERE original_filename = 'negative.txt'")
    assert counts(await run(example, admin_engine, restart=True)) == (1, 8, 7)
    # A file that was deleted here stays deleted, and nothing is announced twice.
    assert await admin_pool.fetchval("SELECT count(*) FROM files WHERE deleted_at IS NULL") == 8
    assert await admin_pool.fetchval("SELECT count(*) FROM outbox") == 10
    assert await admin_pool.fetchval("SELECT count(*) FROM backfill_refusals") == 7


async def test_a_dry_run_tells_the_same_and_writes_nothing(
    example: str, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    rehearsed = await run(example, admin_engine, dry_run=True, batch=3)
    assert await stored(admin_pool) == (0, 0, 0, 0)
    assert await admin_pool.fetchval("SELECT count(*) FROM backfills") == 0
    done = await run(example, admin_engine, batch=3)
    assert replace(rehearsed, seconds=0) == replace(done, seconds=0)
    assert counts(await run(example, admin_engine, dry_run=True)) == (0, 8, 8)


async def test_the_source_cannot_be_written(example: str) -> None:
    async with open_source(example) as source:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await source._connection.execute("DELETE FROM file_metadata")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP TABLE file_metadata", "no table file_metadata"),
        ("ALTER TABLE file_metadata DROP COLUMN checksum", "no column checksum. Its columns are file_id, storage_"),
        ("ALTER TABLE file_metadata DROP CONSTRAINT file_metadata_pkey", "no unique index"),
        (
            "ALTER TABLE file_metadata DROP CONSTRAINT file_metadata_pkey, ADD UNIQUE (file_id, tags)",
            "no unique index of its own",
        ),
        (
            """
            ALTER TABLE file_metadata DROP CONSTRAINT file_metadata_pkey, ALTER file_id DROP NOT NULL;
            CREATE UNIQUE INDEX ON file_metadata (file_id);
            INSERT INTO file_metadata (original_filename) VALUES ('nobody finds me')
            """,
            "Some rows have no file_id",
        ),
        (
            "ALTER TABLE file_metadata DROP COLUMN file_id, ADD COLUMN file_id timestamptz DEFAULT clock_timestamp()",
            "timestamp with time zone; it must be uuid",
        ),
    ],
)
async def test_a_table_that_cannot_be_paged_without_loss_is_refused(
    example: str, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool, change: str, said: str
) -> None:
    await execute(example, change)
    with pytest.raises(MappingError, match=said):
        await run(example, admin_engine)
    assert await admin_pool.fetchval("SELECT count(*) FROM backfills") == 0


async def test_it_does_not_begin_before_the_storage_elements_are_registered(
    example: str, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    await execute(example, "UPDATE file_metadata SET storage_element_id = 'se-03' WHERE file_id LIKE '%1'")
    with pytest.raises(UnknownElementError, match=r"se-03\..*PUT /api/v1/storage-elements/se-03"):
        await run(example, admin_engine)
    assert await stored(admin_pool) == (0, 0, 0, 0)
    # One element can be named for all; and what can be no element's id concerns its rows alone.
    one = Mapping(constants={"storage_element_id": "se-01"})
    assert counts(await run(example, admin_engine, one, dry_run=True)) == (8, 0, 8)
    await execute(example, "UPDATE file_metadata SET storage_element_id = 'SE 3' WHERE file_id LIKE '%1'")
    assert counts(await run(example, admin_engine)) == (7, 0, 9)


async def test_a_row_that_names_an_unregistered_element_after_the_start_is_refused(
    example: str, admin_engine: AsyncEngine
) -> None:
    late = GOOD[7]
    change = f"UPDATE file_metadata SET storage_element_id = 'se-09' WHERE file_id = '{late}'"
    changes: list[asyncio.Task[None]] = []

    def tell(done: int, _total: int | None, _text: str) -> None:
        if done == 0:
            changes.append(asyncio.create_task(execute(example, change)))

    async with open_source(example) as source:
        totals = await backfill(source, admin_engine, Mapping(), Options(batch=1), tell)
    await asyncio.gather(*changes)
    assert counts(totals) == (7, 0, 9)
    assert (str(late), "storage_element_id: storage element se-09 is not registered") in totals.first_refusals


async def test_another_key_would_misread_where_the_last_run_stopped(example: str, admin_engine: AsyncEngine) -> None:
    await execute(example, "ALTER TABLE file_metadata ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY UNIQUE")
    await run(example, admin_engine)
    with pytest.raises(MappingError, match="begun by key file_id, not id"):
        await run(example, admin_engine, Mapping(key="id"))
    assert counts(await run(example, admin_engine, Mapping(key="id"), restart=True)) == (0, 8, 8)


async def test_two_runs_at_once_take_each_row_once(
    many: str, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    ended = await asyncio.gather(*(run(many, admin_engine, batch=50) for _ in range(3)), return_exceptions=True)
    winners = [one for one in ended if isinstance(one, Totals)]
    assert all(isinstance(one, Totals | BackfillOvertakenError) for one in ended), ended
    assert counts((winners or [await run(many, admin_engine)])[-1]) == (2970, 0, 30)
    assert await stored(admin_pool) == (2970, 2970, 0, 30)


def command(url: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "producer_admin", "backfill", "--from", url, *options]


def environment(admin_database: str) -> dict[str, str]:
    return os.environ | {"ADMIN_DATABASE_URL": admin_database}


async def cli(arguments: Sequence[str], admin_database: str, **extra: str) -> tuple[int, str, str]:
    return await run_verb(arguments, ADMIN_DATABASE_URL=admin_database, **extra)


async def test_a_run_that_is_killed_goes_on_behind_its_last_page(
    many: str, admin_database: str, admin_pool: asyncpg.Pool
) -> None:
    last = None
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            *command(many, "--batch", "10"),
            env=environment(admin_database),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await eventually(lambda last=last: _further(admin_pool, last))  # type: ignore[misc]
        process.kill()
        assert await process.wait() < 0
        last = await settled(admin_pool)
        # What it has counted is what it has stored.
        row = await admin_pool.fetchrow("SELECT taken, refused FROM backfills")
        assert row is not None
        assert await stored(admin_pool) == (row["taken"], row["taken"], 0, row["refused"])
        assert 0 < row["taken"] < 2970
    code, out, err = await cli(command(many, "--json"), admin_database)
    assert code == 1, err
    found = json.loads(out)
    assert (found["taken"], found["present"], found["refused"]) == (2970, 0, 30)
    assert 0 < found["looked_at"] < 3_000 - 3 * 10
    assert await stored(admin_pool) == (2970, 2970, 0, 30)
    assert await admin_pool.fetchval("SELECT finished_at IS NOT NULL FROM backfills")


async def _further(pool: asyncpg.Pool, last: str | None) -> bool:
    return bool(await pool.fetchval("SELECT last_key > coalesce($1, '') FROM backfills", last))


async def settled(pool: asyncpg.Pool) -> str:
    """Where the backfill stands once the server has noticed that its client is gone."""
    query = """
    SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'admin-backfill' AND datname = current_database()
    """
    await settles(lambda: pool.fetchval(query), 0)
    return str(await pool.fetchval("SELECT last_key FROM backfills"))


async def test_a_full_outbox_holds_the_backfill_until_the_relay_has_made_room(
    many: str, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool
) -> None:
    told = Told()
    async with open_source(many) as source:
        options = Options(batch=100, outbox_limit=250)
        task = asyncio.create_task(backfill(source, admin_engine, Mapping(), options, told))
        await eventually(lambda: _waits(told))
        held = await admin_pool.fetchval("SELECT count(*) FROM outbox")
        assert 250 < held <= 350
        assert told.said[-1][2].endswith(f"{held} events are in the outbox")
        while not task.done():
            await admin_pool.execute("DELETE FROM outbox")  # as if sent
            await asyncio.wait({task}, timeout=0.1)
        assert counts(await task) == (2970, 0, 30)


async def _waits(told: Told) -> bool:
    return told.said[-1][2].startswith("Waiting for the relay") if told.said else False


async def test_an_interrupted_run_has_said_what_it_waited_for_and_ends_with_130(
    many: str, admin_database: str, admin_pool: asyncpg.Pool
) -> None:
    process = await asyncio.create_subprocess_exec(
        *command(many, "--batch", "10", "--outbox-limit", "20"),
        env=environment(admin_database),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = ""
    while "Waiting for the relay" not in said:
        said += (line := (await process.stderr.readline()).decode())
        assert line, said
    match = re.search(r"(\d+) events are in the outbox \((\d+) of about 3,000 rows\)", said)
    assert match, said
    waiting, looked_at = int(match[1]), int(match[2])
    assert waiting > 20
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, out) == (130, b"")
    assert err.decode().splitlines()[-1] == "Interrupted. What was done stays done."
    assert await stored(admin_pool) == (waiting, waiting, 0, looked_at - waiting)


async def test_while_publishing_is_held_the_backfill_does_not_wait_for_it(many: str, admin_database: str) -> None:
    arguments = command(many, "--outbox-limit", "1", "--json")
    code, out, _ = await cli(arguments, admin_database, EVENT_PUBLISH_ENABLED="false")
    assert (code, json.loads(out)["taken"]) == (1, 2970)


async def test_the_verb_ends_in_one_sentence_and_its_code_says_how(example: str, admin_database: str) -> None:
    code, out, err = await cli(command(example, "--dry-run"), admin_database)
    assert code == 1
    assert "8 would be taken over" in out
    assert "not-a-uuid  file_id: " in out
    assert "Nothing was written." in out
    assert "Traceback" not in err
    code, out, err = await cli(command(example.rpartition("/")[0] + "/nowhere"), admin_database)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == 'The source cannot be read: database "nowhere" does not exist.'
    code, _, err = await cli(command(example, "--table", "nothing"), admin_database)
    assert (code, err.splitlines()[-1]) == (2, "The source has no table nothing.")
    code, _, err = await cli(command("mysql://a:secret@h/d"), admin_database)
    assert code == 2
    assert "--from must look like postgresql://" in err
    assert "secret" not in err
    code, _, err = await cli(command(example), admin_database.rpartition("/")[0] + "/nowhere")
    assert (code, "Traceback" in err, "nowhere" in err) == (1, False, True)
    await execute(example, "DELETE FROM file_metadata WHERE lower(file_id) NOT LIKE '%-00000000000_'")
    code, out, err = await cli(command(example), admin_database)
    assert code == 0, err
    assert "8 taken over and announced" in out
    assert "artstore admin scrub" in out


async def test_the_password_of_the_source_is_kept_nowhere(
    example: str, admin_database: str, admin_pool: asyncpg.Pool
) -> None:
    await execute(
        example, "CREATE ROLE old_reader LOGIN PASSWORD 'geheim'; GRANT SELECT ON file_metadata TO old_reader"
    )
    try:
        scheme, _, rest = example.partition("://")
        url = f"{scheme}://old_reader:geheim@{rest.rpartition('@')[2]}"
        code, out, err = await cli(command(url), admin_database)
        assert code == 1, err
        kept = await admin_pool.fetchval("SELECT source FROM backfills")
        assert kept.endswith("/public.file_metadata")
        assert "geheim" not in f"{kept}{out}{err}"
    finally:
        await execute(example, "DROP OWNED BY old_reader; DROP ROLE old_reader")


async def test_a_source_that_goes_away_leaves_what_was_taken(many: str, admin_engine: AsyncEngine) -> None:
    pages = 0

    def cut(_done: int, _total: int | None, _text: str) -> None:
        nonlocal pages
        pages += 1
        if pages == 3:
            source._connection.terminate()

    async with open_source(many) as source:
        with pytest.raises(SourceError, match="The source cannot be read"):
            await backfill(source, admin_engine, Mapping(), Options(batch=100), cut)
    totals = await run(many, admin_engine)
    assert counts(totals) == (2970, 0, 30)
    assert totals.looked_at == 2_800


def relay_of(pool: asyncpg.Pool, topic: Topic) -> Relay:
    return Relay(pool, partial(ShardPublisher.open, topic.bootstrap_servers, topic.name), Limits(500, 2**20))


async def test_every_taken_file_is_on_the_topic_and_again_after_a_republish_with_a_raised_revision(
    example: str, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool, events_topic: Topic
) -> None:
    async with running(relay_of(admin_pool, events_topic)):
        await run(example, admin_engine)
        await settles(lambda: admin_pool.fetchval("SELECT count(*) FROM outbox"), 0)
        assert revisions(await events_topic.records()) == {str(one): [1] for one in GOOD}
        assert await republish_files(admin_engine, GOOD, "tests") == 8
        await settles(lambda: admin_pool.fetchval("SELECT count(*) FROM outbox"), 0)
    records = await events_topic.records()
    assert revisions(records) == {str(one): [1, 2] for one in GOOD}
    last = {event.file_id: event for event in (Decoder().decode(one.value or b"") for one in records)}
    async with admin_engine.connect() as connection:
        for file_id, event in last.items():
            assert event.event_type is EventType.UPDATED
            assert event.metadata == (await files.get(connection, file_id)).metadata
