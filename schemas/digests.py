"""A file's row has one digest, by one SQL expression, in whatever table it stands; sums of digests compare many.

    a range of file ids  →  pieces between cuts  →  of each piece: how many files, and the sum of their digests

A sum does not depend on the order of rows. Each column is hashed under a seed made of the file's id and revision, so
that two files that have changed places in any column do not leave the sum as it was. Only files that exist are summed:
Admin remembers deletions that Query never saw, and both are right.

Postgres' own hash of a record takes a tenth of what md5 of its text takes, but may differ between versions and
machines: both sides evaluate it over one constant row too (PROBE) and compare nothing when these differ. It guards
against faults, not against somebody who makes two texts with one hash on purpose.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

FIRST_ID: Final = UUID(int=0)
LAST_ID: Final = UUID(int=2**128 - 1)

MOST_RANGES: Final = 512
"""In one question."""
MOST_CUTS: Final = 8192
"""In one question, over all its ranges."""
MOST_FILES: Final = 5_000
"""In one answer."""

_COLUMNS: Final = (
    "storage_element_id", "original_filename", "storage_filename", "file_size", "mime_type", "created_at", "updated_at",
    "created_by_username", "created_by_fullname", "description", "version", "tags", "storage_path", "checksum",
    "retention_expires_at",
)  # fmt: skip
"""Every column of a file's state beside its id and revision. Of the same types in every table."""

# Statements over many rows: the planner takes each piece for a row of its own and would sort all rows by piece, and
# compiling an expression costs more than it saves.
SETTINGS: Final = (
    "SET LOCAL enable_sort = off",
    "SET LOCAL jit = off",
    # A check takes no more than one core from uploads and searches; where both sides share two, more would be slower.
    "SET LOCAL max_parallel_workers_per_gather = 0",
    # Whether to read the table or to go by the key depends on the range.
    "SET LOCAL plan_cache_mode = force_custom_plan",
)
"""For the transaction of the statements below."""


class Range(NamedTuple):
    """File ids from `first` to `last`, both included."""

    first: UUID
    last: UUID


class Span(NamedTuple):
    """A range, cut into len(cuts) + 1 pieces; each cut is the first id of a piece."""

    range: Range
    cuts: Sequence[UUID] = ()

    @property
    def pieces(self) -> list[Range]:
        """In order; together they are the range."""
        firsts = [self.range.first, *self.cuts]
        lasts = [*(UUID(int=cut.int - 1) for cut in self.cuts), self.range.last]
        return list(map(Range, firsts, lasts))


class Sum(NamedTuple):
    """What the files of a piece come to."""

    files: int
    digest: int


EVERYTHING: Final = Range(FIRST_ID, LAST_ID)
NOTHING: Final = Sum(0, 0)


def digest_of(row: str) -> str:
    """The expression, over the columns of a table or alias: a bigint, of a file that exists."""
    columns = ", ".join(f"{row}.{column}" for column in _COLUMNS)
    return f"hash_record_extended(ROW({columns}), uuid_hash_extended({row}.file_id, {row}.revision))"


def sum_of(table: str, exists: str) -> str:
    """One row: files, and the sum of their digests, over a whole table.

    Args:
        table: its name
        exists: SQL condition for a row of a file that exists
    """
    return f"SELECT count(*) AS files, coalesce(sum({digest_of(table)}), 0) AS digest FROM {table} WHERE {exists}"  # noqa: S608 - names of ours


def sums_of(table: str, exists: str) -> str:
    """Rows (piece, files, digest) of the pieces that are not empty: $1 and $2 are a range, $3 its cuts.

    Walks the primary key, or the table when the range is most of it.
    """
    return f"""
SELECT width_bucket({table}.file_id, $3::uuid[]) AS piece, count(*) AS files, sum({digest_of(table)}) AS digest
FROM {table} WHERE {table}.file_id BETWEEN $1::uuid AND $2::uuid AND {exists}
GROUP BY 1
"""  # noqa: S608 - names of ours


def listing_of(table: str, exists: str) -> str:
    """Rows (file_id, revision, digest) by id: of a range, $1 to $2, at most $3. Walks the primary key."""
    return f"""
SELECT {table}.file_id, {table}.revision, {digest_of(table)} AS digest
FROM {table} WHERE {table}.file_id BETWEEN $1::uuid AND $2::uuid AND {exists}
ORDER BY {table}.file_id LIMIT $3
"""  # noqa: S608 - names of ours


def states_of(table: str, exists: str) -> str:
    """Rows (file_id, revision, digest) of files by their ids, $1; no digest where a file is remembered as deleted."""
    return f"""
SELECT {table}.file_id, {table}.revision, CASE WHEN {exists} THEN {digest_of(table)} END AS digest
FROM {table} WHERE {table}.file_id = ANY($1::uuid[])
"""  # noqa: S608 - names of ours


def filled(count: int, rows: Sequence[tuple[int, int, int]]) -> list[Sum]:
    """What `sums_of` answered for a range of `count` pieces, empty pieces included."""
    found = {piece: Sum(files, int(digest)) for piece, files, digest in rows}
    return [found.get(piece, NOTHING) for piece in range(count)]


# A row as `digest_of` takes it, with what hashes differently where servers do: text beyond ASCII, null, large numbers.
PROBE: Final = f"""
SELECT {digest_of("probe")} FROM (VALUES (
    'f6b1a8f0-5c0e-4c57-9d0e-1f1e2d3c4b5a'::uuid, 7::bigint, 'se-01'::text, 'Отчёт №1.pdf'::text, 'x_0123'::text,
    9007199254740993::bigint, 'application/pdf'::text, timestamptz '2026-01-13 10:00:00.123456+00',
    timestamptz '1971-01-01 00:00:00+00', 'ivanov'::text, NULL::text, E'a\\nb'::text, '1.0'::text,
    ARRAY['срочно', 'contract']::text[], 'files/2026'::text, 'sha256:00'::text, NULL::timestamptz
)) AS probe (file_id, revision, {", ".join(_COLUMNS)})
"""  # noqa: S608 - names of ours
