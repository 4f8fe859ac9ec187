"""Sagas over a real Postgres and real disks: a crash at any point is resumed or undone, and an answer stays true."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin import elements, saga_log
from producer_admin.elements import Elements
from producer_admin.errors import (
    AdminError,
    KeyReusedError,
    OwnElementUnknownError,
    RequestUnderWayError,
    RevisionMismatchError,
    SagaInterruptedError,
    StorageError,
)
from producer_admin.files import FileRecord
from producer_admin.saga import DELETE, MOVE, REPLACE, UPDATE, UPLOAD, Saga, run_saga
from producer_admin.saga_recovery import recover, renew_until
from producer_admin.saga_steps import Means, Work
from producer_admin.storage import StoredObject
from tests.agreement import objects, require_agreement
from tests.mortal import Crash, MortalMeans
from tests.waiting import eventually

DETAILS = {"original_filename": "a.txt", "mime_type": "text/plain", "tags": [], "created_by_username": "ivanov"}
MOST_TOUCHES = 40
"""More than any saga has."""


class Bytes:
    """Content without a request."""

    def __init__(self, *chunks: bytes, **details: Any) -> None:
        self._chunks = chunks
        self._details = details

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk

    async def details(self) -> dict[str, Any]:
        return self._details


def uploading(data: bytes = b"one", **changes: Any) -> Work:
    return Work(**{"file_id": uuid4(), "content": Bytes(data, **DETAILS), **changes})


@pytest.fixture
def folders(storage_folder: Path, tmp_path: Path) -> dict[str, Path]:
    second = tmp_path / "second"
    second.mkdir()
    return {"se-01": storage_folder, "se-02": second}


@pytest.fixture
async def two_elements(means: Means, admin_engine: AsyncEngine, folders: dict[str, Path]) -> Elements:
    await elements.ensure(admin_engine, "se-02", folders["se-02"].as_uri())
    await means.elements.refresh()
    return means.elements


Mortal = Callable[[int], MortalMeans]


@pytest.fixture
def mortal(admin_engine: AsyncEngine, two_elements: Elements, folders: dict[str, Path]) -> Mortal:
    return lambda touches: MortalMeans(admin_engine, two_elements, folders, touches)


async def uploaded_to_first(means: Means, pool: asyncpg.Pool) -> FileRecord:
    """A file on se-01, so that se-02 is another element."""
    await pool.execute("UPDATE storage_elements SET mode = 'read_only' WHERE element_id != 'se-01'")
    await means.elements.refresh()
    record = await run_saga(UPLOAD, means, uploading())
    await pool.execute("UPDATE storage_elements SET mode = 'online'")
    await means.elements.refresh()
    return record


async def expire_leases(pool: asyncpg.Pool) -> None:
    await pool.execute("UPDATE sagas SET lease_until = '-infinity' WHERE state NOT IN ('done', 'compensated')")


CHANGES: dict[str, tuple[Saga, Callable[[UUID], Work]]] = {
    "upload": (UPLOAD, lambda _: uploading(b"two")),
    "replace": (REPLACE, lambda file_id: Work(file_id=file_id, content=Bytes(b"longer than before"))),
    "move": (MOVE, lambda file_id: Work(file_id=file_id, target="se-02")),
    "update": (UPDATE, lambda file_id: Work(file_id=file_id, change={"description": "two"})),
    "delete": (DELETE, lambda file_id: Work(file_id=file_id)),
}


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_crash_at_any_point_is_resumed_or_undone_by_another_process(
    kind: str, mortal: Mortal, means: Means, admin_pool: asyncpg.Pool, folders: dict[str, Path]
) -> None:
    saga, work_on = CHANGES[kind]
    for touches in range(MOST_TOUCHES):
        record = await uploaded_to_first(means, admin_pool)
        try:
            await run_saga(saga, mortal(touches), work_on(record.file_id))
        except Crash:
            await expire_leases(admin_pool)
            await recover(mortal(10**6))
            await require_agreement(admin_pool, folders)
        else:
            assert touches > 2
            break
    else:
        pytest.fail("the saga touches the world more often than this test tries")
    await require_agreement(admin_pool, folders)


async def test_a_recovery_that_crashes_itself_is_recovered(
    mortal: Mortal, admin_pool: asyncpg.Pool, folders: dict[str, Path]
) -> None:
    for dies_at in range(MOST_TOUCHES):
        with pytest.raises(Crash):
            # Behind the write, before the recording.
            await run_saga(UPLOAD, mortal(5), uploading())
        assert len(objects(folders)) == 1
        await expire_leases(admin_pool)
        try:
            await recover(mortal(dies_at))
        except Crash:
            await expire_leases(admin_pool)
            await recover(mortal(10**6))
            await require_agreement(admin_pool, folders)
        else:
            assert dies_at > 2
            return
    pytest.fail("the recovery never came to its end")


async def test_a_saga_in_hand_keeps_its_lease_and_is_not_taken_up(means: Means, admin_pool: asyncpg.Pool) -> None:
    goes_on = asyncio.Event()

    class Slow(Bytes):
        async def chunks(self) -> AsyncIterator[bytes]:
            yield b"first"
            await goes_on.wait()
            yield b"last"

    running = asyncio.create_task(run_saga(UPLOAD, means, uploading(content=Slow(**DETAILS))))
    await eventually(lambda: admin_pool.fetchval("SELECT count(*) FROM sagas"))
    await admin_pool.execute("UPDATE sagas SET lease_until = clock_timestamp() + interval '1 second'")
    stopping = asyncio.Event()
    renewing = asyncio.create_task(renew_until(means, stopping))
    await asyncio.sleep(0)
    stopping.set()  # it has begun to wait, and renews once more
    await renewing
    assert await admin_pool.fetchval("SELECT lease_until > clock_timestamp() + interval '20 seconds' FROM sagas")
    assert await recover(means) == 0
    goes_on.set()
    assert (await running).revision == 1


async def test_a_process_does_not_take_its_own_sagas_from_itself(
    means: Means, admin_pool: asyncpg.Pool, folders: dict[str, Path]
) -> None:
    class Outlasts(Bytes):
        """The database was away for longer than a lease."""

        async def chunks(self) -> AsyncIterator[bytes]:
            yield b"first"
            await expire_leases(admin_pool)
            assert await recover(means) == 0
            yield b"last"

    assert (await run_saga(UPLOAD, means, uploading(content=Outlasts(**DETAILS)))).revision == 1
    assert means.leases.in_hand == {}
    await require_agreement(admin_pool, folders)


async def test_a_process_that_was_paused_and_replaced_records_nothing_and_leaves_no_bytes(
    means: Means, mortal: Mortal, admin_pool: asyncpg.Pool, folders: dict[str, Path]
) -> None:
    class PausedInTheMiddle(Bytes):
        async def chunks(self) -> AsyncIterator[bytes]:
            yield b"first"
            await expire_leases(admin_pool)
            assert await recover(mortal(10**6)) == 1
            yield b"last"

    with pytest.raises(SagaInterruptedError):
        await run_saga(UPLOAD, means, uploading(content=PausedInTheMiddle(**DETAILS)))
    assert await admin_pool.fetchval("SELECT count(*) FROM files") == 0
    assert await admin_pool.fetchval("SELECT state FROM sagas") == "compensated"
    await require_agreement(admin_pool, folders)


class LosesTheAnswer(Means):
    """The transaction that records is committed, and the connection breaks before anybody hears of it."""

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with super().transaction() as connection:
            yield connection
        raise ConnectionResetError


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_change_that_was_recorded_is_answered_though_the_commits_answer_was_lost(
    kind: str, means: Means, two_elements: Elements, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool,
    folders: dict[str, Path],
) -> None:  # fmt: skip
    saga, work_on = CHANGES[kind]
    before = await uploaded_to_first(means, admin_pool)
    record = await run_saga(saga, LosesTheAnswer(admin_engine, two_elements), work_on(before.file_id))
    at = await admin_pool.fetchval("SELECT revision FROM files WHERE file_id = $1", record.file_id)
    assert at == record.revision
    await require_agreement(admin_pool, folders)


@pytest.mark.parametrize("kind", CHANGES)
async def test_a_retry_under_the_same_key_gets_the_first_answer_and_changes_nothing(
    kind: str, mortal: Mortal, admin_pool: asyncpg.Pool, folders: dict[str, Path]
) -> None:
    saga, work_on = CHANGES[kind]
    means = mortal(10**6)
    file_id = (await uploaded_to_first(means, admin_pool)).file_id

    def again() -> Work:
        work = work_on(file_id)
        work.key = "key"
        return work

    first = await run_saga(saga, means, again())
    if kind != "delete":
        await run_saga(UPDATE, means, Work(file_id=first.file_id, change={"version": "later"}))
    assert await run_saga(saga, means, again()) == first
    await require_agreement(admin_pool, folders)


async def test_two_requests_at_once_under_one_key_make_one_change(
    means: Means, admin_pool: asyncpg.Pool, folders: dict[str, Path]
) -> None:
    file_id = (await run_saga(UPLOAD, means, uploading())).file_id

    async def update() -> FileRecord:
        return await run_saga(UPDATE, means, Work(file_id=file_id, key="key", change={"description": "two"}))

    answers = await asyncio.gather(*(update() for _ in range(5)))
    assert {one.revision for one in answers} == {2}
    uploads = await asyncio.gather(
        *(run_saga(UPLOAD, means, uploading(key="upload")) for _ in range(5)), return_exceptions=True
    )
    stored = [one for one in uploads if isinstance(one, FileRecord)]
    assert len({one.file_id for one in stored}) == 1
    assert all(isinstance(one, RequestUnderWayError) for one in uploads if one not in stored)
    await require_agreement(admin_pool, folders)


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        (lambda file_id: Work(file_id=file_id, change={"description": "other"}), UPDATE),
        (lambda file_id: Work(file_id=file_id, change={"description": "two"}, expected=frozenset({1})), UPDATE),
        (lambda file_id: Work(file_id=file_id), DELETE),
        (lambda _: uploading(), UPLOAD),
        (lambda _: Work(file_id=uuid4(), change={"description": "two"}), UPDATE),
    ],
    ids=["another value", "another precondition", "another kind", "an upload", "another file"],
)
async def test_the_same_key_with_another_request_is_refused(
    means: Means, admin_pool: asyncpg.Pool, folders: dict[str, Path], other: Callable[[UUID], Work], kind: Saga
) -> None:
    file_id = (await run_saga(UPLOAD, means, uploading())).file_id
    await run_saga(UPDATE, means, Work(file_id=file_id, key="key", change={"description": "two"}))
    work = other(file_id)
    work.key = "key"
    with pytest.raises(KeyReusedError):
        await run_saga(kind, means, work)
    await require_agreement(admin_pool, folders)


async def test_an_upload_under_the_same_key_with_other_bytes_is_refused(means: Means) -> None:
    await run_saga(UPLOAD, means, uploading(b"one", key="key"))
    with pytest.raises(KeyReusedError):
        await run_saga(UPLOAD, means, uploading(b"two", key="key"))


async def test_a_key_of_a_crashed_upload_is_busy_until_that_is_undone_and_then_free(
    mortal: Mortal, means: Means, admin_pool: asyncpg.Pool, folders: dict[str, Path]
) -> None:
    with pytest.raises(Crash):
        await run_saga(UPLOAD, mortal(8), uploading(key="key"))
    with pytest.raises(RequestUnderWayError):
        await run_saga(UPLOAD, means, uploading(key="key"))
    await expire_leases(admin_pool)
    await recover(mortal(10**6))
    assert (await run_saga(UPLOAD, means, uploading(key="key"))).revision == 1
    assert await admin_pool.fetchval("SELECT count(*) FROM files") == 1
    await require_agreement(admin_pool, folders)


async def test_a_key_of_a_refused_request_is_free_for_the_mended_one(means: Means) -> None:
    class Refused(Bytes):
        async def details(self) -> dict[str, Any]:
            raise AdminError("refused")

    with pytest.raises(AdminError):
        await run_saga(UPLOAD, means, uploading(content=Refused(b"x"), key="key"))
    assert (await run_saga(UPLOAD, means, uploading(key="key"))).revision == 1


async def test_a_move_of_a_file_that_has_changed_since_its_revision_was_asked_for_is_refused(
    means: Means, two_elements: Elements, admin_engine: AsyncEngine, admin_pool: asyncpg.Pool, folders: dict[str, Path]
) -> None:
    file_id = (await uploaded_to_first(means, admin_pool)).file_id

    class ChangedWhileItCopies(Means):
        @contextlib.asynccontextmanager
        async def transaction(self) -> AsyncIterator[AsyncConnection]:
            await run_saga(UPDATE, means, Work(file_id=file_id, change={"version": "later"}))
            async with super().transaction() as connection:
                yield connection

    with pytest.raises(RevisionMismatchError):
        await run_saga(
            MOVE,
            ChangedWhileItCopies(admin_engine, two_elements),
            Work(file_id=file_id, target="se-02", expected=frozenset({1})),
        )
    await require_agreement(admin_pool, folders)


async def test_nothing_is_recorded_on_an_element_that_has_just_been_forgotten(
    means: Means, admin_pool: asyncpg.Pool, folders: dict[str, Path]
) -> None:
    class Forgotten(Bytes):
        async def chunks(self) -> AsyncIterator[bytes]:
            yield b"one"
            await admin_pool.execute("DELETE FROM storage_elements")

    with pytest.raises(OwnElementUnknownError):
        await run_saga(UPLOAD, means, uploading(content=Forgotten(**DETAILS)))
    await require_agreement(admin_pool, folders)


async def test_a_move_of_content_that_was_replaced_meanwhile_changes_nothing(
    means: Means, two_elements: Elements, admin_pool: asyncpg.Pool, folders: dict[str, Path]
) -> None:
    file_id = (await uploaded_to_first(means, admin_pool)).file_id

    class ReplacedWhileItCopies(Means):
        def storage(self, element_id: str) -> Any:
            inner = super().storage(element_id)

            class Storage:
                async def write(self, key: str, content: AsyncIterator[bytes]) -> StoredObject:
                    stored = await inner.write(key, content)
                    await run_saga(REPLACE, means, Work(file_id=file_id, content=Bytes(b"new")))
                    return stored

                async def remove(self, key: str) -> None:
                    await inner.remove(key)

            return Storage()

    with pytest.raises(AdminError, match="was changed while"):
        await run_saga(MOVE, ReplacedWhileItCopies(means._engine, two_elements), Work(file_id=file_id, target="se-02"))
    await require_agreement(admin_pool, folders)


async def test_a_move_from_an_element_that_fails_does_not_blame_the_one_it_goes_to(
    means: Means, two_elements: Elements, admin_pool: asyncpg.Pool, folders: dict[str, Path]
) -> None:
    file_id = (await uploaded_to_first(means, admin_pool)).file_id

    class BreaksOff:
        async def read(self, _key: str) -> AsyncIterator[bytes]:
            return self._chunks()

        async def _chunks(self) -> AsyncIterator[bytes]:
            yield b"o"
            raise StorageError("broken")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_elements, "source", lambda _: BreaksOff())
        with pytest.raises(StorageError, match="se-01 does not give"):
            await run_saga(MOVE, means, Work(file_id=file_id, target="se-02"))
    assert two_elements.get("se-02").writable
    await require_agreement(admin_pool, folders)


async def test_a_step_that_fails_after_the_recording_is_tried_again_and_takes_no_answer_back(
    means: Means, admin_pool: asyncpg.Pool, folders: dict[str, Path], storage_folder: Path
) -> None:
    file_id = (await run_saga(UPLOAD, means, uploading())).file_id
    [(_, key)] = objects(folders)
    day = (storage_folder / key).parent
    aside = day.with_name("aside")
    day.rename(aside)
    day.write_text("in the way")  # a folder that cannot be entered, also for root
    await run_saga(DELETE, means, Work(file_id=file_id))
    async with means.alone() as connection:
        [saga] = await saga_log.newest(connection, 10, states={"recorded"})
    assert (saga.kind, saga.step, saga.revision) == ("delete", "remove_doomed", 2)
    assert saga.error
    day.unlink()
    aside.rename(day)
    await expire_leases(admin_pool)
    assert await recover(means) == 1
    await require_agreement(admin_pool, folders)


async def test_a_saga_that_nobody_can_resume_keeps_no_other_from_it(
    mortal: Mortal, means: Means, admin_pool: asyncpg.Pool
) -> None:
    for _ in range(2):
        with pytest.raises(Crash):
            await run_saga(UPLOAD, mortal(5), uploading())
    await admin_pool.execute(
        "UPDATE sagas SET detail = '{\"created\": 7}' WHERE saga_id = (SELECT min(saga_id::text)::uuid FROM sagas)"
    )
    await expire_leases(admin_pool)
    await recover(means)
    states = await admin_pool.fetch("SELECT state FROM sagas ORDER BY state")
    assert [row["state"] for row in states] == ["compensated", "compensating"]
