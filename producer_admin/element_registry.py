"""The registry of storage elements in Postgres: their names, what operators decided of them, and how full they are.

What an element holds is counted in the transactions that record files, so the sum is exact whatever crashes.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin import marks
from producer_admin.errors import OwnElementUnknownError
from producer_admin.storage import open_storage

# A few rows, each with the sum of its counters by the key of storage_usage.
LOAD: Final = text(
    """
    SELECT element_id, url, mode, capacity_bytes, marked, health_error, checked_at, registered_at,
           CAST(greatest(coalesce((SELECT sum(used_bytes) FROM storage_usage AS usage
                                   WHERE usage.element_id = element.element_id), 0), 0) AS bigint) AS used_bytes
    FROM storage_elements AS element ORDER BY element_id
    """
)
# At another URL nothing is known yet of its health.
REGISTER: Final = text(
    """
    INSERT INTO storage_elements AS known (element_id, url, mode, capacity_bytes, marked)
    VALUES (:element_id, :url, :mode, :capacity_bytes, :marked)
    ON CONFLICT (element_id) DO UPDATE SET
        url = excluded.url,
        mode = excluded.mode,
        capacity_bytes = excluded.capacity_bytes,
        marked = excluded.marked,
        health_error = CASE WHEN known.url = excluded.url THEN known.health_error END,
        checked_at = CASE WHEN known.url = excluded.url THEN known.checked_at END
    RETURNING xmax = 0 AS made
    """
)
ENSURE: Final = text(
    """
    INSERT INTO storage_elements (element_id, url, marked) VALUES (:element_id, :url, :marked)
    ON CONFLICT (element_id) DO NOTHING RETURNING element_id
    """
)
# Not for a URL that has been changed while the check ran.
NOTE_HEALTH: Final = text(
    """
    UPDATE storage_elements SET health_error = :health_error, checked_at = now()
    WHERE element_id = :element_id AND url = :url
    """
)
# One of 16 counters, by connection: two changes wait for each other by chance only (see tables.py). What is taken away
# may be from an element that the registry does not have.
TAKE_AWAY: Final = text(
    """
    INSERT INTO storage_usage AS usage (element_id, slot, used_bytes)
    VALUES (:element_id, pg_backend_pid() % 16, :delta_bytes)
    ON CONFLICT (element_id, slot) DO UPDATE SET used_bytes = usage.used_bytes + excluded.used_bytes
    RETURNING element_id
    """
)
# The row's lock is against forgetting an element while something is recorded there; health checks do not wait for it.
ADD: Final = text(
    """
    INSERT INTO storage_usage AS usage (element_id, slot, used_bytes)
    SELECT element_id, pg_backend_pid() % 16, CAST(:delta_bytes AS bigint)
    FROM (SELECT element_id FROM storage_elements WHERE element_id = :element_id FOR KEY SHARE) AS kept
    ON CONFLICT (element_id, slot) DO UPDATE SET used_bytes = usage.used_bytes + excluded.used_bytes
    RETURNING element_id
    """
)


class Mode(StrEnum):
    """What an operator lets an element do."""

    ONLINE = "online"
    READ_ONLY = "read_only"
    OFFLINE = "offline"


@dataclass(frozen=True)
class Element:
    """One storage element as the registry knows it."""

    element_id: str
    url: str
    mode: Mode
    capacity_bytes: int | None
    used_bytes: int
    health_error: str | None
    checked_at: datetime | None
    registered_at: datetime
    marked: bool = False
    """Its place carries its mark (`marks`); one whose place could not be written to has none."""

    @property
    def writable(self) -> bool:
        """Online and healthy."""
        return self.mode is Mode.ONLINE and self.health_error is None

    @property
    def free_bytes(self) -> int | None:
        """Bytes up to its capacity, never below 0; None when it has no bound."""
        return None if self.capacity_bytes is None else max(0, self.capacity_bytes - self.used_bytes)


async def load(connection: AsyncConnection) -> list[Element]:
    """All elements, by name."""
    rows = (await connection.execute(LOAD)).mappings().all()
    return [Element(**{**row, "mode": Mode(row["mode"])}) for row in rows]


async def register(
    connection: AsyncConnection,
    element_id: str,
    url: str,
    mode: Mode = Mode.ONLINE,
    capacity_bytes: int | None = None,
    *,
    marked: bool = False,
) -> bool:
    """Make an element known, or change it, in the caller's transaction.

    Returns:
        True when it was not known before.
    """
    values = {"element_id": element_id, "url": url, "mode": mode.value, "capacity_bytes": capacity_bytes}
    return bool((await connection.execute(REGISTER, {**values, "marked": marked})).scalar_one())


async def ensure(engine: AsyncEngine, element_id: str, url: str) -> None:
    """Register an element, online and without a bound, unless it is known: then it is left as operators set it.

    Raises:
        ValueError: it is new, and its URL cannot be opened.
        AdminError: it is new, and its place cannot be written to or is another element.
    """
    values = {"element_id": element_id, "url": url, "marked": is_lasting(url)}
    async with engine.begin() as connection:
        made = (await connection.execute(ENSURE, values)).one_or_none()
        if made is not None:
            storage = await asyncio.to_thread(open_storage, url, make=True)
            if is_lasting(url):
                await marks.claim(storage, element_id)


def is_lasting(url: str) -> bool:
    """Whether what is stored there outlives this process, so that its place can carry a mark."""
    return not url.startswith("memory:")


async def note_health(connection: AsyncConnection, element_id: str, url: str, error: str | None) -> None:
    """Note what a check of the element at `url` found; None is well."""
    await connection.execute(NOTE_HEALTH, {"element_id": element_id, "url": url, "health_error": error})


async def account(connection: AsyncConnection, element_id: str, delta_bytes: int) -> None:
    """Count bytes that a change adds to an element (or takes away, below 0) in the caller's transaction.

    Who counts on two elements in one transaction does so in the order of their names: two such never deadlock.

    Raises:
        OwnElementUnknownError: something is added to an element that the registry does not have, or not any more.
    """
    statement = ADD if delta_bytes >= 0 else TAKE_AWAY
    counted = await connection.execute(statement, {"element_id": element_id, "delta_bytes": delta_bytes})
    if counted.one_or_none() is None:
        raise OwnElementUnknownError(f"Storage element {element_id} is not in the registry.")
