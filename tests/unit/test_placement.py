"""Where new bytes go: only where they can be kept, and so that elements fill up together."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer_admin.errors import NoElementError, NoRoomError
from producer_admin.placement import choose


@dataclass(frozen=True)
class Place:
    element_id: str
    writable: bool = True
    free_bytes: int | None = None


sizes_in_bytes = st.integers(0, 3) | st.integers(0, 2**50)
places = st.lists(
    st.builds(Place, st.uuids().map(str), st.booleans(), st.none() | sizes_in_bytes), max_size=8, unique=True
)
draws = st.floats(0, 1, exclude_max=True)
sizes = st.none() | sizes_in_bytes


@given(places, sizes, draws)
def test_bytes_go_where_they_can_be_kept_or_the_right_thing_is_missing(
    elements: list[Place], size: int | None, draw: float
) -> None:
    writable = [one for one in elements if one.writable]
    roomy = [one.element_id for one in writable if one.free_bytes is None or one.free_bytes >= max(size or 0, 1)]
    if not writable:
        with pytest.raises(NoElementError):
            choose(elements, size, draw)
    elif not roomy:
        with pytest.raises(NoRoomError):
            choose(elements, size, draw)
    else:
        assert choose(elements, size, draw) in roomy


@given(places, draws)
def test_a_size_that_is_not_known_counts_as_nothing(elements: list[Place], draw: float) -> None:
    def outcome(size: int | None) -> object:
        try:
            return choose(elements, size, draw)
        except (NoElementError, NoRoomError) as error:
            return type(error)

    assert outcome(None) == outcome(0)


def shares(*elements: Place) -> dict[str, int]:
    """Of a thousand draws, spread evenly."""
    return Counter(choose(elements, 1, number / 1000) for number in range(1000))


def test_more_free_space_takes_more_but_not_everything() -> None:
    assert shares(Place("old", free_bytes=100), Place("new", free_bytes=900)) == {"old": 100, "new": 900}


def test_elements_without_a_bound_share_evenly() -> None:
    assert shares(Place("a"), Place("b")) == {"a": 500, "b": 500}


def test_one_without_a_bound_weighs_as_the_roomiest_that_has_one() -> None:
    assert shares(Place("a", free_bytes=100), Place("b", free_bytes=400), Place("c")) == {"a": 112, "b": 444, "c": 444}


def test_a_sick_or_full_one_is_passed_over() -> None:
    assert shares(Place("sick", writable=False, free_bytes=10**9), Place("full", free_bytes=0), Place("well")) == {
        "well": 1000
    }


def test_trying_again_helps_where_all_are_sick_but_not_where_all_are_full() -> None:
    assert (NoElementError.status, NoElementError.retryable) == (503, True)
    assert (NoRoomError.status, NoRoomError.retryable) == (507, False)
