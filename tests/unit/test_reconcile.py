import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer_query.reconcile import SMALL, Class, Found, Listed, Page, Seen, Truth, classify, even_step, find
from schemas.digests import MOST_CUTS, MOST_RANGES, Range, Span, Sum

A_PAGE = 7
"""Files in one answer here, so that pages matter."""
MANY = 100_000


class Rows:
    """A side over a list of rows."""

    def __init__(self, rows: dict[int, tuple[int, int]], page: int = A_PAGE) -> None:
        self._ids = [UUID(int=one) for one in sorted(rows)]
        self._rows = {UUID(int=one): row for one, row in rows.items()}
        self._page = page
        self.questions = 0
        self.summed = 0

    async def sums(self, spans: Sequence[Span]) -> list[list[Sum]]:
        self.questions += 1
        assert 0 < len(spans) <= MOST_RANGES
        assert sum(len(span.cuts) for span in spans) <= MOST_CUTS
        return [[self._sum(piece) for piece in span.pieces] for span in spans]

    async def listing(self, ranges: Sequence[Range]) -> Page:
        self.questions += 1
        assert 0 < len(ranges) <= MOST_RANGES
        assert list(ranges) == sorted(ranges)
        ids = [one for piece in ranges for one in self._in(piece)]
        upto = ids[self._page] if len(ids) > self._page else None
        return Page([Listed(one, *self._rows[one]) for one in ids[: self._page]], upto)

    async def cut(self, pieces: Sequence[tuple[Range, int]]) -> list[Span]:
        return [Span(piece, tuple(self._in(piece)[:: even_step(files)][1:])) for piece, files in pieces]

    def _in(self, piece: Range) -> list[UUID]:
        return self._ids[bisect_left(self._ids, piece.first) : bisect_right(self._ids, piece.last)]

    def _sum(self, piece: Range) -> Sum:
        ids = self._in(piece)
        self.summed += len(ids)
        # As the real one: every part of a row in one number.
        return Sum(len(ids), sum(hash((one.int, *self._rows[one])) for one in ids))


def found(ours: dict[int, tuple[int, int]], theirs: dict[int, tuple[int, int]], most: int = MANY) -> Found:
    return asyncio.run(find(Rows(ours), Rows(theirs), most))


_ids = (
    st.integers(0, 2**128 - 1)
    # As if they began with the time: all in one of the first pieces.
    | st.integers(0, 2**20).map(lambda low: (0x0197 << 112) + low)
    | st.sampled_from([0, 2**128 - 1, 2**127, 2**127 - 1])
)
_row = st.tuples(st.integers(1, 5), st.integers(-(2**63), 2**63 - 1))
_rows = st.dictionaries(_ids, _row, max_size=60)


@given(common=_rows, ours=_rows, theirs=_rows)
def test_exactly_the_files_that_differ_are_found(
    common: dict[int, tuple[int, int]], ours: dict[int, tuple[int, int]], theirs: dict[int, tuple[int, int]]
) -> None:
    one, other = common | ours, common | theirs
    expected = {UUID(int=file_id) for file_id in one.keys() | other.keys() if one.get(file_id) != other.get(file_id)}
    result = found(one, other)
    assert (result.file_ids, result.complete) == (expected, True)
    assert (result.our_files, result.their_files) == (len(one), len(other))


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(SMALL * 3, 6_000),
    begin=st.sampled_from([0, 2**120, 2**128 - 7_000]),
    data=st.data(),
)
def test_differences_are_found_where_thousands_stand_side_by_side(count: int, begin: int, data: st.DataObject) -> None:
    ours = {begin + place: (1, place) for place in range(count)}
    theirs = dict(ours)
    places = st.integers(begin, begin + count - 1)
    for place in data.draw(st.sets(places, max_size=20), "gone"):
        del theirs[place]
    for place in data.draw(st.sets(places, max_size=20), "changed"):
        theirs[place] = (2, place)
    expected = {UUID(int=one) for one in ours if ours[one] != theirs.get(one)}
    assert found(ours, theirs).file_ids == expected
    assert found(theirs, ours).file_ids == expected


@pytest.mark.parametrize("ids", [range(0, 2**128, 2**128 // 20_000), range(2**100, 2**100 + 20_000)])
def test_equal_sides_are_asked_once_and_unequal_ones_little_more(ids: range) -> None:
    rows = {one: (1, one % 2**62) for one in ids}
    ours, theirs = Rows(rows), Rows(rows)
    assert asyncio.run(find(ours, theirs, MANY)) == Found(set(), len(rows), len(rows))
    assert theirs.questions == 1
    few = set(list(ids)[:: len(ids) // 3])
    ours, theirs = Rows(rows | dict.fromkeys(few, (2, 0)), 5_000), Rows(rows, 5_000)
    assert asyncio.run(find(ours, theirs, MANY)).file_ids == {UUID(int=one) for one in few}
    assert theirs.questions <= 6
    assert theirs.summed < 3.2 * len(rows)


@pytest.mark.parametrize("which", [(0, 1), (1, 0)])
def test_when_one_side_is_empty_no_more_is_read_than_was_asked_for(which: tuple[int, int]) -> None:
    sides = [{2**110 + one: (1, one) for one in range(50_000)}, {}]
    result = found(sides[which[0]], sides[which[1]], most=100)
    assert not result.complete
    assert 100 <= len(result.file_ids) < 100 + A_PAGE


def test_when_everything_differs_some_are_found_and_it_says_that_there_are_more() -> None:
    ours = {2**110 + one: (1, one) for one in range(5_000)}
    result = found(ours, dict.fromkeys(ours, (2, 0)), most=50)
    assert not result.complete
    assert len(result.file_ids) >= 50


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (None, Truth(1, 5), Class.MISSING),
        (Seen(9, None), Truth(1, 5), Class.MISSING),
        (Seen(1, 5), Truth(1, 5), None),
        (Seen(1, 5), Truth(2, 5), Class.STALE),
        (Seen(3, 5), Truth(2, 5), Class.AHEAD),
        (Seen(2, 6), Truth(2, 5), Class.DIFFERS),
        (Seen(2, 5), Truth(2, None), Class.GHOST),
        (Seen(2, 5), Truth(None, None), Class.GHOST),
        (Seen(2, None), Truth(None, None), None),
        (Seen(2, None), Truth(7, None), None),
        (None, Truth(7, None), None),
        (None, Truth(None, None), None),
    ],
)
def test_each_difference_has_its_class(ours: Seen | None, theirs: Truth, expected: Class | None) -> None:
    assert classify(ours, theirs) is expected
