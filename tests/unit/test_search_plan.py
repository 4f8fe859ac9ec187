"""How a search is answered follows from what is known of its lexemes."""

from datetime import UTC, datetime

import pytest

from consumer_query.asking import understand
from consumer_query.cursors import Cursor, decoded, encoded
from consumer_query.errors import BadSearchError
from consumer_query.filters import Filters
from consumer_query.search_plan import Bounds, Counts, Plan, Sort, Way, share_of

NOW = datetime(2026, 11, 24, tzinfo=UTC)
COUNTS = Counts(1_000_000, {"договор": 300_000, "скан": 100_000, "акт": 5, "type:image/png": 200_000}, 400_000)


@pytest.mark.parametrize(
    ("query", "filters", "typing", "share"),
    [
        ("договор", Filters(), False, 0.3),
        ("договор скан", Filters(), False, 0.03),
        ("договор OR скан", Filters(), False, 0.4),
        ("договор", Filters(types=("image/png",)), False, 0.06),
        ("договор -скан", Filters(), False, 0.3),
        ("никогда", Filters(), False, 0.0),
        ("договор ак", Filters(), True, 0.12),
        ("", Filters(types=("image/png",)), False, 0.2),
        ("", Filters(), False, 1.0),
    ],
)
def test_shares_are_multiplied_as_if_words_met_by_chance(
    query: str,
    filters: Filters,
    *,
    typing: bool,
    share: float,
) -> None:
    asked = understand(query, typing=typing) if query else None
    assert share_of(asked, filters.values(), COUNTS) == pytest.approx(share)


@pytest.mark.parametrize(
    ("query", "counts", "way"),
    [
        ("договор", COUNTS, Way.MANY),
        ("акт", COUNTS, Way.FEW),
        ("договор", Counts(0, {}, 0), Way.FEW),
        ("", COUNTS, Way.MANY),
        ("", Counts(0, {}, 0), Way.MANY),
    ],
)
def test_the_way_is_chosen_by_how_many_hits_there_should_be(query: str, counts: Counts, way: Way) -> None:
    plan = Plan(understand(query) if query else None, Filters(), Sort.RELEVANCE, NOW, Bounds())
    assert plan.begin(counts, 20)[0] is way


MONTHS = {f"2026-{month:02}": 20_000 for month in range(1, 13)}


def planned(query: str, filters: Filters, counts: Counts, *, typing: bool = False) -> tuple[Plan, Way]:
    plan = Plan(understand(query, typing=typing), filters, Sort.RELEVANCE, NOW, Bounds())
    return plan, plan.begin(counts, 20)[0]


def test_of_two_ranges_of_times_the_smaller_counts_since_what_is_new_is_new_in_both() -> None:
    filters = Filters(created_from=NOW, updated_from=NOW)
    counts = Counts(1_000, {"договор": 500, "new:2026-11": 100, "upd:2026-11": 200}, 0)
    choices = filters.values() + filters.classes(NOW)
    assert share_of(understand("договор"), choices, counts) == pytest.approx(0.05)


def test_a_walk_meets_every_file_that_is_new_enough_so_such_a_range_makes_it_no_longer() -> None:
    lexemes = {"договор": 300_000} | {f"new:{month}": files for month, files in MONTHS.items()}
    counts = Counts(1_000_000, lexemes, 0, MONTHS)
    whole = Plan(understand("договор"), Filters(), Sort.RELEVANCE, NOW, Bounds()).begin(counts, 20)
    ranged = Plan(
        understand("договор"), Filters(created_from=datetime(2026, 6, 1, tzinfo=UTC)), Sort.RELEVANCE, NOW, Bounds()
    )
    assert ranged.begin(counts, 20) == whole


def test_a_word_that_has_begun_is_as_common_as_all_that_it_may_become() -> None:
    asked = understand("действующ", typing=True)
    counts = Counts(1_000_000, {"действ": 300_000}, 5_000)
    assert share_of(asked, (), counts) == pytest.approx(0.305)


def test_months_with_too_few_hits_are_followed_by_as_many_as_what_was_found_tells() -> None:
    counts = Counts(240_000, {"договор": 12_000}, 0, MONTHS)
    plan, way = planned("договор", Filters(), counts)
    assert way is Way.RECENT
    before = str(plan.ranked_page(way, 0.05, None, 21).arguments)
    assert plan.widen(800)
    after = str(plan.ranked_page(way, 0.05, None, 21).arguments)
    assert len(after) > len(before)


def test_few_hits_are_asked_for_at_once_instead_of_more_months() -> None:
    plan, _ = planned("договор", Filters(), Counts(240_000, {"договор": 12_000}, 0, MONTHS))
    assert not plan.widen(0)
    assert not plan.widen(10)


def test_the_rarer_a_word_the_longer_the_walk_within_its_bounds() -> None:
    bounds = Bounds()
    walks = [bounds.walked(share, bounds.ranked) for share in (1.0, 0.1, 0.02, 0.001, 0.0)]
    assert walks == sorted(walks)
    assert walks[0] == bounds.least_walked
    assert walks[-1] == bounds.most_walked


def test_a_cursor_comes_back_as_it_was_given_and_only_with_its_question() -> None:
    cursor = Cursor((True, 0.1 + 0.2, 1_700_000_000_000_001, "ё"), 40, ranked=True, horizon=(5, "id"), query="договор")
    text = encoded(cursor, b"key", "question")
    back = decoded(text, b"key", "question")
    assert (tuple(back.after), back.seen, back.ranked, back.horizon, back.query) == (
        cursor.after, 40, True, (5, "id"), "договор",
    )  # fmt: skip
    for key, asked, other in ((b"other", "question", text), (b"key", "another", text), (b"key", "question", text[:-4])):
        with pytest.raises(BadSearchError):
            decoded(other, key, asked)


@pytest.mark.parametrize(
    ("hits", "shown"),
    [
        # Nearly enough: a little further costs less than to bring all hits.
        (280, 280 / 15_000),
        # So few that the index gives all of them in less time.
        (3, None),
        (0, None),
    ],
)
def test_a_walk_that_fell_short_goes_on_where_that_is_shorter(hits: int, shown: float | None) -> None:
    plan, way = planned("table", Filters(), Counts(3_000_000, {}, 120_000, MONTHS), typing=True)
    assert way is Way.MANY
    assert plan.walked_short(hits, 15_000, 300) == shown


@pytest.mark.parametrize(("tagged", "way"), [(10_000, Way.FEW), (300_000, Way.MANY)])
def test_facets_go_by_the_index_where_their_walk_would_be_longer_than_that_of_the_page(tagged: int, way: Way) -> None:
    plan = Plan(None, Filters(tags=("rare",)), Sort.RELEVANCE, NOW, Bounds())
    of_page, share = plan.begin(Counts(3_000_000, {"tag:rare": tagged}, 0, MONTHS), 20)
    assert (of_page, plan.to_count(of_page, share)) == (Way.MANY, way)
