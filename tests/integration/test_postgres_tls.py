"""Postgres over TLS: migrations, processes and searches go through it, and what it does not vouch for is refused.

By name, as root: pytest -m soak tests/integration/test_postgres_tls.py
"""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from consumer_query.roles import ACCESS as QUERY
from local.ports import free_ports
from producer_admin.roles import ACCESS as ADMIN
from tests.backends import Backend
from tests.conftest import execute
from tests.gate import gate
from tests.integration.conftest import Topic, group_name
from tests.integration.test_starting import START_SECONDS, World
from tests.running import run_verb
from tests.secure_kafka import Authority
from tests.tls_postgres import TlsPostgres, tls_postgres
from tests.waiting import eventually, settles

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
DATABASES = {"admin": "artstore_admin", "query": "artstore_query"}
MODULES = {"admin": "producer_admin", "query": "consumer_query"}
OWNER = "dba"
ROLES = {
    "admin-api": {"ADMIN_DATABASE_URL": "admin_write"},
    "admin-relay": {"ADMIN_DATABASE_URL": "admin_write"},
    "query-api": {"QUERY_DATABASE_URL": "query_write", "QUERY_SEARCH_DATABASE_URL": "query_read"},
    "query-projector": {"QUERY_DATABASE_URL": "query_write"},
    "query-maintenance": {"QUERY_DATABASE_URL": "query_maintain"},
}


def password(user: str) -> str:
    return f"of-{user}"


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TlsPostgres]:
    """Its databases belong to one who is no superuser, and have roles and tables."""
    folder = tmp_path_factory.mktemp("tls")
    async with tls_postgres(folder) as made:
        postgres = made.url("postgres")
        await execute(postgres, f"CREATE ROLE {OWNER} LOGIN CREATEROLE PASSWORD '{password(OWNER)}'")
        for side, database in DATABASES.items():
            await execute(
                postgres,
                f"CREATE DATABASE {database} OWNER {OWNER} "
                "TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
            )
            words = (ADMIN if side == "admin" else QUERY).roles
            secrets = {f"{side}_{word}": password(f"{side}_{word}") for word in words}
            asked = [part for word in words for part in ("--login", f"{word}={side}_{word}")]
            variables = {f"{user.upper()}_PASSWORD": secret for user, secret in secrets.items()}
            await done(side, "roles", *asked, url=made.url(database, OWNER, password(OWNER)), **variables)
            await done(side, "migrate", url=as_user(made, f"{side}_migrate"))
        yield made


def as_user(server: TlsPostgres, user: str, **parameters: str) -> str:
    return server.url(DATABASES[user.partition("_")[0]], user, password(user), **parameters)


async def verb(side: str, *arguments: str, url: str, **variables: str) -> tuple[int, str, str]:
    variables |= {f"{side.upper()}_DATABASE_URL": url, "LOG_FORMAT": "json"}
    return await run_verb((sys.executable, "-P", "-m", MODULES[side], *arguments), **variables)


async def done(side: str, *arguments: str, url: str, **variables: str) -> None:
    code, out, err = await verb(side, *arguments, url=url, **variables)
    assert code == 0, err
    assert not [secret for secret in variables.values() if secret in out + err]


@pytest.fixture
async def world(backend: Backend, events_topic: Topic, storage_folder: Path, tmp_path: Path) -> AsyncIterator[World]:
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": backend.bootstrap_servers,
        "FILE_EVENTS_TOPIC": events_topic.name,
        "KAFKA_CONSUMER_GROUP": group_name(),
        "STORAGE_ELEMENT_URL": storage_folder.as_uri(),
        "LOG_FORMAT": "json",
    }
    async with gate(backend.bootstrap_servers) as unused:
        yield World(unused, unused, environment, tmp_path)


async def test_a_file_goes_from_an_upload_to_a_search_and_a_rebuild_over_tls_by_a_role_for_each_process(
    server: TlsPostgres, world: World
) -> None:
    ports = dict(zip(("ADMIN_API_PORT", "QUERY_API_PORT"), map(str, free_ports(2)), strict=True))
    admin, query = (f"http://127.0.0.1:{port}/api/v1" for port in ports.values())
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=30))
        for name, roles in ROLES.items():
            urls = {setting: as_user(server, user) for setting, user in roles.items()}
            process = await stack.enter_async_context(world.running(name, **urls, **ports))
            await eventually(process.is_ready, START_SECONDS, f"{name}: {process.log.read_text()}")
        sent = await client.post(f"{admin}/files/upload", files={"file": ("Договор.pdf", b"x")})
        assert sent.status_code == 201, sent.text

        async def names() -> list[str]:
            answer = await client.get(f"{query}/files/search", params={"query": "договоры"})
            return [hit["original_filename"] for hit in answer.json()["results"]]

        await settles(names, ["Договор.pdf"], START_SECONDS)
        asked = await client.post(f"{query}/admin/rebuild", json={"reason": "a test"})
        assert asked.status_code == 202, asked.text

        async def phase() -> str:
            return str((await client.get(f"{query}/admin/rebuild/{asked.json()['job_id']}")).json()["phase"])

        await settles(phase, "swapped", START_SECONDS)
        assert await names() == ["Договор.pdf"]
        connection = await asyncpg.connect(server.url("postgres"))
        rows = await connection.fetch("SELECT usename, ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)")
        await connection.close()
        seen = {(row["usename"], row["ssl"]) for row in rows if row["usename"] not in (None, "postgres")}
        assert seen == {(user, True) for roles in ROLES.values() for user in roles.values()}


def refusals(folder: Path) -> Iterator[tuple[dict[str, Any], str]]:
    yield {"sslrootcert": str(Authority(folder, "another").file)}, "its certificate is refused: "
    yield (
        {"host": "localhost"},
        "its certificate is refused: Hostname mismatch, certificate is not valid for 'localhost'.",
    )
    yield {"sslmode": "disable", "sslrootcert": ""}, "no encryption"
    yield (
        {"sslrootcert": str(folder / "none.pem")},
        f"sslrootcert={folder}/none.pem, which cannot be read: No such file",
    )
    yield {"sslmode": "verify-most"}, "`sslmode` parameter must be one of"


async def test_a_server_that_is_not_vouched_for_is_refused_by_verbs_and_processes_in_words(
    server: TlsPostgres, world: World, tmp_path: Path
) -> None:
    for parameters, said in refusals(tmp_path):
        for side in DATABASES:
            code, _, err = await verb(side, "migrate", url=as_user(server, f"{side}_migrate", **parameters))
            assert (code, said in err, "Traceback" in err) == (1, True, False), err
        for name in ("admin-api", "query-api"):  # by an engine, and by pools
            urls = {setting: as_user(server, user, **parameters) for setting, user in ROLES[name].items()}
            async with world.running(name, **urls) as process:

                async def told() -> bool:
                    return said in process.log.read_text()  # noqa: B023 - it is over before the next one begins

                await eventually(told, START_SECONDS, f"{name}: {said}")
                assert "Traceback" not in process.log.read_text()
                assert not await process.is_ready()


async def test_a_password_that_was_set_anew_is_the_one_that_counts(server: TlsPostgres) -> None:
    owner = server.url(DATABASES["admin"], OWNER, password(OWNER))
    await done("admin", "roles", "--login", "write=admin_second", url=owner, ADMIN_SECOND_PASSWORD="old")
    await execute(server.url(DATABASES["admin"], "admin_second", "old"), "SELECT FROM files")
    await done("admin", "roles", "--login", "write=admin_second", url=owner, ADMIN_SECOND_PASSWORD="renewed")
    await execute(server.url(DATABASES["admin"], "admin_second", "renewed"), "SELECT FROM files")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(server.url(DATABASES["admin"], "admin_second", "old"))
