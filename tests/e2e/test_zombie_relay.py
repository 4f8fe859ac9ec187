"""A relay that was stopped in mid-transaction, replaced and woken up does not write behind its successor."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from local.settings import CHECKOUT
from producer_admin import outbox
from producer_admin.batches import Limits
from producer_admin.outbox import shard_of
from producer_admin.publisher import ShardPublisher
from producer_admin.relay import Relay
from runtime.engine import open_engine
from runtime.kafka import MAX_BATCH_BYTES
from runtime.postgres import open_pool
from schemas.events import FileEvent
from tests.backends import Backend
from tests.running import running
from tests.samples import created, updated
from tests.waiting import eventually, settles
from tests.zombie_relay import ALL_PRODUCED, CLAIMED, FIRST_PRODUCED, Orders

SHARD = 0
FILES = 60
DESCRIPTION = "x" * 20_000
"""So long that the revisions of all files at once need several produce requests."""


@dataclass(frozen=True)
class Process:
    """The zombie, as seen from outside."""

    popen: "subprocess.Popen[bytes]"
    notes_file: Path

    def notes(self) -> list[dict[str, Any]]:
        text = self.notes_file.read_text() if self.notes_file.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    async def noted(self, *events: str) -> dict[str, Any]:
        """The first note of one of these kinds, once it is there."""

        async def look() -> dict[str, Any] | None:
            assert self.popen.poll() is None, f"the zombie ended: {self.notes()}"
            return next((note for note in self.notes() if note["event"] in events), None)

        found = await eventually(look, 40, f"note of {events}")
        assert found is not None
        return found

    async def stopped(self) -> bool:
        return psutil.Process(self.popen.pid).status() == psutil.STATUS_STOPPED

    async def end(self) -> None:
        """Ask it to end, so that it has done all that it will ever do."""
        self.popen.terminate()
        assert await asyncio.to_thread(self.popen.wait, 20) == 0
        assert self.notes()[-1]["event"] == "ended"


@dataclass(frozen=True)
class Scene:
    """One shard of an outbox and its partition."""

    backend: Backend
    topic: str
    database: str
    pool: asyncpg.Pool
    folder: Path

    async def add(self, *events: FileEvent) -> None:
        engine = open_engine(self.database, "tests", pool_size=1)
        try:
            async with engine.begin() as connection:
                for event in events:
                    await outbox.add(connection, event, "somebody")
        finally:
            await engine.dispose()

    @contextmanager
    def zombie(self, halt: str, *, transactional: bool = True) -> Iterator[Process]:
        notes = self.folder / "notes"
        orders = Orders(
            self.database, self.backend.bootstrap_servers, self.topic, str(notes), halt, transactional=transactional
        )
        popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.zombie_relay", json.dumps(asdict(orders))], cwd=CHECKOUT
        )
        try:
            yield Process(popen, notes)
        finally:
            popen.kill()
            popen.wait()

    @asynccontextmanager
    async def successor(self) -> AsyncIterator[None]:
        """A relay like any other, in this process; it gets the shard because the zombie's lease is over."""
        await self.pool.execute("UPDATE relay_shards SET lease_until = now() - interval '1 second'")
        opener = partial(ShardPublisher.open, self.backend.bootstrap_servers, self.topic)
        relay = Relay(self.pool, opener, Limits(rows=1000, payload_bytes=2**23), count=1)
        async with running(relay):
            yield

    async def all_sent(self) -> None:
        await settles(lambda: self.pool.fetchval("SELECT count(*) FROM outbox"), 0, 30)

    async def open_transaction(self) -> bool:
        """Whether records lie on the partition that were produced and not committed."""
        ends: list[int] = []
        for isolation in ("read_committed", "read_uncommitted"):
            async with self._consumer(isolation) as consumer:
                ends.append((await consumer.end_offsets([self._partition]))[self._partition])
        return ends[0] < ends[1]

    async def revisions(self) -> dict[UUID, list[int]]:
        """All that a reader of committed records sees of each file, in order."""
        await settles(self.open_transaction, False)  # noqa: FBT003
        seen: dict[UUID, list[int]] = {}
        async with self._consumer("read_committed") as consumer:
            consumer.assign([self._partition])
            end = (await consumer.end_offsets([self._partition]))[self._partition]
            while await consumer.position(self._partition) < end:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    for record in records:
                        assert record.key is not None
                        revision = int(dict(record.headers)["revision"])
                        seen.setdefault(UUID(record.key.decode()), []).append(revision)
        return seen

    @property
    def _partition(self) -> TopicPartition:
        return TopicPartition(self.topic, SHARD)

    def _consumer(self, isolation_level: str) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            bootstrap_servers=self.backend.bootstrap_servers,
            isolation_level=isolation_level,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )


@pytest.fixture
async def scene(backend: Backend, topic: str, admin_database: str, tmp_path: Path) -> AsyncIterator[Scene]:
    async with await open_pool(admin_database, "tests") as pool:
        yield Scene(backend, topic, admin_database, pool, tmp_path)


@pytest.fixture
def files() -> list[UUID]:
    found: list[UUID] = []
    while len(found) < FILES:
        file_id = uuid4()
        if shard_of(file_id) == SHARD:
            found.append(file_id)
    return found


def goes_down(revisions: Sequence[int]) -> bool:
    return any(later < earlier for earlier, later in pairwise(revisions))


async def replaced_while_stopped(scene: Scene, files: Sequence[UUID]) -> None:
    """Newer revisions of all files go through the successor."""
    for revision in (2, 3):
        await scene.add(*(updated(file_id, revision, description=DESCRIPTION) for file_id in files))
        await scene.all_sent()


@pytest.mark.parametrize("halt", [FIRST_PRODUCED, ALL_PRODUCED])
async def test_a_relay_stopped_between_produce_and_commit_does_not_write_behind_its_successor(
    scene: Scene, files: Sequence[UUID], halt: str
) -> None:
    await scene.add(*(created(file_id, description=DESCRIPTION) for file_id in files))
    with scene.zombie(halt) as zombie:
        halted = await zombie.noted("halted")
        await eventually(zombie.stopped)
        assert halted["produced"] == FILES if halt == ALL_PRODUCED else 0 < halted["produced"] < FILES
        assert await scene.open_transaction(), "it was to be stopped after it had produced"
        async with scene.successor():
            await replaced_while_stopped(scene, files)
            zombie.popen.send_signal(signal.SIGCONT)
            assert (await zombie.noted("not published", "published"))["event"] == "not published"
            await zombie.end()
            assert [note["event"] for note in zombie.notes()] == ["halted", "woken", "not published", "closed", "ended"]
            await scene.add(updated(files[0], 4))
            await scene.all_sent()
    seen = await scene.revisions()
    assert seen == {file_id: [1, 2, 3, 4] if file_id == files[0] else [1, 2, 3] for file_id in files}


async def test_a_relay_stopped_between_claim_and_producer_start_reads_nothing_once_it_wakes(
    scene: Scene, files: Sequence[UUID]
) -> None:
    await scene.add(*(created(file_id) for file_id in files))
    with scene.zombie(CLAIMED) as zombie:
        await zombie.noted("halted")
        await eventually(zombie.stopped)
        assert await scene.pool.fetchval("SELECT count(*) FROM relay_shards WHERE owner IS NOT NULL") == 1
        async with scene.successor():
            await replaced_while_stopped(scene, files)
            zombie.popen.send_signal(signal.SIGCONT)
            # It starts a producer, which shuts out the successor's, and then sees that the shard is not its own.
            await zombie.noted("closed")
            await zombie.end()
            assert [note["event"] for note in zombie.notes()] == ["halted", "woken", "closed", "ended"]
            # The successor has to come back by itself.
            await scene.add(*(updated(file_id, 4) for file_id in files))
            await scene.all_sent()
    assert await scene.revisions() == {file_id: [1, 2, 3, 4] for file_id in files}


async def test_without_a_transactional_id_the_revision_does_go_down_in_the_same_scene(
    scene: Scene, files: Sequence[UUID]
) -> None:
    """The mutation that shows that the scene above would detect a missing fence."""
    assert len(DESCRIPTION) * FILES > 2 * MAX_BATCH_BYTES, "the batch has to need several produce requests"
    await scene.add(*(created(file_id, description=DESCRIPTION) for file_id in files))
    with scene.zombie(FIRST_PRODUCED, transactional=False) as zombie:
        assert 0 < (await zombie.noted("halted"))["produced"] < FILES
        await eventually(zombie.stopped)
        async with scene.successor():
            await replaced_while_stopped(scene, files)
            zombie.popen.send_signal(signal.SIGCONT)
            await zombie.noted("published")
            await zombie.end()
    assert any(goes_down(revisions) for revisions in (await scene.revisions()).values())
