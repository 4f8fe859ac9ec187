"""When lexemes are counted anew."""

from datetime import UTC, datetime, timedelta

import pytest

from consumer_query.vocabulary import Counted
from consumer_query.vocabulary_worker import REST, is_due

THEN = datetime(2026, 1, 13, tzinfo=UTC)
HOUR = timedelta(hours=1)
LAST = Counted(generation=3, files=1_000, changes=5_000, counted_at=THEN, seconds=2.0)


def test_a_cache_that_was_never_counted_is() -> None:
    assert is_due(None, 1, 0, THEN, HOUR)


def test_another_generation_is_counted_at_once() -> None:
    assert is_due(LAST, 4, 5_000, THEN, HOUR)


@pytest.mark.parametrize(
    ("changed", "minutes", "due"),
    [
        (0, 600, False),
        (1, 59, False),
        (1, 60, True),
        (99, 59, False),
        (100, 1, True),
        (-5_000, 59, False),
        (-1, 60, True),
    ],
)
def test_much_is_counted_for_at_once_a_little_after_the_interval_and_nothing_never(
    changed: int,
    minutes: int,
    due: bool,  # noqa: FBT001
) -> None:
    assert is_due(LAST, 3, 5_000 + changed, THEN + timedelta(minutes=minutes), HOUR) is due


def test_a_long_count_is_not_begun_again_too_soon() -> None:
    assert not is_due(LAST, 3, 9_000, THEN + timedelta(seconds=2 * REST - 1), HOUR)
    assert is_due(LAST, 3, 9_000, THEN + timedelta(seconds=2 * REST), HOUR)


def test_of_few_files_each_change_is_much() -> None:
    few = Counted(generation=3, files=5, changes=5, counted_at=THEN, seconds=0.0)
    assert is_due(few, 3, 6, THEN, HOUR)
    assert not is_due(few, 3, 5, THEN, HOUR)
