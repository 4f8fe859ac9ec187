"""The Admin side as a team runs it: a broker and a Postgres of its own, and any number of API and relay processes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from local.health import unreadiness
from local.kafka import EmbeddedKafka
from local.ports import LOOPBACK, free_port, free_ports
from local.postgres import EmbeddedPostgres
from local.process import Child, Command
from local.services import python
from local.settings import CHECKOUT
from producer_admin.migrations import run_migrate
from producer_admin.settings import AdminDatabaseSettings
from runtime.topics import ensure_topic
from schemas.topics import FILE_EVENTS, cards
from tests.backends import Backend
from tests.integration.conftest import Topic

READY_SECONDS = 60.0


@dataclass
class AdminSide:
    """Servers that run, and processes by name."""

    folder: Path
    kafka: EmbeddedKafka
    postgres: EmbeddedPostgres
    processes: dict[str, Child] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> str:
        return self.postgres.url("artstore_admin")

    @property
    def files(self) -> Path:
        """The folder of se-01."""
        return self.folder / "files"

    @property
    def topic(self) -> Topic:
        return Topic(Backend(self.kafka.bootstrap_servers, self.postgres.url("").rstrip("/")), FILE_EVENTS)

    def start(self, name: str, verb: str, **environment: str) -> Child:
        """Start `python -m producer_admin VERB` and wait until it is ready."""
        port, management = free_ports(2)
        self.urls[name] = f"http://{LOOPBACK}:{port}"
        kind = {"api": "ADMIN_API", "relay": "ADMIN_RELAY"}[verb]
        settings = {
            "ADMIN_DATABASE_URL": self.database,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "STORAGE_ELEMENT_URL": self.files.as_uri(),
            "ADMIN_API_PORT": str(port),
            f"{kind}_MANAGEMENT_PORT": str(management),
            "LOG_FORMAT": "console",
            **environment,
        }
        child = Child(
            Command(
                name=name,
                argv=python("producer_admin", verb),
                log=self.folder / f"{name}.log",
                cwd=CHECKOUT,
                env={**os.environ, **settings},
            )
        )
        self.processes[name] = child
        child.wait_until(lambda: unreadiness(f"http://{LOOPBACK}:{management}/health/ready") is None, READY_SECONDS)
        return child

    def kill(self, name: str) -> None:
        """SIGKILL, as a crash would."""
        self.processes.pop(name).kill()

    def stop(self) -> None:
        for child in self.processes.values():
            child.ask_to_stop()
        for child in self.processes.values():
            child.stop(10)
        self.processes.clear()

    def client(self, name: str) -> httpx.AsyncClient:
        """A client of one API process."""
        return httpx.AsyncClient(base_url=f"{self.urls[name]}/api/v1/files", timeout=60, trust_env=False)


@contextmanager
def admin_side(folder: Path) -> Iterator[AdminSide]:
    """Servers without processes of ours; the database is migrated and the topic made."""
    kafka = EmbeddedKafka(folder / "kafka", free_port())
    postgres = EmbeddedPostgres(folder / "postgres", free_port(), databases=("artstore_admin",))
    side = AdminSide(folder, kafka, postgres)
    try:
        with postgres, kafka:
            try:
                yield side
            finally:
                side.stop()
    finally:
        postgres.erase()


async def prepare(side: AdminSide) -> None:
    """Migrate the database and make the topic."""
    await run_migrate(AdminDatabaseSettings(admin_database_url=side.database))
    await ensure_topic(side.kafka.bootstrap_servers, cards()[FILE_EVENTS])
