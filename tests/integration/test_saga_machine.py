"""Changes, crashes, recoveries and retries in any order: in the end files, bytes and topic agree, always."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import elements
from producer_admin.batches import Limits
from producer_admin.elements import Elements
from producer_admin.errors import FileNotFoundInAdminError, RequestUnderWayError
from producer_admin.files import FileRecord
from producer_admin.publisher import ShardPublisher
from producer_admin.relay import Relay
from producer_admin.saga import DELETE, MOVE, REPLACE, UPDATE, UPLOAD, Saga, run_saga
from producer_admin.saga_recovery import recover
from producer_admin.saga_steps import Work
from runtime.engine import open_engine
from runtime.postgres import open_pool
from tests.agreement import require_agreement, require_topic
from tests.backends import Backend
from tests.integration.conftest import Topic
from tests.integration.test_sagas import DETAILS, Bytes, expire_leases
from tests.mortal import EVER, Crash, MortalMeans

T = TypeVar("T")
ELEMENTS = ("se-01", "se-02")


@dataclass
class World:
    """One Admin database, two storage elements, and a relay that runs all the time."""

    loop: asyncio.AbstractEventLoop
    engine: AsyncEngine
    pool: asyncpg.Pool
    registry: Elements
    folders: dict[str, Path]
    topic: Topic

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(60)

    def process(self, touches: int = EVER) -> MortalMeans:
        return MortalMeans(self.engine, self.registry, self.folders, touches)


@contextmanager
def world(url: str, topic: Topic, folder: Path) -> Iterator[World]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def begin() -> World:
        engine, pool = open_engine(url, "machine"), await open_pool(url, "machine", max_size=20)
        folders = {element_id: folder / element_id for element_id in ELEMENTS}
        for element_id, path in folders.items():
            path.mkdir()
            await elements.ensure(engine, element_id, path.as_uri())
        # What happens may depend on nothing but what was drawn: the same element each time.
        registry = Elements(engine, draw=lambda: 0.0)
        await registry.refresh()
        return World(loop, engine, pool, registry, folders, topic)

    async def end(made: World) -> None:
        await made.engine.dispose()
        await made.pool.close()

    try:
        made = asyncio.run_coroutine_threadsafe(begin(), loop).result(60)
        yield made
        made.run(end(made))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass
class Known:
    """What its clients have been told of a file."""

    revision: int
    description: str | None
    content: bytes


@dataclass
class Unanswered:
    """A request whose process died: nobody knows yet whether it was done."""

    saga: Saga
    file_id: UUID
    asked: dict[str, Any]
    touched: list[UUID] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    """Clients of the Admin side."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.files: dict[UUID, Known] = {}
        self.deleted: set[UUID] = set()
        self.unanswered: list[Unanswered] = []
        for content in (b"first", b"second"):
            self.ask(UPLOAD, uuid4(), {"content": content}, None)

    crashes = st.none() | st.integers(0, 16)

    @rule(content=st.binary(max_size=20), dies_at=crashes)
    def upload(self, content: bytes, dies_at: int | None) -> None:
        self.ask(UPLOAD, uuid4(), {"content": content}, dies_at)

    @precondition(lambda self: self.free())
    @rule(data=st.data(), content=st.binary(max_size=20), dies_at=crashes)
    def replace(self, data: st.DataObject, content: bytes, dies_at: int | None) -> None:
        self.on_a_file(data, REPLACE, {"content": content}, dies_at)

    @precondition(lambda self: self.free())
    @rule(data=st.data(), description=st.sampled_from("abc"), dies_at=crashes)
    def update(self, data: st.DataObject, description: str, dies_at: int | None) -> None:
        self.on_a_file(data, UPDATE, {"description": description}, dies_at)

    @precondition(lambda self: self.free())
    @rule(data=st.data(), element_id=st.sampled_from(ELEMENTS), dies_at=crashes)
    def move(self, data: st.DataObject, element_id: str, dies_at: int | None) -> None:
        self.on_a_file(data, MOVE, {"target": element_id}, dies_at)

    @precondition(lambda self: self.free())
    @rule(data=st.data(), dies_at=crashes)
    def delete(self, data: st.DataObject, dies_at: int | None) -> None:
        self.on_a_file(data, DELETE, {}, dies_at)

    @rule(dies_at=crashes)
    def recover(self, dies_at: int | None) -> None:
        """Leases run out, and a process takes up what is left; it may die of it too."""
        self.world.run(expire_leases(self.world.pool))
        try:
            self.world.run(recover(self.world.process(EVER if dies_at is None else dies_at)))
        except Crash:
            assert dies_at is not None

    @precondition(lambda self: self.unanswered)
    @rule(data=st.data(), recovered=st.booleans())
    def retry(self, data: st.DataObject, recovered: bool) -> None:  # noqa: FBT001 - drawn
        """The client of a request that was never answered asks again, under the same key."""
        if recovered:
            self.recover(dies_at=None)
        again = data.draw(st.sampled_from(self.unanswered))
        try:
            record = self.world.run(run_saga(again.saga, self.world.process(), self.work(again)))
        except RequestUnderWayError:
            assert not recovered
            return
        except FileNotFoundInAdminError:
            # Deleted by another request meanwhile; this one was not done before that, or it would be answered.
            assert again.file_id in self.deleted | {one.file_id for one in self.unanswered if one.saga is DELETE}
            self.unanswered.remove(again)
            return
        self.unanswered.remove(again)
        self.answered(again, record, repeated=True)

    def on_a_file(self, data: st.DataObject, saga: Saga, asked: dict[str, Any], dies_at: int | None) -> None:
        self.ask(saga, data.draw(st.sampled_from(self.free())), asked, dies_at)

    def free(self) -> list[UUID]:
        """Files whose state is known: one with an unanswered request is in a state that only a retry can tell."""
        unsure = {one.file_id for one in self.unanswered}
        return [one for one in self.files if one not in unsure]

    def ask(self, saga: Saga, file_id: UUID, asked: dict[str, Any], dies_at: int | None) -> None:
        request = Unanswered(saga, file_id, {**asked, "key": uuid4().hex})
        try:
            process = self.world.process(EVER if dies_at is None else dies_at)
            record = self.world.run(run_saga(saga, process, self.work(request)))
        except Crash:
            self.unanswered.append(request)
        else:
            self.answered(request, record)

    def work(self, request: Unanswered) -> Work:
        asked = request.asked
        work = Work(file_id=request.file_id, key=asked["key"], target=asked.get("target"))
        if "content" in asked:
            work.content = Bytes(asked["content"], **(DETAILS if request.saga is UPLOAD else {}))
        if "description" in asked:
            work.change = {"description": asked["description"]}
        return work

    def answered(self, request: Unanswered, record: FileRecord, *, repeated: bool = False) -> None:
        file_id = record.file_id
        before = self.files.get(file_id)
        if request.saga is UPLOAD:
            assert record.revision == 1
            self.files[file_id] = Known(1, None, request.asked["content"])
            return
        assert before is not None
        if request.saga is DELETE:
            assert record.revision == before.revision + 1
            del self.files[file_id]
            self.deleted.add(file_id)
            return
        # One change, however often it was asked for; none where the file was as asked.
        assert record.revision in (before.revision, before.revision + 1), repeated
        before.revision = record.revision
        before.description = request.asked.get("description", before.description)
        before.content = request.asked.get("content", before.content)

    @invariant()
    def what_was_answered_is_true(self) -> None:
        if not hasattr(self, "files"):
            return
        rows = {row["file_id"]: row for row in self.world.run(self.world.pool.fetch("SELECT * FROM files"))}
        unsure = {one.file_id for one in self.unanswered}
        for file_id, known in self.files.items():
            row = rows[file_id]
            if file_id in unsure:
                assert row["revision"] in (known.revision, known.revision + 1)
                continue
            assert row["deleted_at"] is None
            assert (row["revision"], row["description"]) == (known.revision, known.description)
            path = self.world.folders[row["storage_element_id"]] / row["storage_path"] / row["storage_filename"]
            assert path.read_bytes() == known.content
        assert all(rows[file_id]["deleted_at"] is not None for file_id in self.deleted)

    def teardown(self) -> None:
        world = self.world
        world.run(expire_leases(world.pool))
        world.run(recover(world.process()))
        world.run(require_agreement(world.pool, world.folders))


def test_files_bytes_and_topic_agree_after_any_history_of_changes_crashes_and_retries(
    admin_database: str, backend: Backend, topic: str, tmp_path: Path
) -> None:
    with world(admin_database, Topic(backend, topic), tmp_path) as made:

        class OnThisWorld(Machine):
            world = made

        stopping = asyncio.Event()
        relay = Relay(
            made.pool,
            lambda shard: ShardPublisher.open(backend.bootstrap_servers, topic, shard),
            Limits(rows=100, payload_bytes=2**20),
        )
        relaying = asyncio.run_coroutine_threadsafe(relay.run(stopping), made.loop)
        try:
            run_state_machine_as_test(
                OnThisWorld,
                settings=settings(
                    max_examples=60,
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
            made.run(require_topic(made.pool, made.topic))
        finally:
            made.loop.call_soon_threadsafe(stopping.set)
            relaying.result(60)
