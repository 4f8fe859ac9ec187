"""The lexemes of the cache and how many files have each: what searches are planned, corrected and completed by.

It is counted now and then, so it may be empty or old, and nothing may become unfindable by that: whoever asks it
decides how to look, or proposes another word, and never that there is nothing.

Counting goes through the live generation page by page, each stretch in a transaction of its own: no snapshot is held
for long, and no lock on what projectors and swaps need. Every word gets in; of what is not a word (numbers, names of
files, checksums) only what many files have, so that the table grows with the language and not with the files.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

import asyncpg

from consumer_query.analysis import lexeme, lower_words
from consumer_query.corrections import RARER, Correction, alike, best, in_other_layout, possible, slips_allowed
from consumer_query.generations import table_name
from consumer_query.search_plan import Counts
from consumer_query.stop_words import STOP_WORDS
from consumer_query.tables import CYRILLIC, LATIN
from consumer_query.terms import COUNTED, Kind
from runtime.postgres import Connection

ONE_AT_A_TIME: Final = 7_291_007
"""Advisory lock: whoever counts holds it."""
STRETCH: Final = 4_096
"""Pages that are counted at once, some 25,000 files: half a second of one core, and 30 MiB of memory."""
MOST_SECONDS: Final = 600.0
"""For one statement of the count."""

NOT_A_WORD: Final = "[0-9:=]"
"""What no word has: as a pattern."""
_KEPT: Final = f"lexeme !~ '{NOT_A_WORD}' OR lexeme ~ '^({'|'.join(COUNTED)}):'"

# Sequential scans of a part of the table; ts_stat counts in C what aggregates would have to be handed one by one.
PAGES: Final = "SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::bigint"
BEGIN: Final = (
    "DROP TABLE IF EXISTS stretches, counted",
    'CREATE TEMP TABLE stretches (lexeme text COLLATE "C" NOT NULL, files integer NOT NULL)',
)
# What one file alone has in a stretch is not frequent, and most of what is not a word is like that.
COUNT: Final = f"""
INSERT INTO stretches
SELECT lexeme, files FROM ts_stat($1) AS found (lexeme, files, entries) WHERE files > 1 OR {_KEPT}
"""  # noqa: S608 - constants
VECTORS: Final = """
SELECT search FROM {table} WHERE NOT deleted AND ctid >= '({begin},0)' AND ctid < '({end},0)'
"""
FILES: Final = """
SELECT count(*) FROM {table} WHERE NOT deleted AND ctid >= '({begin},0)' AND ctid < '({end},0)'
"""
SUM: Final = f"""
CREATE TEMP TABLE counted AS
SELECT lexeme, least(sum(files), 2147483647)::integer AS files FROM stretches
GROUP BY lexeme HAVING {_KEPT} OR sum(files) >= {{frequent}}
"""  # noqa: S608 - constants
SUMMED: Final = "ANALYZE counted"
# The difference only, so that hardly a page changes; less than a twentieth changes no plan. In order, so that lexemes
# with one beginning lie together.
STORE: Final = """
INSERT INTO query_lexemes AS known (lexeme, files) SELECT lexeme, files FROM counted ORDER BY lexeme
ON CONFLICT (lexeme) DO UPDATE SET files = excluded.files
WHERE abs(excluded.files - known.files) * 20::bigint > known.files
"""
FORGET: Final = """
DELETE FROM query_lexemes AS known WHERE NOT EXISTS (SELECT FROM counted WHERE counted.lexeme = known.lexeme)
"""
NOTE: Final = """
INSERT INTO query_lexemes_counted AS known (generation, files, changes, counted_at, seconds)
VALUES ($1, $2, $3, $4, extract(epoch FROM clock_timestamp() - $4::timestamptz))
ON CONFLICT (single)
DO UPDATE SET generation = $1, files = $2, changes = $3, counted_at = $4, seconds = excluded.seconds
RETURNING generation, files, changes, counted_at, seconds
"""
END: Final = "DROP TABLE stretches, counted"

LAST: Final = "SELECT generation, files, changes, counted_at, seconds FROM query_lexemes_counted"
# Rows that were written since Postgres' statistics were last reset, which a crash does too. No permission is needed.
CHANGES: Final = """
SELECT pg_stat_get_tuples_inserted(relation) + pg_stat_get_tuples_updated(relation)
     + pg_stat_get_tuples_deleted(relation)
FROM to_regclass($1) AS relation
"""

# By the primary key.
KNOWN: Final = "SELECT lexeme, files FROM query_lexemes WHERE lexeme = ANY($1::text[])"
COUNTS: Final = f"""
{KNOWN}
UNION ALL SELECT lexeme, files FROM query_lexemes WHERE lexeme >= '{Kind.CREATED}:' AND lexeme < '{Kind.CREATED};'
UNION ALL SELECT NULL, files FROM query_lexemes_counted
"""  # noqa: S608 - constants
COMPLETIONS: Final = f"""
SELECT lexeme, files FROM query_lexemes
WHERE lexeme >= $1 AND lexeme < $2 AND (lexeme !~ '{NOT_A_WORD}' OR $3)
ORDER BY files DESC, lexeme LIMIT $4
"""  # noqa: S608 - constants
BEGINNING_WITH: Final = "SELECT coalesce(sum(files), 0)::bigint FROM query_lexemes WHERE lexeme >= $1 AND lexeme < $2"
# By query_lexemes_alike, whose expression and condition these have to be.
ALIKE_AT_LEAST: Final = "SELECT set_config('pg_trgm.similarity_threshold', $1, true)"
ALIKE: Final = f"""
WITH asked AS MATERIALIZED (SELECT translate($1, '{CYRILLIC}', '{LATIN}') AS word)
SELECT lexeme, files FROM query_lexemes, asked
WHERE translate(lexeme, '{CYRILLIC}', '{LATIN}') % asked.word AND lexeme !~ '{NOT_A_WORD}'
ORDER BY similarity(translate(lexeme, '{CYRILLIC}', '{LATIN}'), asked.word) DESC, files DESC LIMIT $2
"""  # noqa: S608 - constants

FREQUENT_SHARE: Final = 0.0001
"""Of the files, that have what is not a word: what is rarer is found so quickly that no plan needs to know."""
FEWEST_FREQUENT: Final = 20
MOST_CORRECTED: Final = 4
"""Words of one query; each makes some hundred lexemes to look up."""
SIMILARITY: Final = "0.25"
"""Share of trigrams that a lexeme has in common with a word: two slips in eight letters leave about so many."""
MOST_ALIKE: Final = 100
_MONTH: Final = f"{Kind.CREATED}:"
_BEYOND: Final = "\U0010ffff"
"""Behind all that has the same beginning, by bytes."""


@dataclass(frozen=True)
class Counted:
    """When and of what the lexemes were counted last."""

    generation: int
    files: int
    changes: int
    """Rows of that generation's table that had been written by then, as Postgres' statistics know."""
    counted_at: datetime
    """The beginning of it."""
    seconds: float
    """How long it took."""


async def counts(connection: Connection, lexemes: Collection[str], prefix: str | None = None) -> Counts:
    """How many files have each of these lexemes, words and terms, about; of how many that is, and of which months.

    Args:
        connection: to the Query database
        lexemes: to look up; what is then absent is in no file, or is too new, or is not a word and rare
        prefix: of lexemes that are to be added up
    """
    rows = await connection.fetch(COUNTS, list(lexemes))
    return await counted(connection, rows, prefix)


async def counted(connection: Connection, rows: Iterable[asyncpg.Record], prefix: str | None) -> Counts:
    """The same of the rows that COUNTS has found."""
    found = {row["lexeme"]: row["files"] for row in rows}
    files = found.pop(None, 0)
    begun = 0 if prefix is None else await files_beginning_with(connection, prefix)
    months = {one.removeprefix(_MONTH): found[one] for one in found if one.startswith(_MONTH)}
    return Counts(files, found, begun, months)


async def completions(connection: Connection, prefix: str, limit: int) -> list[tuple[str, int]]:
    """The lexemes that begin with `prefix`, those of most files first, and how many have them.

    Words only, unless the prefix is of something else: a term (`tag:`) or a number.
    """
    rows = await connection.fetch(COMPLETIONS, prefix, prefix + _BEYOND, not _is_word(prefix), limit)
    return [(row["lexeme"], row["files"]) for row in rows]


async def files_beginning_with(connection: Connection, prefix: str) -> int:
    """How many files have a lexeme that begins with `prefix`, at most: those with several are counted several times."""
    found: int = await connection.fetchval(BEGINNING_WITH, prefix, prefix + _BEYOND)
    return found


async def proposals(connection: Connection, typed: Mapping[str, str], rarer: int = RARER) -> dict[str, Correction]:
    """By lexeme, what was probably meant by words that no file has, or far fewer than one that is spelled nearly so.

    While an unknown word can be corrected, the known ones are taken as they are.

    Args:
        connection: to the Query database
        typed: lexemes that are asked for, and the word in lower case that each was typed as
        rarer: what a known word gives way to has to be in at least so many times as many files
    """
    known = await _known(connection, typed)
    unknown = {one: word for one, word in typed.items() if one not in known}
    found = await _nearest(connection, unknown, known, rarer)
    return found or await _nearest(connection, {one: typed[one] for one in known}, known, rarer)


async def _nearest(
    connection: Connection, typed: Mapping[str, str], known: Mapping[str, int], rarer: int
) -> dict[str, Correction]:
    found: dict[str, Correction] = {}
    proposed = ((one, possible(word)) for one, word in typed.items())
    asked = dict(islice(((one, meant) for one, meant in proposed if meant), MOST_CORRECTED))
    files = await _known(connection, {one for meant in asked.values() for one in meant}) if asked else {}
    for one, meant in asked.items():
        mine = known.get(one, 0)
        worth = (each._replace(files=files[name]) for name, each in meant.items() if name in files)
        right = best(typed[one], mine, worth, rarer)
        if right is None and not mine and slips_allowed(typed[one]) > 1:
            right = best(typed[one], 0, alike(typed[one], await _alike(connection, one)))
        if right is not None:
            found[one] = right
    return found


async def in_the_other_layout(connection: Connection, query: str) -> str | None:
    """What the keys of a query write in the other language, if all its words are known there and one is not here.

    For queries such as "lj;lm", whose words end where the other language has letters on the keys of punctuation.
    """
    meant = in_other_layout(query)
    here, there = _spelt(query), _spelt(meant)
    if not here or not there:
        return None
    known = (await _known(connection, here | there)).keys()
    return meant if known >= there and not known >= here else None


async def last_count(connection: Connection | asyncpg.Pool) -> Counted | None:
    """When the lexemes were counted last, or None."""
    row = await connection.fetchrow(LAST)
    return None if row is None else Counted(**row)


async def changes_of(connection: Connection | asyncpg.Pool, generation: int) -> int:
    """How many rows of a generation have been written, as far as Postgres remembers; 0 when it is gone."""
    return await connection.fetchval(CHANGES, table_name(generation)) or 0


async def refresh(pool: asyncpg.Pool, generation: int) -> Counted | None:
    """Count the lexemes of a generation and store what has changed; None when another process is counting.

    Rows that are moved meanwhile may be counted twice or not at all.

    Raises:
        asyncpg.UndefinedTableError: the generation is gone.
    """
    async with pool.acquire() as connection:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", ONE_AT_A_TIME):
            return None
        # The pool gives the lock back with the connection.
        begun = await connection.fetchval("SELECT clock_timestamp()")
        changes = await changes_of(connection, generation)
        for statement in BEGIN:
            await connection.execute(statement)
        files = await _count(connection, table_name(generation))
        frequent = max(FEWEST_FREQUENT, int(files * FREQUENT_SHARE))
        await connection.execute(SUM.format(frequent=frequent), timeout=MOST_SECONDS)
        await connection.execute(SUMMED)
        async with connection.transaction():
            await connection.execute(STORE, timeout=MOST_SECONDS)
            await connection.execute(FORGET, timeout=MOST_SECONDS)
            noted = await connection.fetchrow(NOTE, generation, files, changes, begun)
        await connection.execute(END)
    assert noted is not None  # noqa: S101 - of RETURNING
    return Counted(**noted)


async def _count(connection: Connection, table: str) -> int:
    """Count the lexemes of a table, stretch by stretch: how many files it has."""
    files = 0
    for begin in range(0, await connection.fetchval(PAGES, table), STRETCH):
        stretch = {"table": table, "begin": begin, "end": begin + STRETCH}
        await connection.execute(COUNT, VECTORS.format(**stretch), timeout=MOST_SECONDS)
        files += await connection.fetchval(FILES.format(**stretch), timeout=MOST_SECONDS)
    return files


async def _known(connection: Connection, lexemes: Collection[str]) -> dict[str, int]:
    return {row["lexeme"]: row["files"] for row in await connection.fetch(KNOWN, list(lexemes))}


async def _alike(connection: Connection, word: str) -> dict[str, int]:
    async with connection.transaction():
        await connection.execute(ALIKE_AT_LEAST, SIMILARITY)
        return {row["lexeme"]: row["files"] for row in await connection.fetch(ALIKE, word, MOST_ALIKE)}


def _spelt(text: str) -> set[str]:
    """The lexemes of a text, without numbers and stop words."""
    return {lexeme(word) for word in lower_words(text) if word.isalpha() and word not in STOP_WORDS}


def _is_word(text: str) -> bool:
    return not any(letter in "0123456789:=" for letter in text)
