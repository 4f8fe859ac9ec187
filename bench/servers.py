"""A real broker and a real Postgres for one run of a benchmark, in a temporary folder that is gone afterwards.

Both are set up as `artstore up` sets them up: Postgres flushes each commit to disk, the broker is a JVM of 512 MiB.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import asyncpg

from local.kafka import EmbeddedKafka
from local.ports import free_port
from local.postgres import EmbeddedPostgres
from producer_admin.migrations import run_migrate
from producer_admin.settings import AdminDatabaseSettings
from runtime.kafka import admin_client
from runtime.topics import ensure_topic
from schemas.topics import FILE_EVENTS, cards

Tell = Callable[[str], None]
"""Called with one line on what is being done."""

CREATE: Final = "CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"


@dataclass(frozen=True)
class Servers:
    """Where the two answer, and how to get an empty topic and an empty database there."""

    bootstrap_servers: str
    postgres: EmbeddedPostgres
    folder: Path
    """For whatever else a benchmark needs."""
    _numbers: Iterator[int]

    @asynccontextmanager
    async def topic(self) -> AsyncIterator[str]:
        """A new topic, made from the card of file events; gone afterwards, so that the broker never has more to do."""
        name = self._name("topic")
        await ensure_topic(self.bootstrap_servers, cards()[FILE_EVENTS], name=name)
        try:
            yield name
        finally:
            async with admin_client(self.bootstrap_servers) as admin:
                await admin.delete_topics([name])

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """URL of a new, empty database; gone afterwards, so that nothing is vacuumed while another is measured."""
        name = self._name("database")
        await self._command(CREATE.format(name=name))
        try:
            yield self.postgres.url(name)
        finally:
            await self._command(f"DROP DATABASE {name} WITH (FORCE)")

    async def admin_database(self) -> str:
        """URL of a new, migrated Admin database."""
        name = self._name("admin")
        await self._command(CREATE.format(name=name))
        url = self.postgres.url(name)
        await run_migrate(AdminDatabaseSettings(admin_database_url=url))
        return url

    async def checkpoint(self) -> None:
        """Bring to disk what earlier measurements left to be written, so that it is not paid for by the next."""
        await self._command("CHECKPOINT")
        # The broker leaves it to the system.
        await asyncio.to_thread(os.sync)

    async def _command(self, statement: str) -> None:
        connection = await asyncpg.connect(self.postgres.url("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _name(self, what: str) -> str:
        return f"{what}_{next(self._numbers)}"


@contextmanager
def servers(tell: Tell) -> Iterator[Servers]:
    """Start both, and leave nothing behind.

    Raises:
        LocalError: one of them did not start.
    """
    folder = Path(tempfile.mkdtemp(prefix="artstore-bench-"))
    # Postgres runs as another user when root starts it, and has to reach what lies below.
    folder.chmod(0o755)
    kafka = EmbeddedKafka(folder / "kafka", free_port())
    postgres = EmbeddedPostgres(folder / "postgres", free_port())
    try:
        tell("Starting Kafka and Postgres")
        with postgres, kafka:
            yield Servers(kafka.bootstrap_servers, postgres, folder, count())
            tell("Stopping Kafka and Postgres")
    finally:
        postgres.erase()
        shutil.rmtree(folder, ignore_errors=True)


async def until(look: Callable[[], Awaitable[bool]], seconds: float, look_again_seconds: float = 0.005) -> None:
    """Look again and again until it is true.

    Raises:
        TimeoutError: it was not within `seconds`.
    """
    async with asyncio.timeout(seconds):
        while True:
            if await look():
                return
            await asyncio.sleep(look_again_seconds)
