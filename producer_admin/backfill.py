"""Files of an older system become files of this one, each announced once, however often the take-over is begun.

A page of the source is one transaction here: the files, their events, the refusals, the counters and the last key. So
a run that is killed anywhere has lost nothing and repeats nothing: the next one goes on behind the last page.

    open the source  →  fit the mapping  →  elements known?  →  page: validate  →  one transaction  →  next page

What a file's bytes are is not looked at; the scrub does that.
"""

import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin import actions, files
from producer_admin.actions import Did
from producer_admin.backfill_mapping import Mapping, Plan, Refused, is_element_id, plan
from producer_admin.backfill_source import Source, SourceRow, SourceTable
from producer_admin.backpressure import wait_for_room
from producer_admin.element_registry import load
from producer_admin.errors import BackfillOvertakenError, MappingError, UnknownElementError
from producer_admin.files import FileRecord

ACTOR: Final = "backfill"
MOST_SHOWN: Final = 20
MAX_KEY: Final = 500
"""Characters of a refused row's key that are kept: an index entry has a bound, a text key of the source has not."""

READ: Final = text("SELECT key_column, last_key, taken, present, refused FROM backfills WHERE source = :source")
BEGIN: Final = text(
    "INSERT INTO backfills (source, key_column) VALUES (:source, :key_column) ON CONFLICT (source) DO NOTHING"
)
FORGET: Final = text("DELETE FROM backfills WHERE source = :source")
# Only where the last page still is the last: of two runs of one backfill, one takes each page.
MOVE_ON: Final = text(
    """
    UPDATE backfills
    SET last_key = :last_key, taken = taken + :taken, present = present + :present, refused = refused + :refused,
        updated_at = now(), finished_at = NULL
    WHERE source = :source AND last_key IS NOT DISTINCT FROM CAST(:before AS text)
    RETURNING taken
    """
)
FINISH: Final = text("UPDATE backfills SET finished_at = now() WHERE source = :source AND finished_at IS NULL")
REFUSE: Final = text(
    """
    INSERT INTO backfill_refusals (source, key, reason)
    SELECT :source, key, reason FROM unnest(CAST(:keys AS text[]), CAST(:reasons AS text[])) AS refused (key, reason)
    ON CONFLICT (source, key) DO UPDATE SET reason = excluded.reason
    """
)
FIRST_REFUSALS: Final = text(
    "SELECT key, reason FROM backfill_refusals WHERE source = :source ORDER BY key LIMIT :limit"
)
KNOWN: Final = text("SELECT file_id FROM files WHERE file_id = ANY(CAST(:file_ids AS uuid[]))")
READ_ONLY: Final = text("SET TRANSACTION READ ONLY")

Tell = Callable[[int, int | None, str], None]
"""Told how many rows have been looked at, of about how many (None: nobody knows), and what is being done."""


class Refusal(NamedTuple):
    """A row that was left out."""

    key: str
    reason: str


@dataclass(frozen=True)
class Options:
    """How a backfill is run."""

    batch: int = 1_000
    """Rows in a page."""
    outbox_limit: int = 50_000
    """Events that may wait for the topic before the backfill waits for the relay; 0 is no limit."""
    restart: bool = False
    """Look at all rows again."""
    dry_run: bool = False
    """Read and validate all rows, and write nothing."""


@dataclass(frozen=True)
class Totals:
    """What became of the rows, over all runs since the backfill was begun."""

    source: str
    taken: int = 0
    """New files, each announced."""
    present: int = 0
    """Known here already, also as deleted."""
    refused: int = 0
    first_refusals: tuple[Refusal, ...] = ()
    remarks: tuple[str, ...] = ()
    """What was assumed for all rows."""
    looked_at: int = 0
    """Rows that this run has read."""
    seconds: float = 0.0
    """What this run took."""

    @property
    def rows(self) -> int:
        """All rows so far."""
        return self.taken + self.present + self.refused


@dataclass(frozen=True)
class _Page:
    records: list[FileRecord]
    refusals: list[Refusal]


async def backfill(source: Source, engine: AsyncEngine, mapping: Mapping, options: Options, tell: Tell) -> Totals:
    """Take over all rows of the source, from where the run before stopped. A dry run looks at all of them.

    Raises:
        MappingError: the mapping does not fit the source; nothing was begun.
        UnknownElementError: a storage element of the source is not registered; nothing was begun.
        SourceError: the source went away. Run it again to go on.
        BackfillOvertakenError: another run of this backfill goes on.
    """
    begun = time.monotonic()
    table = await source.table(mapping.table)
    fitted = plan(mapping, table.columns)
    await source.check_key(table, mapping.key)
    registered = await _registered(source, table, fitted, engine)
    if not options.dry_run:
        await actions.note_begun(engine, Did.BACKFILL, table.identity, restart=options.restart)
    ledger: _Ledger = _Rehearsal(table) if options.dry_run else _Ledger(table)
    totals, last_key = await ledger.begin(engine, mapping.key, restart=options.restart)
    before = totals.rows
    tell(totals.rows, table.estimate, "Reading")
    while rows := await source.page(table, mapping.key, fitted.columns, last_key, options.batch):
        if not options.dry_run:
            # The closure lives for one page only.
            await wait_for_room(engine, options.outbox_limit, lambda why: tell(totals.rows, table.estimate, why))  # noqa: B023
        page = _sorted_out(rows, fitted, registered)
        async with engine.begin() as connection:
            taken = await ledger.note(connection, page, last_key, rows[-1].key)
        last_key = rows[-1].key
        totals = replace(
            totals,
            taken=totals.taken + taken,
            present=totals.present + len(page.records) - taken,
            refused=totals.refused + len(page.refusals),
        )
        tell(totals.rows, table.estimate, "Reading")
    return replace(
        totals,
        first_refusals=await ledger.finish(engine),
        remarks=fitted.remarks,
        looked_at=totals.rows - before,
        seconds=time.monotonic() - begun,
    )


class _Ledger:
    """Where the backfill of one source stands, in table `backfills`."""

    def __init__(self, table: SourceTable) -> None:
        self._source = table.identity

    async def begin(self, engine: AsyncEngine, key: str, *, restart: bool) -> tuple[Totals, str | None]:
        """What was done before, and the last key that was looked at."""
        async with engine.begin() as connection:
            if restart:
                await connection.execute(FORGET, {"source": self._source})
            await connection.execute(BEGIN, {"source": self._source, "key_column": key})
            row = (await connection.execute(READ, {"source": self._source})).one()
        if row.key_column != key:
            raise MappingError(
                f"This backfill was begun by key {row.key_column}, not {key}. "
                "Go on with that, or begin anew with --restart."
            )
        return Totals(self._source, row.taken, row.present, row.refused), row.last_key

    async def note(self, connection: AsyncConnection, page: _Page, before: str | None, last_key: str) -> int:
        """Take a page over, in the caller's transaction. Returns how many files were new."""
        taken = len(await files.take_over(connection, page.records, ACTOR))
        counts = {
            "source": self._source,
            "before": before,
            "last_key": last_key,
            "taken": taken,
            "present": len(page.records) - taken,
            "refused": len(page.refusals),
        }
        if (await connection.execute(MOVE_ON, counts)).one_or_none() is None:
            raise BackfillOvertakenError(
                "Another run of this backfill is under way, or began it anew. Leave it to that."
            )
        if page.refusals:
            keys, reasons = [one.key for one in page.refusals], [one.reason for one in page.refusals]
            await connection.execute(REFUSE, {"source": self._source, "keys": keys, "reasons": reasons})
        return taken

    async def finish(self, engine: AsyncEngine) -> tuple[Refusal, ...]:
        """Note that the last row was reached. Returns the first refusals, by key."""
        async with engine.begin() as connection:
            await connection.execute(FINISH, {"source": self._source})
            found = await connection.execute(FIRST_REFUSALS, {"source": self._source, "limit": MOST_SHOWN})
            return tuple(Refusal(row.key, row.reason) for row in found)


class _Rehearsal(_Ledger):
    """The same, and the server sees to it that nothing is written."""

    def __init__(self, table: SourceTable) -> None:
        super().__init__(table)
        self._first_refusals: list[Refusal] = []

    async def begin(self, engine: AsyncEngine, key: str, *, restart: bool) -> tuple[Totals, str | None]:  # noqa: ARG002
        """Always from the first row."""
        return Totals(self._source), None

    async def note(self, connection: AsyncConnection, page: _Page, before: str | None, last_key: str) -> int:  # noqa: ARG002
        """Count what would be new."""
        await connection.execute(READ_ONLY)
        self._first_refusals += page.refusals[: MOST_SHOWN - len(self._first_refusals)]
        ids = {one.file_id for one in page.records}
        known = (await connection.execute(KNOWN, {"file_ids": list(ids)})).all()
        return len(ids) - len(known)

    async def finish(self, engine: AsyncEngine) -> tuple[Refusal, ...]:  # noqa: ARG002
        """The first refusals, by key."""
        return tuple(self._first_refusals)


def _sorted_out(rows: Sequence[SourceRow], fitted: Plan, registered: AbstractSet[str]) -> _Page:
    page = _Page([], [])
    for row in rows:
        found = fitted.record_of(row.row)
        # A row that came after the start may name an element that nobody has registered.
        if isinstance(found, FileRecord) and found.storage_element_id not in registered:
            column = fitted.columns.get("storage_element_id", "storage_element_id")
            found = Refused(f"{column}: storage element {found.storage_element_id} is not registered")
        if isinstance(found, Refused):
            page.refusals.append(Refusal(row.key[:MAX_KEY], found.reason))
        else:
            page.records.append(found)
    return page


async def _registered(source: Source, table: SourceTable, fitted: Plan, engine: AsyncEngine) -> AbstractSet[str]:
    """The registered elements. Refuses to begin when files would be recorded that nobody can download."""
    constant = fitted.constants.get("storage_element_id")
    named = [constant] if constant else await source.distinct(table, fitted.columns["storage_element_id"])
    async with engine.connect() as connection:
        registered = {one.element_id for one in await load(connection)}
    # What can be no element's id is a fault of its rows; they are refused one by one.
    if missing := sorted({one for one in named if is_element_id(one)} - registered):
        raise UnknownElementError(
            f"The source names storage elements that are not registered: {', '.join(missing[:MOST_SHOWN])}. "
            f"Register each, for example with PUT /api/v1/storage-elements/{missing[0]}, or name one for all files "
            "with --storage-element."
        )
    return registered
