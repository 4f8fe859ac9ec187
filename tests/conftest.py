"""One real broker and one real Postgres for the session; a topic and a database for each test that needs its own."""

import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from consumer_query.migrations import run_migrate as migrate_query
from consumer_query.settings import QueryDatabaseSettings
from producer_admin.migrations import run_migrate as migrate_admin
from producer_admin.settings import AdminDatabaseSettings
from runtime.topics import ensure_topics
from tests.backends import Backend, containers, embedded


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=("embedded", "containers"),
        default="embedded",
        help="Where Kafka and Postgres come from: package registries, or Docker images.",
    )


def pytest_configure() -> None:
    # A shell has its background jobs ignore Ctrl-C, and all that they start; some tests are about it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    opened = containers() if request.config.getoption("backend") == "containers" else embedded(tmp_path_factory)
    with opened as running:
        yield running


@dataclass(frozen=True)
class Templates:
    """Migrated, empty databases that tests copy."""

    backend: Backend

    async def copy(self, template: str) -> str:
        name = f"{template}_{uuid4().hex[:12]}"
        await execute(self.backend.url("postgres"), f"CREATE DATABASE {name} TEMPLATE {template}")
        return name


@pytest.fixture(scope="session")
async def templates(backend: Backend) -> Templates:
    for name in ("admin", "query"):
        await execute(
            backend.url("postgres"),
            f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
        )
    await migrate_admin(AdminDatabaseSettings(admin_database_url=backend.url("admin")))
    await migrate_query(QueryDatabaseSettings(query_database_url=backend.url("query")))
    return Templates(backend)


@pytest.fixture
async def admin_database(templates: Templates) -> AsyncIterator[str]:
    """URL of a migrated, empty Admin database."""
    name = await templates.copy("admin")
    yield templates.backend.url(name)
    await execute(templates.backend.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def query_database(templates: Templates) -> AsyncIterator[str]:
    """URL of a migrated, empty Query database."""
    name = await templates.copy("query")
    yield templates.backend.url(name)
    await execute(templates.backend.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def topic(backend: Backend) -> str:
    """A topic made from the card of file events, under a name of its own, and those that are named after it."""
    name = f"test-{uuid4().hex[:12]}"
    await ensure_topics(backend.bootstrap_servers, name)
    return name


@pytest.fixture
def storage_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    return folder


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
