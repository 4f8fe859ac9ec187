"""A repair is a change: the state of a file is announced again under a raised revision, so it outranks what it mends.

Deleted files are announced too, as deleted: a consumer that missed a deletion must hear of it again. Files go in the
order of their ids, a page a transaction, so a run that stopped goes on behind the last id that it tells.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin import files
from producer_admin.backpressure import wait_for_room

ACTOR: Final = "republish"
PAGE: Final = 500
"""Files in one transaction: its row locks keep changes of these files waiting."""
FIRST: Final = UUID(int=0)

# Both walk the key of files. A page is bounded by what it reads, not by what it finds.
ALL: Final = text("SELECT file_id, true AS wanted FROM files WHERE file_id > :after ORDER BY file_id LIMIT :limit")
SINCE: Final = text(
    "SELECT file_id, updated_at >= :since AS wanted FROM files WHERE file_id > :after ORDER BY file_id LIMIT :limit"
)
KNOWN: Final = text("SELECT file_id FROM files WHERE file_id = ANY(CAST(:file_ids AS uuid[]))")
ESTIMATE: Final = text("SELECT CAST(reltuples AS bigint) FROM pg_class WHERE oid = CAST('files' AS regclass)")
READ_ONLY: Final = text("SET TRANSACTION READ ONLY")

Tell = Callable[[int, int | None, str], None]
"""Told how many files have been looked at, of about how many (None: nobody knows), and what is being done."""


@dataclass(frozen=True)
class Options:
    """How files are republished."""

    at_least: int = 0
    """New revisions are greater than this as well."""
    batch: int = PAGE
    outbox_limit: int = 50_000
    """Events that may wait for the topic before this waits for the relay; 0 is no limit."""
    dry_run: bool = False
    """Count, and write nothing."""


@dataclass
class Progress:
    """How far a run has come; up to date even when it ends by an error."""

    looked_at: int = 0
    announced: int = 0
    last: UUID | None = None
    """The last file whose page is committed."""
    unknown: list[UUID] = field(default_factory=list)
    """Ids that were asked for and are no file's."""


class Page(NamedTuple):
    """The next files in order of their ids."""

    wanted: Sequence[UUID]
    last: UUID
    looked_at: int


async def republish_files(
    engine: AsyncEngine,
    file_ids: Iterable[UUID],
    actor: str,
    at_least: int = 0,
    seen: Mapping[UUID, int] | None = None,
    *,
    deletions: bool = False,
) -> int:
    """Announce files again, a page a transaction, without waiting for the relay.

    Args:
        engine: of the Admin database
        file_ids: those that are unknown are passed over, unless `deletions`
        actor: who asks
        at_least: the new revisions are greater than this as well
        seen: the same, file by file
        deletions: files that are unknown are remembered and announced as deleted, for a consumer that has them

    Returns:
        How many files were announced.
    """
    announced = 0
    for page in batched_ids(file_ids, PAGE):
        async with engine.begin() as connection:
            if deletions:
                await files.remember_as_deleted(connection, page)
            announced += len(await files.republish(connection, page, actor, at_least, seen))
    return announced


async def republish(
    engine: AsyncEngine, pages: AsyncIterator[Page], total: int | None, options: Options, progress: Progress, tell: Tell
) -> None:
    """Announce page after page. `progress` says after each how far this has come."""
    tell(0, total, "Republishing")
    async for page in pages:
        if not options.dry_run:
            await wait_for_room(engine, options.outbox_limit, lambda why: tell(progress.looked_at, total, why))
        async with engine.begin() as connection:
            found = await _announce(connection, page.wanted, options)
        progress.unknown += [one for one in page.wanted if one not in found]
        progress.announced += len(found)
        progress.looked_at += page.looked_at
        progress.last = page.last
        tell(progress.looked_at, total, "Republishing")


async def named(file_ids: Iterable[UUID], batch: int) -> AsyncIterator[Page]:
    """Pages of the files that were asked for."""
    for page in batched_ids(file_ids, batch):
        yield Page(page, page[-1], len(page))


async def stored(engine: AsyncEngine, since: datetime | None, after: UUID | None, batch: int) -> AsyncIterator[Page]:
    """Pages of all files, or of those whose last revision was recorded at `since` or later."""
    place = after or FIRST
    while True:
        values: dict[str, Any] = {"after": place, "limit": batch}
        async with engine.connect() as connection:
            statement = (ALL, values) if since is None else (SINCE, values | {"since": since})
            rows = (await connection.execute(*statement)).all()
        if not rows:
            return
        place = rows[-1].file_id
        yield Page([row.file_id for row in rows if row.wanted], place, len(rows))


async def estimate(engine: AsyncEngine) -> int | None:
    """About how many files there are, deleted ones too; None when the database has never counted."""
    async with engine.connect() as connection:
        found: int = (await connection.execute(ESTIMATE)).scalar_one()
    return found if found >= 0 else None


def batched_ids(file_ids: Iterable[UUID], size: int) -> Iterable[tuple[UUID, ...]]:
    """Distinct ids in order, `size` at a time."""
    ordered = sorted(set(file_ids))
    for begin in range(0, len(ordered), size):
        yield tuple(ordered[begin : begin + size])


async def _announce(connection: AsyncConnection, wanted: Sequence[UUID], options: Options) -> set[UUID]:
    if options.dry_run:
        await connection.execute(READ_ONLY)
        return set((await connection.execute(KNOWN, {"file_ids": list(wanted)})).scalars())
    return {one.file_id for one in await files.republish(connection, wanted, ACTOR, options.at_least)}
