"""The breaker: a bad record is put aside, a bad topic is not."""

import pytest

from consumer_query.breaker import FEWEST_BAD, Breaker


def put_aside(breaker: Breaker, batches: list[tuple[int, int]]) -> int:
    """How many bad records of these batches go to the dead letters before the breaker holds one back."""
    aside = 0
    for records, bad in batches:
        if breaker.is_systemic(records, bad):
            break
        breaker.note(records, bad)
        aside += bad
    return aside


@pytest.mark.parametrize("batch", [1, 7, 50, 99, 100, 500, 2000])
def test_a_topic_of_bad_records_is_held_back_within_a_thousand(batch: int) -> None:
    assert put_aside(Breaker(0.5), [(batch, batch)] * (5_000 // batch)) < FEWEST_BAD


@pytest.mark.parametrize("batch", [1, 50, 500, 2000])
def test_also_after_any_number_of_good_ones(batch: int) -> None:
    good = [(2_000, 0)] * 50
    assert put_aside(Breaker(0.5), good + [(batch, batch)] * (5_000 // batch)) < 1_000


@pytest.mark.parametrize("batch", [100, 500, 2000])
def test_one_bad_record_in_a_hundred_is_never_systemic(batch: int) -> None:
    batches = [(batch, batch // 100)] * (100_000 // batch)
    assert put_aside(Breaker(0.5), batches) == 1_000


def test_few_records_say_nothing() -> None:
    assert put_aside(Breaker(0.5), [(1, 1)] * (FEWEST_BAD - 1)) == FEWEST_BAD - 1


def test_good_batches_are_never_held_back() -> None:
    breaker = Breaker(0.5)
    breaker.note(1_000, 1_000)
    assert not breaker.is_systemic(100, 0)


def test_a_share_above_one_holds_nothing_back() -> None:
    assert put_aside(Breaker(1.01), [(500, 500)] * 10) == 5_000
