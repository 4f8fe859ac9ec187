"""Each change of a file is a saga: it ends in one transaction that writes the file, its event and the saga's fate.

Before that transaction every step can be undone; after it a saga only goes forward. The table says which steps there
are; the executor under it knows nothing of files.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from producer_admin import idempotency, saga_log
from producer_admin import saga_steps as steps
from producer_admin.errors import AdminError, StepTimeoutError
from producer_admin.files import FileRecord
from producer_admin.idempotency import Answered
from producer_admin.metrics import SAGA_STEP_SECONDS, SAGAS, SAGAS_POSTPONED
from producer_admin.saga_log import Abandoned
from producer_admin.saga_steps import Means, Work
from runtime import tracing
from runtime.engine import AWAY

_UNDO_SECONDS: Final = 30.0
_LONGEST_REASON: Final = 500
_FORESEEN: Final = (AdminError, *AWAY)
"""What a step may fail of and succeed later. Anything else is a fault of ours: it is shown, and the lease runs out."""


@dataclass(frozen=True)
class Outside:
    """A step outside the Admin database. May run twice; so may its undoing."""

    name: str
    act: Callable[[Means, Work], Awaitable[None]]
    undo: Callable[[Means, Work], Awaitable[None]] | None = None
    limit_seconds: float | None = 30.0
    """Longer than this it has failed; None for a step that watches over its own progress."""


@dataclass(frozen=True)
class Recording:
    """The step that decides: a transaction that writes the file, its event and the saga's fate."""

    name: str
    act: Callable[[AsyncConnection, Work], Awaitable[FileRecord]]


@dataclass(frozen=True, kw_only=True)
class Saga:
    """A kind of change: what can be undone, what decides, and what then has to be done."""

    kind: str
    prepare: Callable[[Means, Work], Awaitable[None]] | None = None
    """Looks and chooses; changes nothing. May find that the file is already as asked, and set `record`."""
    before: tuple[Outside, ...] = ()
    recording: Recording
    after: tuple[Outside, ...] = ()


_STORE: Final = Outside("store_bytes", steps.store_bytes, undo=steps.remove_created, limit_seconds=None)
_COPY: Final = Outside("copy_bytes", steps.copy_bytes, undo=steps.remove_created, limit_seconds=None)
_REMOVE: Final = Outside("remove_doomed", steps.remove_doomed)

UPLOAD: Final = Saga(
    kind="upload",
    prepare=steps.prepare_upload,
    before=(_STORE,),
    recording=Recording("record_creation", steps.record_creation),
)
REPLACE: Final = Saga(
    kind="replace",
    prepare=steps.prepare_replacement,
    before=(_STORE,),
    recording=Recording("record_content", steps.record_content),
    after=(_REMOVE,),
)
MOVE: Final = Saga(
    kind="move",
    prepare=steps.prepare_move,
    before=(_COPY,),
    recording=Recording("record_move", steps.record_move),
    after=(_REMOVE,),
)
UPDATE: Final = Saga(kind="update", recording=Recording("record_update", steps.record_update))
DELETE: Final = Saga(kind="delete", recording=Recording("record_deletion", steps.record_deletion), after=(_REMOVE,))

KINDS: Final = {saga.kind: saga for saga in (UPLOAD, REPLACE, MOVE, UPDATE, DELETE)}

_log = structlog.get_logger()


async def run_saga(saga: Saga, means: Means, work: Work) -> FileRecord:
    """Make a change, or repeat the answer of the request that made it before.

    Returns:
        The file as the recording step left it. A step that fails after that is tried again by whoever takes the saga
        up, and does not take the answer back.

    Raises:
        AdminError: the change was refused or undone; nothing of it remains, or will remain once the saga is taken up.
        Exception: the database is away. Whether the change was made can be asked again under the same key.
    """
    ids = {"saga_id": str(work.saga_id), "file_id": str(work.file_id)}
    with structlog.contextvars.bound_contextvars(**ids), tracing.span(f"saga {saga.kind}", **ids):
        work.traceparent = tracing.traceparent()
        return await _run(saga, means, work)


async def _run(saga: Saga, means: Means, work: Work) -> FileRecord:
    if (answered := await _look(means, work)) is not None:
        return await _repeat(saga, work, answered)
    if saga.prepare is not None:
        try:
            await saga.prepare(means, work)
        except AdminError:
            # What is refused now may be what the first request with this key has done meanwhile.
            if (answered := await _look(means, work)) is None:
                raise
            return await _repeat(saga, work, answered)
        if work.record is not None:
            return work.record
    if saga.before and (answered := await _begin(saga, means, work)) is not None:
        return await _repeat(saga, work, answered)
    with means.leases.held(work.saga_id, work.owner):
        answered = None
        try:
            for step in saga.before:
                await _do(saga, step.name, step.limit_seconds, step.act(means, work))
            answered = await _record(saga, means, work)
        except BaseException as error:
            # Shielded: a client that hangs up must not leave its bytes behind.
            if not await asyncio.shield(_settle(saga, means, work, error)):
                raise
        if answered is not None:
            return await _repeat(saga, work, answered)
        await _go_forward(saga, means, work)
    assert work.record is not None  # noqa: S101 - the recording set it
    return work.record


async def resume_saga(means: Means, abandoned: Abandoned, owner: UUID) -> None:
    """Take a saga, whose lease `owner` has got, to its end: forward if it was recorded, else back."""
    work = Work.resumed(abandoned.saga_id, owner, abandoned.file_id, abandoned.detail)
    saga = KINDS.get(abandoned.kind)
    ids = {"saga_id": str(work.saga_id), "file_id": str(work.file_id)}
    with (
        means.leases.held(work.saga_id, owner),
        structlog.contextvars.bound_contextvars(**ids),
        tracing.span("saga taken up", work.traceparent, **ids),
    ):
        if saga is None:
            await _postpone(means, work, abandoned.step, f"this version knows no saga {abandoned.kind}")
        elif abandoned.state == "compensating":
            await _undo(saga, means, work)
        else:
            await _go_forward(saga, means, work)


async def _look(means: Means, work: Work) -> Answered | None:
    if work.key is None:
        return None
    async with means.alone() as connection:
        return await idempotency.look(connection, work.key)


async def _begin(saga: Saga, means: Means, work: Work) -> Answered | None:
    """Note the saga before its first step. Returns the first answer if another request has got the key meanwhile."""
    async with means.transaction() if work.key else means.alone() as connection:
        if work.key and (answered := await idempotency.reserve(connection, work.key, work.saga_id)) is not None:
            return answered
        await saga_log.begin(
            connection,
            saga_id=work.saga_id,
            kind=saga.kind,
            file_id=work.file_id,
            step=saga.before[0].name,
            detail=work.detail,
            actor=work.asker,
            owner=work.owner,
        )
    return None


async def _record(saga: Saga, means: Means, work: Work) -> Answered | None:
    """The transaction that decides. Returns the first answer if another request has got the key meanwhile."""
    with _timed(saga, saga.recording.name):
        async with means.transaction() as connection:
            if work.key and not saga.before:
                answered = await idempotency.reserve(connection, work.key, work.saga_id)
                if answered is not None:
                    return answered
            work.record = await saga.recording.act(connection, work)
            await saga_log.record(
                connection,
                begun=bool(saga.before),
                last=not saga.after,
                saga_id=work.saga_id,
                kind=saga.kind,
                file_id=work.file_id,
                step=saga.recording.name,
                detail=work.detail,
                actor=work.asker,
                owner=work.owner,
                revision=work.record.revision,
            )
            if work.key:
                fingerprint = work.fingerprint(saga.kind)
                await idempotency.answer(connection, work.key, work.saga_id, fingerprint, work.record)
    return None


async def _repeat(saga: Saga, work: Work, answered: Answered) -> FileRecord:
    await work.read_without_storing()
    record = answered.to(work.fingerprint(saga.kind))
    SAGAS.labels(saga.kind, "repeated").inc()
    return record


async def _settle(saga: Saga, means: Means, work: Work, error: BaseException) -> bool:
    """Decide the fate of a saga that failed before its recording was known to be committed.

    Returns:
        True when the change is recorded after all, and only its answer was lost.
    """
    reason = _reason(error)
    try:
        async with means.alone() as connection:
            if not saga.before:
                # A refusal has rolled everything back; of anything else the log knows.
                recorded = not isinstance(error, AdminError) and await saga_log.is_recorded(connection, work.saga_id)
                if not recorded:
                    SAGAS.labels(saga.kind, "refused").inc()
                return recorded
            ours = await saga_log.give_up(connection, work.saga_id, work.owner, saga.before[-1].name, reason)
            if not ours and await saga_log.is_recorded(connection, work.saga_id):
                return True
            if ours and work.key:
                await idempotency.free(connection, work.key, work.saga_id)
    except AWAY as lost:
        _log.warning("saga is left to whoever takes it up", error=_reason(lost))
        return False
    # Not ours: another process has given it up. What this one wrote since then is removed all the same.
    await _undo(saga, means, work)
    return False


async def _undo(saga: Saga, means: Means, work: Work) -> None:
    """Undo what may have been done, newest first."""
    for step in reversed(saga.before):
        if step.undo is None:
            continue
        try:
            await _do(saga, f"undo_{step.name}", _UNDO_SECONDS, step.undo(means, work))
        except _FORESEEN as error:
            await _postpone(means, work, step.name, _reason(error))
            return
    SAGAS.labels(saga.kind, "compensated").inc()
    await _end(means, work, saga.before[0].name)


async def _go_forward(saga: Saga, means: Means, work: Work) -> None:
    """Do what has to be done after the recording."""
    for step in saga.after:
        try:
            await _do(saga, step.name, step.limit_seconds, step.act(means, work))
        except _FORESEEN as error:
            await _postpone(means, work, step.name, _reason(error))
            return
    SAGAS.labels(saga.kind, "done").inc()
    if saga.after:
        await _end(means, work, saga.after[-1].name)


async def _end(means: Means, work: Work, step: str) -> None:
    try:
        async with means.alone() as connection:
            await saga_log.end(connection, work.saga_id, work.owner, step)
    except AWAY as lost:
        # Its steps run once more when it is taken up, to the same end.
        _log.warning("end of a saga could not be noted", error=_reason(lost))


async def _postpone(means: Means, work: Work, step: str, reason: str) -> None:
    _log.error("saga is not done, it is tried again", step=step, error=reason)
    SAGAS_POSTPONED.labels(step).inc()
    try:
        async with means.alone() as connection:
            await saga_log.postpone(connection, work.saga_id, work.owner, step, reason)
    except AWAY as lost:
        _log.warning("saga is left to whoever takes it up", error=_reason(lost))


async def _do(saga: Saga, name: str, limit_seconds: float | None, step: Awaitable[None]) -> None:
    with _timed(saga, name):
        limit = asyncio.timeout(limit_seconds)
        try:
            async with limit:
                await step
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise StepTimeoutError(f"The step {name} took longer than {limit_seconds:g} s.") from error


@contextlib.contextmanager
def _timed(saga: Saga, step: str) -> Iterator[None]:
    begin, outcome = time.perf_counter(), "failed"
    try:
        with tracing.span(step):
            yield
        outcome = "ok"
    finally:
        SAGA_STEP_SECONDS.labels(saga.kind, step, outcome).observe(time.perf_counter() - begin)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_LONGEST_REASON]
