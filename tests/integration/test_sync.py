"""Cache and truth compared and made equal: a real Admin API, relay, broker and projector, in this process."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from consumer_query import doubts, sync_reports
from consumer_query.admin_client import AdminClient, AdminSide
from consumer_query.api_process import query_app
from consumer_query.confirm import IN_OUTBOX, Patience
from consumer_query.errors import AdminAwayError, CannotCompareError
from consumer_query.findings import Findings, Outcome
from consumer_query.full_sync import MOST_DELETIONS, Order, Parties, full_sync
from consumer_query.generations import table_name
from consumer_query.guards import Doubt, Reason
from consumer_query.reconcile import Class
from consumer_query.sides import CacheSide
from consumer_query.sync_reports import Compared, SyncRunsError
from consumer_query.sync_worker import SyncWorker
from consumer_query.topic_side import TopicReader
from producer_admin import files
from producer_admin.api_process import admin_app
from producer_admin.files import FileRecord
from producer_admin.saga_steps import Means
from schemas.digests import FIRST_ID, LAST_ID
from tests.integration.conftest import LIMITS, Running, Topic, cached
from tests.integration.test_backfill import relay_of
from tests.planted import plant
from tests.running import running, served
from tests.samples import metadata
from tests.waiting import eventually, settles

HASTY = Patience(still_seconds=1.0, look_again_seconds=0.02)
PATIENT = Patience(look_again_seconds=0.02)
TABLE = table_name(1)


@dataclass
class Sides:
    """Truth and cache, with or without what joins them."""

    engine: AsyncEngine
    admin_pool: asyncpg.Pool
    pool: asyncpg.Pool
    topic: Topic
    url: str
    projector: Running

    async def add(self, count: int) -> list[UUID]:
        """Files in the Admin module, each with a description of its own."""
        records = [
            FileRecord(uuid4(), 1, "se-01", metadata(description=f"file {number}", tags=("a", str(number))))
            for number in range(count)
        ]
        async with self.engine.begin() as connection:
            await files.take_over(connection, records, "tests")
        return [one.file_id for one in records]

    async def change(self, *file_ids: UUID) -> None:
        async with self.engine.begin() as connection:
            for one in file_ids:
                await files.change(connection, one, {"description": f"changed {uuid4()}"}, "tests")

    async def delete(self, *file_ids: UUID) -> None:
        async with self.engine.begin() as connection:
            for one in file_ids:
                await files.delete(connection, one, "tests")

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[None]:
        """With a relay and a projector."""
        async with running(relay_of(self.admin_pool, self.topic)), self.projector():
            yield

    async def truth(self) -> dict[UUID, int]:
        rows = await self.admin_pool.fetch("SELECT file_id, revision FROM files WHERE deleted_at IS NULL")
        return {row["file_id"]: row["revision"] for row in rows}

    async def are_equal(self, seconds: float = 30) -> None:
        """What search can see is the truth, content too."""
        await settles(self._differences, [], seconds)

    async def _differences(self) -> list[Any]:
        columns = (
            "file_id, revision, storage_element_id, original_filename, storage_filename, file_size, mime_type, "
            "created_at, updated_at, created_by_username, created_by_fullname, description, version, tags, "
            "storage_path, checksum, retention_expires_at"
        )
        ours = {tuple(map(str, row)) for row in await self.pool.fetch(f"SELECT {columns} FROM file_metadata_cache")}
        query = f"SELECT {columns} FROM files WHERE deleted_at IS NULL"
        return sorted(ours ^ {tuple(map(str, row)) for row in await self.admin_pool.fetch(query)})

    @asynccontextmanager
    async def parties(self, patience: Patience = PATIENT) -> AsyncIterator[Parties]:
        client = AdminClient(self.url)
        try:
            cache = CacheSide(self.pool, self.topic.name)
            admin = AdminSide(client, await cache.probe())
            yield Parties(cache, admin, client, self.reader.ends, patience)
        finally:
            await client.close()

    async def sync(self, order: Order | None = None, patience: Patience = PATIENT) -> Findings:
        findings = Findings()
        async with self.parties(patience) as parties:
            await full_sync(parties, order or Order(), findings, lambda _: None)
        return findings

    @property
    def reader(self) -> TopicReader:
        return TopicReader(self.topic.bootstrap_servers, self.topic.name, None)


@pytest.fixture
async def sides(
    means: Means,
    admin_engine: AsyncEngine,
    admin_pool: asyncpg.Pool,
    query_pool: asyncpg.Pool,
    events_topic: Topic,
    running_projector: Running,
) -> AsyncIterator[Sides]:
    async with served(admin_app(means, admin_engine, LIMITS)) as url:
        yield Sides(admin_engine, admin_pool, query_pool, events_topic, url, running_projector)


async def test_differences_of_every_class_are_found_and_repaired_under_load_and_nothing_else_is(sides: Sides) -> None:
    fixed, busy, gone = await sides.add(150), await sides.add(100), await sides.add(12)
    async with sides.joined():
        await sides.delete(*gone)
        await sides.change(*fixed[:50])
        await sides.are_equal()
        planted = await plant(sides.pool, fixed, gone, each=12)
        stopping = asyncio.Event()
        load = asyncio.create_task(_load(sides, busy, stopping))
        try:
            dry = await sides.sync(Order(dry_run=True))
            findings = await sides.sync()
            quiet = await sides.sync()
        finally:
            stopping.set()
            changes = await load
        expected = Counter(planted.values())
        assert (dry.found, dry.left, dry.unconfirmed, dry.asked) == (expected, expected, 0, 0)
        assert (findings.found, findings.left, findings.unconfirmed) == (expected, {}, 0)
        assert findings.asked == len(planted)
        assert {one.file_id for some in findings.examples.values() for one in some} <= planted.keys()
        assert (quiet.outcome, quiet.found) == (Outcome.EQUAL, {})
        assert changes > 20, "there was load"
        await sides.are_equal()
    unknown = await sides.admin_pool.fetch("SELECT revision FROM files WHERE original_filename = ''")
    assert [row["revision"] for row in unknown] == [4] * 12, "ids that only the cache knew are remembered as deleted"


async def _load(sides: Sides, busy: list[UUID], stopping: asyncio.Event) -> int:
    """Changes, new files and deletions, one after another."""
    chance, changes = random.Random(5), 0
    while not stopping.is_set():
        await sides.change(*chance.sample(busy, 3))
        busy += await sides.add(2)
        await sides.delete(busy.pop(chance.randrange(len(busy))))
        changes += 6
        await asyncio.sleep(0.01)
    return changes


async def test_equal_sides_cost_one_request(sides: Sides) -> None:
    gone = await sides.add(3)
    await sides.add(300)
    async with sides.joined():
        await sides.delete(*gone)
        await sides.are_equal()
        findings = await sides.sync()
    assert (findings.requests, findings.candidates, findings.outcome) == (1, 0, Outcome.EQUAL)
    assert (findings.query_files, findings.admin_files) == (300, 300)


async def test_what_waits_in_the_outbox_is_no_difference(sides: Sides) -> None:
    known = await sides.add(5)
    async with sides.joined():
        await sides.are_equal()
    await sides.change(known[0])
    await sides.delete(known[1])
    [new] = await sides.add(1)
    findings = await sides.sync(patience=HASTY)
    assert (findings.found, findings.outcome) == ({}, Outcome.UNCONFIRMED)
    assert {one.file_id: one.why for one in findings.unconfirmed_examples} == dict.fromkeys(
        (known[0], known[1], new), IN_OUTBOX
    )
    assert await sides.truth() == {known[0]: 2, **dict.fromkeys(known[2:], 1), new: 1}, "nothing was announced"


async def test_what_the_projector_has_not_come_to_is_no_difference(sides: Sides) -> None:
    known = await sides.add(5)
    async with sides.joined():
        await sides.are_equal()
    async with running(relay_of(sides.admin_pool, sides.topic)):
        await sides.change(*known)
        await settles(lambda: sides.admin_pool.fetchval("SELECT count(*) FROM outbox"), 0)
    findings = await sides.sync(patience=HASTY)
    assert (findings.found, findings.unconfirmed) == ({}, 5)
    assert all("is applied up to" in one.why for one in findings.unconfirmed_examples)


async def test_a_lag_is_waited_for(sides: Sides) -> None:
    known = await sides.add(40)
    await sides.pool.execute("SELECT 1")
    task = asyncio.create_task(sides.sync())
    async with sides.joined():
        findings = await task
    assert (findings.candidates, findings.outcome) == (40, Outcome.EQUAL)
    assert len(known) == 40


async def test_what_the_admin_module_lost_is_deleted_only_by_order(sides: Sides) -> None:
    kept = await sides.add(3)
    async with sides.joined():
        lost = await sides.add(MOST_DELETIONS + 1)
        await sides.are_equal()
        await sides.admin_pool.execute("DELETE FROM files WHERE file_id = ANY($1)", lost)  # restored from a backup
        findings = await sides.sync()
        assert (findings.found, findings.left) == ({Class.GHOST: len(lost)}, {Class.GHOST: len(lost)})
        assert "unknown to the Admin module" in (findings.held_back or "")
        assert (await cached(sides.pool)()).keys() == {*kept, *lost}
        findings = await sides.sync(Order(force=True))
        assert (findings.left, findings.outcome) == ({}, Outcome.REPAIRED)
        assert (await cached(sides.pool)()).keys() == set(kept)


async def test_a_repair_that_did_not_help_is_not_repeated_by_itself(sides: Sides) -> None:
    [bad, _] = await sides.add(2)
    async with sides.joined():
        await sides.are_equal()
        # Whatever is written for this file, another description stands in the cache.
        await sides.pool.execute(
            f"""
            CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN NEW.description := 'spoiled'; RETURN NEW; END $$;
            CREATE TRIGGER spoil BEFORE INSERT OR UPDATE ON {TABLE} FOR EACH ROW
            WHEN (NEW.file_id = '{bad}') EXECUTE FUNCTION spoil();
            UPDATE {TABLE} SET description = '' WHERE file_id = '{bad}'
            """
        )
        first = await sides.sync()
        assert (first.left, first.in_vain) == ({Class.DIFFERS: 1}, {bad: 2})
        second = await sides.sync(Order(in_vain=first.in_vain))
        assert (second.left, second.asked, second.in_vain) == ({Class.DIFFERS: 1}, 0, {bad: 2})
        assert "did not help" in (second.held_back or "")
        await sides.pool.execute(f"DROP TRIGGER spoil ON {TABLE}")
        third = await sides.sync(Order())
        assert (third.left, third.outcome) == ({}, Outcome.REPAIRED)


async def test_revisions_that_nothing_outranks_do_not_keep_the_others_from_being_repaired(sides: Sides) -> None:
    known = await sides.add(3)
    async with sides.joined():
        await sides.are_equal()
        await sides.pool.execute(f"UPDATE {TABLE} SET revision = $2 WHERE file_id = $1", known[0], 2**63 - 1)
        await sides.pool.execute(f"DELETE FROM {TABLE} WHERE file_id = $1", known[1])
        findings = await sides.sync()
    assert findings.found == {Class.MISSING: 1, Class.AHEAD: 1}
    assert (findings.left, findings.asked) == ({Class.AHEAD: 1}, 1)
    assert "rebuild the cache" in (findings.held_back or "")


async def test_databases_that_hash_differently_are_not_compared(sides: Sides) -> None:
    async with sides.parties() as parties:
        foreign = replace(parties, admin=AdminSide(parties.client, 7))
        with pytest.raises(CannotCompareError, match="same major version"):
            await full_sync(foreign, Order(), Findings(), lambda _: None)


async def test_an_admin_module_that_is_away_is_told() -> None:
    client = AdminClient("http://127.0.0.1:1")
    try:
        with pytest.raises(AdminAwayError, match="does not answer"):
            await AdminSide(client, 0).states([uuid4()])
    finally:
        await client.close()


async def test_the_admin_side_tells_files_as_they_are(sides: Sides) -> None:
    known = sorted(await sides.add(4))
    unknown = uuid4()
    await sides.admin_pool.execute("DELETE FROM outbox")
    await sides.delete(known[1])
    async with httpx.AsyncClient(base_url=f"{sides.url}/api/v1/admin/sync", trust_env=False) as client:
        asked = {"file_ids": [str(one) for one in (*known, unknown, known[0])]}
        answer = (await client.post("/files", json=asked)).raise_for_status().json()
        told = {UUID(one["file_id"]): one for one in answer["files"]}
        assert told.keys() == {*known, unknown}
        assert [
            (told[one]["revision"], told[one]["deleted"], told[one]["digest"] is None, told[one]["waiting"])
            for one in (known[0], known[1], unknown)
        ] == [(1, False, False, False), (2, True, True, True), (None, False, True, False)]
        everything = [{"first": str(FIRST_ID), "last": str(LAST_ID)}]
        listed = (await client.post("/files", json={"ranges": everything})).raise_for_status().json()
        assert [UUID(one["file_id"]) for one in listed["files"]] == [known[0], known[2], known[3]]
        assert {one["file_id"]: one["digest"] for one in listed["files"]}.items() <= {
            str(one): told[one]["digest"] for one in known
        }.items()
        asked_sums = {"spans": [{"first": str(FIRST_ID), "last": str(LAST_ID), "cuts": [str(known[2])]}]}
        sums = (await client.post("/digests", json=asked_sums)).raise_for_status().json()
        assert sums["spans"] == [
            [
                {"files": 1, "digest": told[known[0]]["digest"]},
                {"files": 2, "digest": str(sum(int(told[one]["digest"]) for one in known[2:]))},
            ]
        ]
        assert answer["probe"] == sums["probe"] == listed["probe"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("files", {}),
        ("files", {"file_ids": [], "ranges": None}),
        ("files", {"file_ids": [str(FIRST_ID)], "ranges": [{"first": str(FIRST_ID), "last": str(LAST_ID)}]}),
        ("files", {"ranges": [{"first": str(LAST_ID), "last": str(FIRST_ID)}]}),
        ("files", {"ranges": [{"first": str(FIRST_ID), "last": str(LAST_ID)}] * 2}),
        ("files", {"file_ids": [str(FIRST_ID)] * 5_001}),
        ("digests", {"spans": []}),
        ("digests", {"spans": [{"first": str(FIRST_ID), "last": str(LAST_ID), "cuts": [str(FIRST_ID)]}]}),
        ("digests", {"spans": [{"first": str(FIRST_ID), "last": str(FIRST_ID), "cuts": [str(LAST_ID)]}]}),
    ],
)
async def test_questions_that_make_no_sense_are_refused(sides: Sides, path: str, body: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=f"{sides.url}/api/v1/admin/sync", trust_env=False) as client:
        answer = await client.post(f"/{path}", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


async def test_where_topic_and_truth_differ_is_told_and_nothing_is_changed(sides: Sides) -> None:
    known = await sides.add(60)
    async with running(relay_of(sides.admin_pool, sides.topic)):
        await sides.change(*known[:10])
        await sides.delete(*known[10:15])
        await settles(lambda: sides.admin_pool.fetchval("SELECT count(*) FROM outbox"), 0)
    changes = {
        Class.STALE: ("UPDATE files SET revision = revision + 1 WHERE file_id = $1", known[20]),
        Class.AHEAD: ("UPDATE files SET revision = revision - 1 WHERE file_id = $1", known[0]),
        Class.DIFFERS: ("UPDATE files SET description = 'x' WHERE file_id = $1", known[21]),
        Class.GHOST: ("DELETE FROM files WHERE file_id = $1", known[22]),
        Class.MISSING: ("UPDATE files SET deleted_at = NULL WHERE file_id = $1", known[10]),
    }
    for statement, file_id in changes.values():
        await sides.admin_pool.execute(statement, file_id)
    ended = await _one(sides, Compared.TOPIC)
    assert ended.findings is not None
    assert (ended.outcome, ended.findings.found) == (Outcome.DIFFERENT, dict.fromkeys(changes, 1))
    assert {kind: one.file_id for kind, [one] in ended.findings.examples.items()} == {
        kind: file_id for kind, (_, file_id) in changes.items()
    }
    assert (ended.findings.query_files, ended.findings.unreadable) == (55, 0)
    assert await sides.admin_pool.fetchval("SELECT count(*) FROM outbox") == 0
    assert await sides.pool.fetchval(f"SELECT count(*) FROM {TABLE}") == 0


async def test_a_topic_that_is_written_to_meanwhile_is_read_on(sides: Sides) -> None:
    known = await sides.add(30)
    stopping = asyncio.Event()
    async with running(relay_of(sides.admin_pool, sides.topic)):
        load = asyncio.create_task(_load(sides, known, stopping))
        try:
            ended = await _one(sides, Compared.TOPIC)
        finally:
            stopping.set()
            await load
    assert (ended.outcome, ended.findings and ended.findings.found) == (Outcome.EQUAL, {})


async def _one(sides: Sides, side: Compared, **how: Any) -> sync_reports.Report:
    """Ask a worker for a comparison, and wait for its end."""
    asked = await sync_reports.request(sides.pool, side, "tests", dry_run=False, **how)
    client = AdminClient(sides.url)
    try:
        async with running(_worker(sides, client)):
            return await eventually(lambda: _ended(sides, asked.report_id), 60)
    finally:
        await client.close()


def _worker(sides: Sides, client: AdminClient | None, interval: timedelta | None = None) -> SyncWorker:
    return SyncWorker(sides.pool, client, sides.reader, interval, PATIENT, first_seconds=0)


async def _ended(sides: Sides, report_id: UUID) -> Any:
    report = await sync_reports.get(sides.pool, report_id)
    return report if report.outcome is not None else None


async def test_one_comparison_at_a_time_and_a_report_of_each(sides: Sides) -> None:
    app = query_app(sides.pool)
    async with AsyncExitStack() as opened:
        url = await opened.enter_async_context(served(app))
        client = await opened.enter_async_context(
            httpx.AsyncClient(base_url=f"{url}/api/v1/admin/sync", trust_env=False)
        )
        accepted = await client.post("/full", json={"dry_run": True}, headers={"X-Actor": "operator"})
        assert accepted.status_code == 202
        place = accepted.headers["location"]
        assert (await client.post("/full")).status_code == 409
        assert (await client.post("/topic")).status_code == 409
        assert (await client.get(f"{url}{place}")).json()["outcome"] is None
        admin = AdminClient(sides.url)
        opened.push_async_callback(admin.close)
        await opened.enter_async_context(running(_worker(sides, admin)))

        async def outcome() -> Any:
            return (await client.get(f"{url}{place}")).json()["outcome"]

        assert await eventually(outcome) == "equal"
        report = (await client.get(f"{url}{place}")).json()
        assert (report["requested_by"], report["dry_run"], report["attended"]) == ("operator", True, False)
        assert [one["report_id"] for one in (await client.get("/reports")).json()["reports"]] == [report["report_id"]]
        assert (await client.get(f"/reports/{uuid4()}")).status_code == 404
        assert (await client.post("/full", json={"dry": True})).status_code == 422
        assert (await client.post("/full")).status_code == 202


async def test_a_comparison_whose_worker_died_is_taken_up_by_another(sides: Sides) -> None:
    asked = await sync_reports.request(sides.pool, Compared.CACHE, "tests", dry_run=False)
    claimed = await sync_reports.claim(sides.pool)
    assert claimed is not None
    _, token = claimed
    assert await sync_reports.claim(sides.pool) is None, "it has a worker"
    await sides.pool.execute("UPDATE sync_reports SET leased_until = clock_timestamp() - interval '1 ms'")
    client = AdminClient(sides.url)
    async with running(_worker(sides, client)):
        ended = await eventually(lambda: _ended(sides, asked.report_id))
    await client.close()
    assert (ended.outcome, ended.starts) == (Outcome.EQUAL, 2)
    with pytest.raises(sync_reports.ReportLostError):
        await sync_reports.finish(sides.pool, asked.report_id, token, Outcome.FAILED, "too late", Findings())
    assert (await sync_reports.get(sides.pool, asked.report_id)).outcome is Outcome.EQUAL


async def test_a_worker_that_is_told_to_stop_gives_back_what_it_has_in_hand(sides: Sides) -> None:
    await sides.add(1)  # waits in the outbox, so the comparison does not end
    asked = await sync_reports.request(sides.pool, Compared.CACHE, "tests", dry_run=False)
    client = AdminClient(sides.url)

    async def is_at_work() -> bool:
        report = await sync_reports.get(sides.pool, asked.report_id)
        return report.attended and "on its way" in report.stage

    async with running(_worker(sides, client)):
        await eventually(is_at_work)
    report = await sync_reports.get(sides.pool, asked.report_id)
    assert (report.attended, report.outcome, report.stage) == (False, None, "queued")
    async with sides.joined(), running(_worker(sides, client)):
        ended = await eventually(lambda: _ended(sides, asked.report_id))
    await client.close()
    assert ended.outcome is Outcome.EQUAL


async def test_a_comparison_that_leaves_no_difference_dispels_what_was_doubted_before(sides: Sides) -> None:
    client = AdminClient(sides.url)
    shape = Doubt(Reason.OTHER_SHAPE, "")
    async with sides.pool.acquire() as connection:
        await doubts.note(connection, 1, [Doubt(Reason.AWAY_TOO_LONG, ""), Doubt(Reason.ANOTHER_LOG, ""), shape])
    asked = await sync_reports.request(sides.pool, Compared.CACHE, "tests", dry_run=False)
    async with running(_worker(sides, client)):
        await eventually(lambda: _ended(sides, asked.report_id))
        await settles(lambda: _doubted(sides), [Reason.OTHER_SHAPE])
    await client.close()


async def _doubted(sides: Sides) -> list[Reason]:
    return [one.reason for one in await doubts.of(sides.pool, 1)]


async def test_one_is_asked_for_by_itself_each_interval(sides: Sides) -> None:
    client = AdminClient(sides.url)

    async def reports() -> Any:
        found = await sync_reports.newest(sides.pool, 10)
        return found if found and all(one.outcome for one in found) else None

    async with running(_worker(sides, client, timedelta(hours=1))), running(_worker(sides, client, timedelta(hours=1))):
        [report] = await eventually(reports)
        assert (report.requested_by, report.outcome) == ("schedule", Outcome.EQUAL)
        assert not await sync_reports.request_due(sides.pool, "tests", timedelta(hours=1))
        await sides.pool.execute("UPDATE sync_reports SET requested_at = requested_at - interval '61 minutes'")
        assert await sync_reports.request_due(sides.pool, "tests", timedelta(hours=1))
    await client.close()


async def test_a_failure_is_reported_with_its_reason(sides: Sides) -> None:
    nowhere = AdminClient("http://127.0.0.1:1")
    for client, reason in ((None, "ADMIN_API_URL"), (nowhere, "The Admin API does not answer")):
        asked = await sync_reports.request(sides.pool, Compared.CACHE, "tests", dry_run=False)
        with pytest.raises(SyncRunsError):
            await sync_reports.request(sides.pool, Compared.TOPIC, "tests", dry_run=True)
        async with running(_worker(sides, client)):
            ended = await eventually(lambda asked=asked: _ended(sides, asked.report_id))  # type: ignore[misc]
        assert (ended.outcome, reason in (ended.trouble or "")) == (Outcome.FAILED, True)
    await nowhere.close()
