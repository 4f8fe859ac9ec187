"""The Query side as a team runs it: a broker and a Postgres of its own, and any number of projector processes."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import httpx
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from consumer_query import generations
from consumer_query.dead_letters import from_record
from consumer_query.generations import table_name
from consumer_query.migrations import run_migrate
from consumer_query.settings import QueryDatabaseSettings
from local.kafka import EmbeddedKafka
from local.ports import LOOPBACK, free_port
from local.postgres import EmbeddedPostgres
from local.process import Child, Command
from local.services import python
from local.settings import CHECKOUT
from runtime.kafka import admin_client, plain_consumer
from runtime.topics import ensure_topic
from runtime.whole_topic import whole_topic
from schemas.events import FileEvent
from schemas.topics import DEAD_LETTERS, FILE_EVENTS, cards, topic_name
from tests.backends import Backend
from tests.integration.conftest import Topic
from tests.mortal_projector import Orders
from tests.waiting import settles

SESSION_SECONDS: Final = 2.0
"""How long a dead member of the group keeps its partitions."""
PARTITIONS: Final = range(12)
AWAY: Final = (
    KafkaError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError,
)  # fmt: skip
_TEMPLATE: Final = "artstore_query"


@dataclass
class QuerySide:
    """Servers that run; scenes have topics and databases of their own there."""

    folder: Path
    kafka: EmbeddedKafka
    postgres: EmbeddedPostgres

    @asynccontextmanager
    async def scene(self) -> AsyncIterator["Scene"]:
        """A topic, a group and a database; every process that was started in it is ended."""
        name = uuid4().hex[:12]
        database = f"query_{name}"
        connection = await asyncpg.connect(self.postgres.url("postgres"))
        await connection.execute(f"CREATE DATABASE {database} TEMPLATE {_TEMPLATE}")
        await connection.close()
        topic = f"events-{name}"
        dead = topic_name(DEAD_LETTERS, topic)
        await ensure_topic(self.kafka.bootstrap_servers, cards()[FILE_EVENTS], name=topic)
        await ensure_topic(self.kafka.bootstrap_servers, cards()[DEAD_LETTERS], name=dead)
        scene = Scene(self, topic, dead, f"group-{name}", self.postgres.url(database))
        try:
            yield scene
        finally:
            scene.tell_of_the_dead()
            await asyncio.to_thread(scene.stop_all)


@contextmanager
def query_side(folder: Path, **properties: str) -> Iterator[QuerySide]:
    """A broker that lets sessions be short, and a Postgres that loses no commit when it is killed."""
    short = {"group.min.session.timeout.ms": "500"}
    kafka = EmbeddedKafka(folder / "kafka", free_port(), properties=short | properties)
    postgres = EmbeddedPostgres(
        folder / "postgres",
        free_port(),
        # A killed process loses nothing that the kernel has, and a start after a crash need not flush all files.
        fsync=False,
        settings={"synchronous_commit": "on"},
        databases=(_TEMPLATE,),
    )
    try:
        with postgres, kafka:
            yield QuerySide(folder, kafka, postgres)
    finally:
        postgres.erase()


async def prepare(side: QuerySide) -> None:
    """Make the database that scenes copy."""
    await run_migrate(QueryDatabaseSettings(query_database_url=side.postgres.url(_TEMPLATE)))


@dataclass
class Scene:
    """One topic and one cache, and the projectors between them, by name."""

    side: QuerySide
    topic: str
    dead_letters: str
    group: str
    database: str
    processes: dict[str, Child] = field(default_factory=dict)
    management: dict[str, str] = field(default_factory=dict)

    def start(self, name: str, orders: Orders | None = None, **environment: str) -> Child:
        """Start a projector as it is in service, or one that dies at a named point. Does not wait for it."""
        argv = (
            python("consumer_query", "projector")
            if orders is None
            else python("tests.mortal_projector", orders.to_json())
        )
        session = {"KAFKA_SESSION_TIMEOUT_MS": str(int(SESSION_SECONDS * 1000))}
        return self._launch(name, argv, "QUERY_PROJECTOR_MANAGEMENT_PORT", session | environment)

    def start_worker(self, name: str, orders: Orders | None = None, **environment: str) -> Child:
        """Start a maintenance process, likewise."""
        argv = (
            python("consumer_query", "maintenance")
            if orders is None
            else python("tests.mortal_rebuilder", orders.to_json())
        )
        return self._launch(name, argv, "QUERY_MAINTENANCE_MANAGEMENT_PORT", environment)

    def start_api(self, name: str, **environment: str) -> str:
        """Start the search API; its URL."""
        port = free_port()
        ports = {"QUERY_API_PORT": str(port)}
        self._launch(name, python("consumer_query", "api"), "QUERY_API_MANAGEMENT_PORT", ports | environment)
        return f"http://{LOOPBACK}:{port}"

    def _launch(self, name: str, argv: Sequence[str], port_setting: str, environment: Mapping[str, str]) -> Child:
        port = free_port()
        self.management[name] = f"http://{LOOPBACK}:{port}"
        settings = {
            "QUERY_DATABASE_URL": self.database,
            "KAFKA_BOOTSTRAP_SERVERS": self.side.kafka.bootstrap_servers,
            "FILE_EVENTS_TOPIC": self.topic,
            "KAFKA_CONSUMER_GROUP": self.group,
            port_setting: str(port),
            "LOG_FORMAT": "console",
            **environment,
        }
        # Bytecode has to be kept, or each start compiles everything anew.
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        child = Child(Command(name=name, argv=argv, log=self.log(name), cwd=CHECKOUT, env=inherited | settings))
        self.processes[name] = child
        return child

    def kill(self, name: str) -> None:
        """SIGKILL, as a crash would."""
        self.processes.pop(name).kill()

    def pause(self, name: str) -> None:
        """SIGSTOP: it does nothing and does not know it."""
        os.kill(self.processes[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        os.kill(self.processes[name].pid, signal.SIGCONT)

    def stop(self, name: str) -> bool:
        """SIGTERM; True when it ended in order and in time."""
        child = self.processes.pop(name)
        return child.stop(20) and child.exit_code() == 0

    def stop_all(self) -> None:
        for name in self.processes:
            self.resume(name) if self.processes[name].exit_code() is None else None
        for child in self.processes.values():
            child.ask_to_stop()
        for child in self.processes.values():
            child.stop(10)
        self.processes.clear()

    def log(self, name: str) -> Path:
        """What a process says; those of one name write behind one another."""
        return self.side.folder / f"{self.topic}-{name}.log"

    def assignments(self, name: str) -> int:
        """How often a process was given partitions, by its log."""
        return self.log(name).read_text().count("partitions assigned")

    def require_alive(self) -> None:
        """No process has ended by itself."""
        for child in self.processes.values():
            if child.exit_code() is not None:
                raise child.died()

    def tell_of_the_dead(self) -> None:
        """Print what those said that have ended by themselves: shown with a test that fails."""
        for child in self.processes.values():
            if child.exit_code() is not None:
                print(child.died())

    async def unready(self, name: str) -> str | None:
        """Why a process is not ready; None when it is. "no answer" while it does not listen."""
        async with httpx.AsyncClient(trust_env=False, timeout=3) as client:
            try:
                answer = await client.get(f"{self.management[name]}/health/ready")
            except httpx.TransportError:
                return "no answer"
        return None if answer.status_code == 200 else json.dumps(answer.json()["reasons"])

    async def metric(self, name: str, metric: str) -> float:
        """The sum of a metric's samples, whatever their labels."""
        async with httpx.AsyncClient(trust_env=False, timeout=3) as client:
            text = (await client.get(f"{self.management[name]}/metrics")).text
        samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return sum(float(value) for what, _, value in samples if what.partition("{")[0] == metric)

    async def members(self) -> tuple[str, frozenset[str]]:
        """State of the group, and the ids of its members."""
        async with admin_client(self.side.kafka.bootstrap_servers) as admin:
            [answer] = await admin.describe_consumer_groups([self.group])
        group: Any = answer.groups[0]
        return group[2], frozenset(member[0] for member in group[5])

    @property
    def events(self) -> Topic:
        return Topic(
            Backend(self.side.kafka.bootstrap_servers, self.side.postgres.url("").rstrip("/")),
            self.topic,
        )

    async def rows(self) -> dict[UUID, dict[str, Any]]:
        """The whole generation, deletions too."""
        connection = await asyncpg.connect(self.database)
        try:
            found = await connection.fetch(f"SELECT * FROM {table_name(await generations.live(connection))}")
        finally:
            await connection.close()
        return {row["file_id"]: dict(row) for row in found}

    async def stored(self) -> dict[int, int]:
        """Stored positions."""
        connection = await asyncpg.connect(self.database)
        try:
            found = await connection.fetch(STORED, self.topic)
        finally:
            await connection.close()
        return {row["partition"]: row["next_offset"] for row in found}

    async def put_aside(self) -> dict[tuple[int, int], str]:
        """Reasons of the dead letters by partition and offset of their source."""
        found: dict[tuple[int, int], str] = {}
        async for record in whole_topic(self.side.kafka.bootstrap_servers, self.dead_letters):
            letter = from_record(record)
            assert letter.topic == self.topic, letter
            found[letter.partition, letter.offset] = letter.reason
        return found

    async def stable_ends(self) -> dict[int, int]:
        """The last stable offset of each partition."""
        partitions = [TopicPartition(self.topic, number) for number in PARTITIONS]
        async with plain_consumer(self.side.kafka.bootstrap_servers) as consumer:
            return {one.partition: end for one, end in (await consumer.end_offsets(partitions)).items()}

    async def ends(self) -> int:
        """The last stable offsets, added up."""
        return sum((await self.stable_ends()).values())

    async def applied(self) -> int:
        """The stored positions, added up."""
        return sum((await self.stored()).values())

    async def unread(self) -> int:
        """Records and markers of the topic that the stored positions have not passed."""
        return await self.ends() - await self.applied()

    async def behind(self) -> dict[int, tuple[int, int]]:
        """Stored position and last stable offset of each partition where they differ."""
        stored = await self.stored()
        return {
            one: (stored.get(one, 0), end)
            for one, end in (await self.stable_ends()).items()
            if stored.get(one, 0) != end
        }

    async def require_exact(self, truth: dict[UUID, FileEvent], seconds: float) -> None:
        """Once all is read, the rows are the truth, and what is in no row is a dead letter: exactly that."""
        records = await self.events.records()
        await settles(self.behind, dict[int, tuple[int, int]](), seconds)
        await self.require_rows(truth)
        bad = {(one.partition, one.offset) for one in records if UUID((one.key or b"").decode()) not in truth}
        aside = (await self.put_aside()).keys()
        assert aside == bad, f"put aside and not bad: {aside - bad}; bad and not put aside: {bad - aside}"

    async def require_rows(self, truth: Mapping[UUID, FileEvent]) -> None:
        """The whole generation, deletions too, is the truth."""
        rows = {file_id: _columns(row) for file_id, row in (await self.rows()).items()}
        expected = {file_id: expected_row(event) for file_id, event in truth.items()}
        wrong = {one: (rows.get(one), expected.get(one)) for one in rows.keys() | expected.keys()}
        wrong = {one: (row, due) for one, (row, due) in wrong.items() if row != due}
        assert not wrong, (
            f"{len(wrong)} of {len(expected)} rows are wrong, found and expected: {next(iter(wrong.items()))}"
        )


STORED: Final = """
SELECT partition, next_offset FROM projector_positions
WHERE topic = $1 AND generation = (SELECT live FROM cache_generation)
"""
_METADATA: Final = (
    "original_filename", "storage_filename", "file_size", "mime_type", "created_at", "updated_at",
    "created_by_username", "created_by_fullname", "description", "version", "tags", "storage_path", "checksum",
    "retention_expires_at",
)  # fmt: skip


def expected_row(event: FileEvent) -> dict[str, Any]:
    """What the cache says of a file after this event."""
    metadata = event.metadata
    known = {name: metadata and getattr(metadata, name) for name in _METADATA}
    if metadata is not None:
        known["tags"] = list(metadata.tags)
    return {
        "revision": event.revision,
        "deleted": metadata is None,
        "storage_element_id": metadata and event.storage_element_id,
        **known,
    }


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("revision", "deleted", "storage_element_id", *_METADATA)}
