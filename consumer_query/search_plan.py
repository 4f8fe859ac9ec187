"""How a search is answered follows from how many hits there should be, and never costs more than they.

    FEW     the index gives all hits: they are counted, and the newest of them ranked
    RECENT  the index gives the hits of the last months, so many months as should have enough of them to rank
    MANY    files are walked in the order of the answer until enough of them match
    ALL     the index gives all hits, however many: when those of a common word lie where the walk has not come

A wrong estimate costs time and no hit: RECENT ones that are too few are looked for in more months, as many as what was
found tells, and then are FEW; FEW that are too many are MANY; a walk that has not met enough of MANY goes on once, as
far as what it met tells, and then they are ALL.
Statements are put together here, values in, text and arguments out.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from consumer_query.asking import Asked
from consumer_query.cursors import Cursor, Key
from consumer_query.filters import Filters, tsquery_of
from consumer_query.generations import NAME_ORDER
from consumer_query.terms import Kind, between, month_of, since
from schemas.codec import moment_of

_RECENT: Final = 1.6
"""Times the hits that are wanted, to be expected of the months that are asked for."""
MOST_VALUES: Final = 20
"""Of a facet."""
_TIMES: Final = (f"{Kind.CREATED}:", f"{Kind.UPDATED}:")
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
    counting: float = 30_000.0
    """Microseconds that this may take."""
    ranked: int = 1_000
    """The newest hits so many are ordered by how well they match."""
    ranked_typing: int = 300
    """Likewise, while the last word has only begun: the index has many lists to read for it, and the next letter may
    make the answer worthless."""
    exact: int = 1_000
    """More files of one name are as good as any word."""
    least_walked: int = 10_000
    most_walked: int = 300_000
    """Files."""
    collecting: float = 5.0
    """Microseconds for a hit that the index gives: each is on another page, and not all pages are in memory."""
    merging: float = 5_000.0
    """Microseconds for the lists of months."""
    comparing: float = 0.2
    """Microseconds for a hit and each class of a range that it is looked for in."""
    completing: float = 0.2
    """Microseconds for each file of each lexeme that a word which has only begun may become."""
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
    walking: float = 5.0
    """Microseconds for a file that is walked. Those of one time are beside each other."""

    @property
    def direction(self) -> str:
        return "DESC" if self.descending else "ASC"

    @property
    def behind(self) -> str:
        return "<" if self.descending else ">"


_NEWEST: Final = _Order("created_at", "timestamptz", descending=True, walking=1.5)
_ORDERS: Final = {
    Sort.RELEVANCE: _NEWEST,
    Sort.NEWEST: _NEWEST,
    Sort.OLDEST: _Order("created_at", "timestamptz", descending=False, walking=1.5),
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
    """The share of files that should match, 0 to 1, as if lexemes came together by chance; but for times.

    Nothing is updated before it is created, and most files hardly later, so of two ranges of times the smaller counts.

    Args:
        asked: the words, or None when all files match
        choices: the terms of the filters
        counts: what is known of all of these
    """
    if not counts.files:
        return 0.0
    share = 1.0 if asked is None else min(1.0, sum(_share(group, asked, counts) for group in asked.alternatives))
    times, others = [1.0], [share]
    for choice in choices:
        (times if _is_of_times(choice) else others).append(_share_of_any(choice, counts))
    return min(times) * math.prod(others)


def _is_of_times(choice: Sequence[str]) -> bool:
    return choice[0].startswith(_TIMES)


def _share_of_any(choice: Sequence[str], counts: Counts) -> float:
    return min(1.0, sum(counts.lexemes.get(one, 0) for one in choice) / counts.files)


def _share(group: Sequence[str], asked: Asked, counts: Counts) -> float:
    share = 1.0 if group else 0.0
    for place, one in enumerate(group, 1):
        known = counts.lexemes.get(one, 0)
        if asked.prefix is not None and place == len(group):
            known = max(known, counts.prefix + sum(counts.lexemes.get(other, 0) for other in asked.begun))
        share *= min(1.0, known / counts.files)
    return share


class _Asking(NamedTuple):
    """Which ranges the index is asked for, and what it costs to look at all that it gives then."""

    classes: Sequence[tuple[str, ...]]
    cost: float
    """Microseconds."""


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
        typing = asked is not None and asked.prefix is not None
        self.bounds = replace(bounds, ranked=min(bounds.ranked, bounds.ranked_typing)) if typing else bounds
        self._values, self._classes = filters.values(), filters.classes(now)
        self._asking: dict[Way, Sequence[tuple[str, ...]]] = {Way.MANY: ()}
        """Ranges that the index is asked for, all of them where nothing is said here; the row decides in any case."""
        self._since = ""
        self._wanted = 0
        self._files = 0
        self._collecting = math.inf
        """Microseconds in which the index gives all hits; without end when there should be too many."""
        self._known_months: Mapping[str, int] = {}
        """Files by the month in which they were created, where hits may be."""
        self.sort = Sort.NEWEST if asked is None and sort is Sort.RELEVANCE else sort
        self._order = _ORDERS[self.sort]

    @property
    def terms(self) -> list[tuple[str, ...]]:
        """What the filters could ask the index for."""
        return self._values + self._classes

    def begin(self, counts: Counts, limit: int) -> tuple[Way, float]:
        """How to begin, and which share of the files that are walked should match: the way that should be shortest.

        Args:
            counts: of `terms` and of the words
            limit: hits on the page
        """
        if self._asked is None and not self.terms:
            return Way.MANY, share_of(None, (), counts)
        if not counts.files:
            return Way.FEW, 0.0
        share = share_of(self._asked, self.terms, counts)
        found = share_of(self._asked, self._values, counts) * counts.files
        collected = self._worth_asking(found, self._narrowest_time(counts), counts)
        self._asking[Way.FEW] = self._asking[Way.ALL] = collected.classes
        self._files = counts.files
        hits = share * counts.files
        if hits <= self.bounds.few:
            self._collecting = collected.cost
        if not hits or (hits <= self.bounds.always_few and collected.cost <= self.bounds.counting):
            return Way.FEW, share
        # The newest files are within each range of times that has no end, and a walk begins at the end of creation.
        others = [one for one in self.terms if not _is_of_times(one)]
        met = share if self._filters.updated_before is not None else share_of(self._asked, others, counts)
        wanted = self._wanted = self.bounds.ranked if self.sort is Sort.RELEVANCE else limit
        self._known_months = self._months(counts)
        ways = {Way.MANY: wanted / met * self._order.walking, Way.FEW: self._collecting}
        if self.sort is Sort.RELEVANCE and (month := _month_with(_RECENT * wanted / met, self._known_months)):
            classes = [one for one in self._classes if not _is_of_times(one)]
            left = math.prod(_share_of_any(one, counts) for one in classes)
            recent = self._worth_asking(_RECENT * wanted / left, classes, counts)
            self._since, self._asking[Way.RECENT] = month, recent.classes
            ways[Way.RECENT] = recent.cost + self.bounds.merging
        return min(ways, key=ways.__getitem__), met

    def widen(self, hits: int) -> bool:
        """Ask for more months, when those that were asked for had only so many hits.

        Returns:
            False when all hits should be asked for instead: there are few, or nothing is known of where they are.
        """
        looked_at = sum(files for month, files in self._known_months.items() if month >= self._since)
        if not hits or hits * sum(self._known_months.values()) <= self.bounds.always_few * looked_at:
            return False
        month = _month_with(looked_at * _RECENT * self._wanted / hits, self._known_months)
        if month is None or month >= self._since:
            return False
        self._since = month
        return True

    def walked_short(self, hits: int, walked: int, wanted: int) -> float | None:
        """What a walk that has met too few hits says of the share of the files that match.

        Returns:
            None when it is shorter to ask the index for all hits than to walk as far as that takes.
        """
        share = max(hits, 1) / walked
        further = self.bounds.walked(share, wanted)
        shorter = further * self._order.walking < share * self._files * self.bounds.collecting
        return share if shorter and further > walked else None

    def too_many(self) -> None:
        """Take note that the index gave more hits than are collected."""
        self._collecting = math.inf

    def to_count(self, way: Way, share: float) -> Way:
        """The way to as many hits as facets are counted of, which are more than a page that is not ranked needs."""
        walking = self.bounds.ranked / share * _NEWEST.walking if share > 0 else math.inf
        return Way.FEW if way is Way.MANY and self._collecting < walking else way

    def _worth_asking(self, hits: float, classes: Sequence[tuple[str, ...]], counts: Counts) -> _Asking:
        """Which ranges leave so few of these hits that it is worth looking for them in the lists of their classes."""
        cost = hits * self.bounds.collecting
        chosen: list[tuple[str, ...]] = []
        for share, one in sorted((_share_of_any(one, counts), one) for one in classes):
            classes_there = sum(term in counts.lexemes for term in one)
            comparing = min(hits, share * counts.files) * classes_there * self.bounds.comparing
            if cost * (1 - share) > comparing:
                chosen.append(one)
                hits, cost = hits * share, cost * share + comparing
        return _Asking(chosen, cost + counts.prefix * self.bounds.completing)

    def _narrowest_time(self, counts: Counts) -> list[tuple[str, ...]]:
        """The ranges without those of times that leave no fewer files than another one."""
        times = sorted((_share_of_any(one, counts), one) for one in self._classes if _is_of_times(one))
        return [one for one in self._classes if not _is_of_times(one)] + [one for _, one in times[:1]]

    def _months(self, counts: Counts) -> Mapping[str, int]:
        """Those in which files may have been created."""
        end = self._filters.created_before
        return counts.months if end is None else {one: n for one, n in counts.months.items() if one <= month_of(end)}

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
            also=" AND ".join(self._also(given, Way.MANY)) or "true",
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
        conditions = [*self._match(given, way), excluded]
        if way is Way.RECENT:
            begin, end = since_month or self._since, self._filters.created_before
            months = (
                since(Kind.CREATED, begin, self._now) if end is None else between(Kind.CREATED, begin, month_of(end))
            )
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

    def _match(self, given: "_Given", way: Way) -> list[str]:
        """Words and filters, as conditions."""
        also = self._also(given, way)
        if self._asked is None:
            return also
        words = f"search @@ {given(self._asked.match)}::tsquery"
        if self._asked.file_id is not None:
            words = f"({words} OR file_id = {given(self._asked.file_id)}::uuid)"
        return [words, *also]

    def _also(self, given: "_Given", way: Way) -> list[str]:
        """The filters alone."""
        asked = [*self._values, *self._asking.get(way, self._classes)]
        terms = [f"search @@ {given(tsquery_of(asked))}::tsquery"] if asked else []
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
