"""What is asked meets what is stored: every file that matches is on some page, once, however many match.

Of many hits only the newest are ranked; the rest follows by date. A page never costs more than a bounded piece of work,
and says what was left out of it: `total` as far as hits were counted, `ranked` as far as they were ranked.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import asyncpg

from consumer_query import freshness, vocabulary
from consumer_query.asking import Asked, reworded, understand
from consumer_query.cursors import Cursor, decoded, encoded
from consumer_query.filters import Filters
from consumer_query.search_plan import Bounds, Plan, Sort, Statement, Way
from runtime.postgres import NOW, Connection
from schemas.codec import microseconds_of

# All that has to be known before a file is looked at: how many files have what, and of what moment the rows are. One
# round trip, since on an idle machine two of them take a millisecond.
BEFORE_FILES: Final = f"""
SELECT lexeme, files, NULL AS lag FROM ({vocabulary.COUNTS}) AS counted
UNION ALL SELECT NULL, NULL, ({freshness.LAG})
"""  # noqa: S608 - constants
KEY_OF_CURSORS: Final = "SELECT key FROM search_secret"
MOST_TRIED: Final = 3
"""Words of a query that finds nothing, each of which may be the wrong one: every try is another search."""
LITTLE: Final = 3
"""Fewer exact hits than that, and a mistyped word is looked for."""


@dataclass(frozen=True)
class SearchRequest:
    """One question. `query` must not hold NUL; without words all files match, within the filters."""

    query: str = ""
    filters: Filters = field(default_factory=Filters)
    sort: Sort = Sort.RELEVANCE
    limit: int = 20
    """Hits on the page, 1 or more."""
    cursor: str | None = None
    """Where the page before ended."""
    typing: bool = False
    """The last word may be only the beginning of one."""
    facets: bool = False
    correct: bool = True
    """Ask for the nearest known words when there is little to find."""
    max_lag: float | None = None
    """Seconds. Refuse to look when the rows may be further behind the log; None when that is no reason."""

    @property
    def asked(self) -> str:
        """What a cursor is bound to."""
        return repr((self.query, self.filters, self.sort, self.typing))


@dataclass(frozen=True)
class Facets:
    """How many hits have which value."""

    counted: int
    """Hits that were looked at: the newest ones."""
    counted_all: bool
    values: Mapping[str, Sequence[tuple[str, int]]]
    """By facet, the most frequent first."""


@dataclass(frozen=True)
class Page:
    """Some hits, and what is known of the others."""

    hits: Sequence[Mapping[str, Any]]
    """The columns of files, with `rank` and `exact`."""
    total: int
    total_is_exact: bool
    """Whether `total` are all, or only as many as were found by now."""
    ranked: int
    """Hits that were ordered by how well they match."""
    ranked_all: bool
    next_cursor: str | None
    corrected_to: str | None
    """The query that these hits answer, when it is not the one that was asked."""
    did_you_mean: str | None
    facets: Facets | None
    lexemes: Sequence[str]
    """What the hits were found by; with what they begin, where one is the last word of a query in typing."""
    prefixes: Sequence[str]
    lag_seconds: float | None
    """How far the rows may be behind the log; None when that is not known."""


class Searches:
    """Answers searches over one pool.

    Args:
        pool: whose sessions end a statement that takes too long
        bounds: of the work for one page
    """

    def __init__(self, pool: asyncpg.Pool, bounds: Bounds | None = None) -> None:
        self._pool = pool
        self._bounds = bounds or Bounds()
        self._key: bytes | None = None

    async def page(self, request: SearchRequest) -> Page:
        """Answer one page.

        Raises:
            BadSearchError: the cursor is not of this question.
            StaleIndexError: the rows may be further behind than was asked for.
            asyncpg.QueryCanceledError: it takes longer than the pool's sessions allow.
        """
        async with self._pool.acquire() as connection:
            key = self._key = self._key or await connection.fetchval(KEY_OF_CURSORS)
            cursor = None if request.cursor is None else decoded(request.cursor, key, request.asked)
            # Only what is kept until some moment depends on the clock so closely that it has to be the database's.
            now = await connection.fetchval(NOW) if request.filters.by_the_clock else datetime.now(UTC)
            instead = cursor.query if cursor is not None else None
            one = _One(connection, key, self._bounds, request, now, instead)
            page = replace(await one.page(cursor), corrected_to=instead)
            if cursor is not None or not request.correct or one.asked is None or page.total >= LITTLE:
                return page
            # What is fresh enough for the question is so for all that it may have meant.
            request = replace(request, max_lag=None)
            async for meant in _meant(connection, one.asked, request.query, nothing=not page.total):
                corrected = await _One(connection, key, self._bounds, request, now, meant).page(None)
                if corrected.total <= page.total:
                    continue
                if page.total:
                    return replace(page, did_you_mean=meant)
                return replace(corrected, corrected_to=meant, did_you_mean=meant)
            return page


async def _meant(connection: Connection, asked: Asked, query: str, *, nothing: bool) -> AsyncIterator[str]:
    """What was probably meant by a query, the likeliest first.

    Args:
        connection: to the Query database
        asked: what the query asks for
        query: as typed
        nothing: no file has all of its words, though files may have each of them
    """
    if (other := await vocabulary.in_the_other_layout(connection, query)) is not None:
        yield other
        return
    proposed = await vocabulary.proposals(connection, asked.typed)
    if proposed:
        yield reworded(query, {asked.typed[one]: right.word for one, right in proposed.items()})
    if nothing and len(asked.typed) > 1:
        # One of the words may be a slip for another though some file has it: the rarest ones first.
        known = (await vocabulary.counts(connection, asked.lexemes)).lexemes
        for one in sorted(asked.typed, key=lambda one: known.get(one, 0))[:MOST_TRIED]:
            for right in (await vocabulary.proposals(connection, {one: asked.typed[one]}, rarer=0)).values():
                yield reworded(query, {asked.typed[one]: right.word})


class _Found(NamedTuple):
    """How many hits were met, and whether there are no others."""

    hits: int
    all_of_them: bool


class _One:
    """One search over one connection."""

    def __init__(
        self,
        connection: Connection,
        key: bytes,
        bounds: Bounds,
        request: SearchRequest,
        now: datetime,
        instead: str | None,
    ) -> None:
        self._connection = connection
        self._key = key
        self._request = request
        self._instead = instead
        query = instead or request.query
        self.asked = understand(query, typing=request.typing) if query.strip() else None
        self._plan = Plan(self.asked, request.filters, request.sort, now, bounds)
        self._share = 0.0
        """Of the files that are walked, that should match: as far as it is known by now."""

    async def page(self, cursor: Cursor | None) -> Page:
        """Answer one page of this very question."""
        lexemes = [
            *((*self.asked.lexemes, *self.asked.begun) if self.asked else ()),
            *(one for choice in self._plan.terms for one in choice),
        ]
        prefix = self.asked.prefix if self.asked else None
        rows = await self._connection.fetch(BEFORE_FILES, lexemes)
        known = [row for row in rows if row["files"] is not None]
        [lag] = [row["lag"] for row in rows if row["files"] is None]
        if self._request.max_lag is not None:
            freshness.require_fresh(lag, self._request.max_lag)
        counts = await vocabulary.counted(self._connection, known, prefix)
        way, self._share = self._plan.begin(counts, self._request.limit)
        if self._plan.sort is Sort.RELEVANCE and (cursor is None or cursor.ranked):
            page, way = await self._ranked(way, cursor)
        else:
            page, way = await self._listed(way, cursor, self._request.limit)
        page = replace(page, lag_seconds=lag)
        if not self._request.facets:
            return page
        return replace(page, facets=await self._facets(self._plan.to_count(way, self._share)))

    async def _ranked(self, way: Way, cursor: Cursor | None) -> tuple[Page, Way]:
        """Hits that are ranked; where they do not fill the page, those behind them too."""
        limit = self._request.limit
        horizon = cursor.horizon if cursor is not None else None
        rows, way, found = await self._found(
            way, lambda way: self._plan.ranked_page(way, self._share, cursor, limit + 1), may_widen=horizon is None
        )
        facts = rows[0]
        hits = [row for row in rows if row["file_id"] is not None]
        seen = cursor.seen if cursor is not None else 0
        if cursor is None and facts["found"] >= self._plan.bounds.ranked:
            horizon = (microseconds_of(facts["horizon_at"]), str(facts["horizon_id"]))
        if horizon is not None and way is Way.MANY:
            found = found._replace(all_of_them=False)
        behind = Cursor(
            horizon or (), seen, horizon=horizon, exact_given=facts["exact_found"] <= self._plan.bounds.exact
        )
        if len(hits) > limit or horizon is None:
            following = None
            if len(hits) > limit:
                last = hits[limit - 1]
                after = (last["exact"], last["rank"], microseconds_of(last["created_at"]), str(last["file_id"]))
                following = replace(behind, after=after, ranked=True, seen=seen + limit)
            page = self._answer(hits[:limit], found, seen, following)
        else:
            behind = replace(behind, seen=seen + len(hits))
            rest, _ = await self._listed(way, behind, limit - len(hits))
            page = self._answer([*hits, *rest.hits], found, seen, None)
            page = replace(page, next_cursor=rest.next_cursor, total=max(page.total, rest.total))
        return replace(page, ranked=facts["ranked"], ranked_all=horizon is None), way

    async def _listed(self, way: Way, cursor: Cursor | None, limit: int) -> tuple[Page, Way]:
        """Hits in an order of their own, or those behind the ranked ones, where recent months are of no use."""
        way = Way.MANY if way is Way.RECENT else way
        rows, way, found = await self._found(
            way, lambda way: self._plan.listed_page(way, self._share, cursor, limit + 1)
        )
        hits = [row for row in rows if row["file_id"] is not None]
        at = cursor or Cursor((), 0)
        following = None
        if len(hits) > limit:
            after = at.after
            if limit:
                last = hits[limit - 1]
                key = microseconds_of(last["key"]) if isinstance(last["key"], datetime) else last["key"]
                after = (key, str(last["file_id"]))
            following = replace(at, after=after, ranked=False, seen=at.seen + limit)
        return self._answer(hits[:limit], found, at.seen, following), way

    async def _facets(self, way: Way) -> Facets:
        rows, _, found = await self._found(way, lambda way: self._plan.facets(way, self._share))
        values: dict[str, list[tuple[str, int]]] = {}
        for row in sorted(rows, key=lambda row: (-row["count"], row["value"])):
            values.setdefault(row["facet"], []).append((row["value"], row["count"]))
        return Facets(found.hits, found.all_of_them, values)

    async def _found(
        self, way: Way, statement: Callable[[Way], Statement], *, may_widen: bool = False
    ) -> tuple[Sequence[Any], Way, _Found]:
        """Rows, found in the way that has come to its end, and which it was."""
        may_walk_on = True
        while True:
            asked = statement(way)
            rows = await self._connection.fetch(asked.sql, *asked.arguments)
            hits: int = rows[0]["found"] if rows else 0
            if way in (Way.FEW, Way.RECENT) and hits > self._plan.bounds.few:
                way = Way.MANY
                self._plan.too_many()
            elif way is Way.RECENT:
                if hits >= asked.wanted:
                    return rows, way, _Found(hits, all_of_them=False)
                if not (may_widen and self._plan.widen(hits)):
                    way = Way.FEW
                may_widen = False
            elif way is Way.MANY and hits < asked.wanted:
                if asked.walk is None:
                    return rows, way, _Found(hits, all_of_them=True)
                walked = await self._connection.fetchval(asked.walk.sql, *asked.walk.arguments)
                if walked < asked.walk.bound:
                    return rows, way, _Found(hits, all_of_them=True)
                shown = self._plan.walked_short(hits, walked, asked.wanted) if may_walk_on else None
                may_walk_on = False
                if shown is None:
                    way = Way.ALL
                else:
                    self._share = shown
            else:
                return rows, way, _Found(hits, all_of_them=way is not Way.MANY)

    def _answer(self, hits: Sequence[Any], found: _Found, seen: int, following: Cursor | None) -> Page:
        prefix = self.asked.prefix if self.asked is not None else None
        least = seen + len(hits) + (following is not None)
        return Page(
            hits=[dict(hit) for hit in hits],
            total=found.hits if found.all_of_them and not seen else max(found.hits, least),
            total_is_exact=found.all_of_them,
            ranked=0,
            ranked_all=False,
            next_cursor=self._encoded(following),
            corrected_to=None,
            did_you_mean=None,
            facets=None,
            lexemes=self.asked.lexemes if self.asked is not None else (),
            prefixes=() if prefix is None else (prefix,),
            lag_seconds=None,
        )

    def _encoded(self, cursor: Cursor | None) -> str | None:
        if cursor is None:
            return None
        return encoded(replace(cursor, query=self._instead), self._key, self._request.asked)
