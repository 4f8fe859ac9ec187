"""How a search is answered follows from how many hits there should be, and never costs more than they.

    FEW     the index gives all hits: they are counted, and the newest of them ranked
    RECENT  the index gives the hits of the last months, so many months as should have enough of them to rank
    MANY    files are walked in the order of the answer until enough of them match
    ALL     the index gives all hits, however many: when those of a common word lie where the walk has not come

A wrong estimate costs time and no hit: RECENT ones that are too few are FEW, FEW that are too many are MANY, MANY that
are not found are ALL.
Statements are put together here, values in, text and arguments out.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from consumer_query.asking import Asked
from consumer_query.cursors import Cursor, Key
from consumer_query.filters import Filters, tsquery_of
from consumer_query.generations import NAME_ORDER
from consumer_query.terms import Kind, month_of, since
from schemas.codec import moment_of

_RECENT: Final = 1.6
"""Times the hits that are wanted, to be expected of the months that are asked for."""
WORTH_ASKING: Final = 0.05
"""Share of the files up to which the index is asked for a range: its classes' lists have to be read and merged."""
MOST_VALUES: Final = 20
"""Of a facet."""
_LATER: Final = 2
"""Times the hits that are ranked on the first page: some may have come since."""

COLUMNS: Final = """file_id, revision, storage_element_id, original_filename, storage_filename, file_size, mime_type,
       cached.created_at, updated_at, created_by_username, created_by_fullname, description, version, tags,
       storage_path, checksum, retention_expires_at"""

# The hits come first, by GIN or by a walk; then the files of exactly the asked name or checksum, by GIN; then ranks, of
# so many files by primary key; then the page's columns, by primary key.
RANKED_PAGE: Final = """
WITH hits AS MATERIALIZED ({hits}),
exact AS MATERIALIZED (SELECT file_id FROM file_metadata_cache WHERE {exact} AND {also} LIMIT {most_exact} + 1),
newest AS MATERIALIZED (
    SELECT file_id, created_at FROM hits {horizon} ORDER BY created_at DESC, file_id DESC LIMIT {most_ranked}
), chosen AS (
    SELECT file_id FROM newest UNION SELECT file_id FROM exact WHERE (SELECT count(*) FROM exact) <= {most_exact}
), ranked AS MATERIALIZED (
    SELECT file_id, created_at, ({exact}) AS exact, ts_rank(search, {words}::tsquery)::float8 AS rank
    FROM chosen JOIN file_metadata_cache USING (file_id)
), page AS (
    SELECT * FROM ranked {after} ORDER BY exact DESC, rank DESC, created_at DESC, file_id DESC LIMIT {limit}
), facts AS (
    SELECT (SELECT count(*) FROM hits) AS found, (SELECT count(*) FROM ranked) AS ranked,
           (SELECT count(*) FROM exact) AS exact_found,
           last.created_at AS horizon_at, last.file_id AS horizon_id
    FROM (VALUES (1)) AS one LEFT JOIN (SELECT * FROM newest ORDER BY created_at, file_id LIMIT 1) AS last ON true
)
SELECT facts.*, page.exact, page.rank, {columns}
FROM facts LEFT JOIN (page JOIN file_metadata_cache AS cached USING (file_id)) ON true
ORDER BY page.exact DESC, page.rank DESC, page.created_at DESC, file_id DESC
"""
LISTED_PAGE: Final = """
WITH hits AS MATERIALIZED ({hits}), page AS (
    SELECT * FROM hits {after} ORDER BY key {direction}, file_id {direction} LIMIT {limit}
), facts AS (SELECT (SELECT count(*) FROM hits) AS found)
SELECT facts.*, false AS exact, 0::float8 AS rank, page.key, {columns}
FROM facts LEFT JOIN (page JOIN file_metadata_cache AS cached USING (file_id)) ON true
ORDER BY page.key {direction}, file_id {direction}
"""
COLLECTED: Final = "SELECT {given} FROM file_metadata_cache WHERE {match} {limit}"
WALKED: Final = """
    SELECT {given} FROM (
        SELECT * FROM file_metadata_cache {within} ORDER BY {key} {direction}, file_id {direction} LIMIT {scanned}
    ) AS scanned WHERE {match} ORDER BY {key} {direction}, file_id {direction} LIMIT {wanted}
"""
LEFT: Final = "SELECT count(*) FROM (SELECT FROM file_metadata_cache {within} LIMIT {scanned}) AS scanned"
FACETS: Final = """
WITH hits AS MATERIALIZED ({hits}), valued AS (
    SELECT 'type' AS facet, mime_type AS value FROM hits
    UNION ALL SELECT 'tag', tag FROM hits, unnest(tags) AS tag
    UNION ALL SELECT 'uploader', created_by_username FROM hits
    UNION ALL SELECT 'month', to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM') FROM hits
    UNION ALL SELECT 'size', CASE
        WHEN file_size < 10240 THEN 'under 10 KiB' WHEN file_size < 1048576 THEN '10 KiB to 1 MiB'
        WHEN file_size < 10485760 THEN '1 to 10 MiB' WHEN file_size < 104857600 THEN '10 to 100 MiB'
        WHEN file_size < 1073741824 THEN '100 MiB to 1 GiB' ELSE 'over 1 GiB' END FROM hits
), counted AS (
    SELECT facet, value, count(*) AS count FROM valued GROUP BY facet, value
), placed AS (
    SELECT *, row_number() OVER (PARTITION BY facet ORDER BY count DESC, value) AS place FROM counted
)
SELECT facet, value, count, (SELECT count(*) FROM hits) AS found FROM placed WHERE place <= {most_values}
"""
_FACET_COLUMNS: Final = "file_id, mime_type, tags, created_by_username, created_at, file_size"


@dataclass(frozen=True)
class Bounds:
    """How much work one statement may be."""

    few: int = 20_000
    """Hits. More are not collected in any case."""
    always_few: int = 3_000
    """So many are collected even where there is a shorter way: then they can be counted."""
    ranked: int = 1_000
    """The newest hits so many are ordered by how well they match."""
    exact: int = 1_000
    """More files of one name are as good as any word."""
    least_walked: int = 10_000
    most_walked: int = 300_000
    """Files."""
    collecting: float = 8.0
    """Microseconds for a hit that the index gives: each is on another page, and not all pages are in memory."""
    merging: float = 3_000.0
    """Microseconds for the lists of months."""
    spare: int = 2
    """Matching files are not spread evenly: so many times what should be enough is walked."""

    def walked(self, share: float, wanted: int) -> int:
        """How many files are walked at most for so many hits."""
        enough = self.spare * wanted / share if share > 0 else self.most_walked
        return int(min(self.most_walked, max(self.least_walked, enough)))


class Sort(StrEnum):
    """Which hits come first."""

    RELEVANCE = "relevance"
    """Exact names, then how well the words match, then newer."""
    NEWEST = "newest"
    OLDEST = "oldest"
    LARGEST = "largest"
    SMALLEST = "smallest"
    NAME = "name"
    """By code points of the lower-case name."""


class Way(StrEnum):
    """How hits are found; see above."""

    FEW = "few"
    RECENT = "recent"
    MANY = "many"
    ALL = "all"


class _Order(NamedTuple):
    key: str
    type: str
    descending: bool
    walking: float = 3.0
    """Microseconds for a file that is walked. Those of one time are beside each other."""

    @property
    def direction(self) -> str:
        return "DESC" if self.descending else "ASC"

    @property
    def behind(self) -> str:
        return "<" if self.descending else ">"


_NEWEST: Final = _Order("created_at", "timestamptz", descending=True, walking=0.7)
_ORDERS: Final = {
    Sort.RELEVANCE: _NEWEST,
    Sort.NEWEST: _NEWEST,
    Sort.OLDEST: _Order("created_at", "timestamptz", descending=False, walking=0.7),
    Sort.LARGEST: _Order("file_size", "bigint", descending=True),
    Sort.SMALLEST: _Order("file_size", "bigint", descending=False),
    Sort.NAME: _Order(NAME_ORDER, "text", descending=False),
}


class Statement(NamedTuple):
    """SQL and its arguments."""

    sql: str
    arguments: Sequence[Any]
    wanted: int = 0
    """Hits that a walk ends at."""
    walk: "Walk | None" = None
    """The walk in it, when it may end before it has met them."""


class Walk(NamedTuple):
    """Files that are looked at."""

    sql: str
    """Counts them, with the arguments of the statement that walks."""
    arguments: Sequence[Any]
    bound: int
    """So many at most: when there were as many, more may be behind them."""


@dataclass(frozen=True)
class Counts:
    """How many files have a lexeme, as it was counted some time ago."""

    files: int
    """All files, then; 0 when nothing was counted yet."""
    lexemes: Mapping[str, int]
    """Of those that are asked for; what is absent was in none."""
    prefix: int
    """Of lexemes that begin as the last word does, added up."""
    months: Mapping[str, int] = field(default_factory=dict)
    """Files by the month of their creation, as `terms.month_of` spells it."""


def share_of(asked: Asked | None, choices: Iterable[Sequence[str]], counts: Counts) -> float:
    """The share of files that should match, 0 to 1, as if lexemes came together by chance.

    Args:
        asked: the words, or None when all files match
        choices: the terms of the filters
        counts: what is known of all of these
    """
    if not counts.files:
        return 0.0
    share = 1.0 if asked is None else min(1.0, sum(_share(group, asked.prefix, counts) for group in asked.alternatives))
    return share * math.prod(_share_of_any(choice, counts) for choice in choices)


def _share_of_any(choice: Sequence[str], counts: Counts) -> float:
    return min(1.0, sum(counts.lexemes.get(one, 0) for one in choice) / counts.files)


def _share(group: Sequence[str], prefix: str | None, counts: Counts) -> float:
    share = 1.0 if group else 0.0
    for place, one in enumerate(group, 1):
        known = counts.lexemes.get(one, 0)
        if prefix is not None and place == len(group):
            known = max(known, counts.prefix)
        share *= min(1.0, known / counts.files)
    return share


class Plan:
    """One search, in whichever way it is answered.

    Args:
        asked: the words, or None when all files match
        filters: to be kept within
        sort: of the answer; by date when there are no words to rank by
        now: of this search
        bounds: of the work
    """

    def __init__(self, asked: Asked | None, filters: Filters, sort: Sort, now: datetime, bounds: Bounds) -> None:
        self._asked = asked
        self._filters = filters
        self._now = now
        self.bounds = bounds
        self._values, self._classes = filters.values(), filters.classes(now)
        self._since = ""
        self.sort = Sort.NEWEST if asked is None and sort is Sort.RELEVANCE else sort
        self._order = _ORDERS[self.sort]

    @property
    def terms(self) -> list[tuple[str, ...]]:
        """What the filters ask the index for; less after `begin`."""
        return self._values + self._classes

    def begin(self, counts: Counts, limit: int) -> tuple[Way, float]:
        """How to begin, and which share of files should match: the way that should be shorter for so many hits.

        Classes that leave most files are left to the rows from here on.
        """
        share = share_of(self._asked, self.terms, counts)
        if counts.files:
            self._classes = [one for one in self._classes if _share_of_any(one, counts) <= WORTH_ASKING]
        if self._asked is None and not self.terms:
            return Way.MANY, share
        hits = share * counts.files
        if hits <= self.bounds.always_few:
            return Way.FEW, share
        wanted = self.bounds.ranked if self.sort is Sort.RELEVANCE else limit
        ways = {Way.MANY: wanted / share * self._order.walking}
        if hits <= self.bounds.few:
            ways[Way.FEW] = hits * self.bounds.collecting
        if self.sort is Sort.RELEVANCE and (month := _month_with(_RECENT * wanted / share, counts.months)):
            self._since = month
            ways[Way.RECENT] = _RECENT * wanted * self.bounds.collecting + self.bounds.merging
        return min(ways, key=ways.__getitem__), share

    def ranked_page(self, way: Way, share: float, cursor: Cursor | None, limit: int) -> Statement:
        """Of the hits that are ranked: exact ones, and the newest.

        Rows have `found`, `ranked` and `exact_found`, how many hits there are of each kind, and the horizon: the oldest
        of the newest that were ranked. One row without a file id when the page is empty.
        """
        given = _Given()
        begin = horizon = after = ""
        wanted, within = self.bounds.ranked, _everything
        if cursor is not None:
            wanted *= _LATER
            if cursor.horizon is not None:
                within = partial(_newer, *cursor.horizon)
                begin = month_of(moment_of(cursor.horizon[0]))
                horizon = f"WHERE {within(given)}"
            exact, rank, created_at, last = cursor.after
            place = (
                f"({given(exact)}::boolean, {given(rank)}::float8, {given.moment(created_at)}, {given.file_id(last)})"
            )
            after = f"WHERE (exact, rank, created_at, file_id) < {place}"
        scanned = None if horizon else self.bounds.walked(share, wanted)
        hits, walk = self._hits(
            given, way, _NEWEST, "file_id, created_at", within, (scanned, wanted), since_month=begin
        )
        sql = RANKED_PAGE.format(
            hits=hits,
            exact=self._exact(given),
            also=" AND ".join(self._also(given)) or "true",
            most_exact=self.bounds.exact,
            most_ranked=wanted,
            horizon=horizon,
            words=given("" if self._asked is None else self._asked.ranking),
            after=after,
            limit=given(limit),
            columns=COLUMNS,
        )
        return Statement(sql, given.values, self.bounds.ranked, walk)

    def listed_page(self, way: Way, share: float, cursor: Cursor | None, limit: int) -> Statement:
        """Of the hits in an order of their own; or of those behind the ranked ones, by date.

        Rows have `found`, how many hits there are, or were found on the walk, and `key`. One row without a file id when
        the page is empty.
        """
        given = _Given()
        order, within, after, excluded = self._order, _everything, "", ""
        if cursor is not None:
            within = partial(_behind, order, cursor.after)
            after = f"WHERE {_behind(order._replace(key='key'), cursor.after, given)}"
            if cursor.exact_given:
                excluded = f"NOT {self._exact(given)}"
        columns = f"file_id, {order.key} AS key"
        hits, walk = self._hits(given, way, order, columns, within, (self.bounds.walked(share, limit), limit), excluded)
        sql = LISTED_PAGE.format(hits=hits, after=after, direction=order.direction, limit=given(limit), columns=COLUMNS)
        return Statement(sql, given.values, limit, walk)

    def facets(self, way: Way, share: float) -> Statement:
        """Values and how many hits have each, and in each row of how many hits. No row when there is no hit."""
        given = _Given()
        hits, walk = self._hits(
            given,
            way,
            _NEWEST,
            _FACET_COLUMNS,
            _everything,
            (self.bounds.walked(share, self.bounds.ranked), self.bounds.ranked),
        )
        return Statement(FACETS.format(hits=hits, most_values=MOST_VALUES), given.values, self.bounds.ranked, walk)

    def _hits(
        self,
        given: "_Given",
        way: Way,
        order: _Order,
        columns: str,
        within: "_Within",
        bounds: tuple[int | None, int],
        excluded: str = "",
        since_month: str = "",
    ) -> tuple[str, Walk | None]:
        """Hits as a statement within another, and the walk in it where it has a bound."""
        scanned, wanted = bounds
        conditions = [*self._match(given), excluded]
        if way is Way.RECENT:
            months = since(Kind.CREATED, since_month or self._since, self._now)
            conditions.append(f"search @@ {given(tsquery_of([months]))}::tsquery")
        match = " AND ".join(filter(None, conditions)) or "true"
        if way is not Way.MANY:
            limit = "" if way is Way.ALL else f"LIMIT {given(self.bounds.few + 1)}"
            return COLLECTED.format(given=columns, match=match, limit=limit), None
        walked = WALKED.format(
            given=columns,
            match=match,
            within=self._inner(given, order, within),
            key=order.key,
            direction=order.direction,
            scanned="ALL" if scanned is None else given(scanned),
            wanted=given(wanted),
        )
        if scanned is None:
            return walked, None
        alone = _Given()
        left = LEFT.format(within=self._inner(alone, order, within), scanned=scanned)
        return walked, Walk(left, alone.values, scanned)

    def _inner(self, given: "_Given", order: _Order, within: "_Within") -> str:
        """Which files are walked."""
        created = self._created(given) if order.key == "created_at" else []
        conditions = [one for one in (within(given), *created) if one]
        return "WHERE " + " AND ".join(conditions) if conditions else ""

    def _match(self, given: "_Given") -> list[str]:
        """Words and filters, as conditions."""
        also = self._also(given)
        if self._asked is None:
            return also
        words = f"search @@ {given(self._asked.match)}::tsquery"
        if self._asked.file_id is not None:
            words = f"({words} OR file_id = {given(self._asked.file_id)}::uuid)"
        return [words, *also]

    def _also(self, given: "_Given") -> list[str]:
        """The filters alone."""
        terms = [f"search @@ {given(tsquery_of(self.terms))}::tsquery"] if self.terms else []
        return terms + [one.sql.format(given(one.value)) for one in self._filters.conditions(self._now)]

    def _created(self, given: "_Given") -> list[str]:
        return [
            one.sql.format(given(one.value)) for one in self._filters.conditions(self._now) if "created_at" in one.sql
        ]

    def _exact(self, given: "_Given") -> str:
        """Whether a file has exactly what was asked for as its name, checksum or id."""
        if self._asked is None:
            return "(false)"
        exact = f"search @@ {given(self._asked.exact)}::tsquery"
        if self._asked.file_id is not None:
            exact += f" OR file_id = {given(self._asked.file_id)}::uuid"
        return f"({exact})"


class _Given:
    """Arguments of a statement, numbered as they come."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def __call__(self, value: object) -> str:
        self.values.append(value)
        return f"${len(self.values)}"

    def moment(self, microseconds: object) -> str:
        return f"{self(moment_of(int(str(microseconds))))}::timestamptz"

    def file_id(self, text: object) -> str:
        return f"{self(UUID(str(text)))}::uuid"


_Within: TypeAlias = Callable[[_Given], str]
"""A condition, with its arguments among those of a statement."""


def _everything(_: _Given) -> str:
    return ""


def _newer(created_at: int, file_id: str, given: _Given) -> str:
    return f"(created_at, file_id) >= ({given.moment(created_at)}, {given.file_id(file_id)})"


def _behind(order: _Order, after: Key, given: _Given) -> str:
    key, file_id = after
    value = given.moment(key) if order.type == "timestamptz" else f"{given(key)}::{order.type}"
    return f"({order.key}, file_id) {order.behind} ({value}, {given.file_id(file_id)})"


def _month_with(files: float, months: Mapping[str, int]) -> str | None:
    """The month since which so many files have been created; None when there are no more than these."""
    for month in sorted(months, reverse=True):
        files -= months[month]
        if files <= 0:
            return month
    return None
