"""Where each saga stands, in Postgres, so that a crash leaves nothing that nobody knows about.

A saga's fate is decided once, under the lock of its row: recording the change and giving it up both require the
state `running`, so a commit whose answer was lost can never be undone by mistake.
"""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from producer_admin.errors import SagaInterruptedError

BEGIN: Final = text(
    """
    INSERT INTO sagas (saga_id, kind, file_id, state, step, detail)
    VALUES (:saga_id, :kind, :file_id, 'running', :step, CAST(:detail AS jsonb))
    """
)
LEAVE_RUNNING: Final = text(
    """
    UPDATE sagas SET state = :state, step = :step, error = :error, updated_at = now()
    WHERE saga_id = :saga_id AND state = 'running' RETURNING saga_id
    """
)
MOVE: Final = text(
    """
    UPDATE sagas SET state = :state, step = :step, error = :error, updated_at = now() WHERE saga_id = :saga_id
    """
)

STATE: Final = text("SELECT state FROM sagas WHERE saga_id = :saga_id")


async def begin(connection: AsyncConnection, saga_id: UUID, kind: str, file_id: UUID, step: str, detail: str) -> None:
    """Note that a saga begins with `step`. `detail` is JSON."""
    await connection.execute(
        BEGIN, {"saga_id": saga_id, "kind": kind, "file_id": file_id, "step": step, "detail": detail}
    )


async def record(connection: AsyncConnection, saga_id: UUID, step: str, *, last: bool) -> None:
    """Note, in the transaction that records the change, that the saga goes only forward from here.

    Raises:
        SagaInterruptedError: it was given up meanwhile; the caller's transaction must not commit.
    """
    values: dict[str, Any] = {
        "saga_id": saga_id,
        "state": "done" if last else "recorded",
        "step": step,
        "error": None,
    }
    if (await connection.execute(LEAVE_RUNNING, values)).one_or_none() is None:
        raise SagaInterruptedError("This change was given up before it was recorded. Try again.")


async def give_up(connection: AsyncConnection, saga_id: UUID, step: str, error: str) -> bool:
    """Decide that a saga is to be compensated. Waits for a recording that is under way.

    Returns:
        False when the change was recorded after all.
    """
    values = {"saga_id": saga_id, "state": "compensating", "step": step, "error": error}
    return (await connection.execute(LEAVE_RUNNING, values)).one_or_none() is not None


async def is_recorded(connection: AsyncConnection, saga_id: UUID) -> bool:
    """Whether the change that a saga makes is committed."""
    state = (await connection.execute(STATE, {"saga_id": saga_id})).scalar_one_or_none()
    return state in {"recorded", "done"}


async def move(connection: AsyncConnection, saga_id: UUID, state: str, step: str, error: str | None = None) -> None:
    """Note a later step of a saga whose fate is decided."""
    await connection.execute(MOVE, {"saga_id": saga_id, "state": state, "step": step, "error": error})
