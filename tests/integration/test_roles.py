"""Each process works by a role that may do what it needs, and no role may do more."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from consumer_query import generations, rebuild_jobs, sync_reports, vocabulary
from consumer_query.admin_client import AdminClient
from consumer_query.api_process import query_app, search_pool
from consumer_query.dead_letters import TopicDeadLetters
from consumer_query.findings import Outcome
from consumer_query.migrations import run_migrate as migrate_query
from consumer_query.read_model import teach
from consumer_query.rebuild import Rebuilder
from consumer_query.rebuild_jobs import Kind, Phase
from consumer_query.rebuild_worker import RebuildWorker
from consumer_query.roles import ACCESS as QUERY
from consumer_query.search_api import SearchDesk
from consumer_query.settings import MaintenanceSettings, QueryDatabaseSettings
from consumer_query.sync_reports import Compared
from consumer_query.sync_worker import SyncWorker
from consumer_query.tables import METADATA as QUERY_TABLES
from consumer_query.topic_side import TopicReader
from producer_admin import audit_partitions, backlog
from producer_admin.api_process import admin_app
from producer_admin.audit_partitions import keep_partitions
from producer_admin.migrations import run_migrate as migrate_admin
from producer_admin.requeue import requeue
from producer_admin.roles import ACCESS as ADMIN
from producer_admin.saga_recovery import recover
from producer_admin.saga_steps import Means
from producer_admin.settings import AdminDatabaseSettings
from producer_admin.sweeper import Keeping, sweep
from producer_admin.tables import METADATA as ADMIN_TABLES
from runtime import roles
from runtime.postgres import UnreachableError, open_pool
from runtime.roles import Access, Login, RolesError, logins, run_roles, scram
from schemas.topics import DEAD_LETTERS, topic_name
from tests.conftest import Templates, execute
from tests.integration.conftest import LIMITS, Running, Topic, dead_letters, produce
from tests.integration.test_backfill import relay_of
from tests.integration.test_rebuild import ask, ended
from tests.running import running, served
from tests.waiting import eventually, settles

PASSWORD = "test"
Urls = Mapping[str, str]
"""By the role's word."""


def quiet(_: str) -> None: ...


def user_of(role: str) -> str:
    return f"{role}_user"


def as_user(url: str, user: str) -> str:
    return re.sub("//[^@]*@", f"//{user}:{PASSWORD}@", url)


@pytest.fixture(scope="module")
def passwords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("passwords")
    for role in (*ADMIN.roles.values(), *QUERY.roles.values()):
        (folder / user_of(role)).write_text(f"{PASSWORD}\n")
    return folder


async def by_role(url: str, access: Access, passwords: Path) -> Urls:
    """Make the roles, and a user of each."""
    asked = [f"{word}={user_of(role)}" for word, role in access.roles.items()]
    await run_roles(url, access, asked, passwords, quiet, dry_run=False)
    return {word: as_user(url, user_of(role)) for word, role in access.roles.items()}


@pytest.fixture
async def admin_urls(templates: Templates, passwords: Path) -> AsyncIterator[Urls]:
    name = await templates.copy("admin")
    yield await by_role(templates.backend.url(name), ADMIN, passwords)
    await execute(templates.backend.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def query_urls(templates: Templates, passwords: Path) -> AsyncIterator[Urls]:
    name = await templates.copy("query")
    yield await by_role(templates.backend.url(name), QUERY, passwords)
    await execute(templates.backend.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def admin_database(admin_urls: Urls) -> str:
    """Of what the other fixtures make: API, relay, and repairs."""
    return admin_urls["write"]


@pytest.fixture
def query_database(query_urls: Urls) -> str:
    """Of what the other fixtures make: projector and API."""
    return query_urls["write"]


@pytest.fixture
async def maintaining(query_urls: Urls) -> AsyncIterator[asyncpg.Pool]:
    async with await open_pool(query_urls["maintain"], "tests", init=teach) as pool:
        yield pool


@pytest.fixture
async def query(query_pool: asyncpg.Pool, query_urls: Urls) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the Query API, whose searches are by a role of their own."""
    async with search_pool(query_urls["read"], 5) as searching:
        app = query_app(query_pool, search=SearchDesk(query_pool, searching, 5, ""))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://query/api/v1") as client:
            yield client


@asynccontextmanager
async def maintenance(
    pool: asyncpg.Pool, url: str, settings: MaintenanceSettings, admin: AdminClient
) -> AsyncIterator[None]:
    """Rebuilds and comparisons, as their process has them."""
    own = settings.model_copy(update={"query_database_url": SecretStr(url)})
    letters = TopicDeadLetters(own.brokers, topic_name(DEAD_LETTERS, own.file_events_topic))
    rebuilder = Rebuilder(own, pool, letters, None)
    reader = TopicReader(own.brokers, own.file_events_topic, None)
    try:
        async with (
            running(RebuildWorker(rebuilder, pool, timedelta(hours=1))),
            running(SyncWorker(pool, admin, reader, None)),
        ):
            yield
    finally:
        await letters.close()


async def found(client: httpx.AsyncClient, path: str, /, **parameters: Any) -> Any:
    answer = await client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def names(query: httpx.AsyncClient, words: str) -> list[str]:
    hits = (await found(query, "/files/search", query=words))["results"]
    return sorted(hit["original_filename"] for hit in hits)


async def test_every_change_of_a_file_its_sagas_and_their_sweeping_need_no_more_than_writing(
    admin: httpx.AsyncClient, means: Means, admin_pool: asyncpg.Pool, events_topic: Topic
) -> None:
    first, again = [
        await admin.post("/upload", files={"file": ("a.txt", b"content")}, headers={"Idempotency-Key": "one"})
        for _ in range(2)
    ]
    assert (first.status_code, again.json()) == (201, first.json())
    file_id = first.json()["file_id"]
    assert (await admin.patch(f"/{file_id}", json={"description": "new"})).status_code == 200
    short = await admin.post(
        "/upload", files={"file": ("b.txt", b"x")}, data={"retention_expires_at": "2100-01-01T00:00:00Z"}
    )
    await admin_pool.execute(
        "UPDATE files SET retention_expires_at = now() WHERE file_id = $1", short.json()["file_id"]
    )
    assert await sweep(means, Keeping(60, 0, 0)) == 1
    assert await recover(means) == 0
    assert (await admin.delete(f"/{file_id}")).status_code == 204
    with capture_logs() as said:
        assert await keep_partitions(admin_pool, 30)
        async with running(relay_of(admin_pool, events_topic)):
            await settles(lambda: admin_pool.fetchval("SELECT count(*) FROM outbox"), 0)
    assert [one for one in said if one["log_level"] in ("warning", "error")] == []
    async with admin_pool.acquire() as connection:
        assert (await requeue(connection, [UUID(file_id)])).requeued == 1
        assert (await backlog.stats(connection)).waiting == 1


async def test_the_audit_log_can_be_added_to_and_its_old_days_dropped_and_nothing_of_it_changed(
    admin_pool: asyncpg.Pool, admin_urls: Urls
) -> None:
    today: date = await admin_pool.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    old = today - timedelta(40)
    await execute(
        admin_urls["migrate"],
        f"SET ROLE artstore_admin_migrate; CREATE TABLE outbox_sent_{old:%Y%m%d} "
        f"PARTITION OF outbox_sent FOR VALUES FROM ('{old}Z') TO ('{old + timedelta(1)}Z')",
    )
    assert await keep_partitions(admin_pool, 30)
    days = {row["relname"] for row in await admin_pool.fetch(audit_partitions.PARTITIONS)}
    assert days == {f"outbox_sent_{today + timedelta(number):%Y%m%d}" for number in range(8)}
    for statement, argument in (
        (audit_partitions.DROP, today),
        (audit_partitions.DROP, today - timedelta(1)),
        (audit_partitions.ADD, today + timedelta(400)),
    ):
        with pytest.raises(asyncpg.RaiseError):
            await admin_pool.execute(statement, argument)
    with pytest.raises(asyncpg.RaiseError, match="too young"):
        await admin_pool.fetchval("SELECT outbox_sent_thin_default(now(), 10)")


async def test_a_file_is_applied_rebuilt_compared_counted_and_found_by_a_role_for_each(
    means: Means,
    admin: httpx.AsyncClient,
    admin_engine: AsyncEngine,
    admin_pool: asyncpg.Pool,
    query: httpx.AsyncClient,
    query_pool: asyncpg.Pool,
    query_urls: Urls,
    maintaining: asyncpg.Pool,
    events_topic: Topic,
    running_projector: Running,
    settings: MaintenanceSettings,
) -> None:
    file_id = (await admin.post("/upload", files={"file": ("Отчёт.pdf", b"x")})).json()["file_id"]
    await produce(events_topic, uuid4(), b"rubbish", [])
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(served(admin_app(means, admin_engine, LIMITS)))
        client = AdminClient(url)
        stack.push_async_callback(client.close)
        await stack.enter_async_context(running(relay_of(admin_pool, events_topic)))
        said = stack.enter_context(capture_logs())
        await stack.enter_async_context(running_projector())
        await stack.enter_async_context(maintenance(maintaining, query_urls["maintain"], settings, client))
        await settles(partial(names, query, "отчёты"), ["Отчёт.pdf"])
        await eventually(lambda: dead_letters(events_topic))

        assert (await query.post("/admin/rebuild", json={"reason": "a test"})).status_code == 202
        [job] = await rebuild_jobs.newest(query_pool, 1)
        assert (await ended(query_pool, job)).phase == Phase.SWAPPED
        assert await generations.live(query_pool) == 2
        later = (await admin.post("/upload", files={"file": ("Позже.pdf", b"x")})).json()
        waited = await found(query, f"/files/{later['file_id']}", at_least=1, wait="20s")
        assert waited["original_filename"] == "Позже.pdf"
        assert await names(query, "pdf") == ["Отчёт.pdf", "Позже.pdf"]

        counted = await vocabulary.refresh(maintaining, 2)
        assert counted is not None
        assert counted.files == 2
        assert (await found(query, "/files/search", query="очтёт", facets=True))["corrected_to"] == "отчет"
        assert (await found(query, "/files/suggest", query="отч"))["names"]
        export = await query.get("/files/search/export", params={"query": "pdf", "format": "ndjson"})
        assert (export.status_code, len(export.text.splitlines())) == (200, 2)

        for side in Compared:
            asked = await sync_reports.request(query_pool, side, "tests", dry_run=False)
            await eventually(partial(over, query_pool, asked.report_id), 60)
            assert (await sync_reports.get(query_pool, asked.report_id)).outcome == Outcome.EQUAL

        back = await ended(query_pool, await ask(query_pool, Kind.ROLLBACK))
        assert (back.phase, back.trouble) == (Phase.SWAPPED, None)
        assert (await query.delete("/admin/rebuild/previous")).status_code == 200
        assert await names(query, "pdf") == ["Отчёт.pdf", "Позже.pdf"]
        assert await generations.previous(query_pool) is None
        assert (await found(query, f"/files/{file_id}/trace"))["file_id"] == file_id
        # What empties the pending list gives up with a warning where it may not.
        assert [one for one in said if "pending list" in one["event"]] == []


async def over(pool: asyncpg.Pool, report_id: UUID) -> bool:
    return (await sync_reports.get(pool, report_id)).finished_at is not None


ADMIN_REFUSED = (
    "CREATE TABLE mine ()",
    "CREATE TEMPORARY TABLE mine ()",
    "ALTER TABLE files ADD COLUMN mine text",
    "DROP TABLE outbox",
    "TRUNCATE files",
    "DELETE FROM files",
    "UPDATE outbox SET revision = 1",
    "UPDATE outbox_sent SET revision = 1",
    "DELETE FROM outbox_sent",
    "DELETE FROM outbox_sent_default",
    "DELETE FROM admin_actions",
    "UPDATE alembic_version SET version_num = '0001'",
    "SET ROLE artstore_admin_migrate",
)
QUERY_REFUSED = (
    ("read", "INSERT INTO query_lexemes VALUES ('a', 1)"),
    ("read", "UPDATE file_metadata_cache SET description = 'mine'"),
    ("read", "SELECT FROM file_metadata_cache_g1"),
    ("read", "SELECT FROM rebuild_jobs"),
    ("read", "SELECT FROM generations"),
    ("read", "DELETE FROM projector_positions"),
    ("read", "SELECT FROM cache_generation FOR SHARE"),
    ("read", "SELECT empty_pending_list('file_metadata_cache_g1_search')"),
    ("read", "SELECT drop_generation(1)"),
    ("read", "CREATE TEMPORARY TABLE mine ()"),
    ("write", "CREATE TABLE mine ()"),
    ("write", "CREATE TEMPORARY TABLE mine ()"),
    ("write", "CREATE OR REPLACE VIEW file_metadata_cache AS SELECT 1"),
    ("write", "DROP TABLE file_metadata_cache_g1"),
    ("write", "TRUNCATE file_metadata_cache_g1"),
    ("write", "DELETE FROM file_metadata_cache_g1"),
    ("write", "UPDATE cache_generation SET live = 2"),
    ("write", "DELETE FROM projector_positions"),
    ("write", "UPDATE search_secret SET key = key"),
    ("write", "DELETE FROM sync_reports"),
    ("write", "SET ROLE artstore_query_maintain"),
    ("maintain", "SELECT FROM search_secret"),
    ("maintain", "DROP TABLE rebuild_jobs"),
    ("maintain", "ALTER TABLE cache_generation ADD COLUMN mine text"),
    ("maintain", "INSERT INTO rebuild_jobs DEFAULT VALUES"),
    ("migrate", "SELECT FROM file_metadata_cache"),
)


async def test_what_a_role_does_not_need_it_is_refused(admin_urls: Urls, query_urls: Urls) -> None:
    refused = [(admin_urls["write"], one) for one in ADMIN_REFUSED] + [
        (query_urls[word], one) for word, one in QUERY_REFUSED
    ]
    allowed = []
    for url, statement in refused:
        try:
            await execute(url, statement)
        except asyncpg.InsufficientPrivilegeError:
            continue
        allowed.append((url, statement))
    assert allowed == []
    with pytest.raises(asyncpg.RaiseError, match="generation 1 is live"):
        await execute(query_urls["write"], "SELECT drop_generation(1)")


async def test_no_role_gets_into_the_other_database(admin_urls: Urls, query_urls: Urls) -> None:
    for urls, other in ((admin_urls, query_urls), (query_urls, admin_urls)):
        name = other["write"].rpartition("/")[2]
        for url in urls.values():
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
                await asyncpg.connect(f"{url.rpartition('/')[0]}/{name}")
    with pytest.raises(UnreachableError, match="InsufficientPrivilegeError: permission denied for database"):
        await migrate_both(query_urls["migrate"].rpartition("/")[0] + "/" + admin_urls["write"].rpartition("/")[2], "")


async def granted(url: str) -> list[tuple[Any, ...]]:
    """Who owns what, and who may do what with it."""
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(GRANTED)]
    finally:
        await connection.close()


GRANTED = """
SELECT relname AS name, relowner::regrole::text AS owner, (SELECT array_agg(one::text ORDER BY one::text)
    FROM unnest(relacl) AS one) AS granted, (SELECT array_agg(attname::text || attacl::text) FROM pg_attribute
    WHERE attrelid = pg_class.oid AND attacl IS NOT NULL) AS columns
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'p')
UNION ALL SELECT proname, proowner::regrole::text, (SELECT array_agg(one::text ORDER BY one::text)
    FROM unnest(proacl) AS one), NULL
FROM pg_proc JOIN pg_language ON pg_language.oid = prolang
WHERE pronamespace = 'public'::regnamespace AND lanname <> 'c'
UNION ALL SELECT typname, typowner::regrole::text, (SELECT array_agg(one::text ORDER BY one::text)
    FROM unnest(typacl) AS one), NULL
FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typname IN ('cache_row', 'cache_rows')
ORDER BY 1
"""


@pytest.fixture
async def owned_by_others(templates: Templates) -> AsyncIterator[tuple[str, str]]:
    """URLs of an empty database for each service, whose owner is no superuser, but can make roles."""
    owner, postgres = f"owner_{uuid4().hex[:8]}", templates.backend.url("postgres")
    await execute(postgres, f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD '{PASSWORD}'")
    databases = [f"{owner}_admin", f"{owner}_query"]
    for one in databases:
        await execute(
            postgres,
            f"CREATE DATABASE {one} OWNER {owner} TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
        )
    admin, query = (as_user(templates.backend.url(one), owner) for one in databases)
    yield admin, query
    for one in databases:
        await execute(postgres, f"DROP DATABASE {one} WITH (FORCE)")


async def migrate_both(admin: str, query: str) -> None:
    await migrate_admin(AdminDatabaseSettings(admin_database_url=SecretStr(admin)))
    await migrate_query(QueryDatabaseSettings(query_database_url=SecretStr(query)))


async def test_roles_may_be_made_before_the_tables_and_by_who_is_no_superuser(
    owned_by_others: tuple[str, str], passwords: Path, templates: Templates, admin_urls: Urls, query_urls: Urls
) -> None:
    # Whoever makes a role may grant it; here they are there for other databases already.
    there = [*ADMIN.roles.values(), *QUERY.roles.values()]
    owner = owned_by_others[0].rpartition("/")[2].removesuffix("_admin")
    await execute(
        templates.backend.url("postgres"),
        f"GRANT {', '.join(there + list(map(user_of, there)))} TO {owner} WITH ADMIN OPTION",
    )
    admin, query = [
        await by_role(url, access, passwords) for url, access in zip(owned_by_others, (ADMIN, QUERY), strict=True)
    ]
    await migrate_both(admin["migrate"], query["migrate"])
    for first, then in ((admin, admin_urls), (query, query_urls)):
        expected = await granted(then["migrate"])
        assert await granted(first["migrate"]) == expected
    # A table of tomorrow's migration is in nobody's list yet, and a generation of tomorrow's rebuild in everybody's.
    async with await open_pool(query["maintain"], "tests") as pool, pool.acquire() as one, one.transaction():
        assert await generations.make(one) == 2
    await execute(
        query["write"],
        "INSERT INTO file_metadata_cache_g2 (file_id, revision, deleted) VALUES (gen_random_uuid(), 1, false)",
    )


async def test_roles_may_be_made_of_a_deployment_that_runs_and_its_owner_goes_on(
    owned_by_others: tuple[str, str], templates: Templates, admin_urls: Urls, query_urls: Urls
) -> None:
    postgres = templates.backend.url("")[:-1]
    await migrate_both(*owned_by_others)
    said: list[str] = []
    for url, access in zip(owned_by_others, (ADMIN, QUERY), strict=True):
        before = await granted(url)
        as_superuser = f"{postgres}/{url.rpartition('/')[2]}"
        await run_roles(as_superuser, access, [], None, said.append, dry_run=True)
        assert await granted(url) == before
        await run_roles(as_superuser, access, [], None, quiet, dry_run=False)
        once = await granted(url)
        await run_roles(as_superuser, access, [], None, quiet, dry_run=False)
        assert await granted(url) == once
    assert "ALTER TABLE files OWNER TO artstore_admin_migrate" in said
    admin, query = owned_by_others
    assert await granted(admin) == await granted(admin_urls["migrate"])
    assert await granted(query) == await granted(query_urls["migrate"])
    await migrate_both(admin, query)
    async with await open_pool(admin, "tests") as pool:
        assert await keep_partitions(pool, 30)
    async with await open_pool(query, "tests") as pool, pool.acquire() as one, one.transaction():
        assert await generations.make(one) == 2
    assert await granted(admin) != []


async def test_tables_that_are_in_use_are_waited_for(templates: Templates) -> None:
    name = await templates.copy("admin")
    url = templates.backend.url(name)
    said: list[str] = []
    holder = await asyncpg.connect(url)
    try:
        holding = holder.transaction()
        await holding.start()
        await holder.execute("SELECT FROM files")

        async def let_go() -> bool:
            return any(line.startswith("--") for line in said)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run_roles(url, ADMIN, [], None, said.append, dry_run=False))
            await eventually(let_go)
            await holding.rollback()
    finally:
        await holder.close()
    assert {one[1] for one in await granted(url)} == {"artstore_admin_migrate"}
    await execute(templates.backend.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


def test_every_table_says_who_may_do_what_with_it() -> None:
    for access, tables in ((ADMIN, ADMIN_TABLES), (QUERY, QUERY_TABLES)):
        assert tables.tables.keys() - access.owners[0].grants.keys() == set()


async def test_a_password_comes_from_a_file_or_the_environment_and_goes_nowhere_as_it_is(
    templates: Templates, tmp_path: Path
) -> None:
    name, user = await templates.copy("admin"), f"app_{uuid4().hex[:8]}"
    url, said = templates.backend.url(name), list[str]()
    (tmp_path / user).write_text("first\n")
    for folder in (tmp_path, None):
        await run_roles(url, ADMIN, [f"write={user}"], folder, said.append, dry_run=False)
    connection = await asyncpg.connect(url)
    try:
        kept = await connection.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", user)
    finally:
        await connection.close()
    assert str(kept).startswith("SCRAM-SHA-256$4096:")
    assert [line for line in said if "first" in line or str(kept) in line] == []
    assert f"CREATE ROLE \"{user}\" LOGIN PASSWORD '…'" in said
    with pytest.raises(RolesError, match="is a superuser"):
        await run_roles(url, ADMIN, ["write=postgres"], None, quiet, dry_run=False)
    await execute(templates.backend.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


def test_users_are_refused_that_are_of_no_role_and_passwords_that_clients_would_write_otherwise(tmp_path: Path) -> None:
    assert logins(ADMIN, ["write=app-1"], None, {"APP_1_PASSWORD": "x"}) == [
        Login("app-1", "artstore_admin_write", "x")
    ]
    assert logins(ADMIN, ["migrate=b"], tmp_path, {}) == [Login("b", "artstore_admin_migrate", None)]
    for asked in ("read=app", "write", "write=", 'write=a"b', "write=artstore_admin_migrate"):
        with pytest.raises(RolesError, match="--login takes ROLE=USER, with a role of migrate, write"):
            logins(ADMIN, [asked], None, {})
    for password in ("", "пароль", "a\tb"):
        with pytest.raises(RolesError, match="The password of app"):
            logins(ADMIN, ["write=app"], None, {"APP_PASSWORD": password})
    assert scram("x") != scram("x")
    sent = [statement for statement, _ in roles._steps(Login("app", "artstore_admin_write", "secret"), {})]
    assert [one for one in sent if "secret" in one] == []
