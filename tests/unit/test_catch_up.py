"""To where a generation is brought: where the live one is, or the log's end when that one lags; never back."""

from collections import deque
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from consumer_query.buffers import Buffer
from consumer_query.catch_up import BATCH, NEAR, _take, distance, goal


@pytest.mark.parametrize(
    ("own", "live", "end", "expected"),
    [
        pytest.param(5, 8, 9, 8, id="to the live one, not to the end"),
        pytest.param(5, 9, 9, 9, id="to the live one at the end"),
        pytest.param(5, None, 9, 9, id="to the end where the live one has applied nothing"),
        pytest.param(5, 20, 9, 9, id="to the end where the live one stands beyond it"),
        pytest.param(5, 7, 7 + NEAR, 7, id="to the live one as long as it is near the end"),
        pytest.param(5, 7, 8 + NEAR, 8 + NEAR, id="to the end when the live one lags"),
        pytest.param(8, 5, 9, 8, id="never back to the live one"),
        pytest.param(9, 5, 7, 9, id="never back to the end"),
    ],
)
def test_the_goal_of_a_partition(own: int, live: int | None, end: int, expected: int) -> None:
    assert goal({0: own}, {} if live is None else {0: live}, {0: end}) == {0: expected}


OFFSETS = st.dictionaries(st.integers(0, 3), st.integers(0, 3 * NEAR), min_size=4)


@given(OFFSETS, OFFSETS, OFFSETS)
def test_a_goal_is_never_behind_and_never_beyond_both_end_and_own_position(
    own: dict[int, int], live: dict[int, int], ends: dict[int, int]
) -> None:
    targets = goal(own, live, ends)
    assert targets.keys() == own.keys()
    for partition, target in targets.items():
        assert own[partition] <= target <= max(own[partition], ends[partition])
        if own[partition] <= live[partition] <= ends[partition] <= live[partition] + NEAR:
            assert target == live[partition]
    assert distance(own, targets) == sum(targets.values()) - sum(own.values())
    assert distance(targets, goal(targets, live, ends)) == 0


def buffer(offsets: list[int], fetched: int, applied: int = 0) -> Buffer:
    records = deque(SimpleNamespace(offset=one) for one in offsets)
    return Buffer(TopicPartition("t", 0), applied, fetched, fetched, records)


@given(st.sets(st.integers(0, 60)), st.integers(0, 10), st.integers(1, 70))
def test_what_is_taken_lies_below_the_target_and_the_position_moves_over_gaps_to_it(
    offsets: set[int], behind: int, target: int
) -> None:
    ordered = sorted(offsets)
    fetched = (ordered[-1] + 1 if ordered else 0) + behind
    taken = _take(buffer(ordered, fetched), target)
    assert [one.offset for one in taken.records] == [one for one in ordered if one < target]
    assert taken.upto == min(fetched, target)


def test_a_batch_is_bounded_and_ends_before_the_next_record() -> None:
    offsets = [2 * number for number in range(BATCH + 5)]
    taken = _take(buffer(offsets, 2 * BATCH + 20), 2 * BATCH + 20)
    assert len(taken.records) == BATCH
    assert taken.upto == offsets[BATCH]
