"""What operators do to the Admin module is on record: who, when, what, to what. Kept for ever: there is little of it.

Changes of files are not here: their events say who made them, in the outbox and its audit log.
"""

import getpass
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from runtime.postgres import Connection

NOTE: Final = "INSERT INTO admin_actions (actor, action, subject, detail) VALUES ($1, $2, $3, $4::text::jsonb)"
# Walks the key from its end.
NEWEST: Final = """
SELECT action_id, at, actor, action, subject, detail FROM admin_actions
WHERE action_id < $1 ORDER BY action_id DESC LIMIT $2
"""
AFTER_ALL: Final = 2**63 - 1


class Did(StrEnum):
    """What was done."""

    ELEMENT_REGISTERED = "element registered"
    ELEMENT_CHANGED = "element changed"
    ELEMENT_FORGOTTEN = "element forgotten"
    REQUEUED = "events put back into the outbox"
    REPUBLISH = "republish begun"
    BACKFILL = "backfill begun"
    RECLAIM = "reclaiming scrub begun"


@dataclass(frozen=True)
class Action:
    """One act of an operator."""

    action_id: int
    at: datetime
    actor: str
    action: str
    subject: str
    """To what: an element, a source, files."""
    detail: Mapping[str, Any]


async def note(connection: AsyncConnection, actor: str, did: Did, subject: str, **detail: Any) -> None:
    """Put an act on record in the caller's transaction."""
    await connection.exec_driver_sql(NOTE, (actor, did.value, subject, json.dumps(detail, default=str)))


async def note_plain(connection: Connection, actor: str, did: Did, subject: str, **detail: Any) -> None:
    """The same over a plain connection."""
    await connection.execute(NOTE, actor, did.value, subject, json.dumps(detail, default=str))


async def note_begun(engine: AsyncEngine, did: Did, subject: str, **detail: Any) -> None:
    """Put on record that whoever runs this program has begun something that takes many transactions."""
    async with engine.begin() as connection:
        await note(connection, operator(), did, subject, **detail)


async def newest(connection: AsyncConnection, limit: int, before: int = AFTER_ALL) -> Sequence[Action]:
    """Acts, newest first, at most `limit`, whose ids are below `before`."""
    rows = await connection.exec_driver_sql(NEWEST, (before, limit))
    return [Action(**row._mapping) for row in rows]  # noqa: SLF001 - Row's public mapping


def operator() -> str:
    """Who runs this program, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown user"
