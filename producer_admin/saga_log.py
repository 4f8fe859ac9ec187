"""Where each saga stands, in Postgres, so that a crash leaves nothing that nobody knows about.

A saga's fate is decided once, under the lock of its row: recording the change and giving it up both require the
state `running`, so a commit whose answer was lost can never be undone by mistake. Whoever works on a saga holds a lease
under a token of its own, by the database's clock; once that has run out, another process may take the saga up, and
the first can no longer record it.
"""

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from producer_admin.errors import SagaInterruptedError, SagaNotFoundError
from producer_admin.pages import Place, page
from producer_admin.tables import SAGAS

LEASE_SECONDS: Final = 30
"""How long a saga whose process has died waits before another process takes it up."""
LONGEST_RETRY_SECONDS: Final = 300

# A saga that begins outside the database: `running`, with a lease.
BEGIN: Final = text(
    """
    INSERT INTO sagas (saga_id, kind, file_id, state, step, detail, actor, owner, lease_until)
    VALUES (:saga_id, :kind, :file_id, 'running', :step, CAST(:detail AS jsonb), :actor, :owner,
            clock_timestamp() + make_interval(secs => :lease))
    """
)
# A saga whose first step is the recording: it is never seen before it is recorded.
BEGIN_RECORDED: Final = text(
    """
    INSERT INTO sagas (saga_id, kind, file_id, state, step, detail, actor, owner, revision, lease_until)
    VALUES (:saga_id, :kind, :file_id, :state, :step, CAST(:detail AS jsonb), :actor, :owner, :revision,
            clock_timestamp() + make_interval(secs => :lease))
    """
)
RECORD: Final = text(
    """
    UPDATE sagas SET state = :state, step = :step, detail = CAST(:detail AS jsonb), revision = :revision,
        actor = :actor, updated_at = now()
    WHERE saga_id = :saga_id AND state = 'running' AND owner = :owner RETURNING saga_id
    """
)
GIVE_UP: Final = text(
    """
    UPDATE sagas SET state = 'compensating', step = :step, error = :error, updated_at = now()
    WHERE saga_id = :saga_id AND state = 'running' AND owner = :owner RETURNING saga_id
    """
)
END: Final = text(
    """
    UPDATE sagas SET state = CASE state WHEN 'recorded' THEN 'done' ELSE 'compensated' END, step = :step,
        owner = NULL, updated_at = now()
    WHERE saga_id = :saga_id AND owner = :owner AND state IN ('recorded', 'compensating')
    """
)
# Its lease ends when the next try is due: sooner at first, 5 minutes apart in the end.
POSTPONE: Final = text(
    """
    UPDATE sagas SET step = :step, error = :error, owner = NULL, updated_at = now(),
        lease_until = clock_timestamp() + make_interval(secs => least(:longest, power(2, least(attempts, 20))))
    WHERE saga_id = :saga_id AND owner = :owner AND state IN ('recorded', 'compensating')
    """
)
RENEW: Final = text(
    """
    UPDATE sagas SET lease_until = clock_timestamp() + make_interval(secs => :lease)
    FROM unnest(CAST(:saga_ids AS uuid[]), CAST(:owners AS uuid[])) AS held (saga_id, owner)
    WHERE sagas.saga_id = held.saga_id AND sagas.owner = held.owner
    """
)
# Walks sagas_unfinished. What had not been recorded is given up here, under the row's lock, and its key is freed.
TAKE_UP: Final = text(
    """
    WITH abandoned AS (
        SELECT saga_id FROM sagas
        WHERE state NOT IN ('done', 'compensated') AND lease_until < clock_timestamp()
          AND saga_id <> ALL (CAST(:in_hand AS uuid[]))
        ORDER BY lease_until LIMIT :limit FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE sagas SET
            state = CASE state WHEN 'running' THEN 'compensating' ELSE state END,
            error = CASE state WHEN 'running' THEN 'its process did not come back' ELSE error END,
            owner = :owner, lease_until = clock_timestamp() + make_interval(secs => :lease),
            attempts = attempts + 1, updated_at = now()
        FROM abandoned WHERE sagas.saga_id = abandoned.saga_id
        RETURNING sagas.*
    ), freed AS (
        DELETE FROM idempotency_keys USING taken
        WHERE idempotency_keys.saga_id = taken.saga_id AND taken.state = 'compensating' AND answer IS NULL
    )
    SELECT saga_id, kind, file_id, state, step, detail, attempts FROM taken
    """
)
STATE: Final = text("SELECT state FROM sagas WHERE saga_id = :saga_id")
UNFINISHED: Final = text(
    """
    SELECT state, count(*) AS sagas FROM sagas WHERE state NOT IN ('done', 'compensated') GROUP BY state
    """
)
GET: Final = text("SELECT * FROM sagas WHERE saga_id = :saga_id")


@dataclass(frozen=True)
class Abandoned:
    """A saga that was taken up from a process that has gone, or whose next try is due."""

    saga_id: UUID
    kind: str
    file_id: UUID
    state: str
    step: str
    detail: Mapping[str, Any]
    attempts: int


@dataclass(frozen=True)
class LoggedSaga:
    """One row of the log, as it is shown."""

    saga_id: UUID
    kind: str
    file_id: UUID
    state: str
    step: str
    detail: Mapping[str, Any]
    error: str | None
    attempts: int
    actor: str
    revision: int | None
    started_at: datetime
    updated_at: datetime


async def begin(
    connection: AsyncConnection,
    *,
    saga_id: UUID,
    kind: str,
    file_id: UUID,
    step: str,
    detail: str,
    actor: str,
    owner: UUID,
) -> None:
    """Note that a saga begins with `step`, outside the database. `detail` is JSON."""
    values = {"saga_id": saga_id, "kind": kind, "file_id": file_id, "step": step, "detail": detail, "actor": actor}
    await connection.execute(BEGIN, {**values, "owner": owner, "lease": LEASE_SECONDS})


async def record(
    connection: AsyncConnection,
    *,
    begun: bool,
    last: bool,
    saga_id: UUID,
    kind: str,
    file_id: UUID,
    step: str,
    detail: str,
    actor: str,
    owner: UUID,
    revision: int,
) -> None:
    """Note, in the transaction that records the change, that the saga goes only forward from here.

    Raises:
        SagaInterruptedError: it was given up meanwhile; the caller's transaction must not commit.
    """
    values = {
        "saga_id": saga_id,
        "state": "done" if last else "recorded",
        "step": step,
        "detail": detail,
        "actor": actor,
        "owner": None if last else owner,
        "revision": revision,
    }
    if not begun:
        lease = 0 if last else LEASE_SECONDS
        await connection.execute(BEGIN_RECORDED, {**values, "kind": kind, "file_id": file_id, "lease": lease})
    elif (await connection.execute(RECORD, {**values, "owner": owner})).one_or_none() is None:
        raise SagaInterruptedError("This change was given up before it was recorded. Try again.")


async def give_up(connection: AsyncConnection, saga_id: UUID, owner: UUID, step: str, error: str) -> bool:
    """Decide that a saga is to be compensated. Waits for a recording that is under way.

    Returns:
        False when that is not the owner's to decide: it was recorded after all, or another process has taken it up.
    """
    values = {"saga_id": saga_id, "owner": owner, "step": step, "error": error}
    return (await connection.execute(GIVE_UP, values)).one_or_none() is not None


async def is_recorded(connection: AsyncConnection, saga_id: UUID) -> bool:
    """Whether the change that a saga makes is committed."""
    state = (await connection.execute(STATE, {"saga_id": saga_id})).scalar_one_or_none()
    return state in {"recorded", "done"}


async def end(connection: AsyncConnection, saga_id: UUID, owner: UUID, step: str) -> None:
    """Note that nothing is left to do, whichever way the saga went."""
    await connection.execute(END, {"saga_id": saga_id, "owner": owner, "step": step})


async def postpone(connection: AsyncConnection, saga_id: UUID, owner: UUID, step: str, error: str) -> None:
    """Note that a step failed which has to succeed; any process tries it again later."""
    values = {"saga_id": saga_id, "owner": owner, "step": step, "error": error, "longest": LONGEST_RETRY_SECONDS}
    await connection.execute(POSTPONE, values)


async def renew(connection: AsyncConnection, held: Mapping[UUID, UUID]) -> None:
    """Prolong the leases of sagas in hand, owners by saga."""
    values = {"saga_ids": list(held), "owners": list(held.values()), "lease": LEASE_SECONDS}
    await connection.execute(RENEW, values)


async def take_up(
    connection: AsyncConnection, owner: UUID, limit: int, in_hand: Collection[UUID] = ()
) -> list[Abandoned]:
    """Take sagas that nobody works on, at most `limit`. What had not been recorded is given up by that.

    Those `in_hand` are this process's own: their lease may have run out while the database was away, but they go on.
    """
    values = {"owner": owner, "limit": limit, "lease": LEASE_SECONDS, "in_hand": list(in_hand)}
    return [Abandoned(**row._mapping) for row in await connection.execute(TAKE_UP, values)]  # noqa: SLF001


async def unfinished(connection: AsyncConnection) -> dict[str, int]:
    """How many sagas have not ended, by state."""
    return {row.state: row.sagas for row in await connection.execute(UNFINISHED)}


async def get(connection: AsyncConnection, saga_id: UUID) -> LoggedSaga:
    """One saga.

    Raises:
        SagaNotFoundError: there is none of that id, or it is too long ago.
    """
    row = (await connection.execute(GET, {"saga_id": saga_id})).one_or_none()
    if row is None:
        raise SagaNotFoundError(f"There is no saga {saga_id}; those that ended long ago are forgotten.")
    return _logged(row)


async def newest(
    connection: AsyncConnection,
    limit: int,
    *,
    states: AbstractSet[str] | None = None,
    kind: str | None = None,
    file_id: UUID | None = None,
    behind: Place | None = None,
) -> Sequence[LoggedSaga]:
    """Sagas, newest first, at most `limit`, behind the one where the page before ended."""
    statement = page(select(SAGAS), SAGAS.c.started_at, SAGAS.c.saga_id, limit, behind)
    if states is not None:
        statement = statement.where(SAGAS.c.state.in_(states))
    if kind is not None:
        statement = statement.where(SAGAS.c.kind == kind)
    if file_id is not None:
        statement = statement.where(SAGAS.c.file_id == file_id)
    return [_logged(row) for row in await connection.execute(statement)]


def _logged(row: Any) -> LoggedSaga:
    return LoggedSaga(**{name: getattr(row, name) for name in LoggedSaga.__dataclass_fields__})
