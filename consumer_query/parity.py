"""A rebuilt generation takes the live one's place only if nothing that the live one has right would be lost by it.

Both are compared at equal positions: rows and an order-free sum of their digests by bucket, and file by file where
those differ. A difference in itself says nothing, since either side may be the wrong one: where the rows do not tell,
the Admin module does. What nobody can tell speaks against the swap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import asyncpg
import structlog

from consumer_query.generations import SHAPE, table_name
from runtime.postgres import Connection
from schemas.digests import digest_of

PAGE: Final = 500
"""Files that the Admin module is asked for at once."""
EXAMPLES: Final = 10
SECONDS: Final = 3_600.0

# A scan of each table, 4096 groups. By a hash of the id, since ids may share their first or last bits.
SUMS: Final = """
SELECT uuid_hash(file_id) & 4095 AS bucket, count(*) AS rows, sum({digest}) AS digest
FROM {table} AS t WHERE NOT deleted GROUP BY 1
"""
DIFFERENCES: Final = """
SELECT file_id, l.revision AS live_revision, l.deleted AS live_deleted, l.digest AS live_digest,
    n.revision AS new_revision, n.deleted AS new_deleted, n.digest AS new_digest
FROM (
    SELECT file_id, revision, deleted, CASE WHEN NOT deleted THEN {digest} END AS digest FROM {live} AS t
    WHERE uuid_hash(file_id) & 4095 = ANY($1::int[])
) AS l FULL JOIN (
    SELECT file_id, revision, deleted, CASE WHEN NOT deleted THEN {digest} END AS digest FROM {new} AS t
    WHERE uuid_hash(file_id) & 4095 = ANY($1::int[])
) AS n USING (file_id)
WHERE (l.digest, l.revision) IS DISTINCT FROM (n.digest, n.revision)
  AND NOT (coalesce(l.deleted, true) AND coalesce(n.deleted, true))
"""
LIVE_SHAPE: Final = "SELECT shape FROM generations WHERE generation = $1"

_log = structlog.get_logger()


class State(NamedTuple):
    """What one side says of a file."""

    revision: int
    deleted: bool
    digest: int | None
    """Of its content; None when it is deleted."""


class Class(StrEnum):
    """How two generations differ on a file."""

    GHOST_IN_LIVE = "ghost_in_live"
    """Deleted, and search still finds it."""
    MISSING_IN_LIVE = "missing_in_live"
    STALE_IN_LIVE = "stale_in_live"
    WRONG_IN_LIVE = "wrong_in_live"
    """The content differs at equal revision, or the revision never was."""
    GHOST_IN_NEW = "ghost_in_new"
    MISSING_IN_NEW = "missing_in_new"
    STALE_IN_NEW = "stale_in_new"
    WRONG_IN_NEW = "wrong_in_new"
    UNDECIDED = "undecided"
    """Content differs at equal revision, and nobody can tell which is right."""


AGAINST: Final = frozenset(
    {Class.GHOST_IN_NEW, Class.MISSING_IN_NEW, Class.STALE_IN_NEW, Class.WRONG_IN_NEW, Class.UNDECIDED}
)
"""With these the swap would lose something, or might."""


class ArbiterAwayError(Exception):
    """The Admin module does not answer."""


class Arbiter(Protocol):
    """Who knows what is true of a file."""

    async def states(self, file_ids: Sequence[UUID]) -> Mapping[UUID, State]:
        """What is true of files; those that it has never heard of are absent.

        Raises:
            ArbiterAwayError: there is no telling now.
        """
        ...


@dataclass
class Parity:
    """What a comparison found."""

    live: int
    new: int
    """Generations."""
    live_rows: int = 0
    new_rows: int = 0
    """Files that can be found."""
    content_compared: bool = True
    asked_admin: bool = False
    classes: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Some file ids of each class."""
    speaks_against: int = 0
    """Files that the swap would make wrong, or might."""

    @property
    def summary(self) -> str:
        """One sentence."""
        if not self.classes:
            return f"Both generations hold the same {self.new_rows} files."
        found = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(self.classes.items()))
        return f"The new generation holds {self.new_rows} files, the live one {self.live_rows}: {found}."

    def note(self, file_id: UUID, found: Class) -> None:
        """Count a difference."""
        self.classes[found.value] = self.classes.get(found.value, 0) + 1
        self.speaks_against += found in AGAINST
        examples = self.examples.setdefault(found.value, [])
        if len(examples) < EXAMPLES:
            examples.append(str(file_id))


_GONE: Final = State(0, deleted=True, digest=None)


def judge(live: State | None, new: State | None, truth: State | None, *, asked: bool) -> Class:
    """Which side is wrong about a file on which they differ, at equal positions, and how.

    Args:
        live: what the live generation holds
        new: what the new one holds
        truth: what the Admin module says; None when it has never heard of the file
        asked: whether it could be asked at all
    """
    live, new, truth = live or _GONE, new or _GONE, truth or _GONE
    ahead = new.revision - live.revision
    live_is_right, new_is_right = (asked and _agree(side, truth) for side in (live, new))
    if new.deleted:
        if new_is_right or (ahead > 0 and not live_is_right):
            return Class.GHOST_IN_LIVE
        return Class.MISSING_IN_NEW
    if live.deleted:
        if live_is_right or (ahead < 0 and not new_is_right):
            return Class.GHOST_IN_NEW
        return Class.MISSING_IN_LIVE if ahead > 0 or asked else Class.UNDECIDED
    if live_is_right:
        return Class.WRONG_IN_NEW if ahead >= 0 else Class.STALE_IN_NEW
    if new_is_right:
        return Class.WRONG_IN_LIVE if ahead <= 0 else Class.STALE_IN_LIVE
    if ahead == 0:
        return Class.UNDECIDED
    return Class.STALE_IN_LIVE if ahead > 0 else Class.STALE_IN_NEW


def _agree(side: State, truth: State) -> bool:
    """Whether a side says of a file what is true. Of a deleted file nobody needs to know by which revision."""
    if side.deleted or truth.deleted:
        return side.deleted and truth.deleted
    return (side.revision, side.digest) == (truth.revision, truth.digest)


async def compare(connection: Connection, live: int, new: int, arbiter: Arbiter | None) -> Parity:
    """Compare two generations within the caller's snapshot, in which both are at the same positions."""
    found = Parity(live, new)
    # Another shape may lack a column; then only revisions can be compared.
    found.content_compared = await connection.fetchval(LIVE_SHAPE, live) == SHAPE
    digest = digest_of("t") if found.content_compared else "uuid_hash_extended(t.file_id, t.revision)"
    sums: list[dict[int, tuple[int, int]]] = []
    for generation in (live, new):
        rows = await connection.fetch(SUMS.format(digest=digest, table=table_name(generation)), timeout=SECONDS)
        sums.append({row["bucket"]: (row["rows"], row["digest"]) for row in rows})
    found.live_rows, found.new_rows = (sum(rows for rows, _ in side.values()) for side in sums)
    differing = [bucket for bucket in sums[0].keys() | sums[1].keys() if sums[0].get(bucket) != sums[1].get(bucket)]
    if not differing:
        return found
    statement = DIFFERENCES.format(digest=digest, live=table_name(live), new=table_name(new))
    page: list[tuple[UUID, State | None, State | None]] = []
    async for row in connection.cursor(statement, differing, prefetch=PAGE, timeout=SECONDS):
        page.append((row["file_id"], _state(row, "live"), _state(row, "new")))
        if len(page) == PAGE:
            arbiter = await _judge_page(found, page, arbiter)
            page.clear()
    await _judge_page(found, page, arbiter)
    return found


async def _judge_page(
    found: Parity, page: Sequence[tuple[UUID, State | None, State | None]], arbiter: Arbiter | None
) -> Arbiter | None:
    """Count what is wrong on a page: the arbiter, or None once it did not answer."""
    truths: Mapping[UUID, State] = {}
    if arbiter is not None and page:
        try:
            truths = await arbiter.states([file_id for file_id, _, _ in page])
            found.asked_admin = True
        except ArbiterAwayError as error:
            _log.warning("parity is judged without the Admin module", error=str(error))
            arbiter = None
    for file_id, live, new in page:
        found.note(file_id, judge(live, new, truths.get(file_id), asked=arbiter is not None))
    return arbiter


def _state(row: asyncpg.Record, side: str) -> State | None:
    revision, deleted, digest = (row[f"{side}_{name}"] for name in ("revision", "deleted", "digest"))
    return None if revision is None else State(revision, deleted, digest)
