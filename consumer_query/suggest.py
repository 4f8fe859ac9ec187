"""How what is being typed may go on: names of files and tags that exist, after a bounded piece of work.

Names have every word that is typed, and one that begins as the last. Where many files should have them, the newest are
walked; else, or when those have none, the index is asked. No key that is pressed is worth more than LIMIT: what is not
found by then is not suggested.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg
import structlog

from consumer_query import vocabulary
from consumer_query.analysis import lexeme, lower_words, quoted_term
from consumer_query.endings import stems_within
from consumer_query.terms import Kind, term
from runtime.postgres import Connection

LIMIT: Final = "SET LOCAL statement_timeout = '150ms'"
"""A person types a letter about as often."""
WALKED: Final = 3_000
"""Files."""
FEW: Final = 3_000
"""Hits; as much work as the walk."""
MOST_WORDS: Final = 10
_COMPLETED: Final = 20
"""Words that a beginning stands for, where it is of so many that the index had better not be asked for all."""
_SPARE: Final = 5
"""Files of one name are one suggestion."""

# By the index of dates.
NEWEST_NAMES: Final = f"""
SELECT original_filename FROM (
    SELECT original_filename, search, created_at FROM file_metadata_cache
    ORDER BY created_at DESC, file_id DESC LIMIT {WALKED}
) AS newest WHERE search @@ $1::tsquery ORDER BY created_at DESC LIMIT $2
"""  # noqa: S608 - constants
# By GIN.
NAMES: Final = f"""
SELECT original_filename FROM (
    SELECT original_filename, created_at FROM file_metadata_cache WHERE search @@ $1::tsquery LIMIT {FEW}
) AS hits ORDER BY created_at DESC LIMIT $2
"""  # noqa: S608 - constants
# By GIN.
TAGS: Final = f"""
SELECT tag, count(*) AS files FROM (
    SELECT tags FROM file_metadata_cache WHERE search @@ $1::tsquery LIMIT {FEW}
) AS hits, unnest(tags) AS tag GROUP BY tag ORDER BY files DESC, tag LIMIT {FEW}
"""  # noqa: S608 - constants
# By the index of dates.
NEWEST_TAGS: Final = f"""
SELECT tag, count(*) AS files FROM (
    SELECT tags FROM file_metadata_cache ORDER BY created_at DESC, file_id DESC LIMIT {WALKED}
) AS newest, unnest(tags) AS tag GROUP BY tag ORDER BY files DESC, tag LIMIT {FEW}
"""  # noqa: S608 - constants
# Estimates of the planner come from what all files have; a scan of the table is never what these need.
BY_INDEX: Final = "SET LOCAL enable_seqscan = off"

_log = structlog.get_logger()


@dataclass(frozen=True)
class Suggestions:
    """What may be meant, each at most once."""

    names: Sequence[str]
    """Of files, the newest first."""
    tags: Sequence[str]
    """The most frequent first."""


async def suggestions(pool: asyncpg.Pool, query: str, limit: int) -> Suggestions:
    """What continues a query.

    Args:
        pool: of the Query database
        query: what has been typed so far; must not hold NUL
        limit: names and tags at most, each
    """
    async with pool.acquire() as connection:
        return Suggestions(await _names(connection, query, limit), await _tags(connection, query, limit))


async def _names(connection: Connection, query: str, limit: int) -> list[str]:
    words = lower_words(query)[:MOST_WORDS]
    if not words:
        return []
    # Behind a blank or a point the last word is complete.
    begun = words.pop() if query[-1].isalnum() else None
    whole = [lexeme(word) for word in words]
    counts = await vocabulary.counts(connection, whole, begun)
    asked = walked = [_named(one) for one in whole]
    hits = [counts.lexemes.get(one, 0) for one in whole]
    if begun is not None:
        stems = [lexeme(begun), *stems_within(begun)]
        asked = walked = [*walked, _any_of([*map(_named, stems), f"{quoted_term(begun)}:*A"])]
        hits.append(counts.prefix + sum((await vocabulary.counts(connection, stems)).lexemes.values()))
        if counts.prefix > FEW:
            likely = await vocabulary.completions(connection, begun, _COMPLETED)
            asked = [*asked[:-1], _any_of([_named(one) for one, _ in likely])]
    wanted = limit * _SPARE
    found: list[str] = []
    if not counts.files or min(hits) > FEW:
        found = await _within_limit(connection, NEWEST_NAMES, " & ".join(walked), wanted)
    if not found:
        found = await _within_limit(connection, NAMES, " & ".join(asked), wanted)
    return list(dict.fromkeys(found))[:limit]


async def _tags(connection: Connection, query: str, limit: int) -> list[str]:
    begun = term(Kind.TAG, query)
    if begun == term(Kind.TAG, ""):
        return []
    counts = await vocabulary.counts(connection, [], begun)
    if not counts.files or counts.prefix <= FEW:
        found = await _within_limit(connection, TAGS, f"{quoted_term(begun)}:*")
        return _spelt_once(found, begun)[:limit]
    # Lexemes are in lower case; the newest files tell how people write them.
    spelt = {term(Kind.TAG, tag): tag for tag in reversed(await _within_limit(connection, NEWEST_TAGS))}
    known = await vocabulary.completions(connection, begun, limit)
    return [spelt.get(one, one.removeprefix(f"{Kind.TAG}:")) for one, _ in known]


def _named(one: str) -> str:
    """As a tsquery: the name has this lexeme."""
    return f"{quoted_term(one)}:A"


def _any_of(terms: Sequence[str]) -> str:
    return f"({' | '.join(terms)})"


def _spelt_once(tags: Iterable[str], begun: str) -> list[str]:
    """Those that begin so, each in the spelling that comes first."""
    spelt: dict[str, str] = {}
    for tag in tags:
        if (one := term(Kind.TAG, tag)).startswith(begun):
            spelt.setdefault(one, tag)
    return list(spelt.values())


async def _within_limit(connection: Connection, statement: str, *arguments: Any) -> list[str]:
    """The first column of what is found; nothing when that takes too long."""
    try:
        async with connection.transaction(readonly=True):
            await connection.execute(f"{LIMIT}; {BY_INDEX}")
            return [row[0] for row in await connection.fetch(statement, *arguments)]
    except asyncpg.QueryCanceledError:
        _log.debug("nothing suggested within the limit of time", asked=arguments)
        return []
