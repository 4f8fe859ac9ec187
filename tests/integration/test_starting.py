"""Every process of ours waits for what it needs, says why, and begins when it is there; what never will be ends it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.ports import free_ports
from tests.backends import Backend
from tests.conftest import execute
from tests.gate import Gate, gate
from tests.integration.conftest import Topic, group_name
from tests.waiting import eventually

PROCESSES = {
    "admin-api": ("producer_admin", "api"),
    "admin-relay": ("producer_admin", "relay"),
    "query-api": ("consumer_query", "api"),
    "query-projector": ("consumer_query", "projector"),
    "query-maintenance": ("consumer_query", "maintenance"),
}
NO_BODY: tuple[int, Any] = (0, {})
START_SECONDS = 60


@dataclass
class Process:
    """One of ours, running."""

    process: asyncio.subprocess.Process
    management: str
    log: Path

    async def get(self, path: str) -> tuple[int, Any]:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                answer = await client.get(f"{self.management}{path}")
            except httpx.TransportError:
                return NO_BODY
        return answer.status_code, answer.json()

    async def reason(self, need: str) -> str:
        """Why it is not ready."""
        _, body = await self.get("/health/ready")
        return str(body.get("reasons", {}).get(need, ""))

    async def is_ready(self) -> bool:
        return (await self.get("/health/ready"))[0] == 200

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    async def ended(self) -> int:
        async with asyncio.timeout(START_SECONDS):
            return await self.process.wait()

    async def stopped(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()


@dataclass(frozen=True)
class World:
    """Where a process finds what it needs."""

    postgres: Gate
    kafka: Gate
    environment: dict[str, str]
    folder: Path

    @asynccontextmanager
    async def running(self, name: str, **changes: str) -> AsyncIterator[Process]:
        management, api = free_ports(2)
        ports = {
            f"{side}_{what}MANAGEMENT_PORT": str(management)
            for side, what in (("ADMIN", "API_"), ("ADMIN", "RELAY_"), ("QUERY", "API_"), ("QUERY", "PROJECTOR_"))
        }
        ports |= {"QUERY_MAINTENANCE_MANAGEMENT_PORT": str(management)}
        ports |= {"ADMIN_API_PORT": str(api), "QUERY_API_PORT": str(api)}
        log = self.folder / f"{name}.log"
        with log.open("w") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", *PROCESSES[name],
                env=os.environ | self.environment | ports | changes, stderr=stderr,
            )  # fmt: skip
        try:
            yield Process(process, f"http://127.0.0.1:{management}", log)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.fixture
async def world(
    backend: Backend,
    admin_database: str,
    query_database: str,
    events_topic: Topic,
    storage_folder: Path,
    tmp_path: Path,
) -> AsyncIterator[World]:
    real = backend.postgres.rpartition("@")[2]
    async with gate(real) as postgres, gate(backend.bootstrap_servers) as kafka:
        environment = {
            "ADMIN_DATABASE_URL": admin_database.replace(real, postgres.address),
            "QUERY_DATABASE_URL": query_database.replace(real, postgres.address),
            "KAFKA_BOOTSTRAP_SERVERS": kafka.address,
            "FILE_EVENTS_TOPIC": events_topic.name,
            "KAFKA_CONSUMER_GROUP": group_name(),
            "STORAGE_ELEMENT_URL": storage_folder.as_uri(),
            "LOG_FORMAT": "json",
        }
        yield World(postgres, kafka, environment, tmp_path)


TRIES = 5


async def tried(one: Gate, times: int = TRIES) -> None:
    """Wait for some more tries."""
    wanted = one.knocks + times

    async def enough() -> bool:
        return one.knocks >= wanted

    await eventually(enough, START_SECONDS)


@pytest.mark.parametrize("name", PROCESSES)
async def test_a_process_whose_database_is_away_waits_for_it_alive_and_says_why_once(name: str, world: World) -> None:
    world.kafka.is_open = True
    async with world.running(name) as process:
        await tried(world.postgres)
        assert (await process.reason("start")).startswith("waiting for the database: Connection")
        assert await process.get("/health/live") == (200, {"status": "alive"})
        said = process.lines()
        assert {(one["level"], one["event"]) for one in said} == {("warning", "waiting for the database")}
        # What the driver says of a connection that was cut differs; it is told once.
        assert len({one["error"] for one in said}) == len(said) < TRIES
        world.postgres.is_open = True
        await eventually(process.is_ready, START_SECONDS)
        begun = [one["event"] for one in process.lines() if one["level"] == "info"]
        assert begun[:2] == ["the database is there", f"{name} started"]
        assert await process.stopped() == 0


@pytest.mark.parametrize(("name", "clients"), [("admin-relay", 12), ("query-projector", 1)])
async def test_a_process_whose_broker_is_away_says_it_once_and_goes_on_when_it_is_there(
    name: str, clients: int, world: World
) -> None:
    world.postgres.is_open = True
    async with world.running(name) as process:
        await eventually(lambda: process.reason("broker"), START_SECONDS)
        await tried(world.kafka, clients * TRIES)
        assert "KafkaConnectionError" in await process.reason("broker")
        ours = [one for one in process.lines() if one["logger"] != "aiokafka" and one["level"] != "info"]
        assert [one["error"] for one in ours if "error" in one] == [ours[0]["error"]]
        world.kafka.is_open = True
        await eventually(process.is_ready, START_SECONDS)
        assert await process.stopped() == 0


@pytest.mark.parametrize("name", ["admin-api", "query-projector"])
async def test_a_process_that_waits_ends_when_it_is_told_to(name: str, world: World) -> None:
    async with world.running(name) as process:
        await tried(world.postgres, 1)
        async with asyncio.timeout(5):
            assert await process.stopped() == 0
        assert [one["event"] for one in process.lines() if one["level"] == "info"] == [f"{name} stopped"]


@pytest.mark.parametrize("name", ["admin-api", "query-projector"])
async def test_a_database_that_was_not_migrated_ends_a_process_with_a_sentence(
    name: str, world: World, admin_database: str, query_database: str
) -> None:
    world.postgres.is_open = True
    module = PROCESSES[name][0]
    url = admin_database if module == "producer_admin" else query_database
    await execute(url, "DROP TABLE alembic_version")
    async with world.running(name) as process:
        assert await process.ended() == 1
        [line] = process.lines()
        assert line["error"] == f"This database has never been migrated. Run: python -m {module} migrate"
        assert "exception" not in line


@pytest.mark.parametrize("name", ["admin-api", "query-projector"])
async def test_a_database_that_refuses_ends_a_process_with_a_sentence(name: str, world: World) -> None:
    world.postgres.is_open = True
    missing = {setting: f"{world.environment[setting]}x" for setting in ("ADMIN_DATABASE_URL", "QUERY_DATABASE_URL")}
    async with world.running(name, **missing) as process:
        assert await process.ended() == 1
        [line] = process.lines()
        assert line["error"].startswith("The database refuses: InvalidCatalogNameError: database ")
        assert "exception" not in line
