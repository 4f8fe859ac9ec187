"""What an operator is told: a real Prometheus over a stack under load, and each critical fault caused."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from uuid import uuid4

import asyncpg
import httpx
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from consumer_query import generations
from consumer_query.generations import table_name
from local.settings import StackSettings
from local.stack import Stack
from runtime.kafka import admin_client
from runtime.retries import pause
from schemas.codec import encode
from schemas.topics import FILE_EVENTS, cards
from tests.backends import Backend
from tests.e2e.prometheus import Prometheus, prometheus, promtool
from tests.integration.conftest import Topic, produce
from tests.monitoring import RULES, RULES_TEST, SCRAPING, families, queries, rules
from tests.running import running
from tests.samples import created
from tests.waiting import eventually, settles

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

LOADED_SECONDS: Final = 60.0
FIRES_SECONDS: Final = 60.0
LAG_SECONDS: Final = 150.0
"""A lag of more than a minute takes a minute."""
ENDS_SECONDS: Final = 120.0
A_MINUTE: Final = "1m"
"""What Grafana puts in the place of $__rate_interval at a scrape each fifteen seconds."""


class Load:
    """Uploads, changes and deletions all the time; what is refused meanwhile is nobody's fault here."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.uploaded = 0

    async def run(self, stopping: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=f"{self._url}/api/v1/files", trust_env=False, timeout=5) as client:
            while not stopping.is_set():
                try:
                    await self._change(client)
                except httpx.TransportError:
                    await pause(0.5, stopping)
                await pause(0.05, stopping)

    async def _change(self, client: httpx.AsyncClient) -> None:
        name = f"report {self.uploaded}.txt"
        answer = await client.post("/upload", files={"file": (name, b"content")})
        if answer.status_code != 201:
            return
        self.uploaded += 1
        file_id = answer.json()["file_id"]
        if self.uploaded % 3 == 0:
            await client.patch(f"/{file_id}", json={"description": "changed"})
        if self.uploaded % 5 == 0:
            await client.delete(f"/{file_id}")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(StackSettings.on_free_ports(tmp_path_factory.mktemp("stack")))
    with stack:
        yield stack
    stack.erase()


@pytest.fixture(scope="module")
async def load(stack: Stack) -> AsyncIterator[Load]:
    async with httpx.AsyncClient(base_url=stack.admin_url, trust_env=False) as client:
        path = "/api/v1/storage-elements/se-01"
        known = (await client.get(path)).json()
        answer = await client.put(path, json={"url": known["url"], "capacity_bytes": 10**12})
        assert answer.status_code == 200, answer.text
    async with running(Load(stack.admin_url)) as load:
        yield load


@pytest.fixture(scope="module")
async def watching(stack: Stack, load: Load, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Prometheus]:
    """A Prometheus that has seen the load for a while, and nothing to call anybody for."""
    targets = {name: one.ready_url.split("/")[2] for name, one in stack.services.items()}
    async with prometheus(tmp_path_factory.mktemp("prometheus") / "prometheus", targets) as watching:
        before = load.uploaded
        await eventually(lambda: is_quiet(watching), 60, "no critical alert")
        await pause(LOADED_SECONDS, asyncio.Event())
        assert load.uploaded > before
        yield watching


async def is_quiet(watching: Prometheus) -> bool:
    return await watching.targets() != {} and not await watching.critical()


async def test_the_rules_are_what_their_tests_say_at_their_true_durations() -> None:
    assert "SUCCESS" in await promtool("check", "rules", RULES)
    assert "SUCCESS" in await promtool("check", "config", SCRAPING)
    assert "SUCCESS" in await promtool("test", "rules", RULES_TEST)


async def test_all_targets_are_up_and_all_rules_are_in_force(watching: Prometheus) -> None:
    assert await watching.targets() == dict.fromkeys(families(), "up")
    expected = {rule.get("alert") or rule["record"] for rule in rules()}
    assert await watching.rules() == dict.fromkeys(expected, "ok")
    assert await watching.critical() == set()


async def test_each_process_tells_what_it_is_declared_to_tell(stack: Stack) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for job, own in families().items():
            text = (await client.get(stack.services[job].ready_url.replace("/health/ready", "/metrics"))).text
            told = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE artstore_")}
            assert {name for name in told if not name.endswith("_created")} == own.keys(), job


async def test_every_query_of_the_dashboard_finds_something_after_a_minute_of_load(watching: Prometheus) -> None:
    async def empty() -> list[tuple[str, str]]:
        missed = []
        for one in queries():
            found = await watching.query(one.expression.replace("$__rate_interval", A_MINUTE))
            if not [sample for sample in found if sample["value"][1] != "NaN"]:
                missed.append((one.panel, one.expression))
        return missed

    await settles(empty, list[tuple[str, str]](), 30)


async def test_a_process_that_is_gone_is_told_of(stack: Stack, watching: Prometheus) -> None:
    await asyncio.to_thread(stack.kill, "query-maintenance")
    await fires(watching, "ArtStoreTargetDown", job="query-maintenance")
    await asyncio.to_thread(stack.restart, "query-maintenance")
    await ends(watching, "ArtStoreTargetDown")


async def test_a_broker_that_is_gone_is_told_of_on_both_sides(stack: Stack, watching: Prometheus) -> None:
    await asyncio.to_thread(stack.kill, "kafka")
    await fires(watching, "ArtStoreBrokerDown", job="query-projector")
    await fires(watching, "ArtStoreBrokerDown", job="admin-relay")
    await asyncio.to_thread(stack.restart, "kafka")
    await ends(watching, "ArtStoreBrokerDown")
    await settles(watching.critical, set[str](), ENDS_SECONDS)


async def test_a_database_that_is_gone_is_told_of_on_both_sides(stack: Stack, watching: Prometheus) -> None:
    await asyncio.to_thread(stack.kill, "postgres")
    # A projector without anything to write does not ask for its database; no upload can give it something now.
    event = created(original_filename="while the database was away")
    await produce(topic(stack), event.file_id, encode(event), [("revision", b"1"), ("event_id", str(uuid4()).encode())])
    await fires(watching, "ArtStoreDatabaseDown", job="query-projector")
    await fires(watching, "ArtStoreDatabaseDown", job="admin-relay")
    await asyncio.to_thread(stack.restart, "postgres")
    await ends(watching, "ArtStoreDatabaseDown")
    await settles(watching.critical, set[str](), ENDS_SECONDS)


async def test_a_projector_that_hangs_is_told_of_as_stop_and_as_growing_lag(stack: Stack, watching: Prometheus) -> None:
    pid = pid_of(stack, "query-projector")
    os.kill(pid, signal.SIGSTOP)
    try:
        [stuck] = await fires(watching, "ArtStoreProjectorStuck", status="stop")
        assert "Nobody commits" in stuck["annotations"]["description"]
        assert "Partitions: " in stuck["annotations"]["description"]
        [growing] = await fires(watching, "ArtStoreLagGrowing", within=LAG_SECONDS)
        assert "1m" in growing["annotations"]["summary"]
    finally:
        os.kill(pid, signal.SIGCONT)
    await ends(watching, "ArtStoreLagGrowing")
    await ends(watching, "ArtStoreProjectorStuck")
    await settles(watching.critical, set[str](), ENDS_SECONDS)


async def test_a_projector_that_cannot_get_on_is_told_of_as_stall(stack: Stack, watching: Prometheus) -> None:
    async with database(stack) as connection, connection.transaction():
        await connection.execute("LOCK TABLE projector_positions IN ACCESS EXCLUSIVE MODE")
        await fires(watching, "ArtStoreProjectorStuck", status="stall", within=LAG_SECONDS)
    await ends(watching, "ArtStoreProjectorStuck")
    await settles(watching.critical, set[str](), ENDS_SECONDS)


async def test_batches_that_fail_are_told_of(stack: Stack, watching: Prometheus) -> None:
    async with database(stack) as connection:
        table = table_name(await generations.live(connection))
        await connection.execute(FULL_DISK)
        await connection.execute(
            f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION full_disk()"
        )
        await fires(watching, "ArtStoreApplyFailing", job="query-projector")
        await connection.execute("DROP FUNCTION full_disk CASCADE")
    await ends(watching, "ArtStoreApplyFailing")
    await settles(watching.critical, set[str](), ENDS_SECONDS)


async def test_transactions_that_fail_are_told_of(stack: Stack, watching: Prometheus) -> None:
    # Too little for an event. The end of a transaction has to fit: one that does not leaves the broker stuck for good.
    await configure(stack, {"max.message.bytes": "150"})
    await fires(watching, "ArtStorePublishFailing", job="admin-relay")
    await configure(stack, {})
    await ends(watching, "ArtStorePublishFailing")
    await settles(watching.critical, set[str](), ENDS_SECONDS)


FULL_DISK: Final = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END $$
"""


async def fires(watching: Prometheus, alert: str, within: float = FIRES_SECONDS, **labels: str) -> list[dict[str, Any]]:
    """Wait until an alert with these labels among others fires: those that do."""
    return await eventually(partial(watching.firing, alert, **labels), within, f"{alert} {labels}")


async def ends(watching: Prometheus, alert: str) -> None:
    """Wait until it does not fire any more."""
    await settles(partial(watching.firing, alert), list[dict[str, Any]](), ENDS_SECONDS)


@asynccontextmanager
async def database(stack: Stack) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(stack.postgres.url("artstore_query"))
    try:
        yield connection
    finally:
        await connection.close()


async def configure(stack: Stack, more: dict[str, str]) -> None:
    """Give the topic what its card says, and more."""
    config = {name: one.value for name, one in cards()[FILE_EVENTS].config.items()} | more
    async with admin_client(stack.kafka.bootstrap_servers) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, stack.settings.file_events_topic, config)])


def topic(stack: Stack) -> Topic:
    return Topic(Backend(stack.kafka.bootstrap_servers, ""), stack.settings.file_events_topic)


def pid_of(stack: Stack, name: str) -> int:
    run = stack.home.running()
    assert run is not None
    [pid] = [one.pid for one in run.processes if one.name == name]
    return pid
