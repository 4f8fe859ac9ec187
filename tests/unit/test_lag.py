"""How a window of looks is judged: values in, a status out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_query.lag import BLIND_SECONDS, WINDOW_SECONDS, Look, Status, age, moment, status_of, unread, worst

EVERY = 2.0
ENOUGH = int(WINDOW_SECONDS / EVERY) + 1


def looks(
    positions: list[int | None], ends: list[int], stamps: list[str] | None = None, every: float = EVERY
) -> list[tuple[Look, int]]:
    made = [
        Look(number * every, committed, stamp, 0, end)
        for number, (committed, end, stamp) in enumerate(
            zip(positions, ends, stamps or [str(number) for number in range(len(positions))], strict=True)
        )
    ]
    return [(look, unread(look, look.position if look.position < look.end else None)) for look in made]


def test_a_group_that_has_read_all_is_ok_though_nothing_moves() -> None:
    assert status_of(looks([5] * ENOUGH, [5] * ENOUGH, ["s"] * ENOUGH), 1) is Status.OK


def test_a_group_that_has_read_all_is_ok_without_members() -> None:
    assert status_of(looks([5] * ENOUGH, [5] * ENOUGH, ["s"] * ENOUGH), 0) is Status.OK


def test_a_group_that_commits_no_more_stops() -> None:
    assert status_of(looks([5] * ENOUGH, list(range(10, 10 + ENOUGH)), ["s"] * ENOUGH), 1) is Status.STOP


def test_a_group_without_members_that_has_something_to_read_stops_at_once() -> None:
    assert status_of(looks([5], [6]), 0) is Status.STOP


def test_a_group_that_commits_and_does_not_move_stalls() -> None:
    assert status_of(looks([5] * ENOUGH, [9] * ENOUGH), 1) is Status.STALL


def test_a_group_that_moves_and_falls_behind_is_warned_of() -> None:
    assert status_of(looks(list(range(ENOUGH)), [10 + 2 * n for n in range(ENOUGH)]), 1) is Status.WARN


def test_a_group_that_gains_on_the_log_is_ok_however_far_behind() -> None:
    assert status_of(looks([100 * n for n in range(ENOUGH)], [10**6 + n for n in range(ENOUGH)]), 1) is Status.OK


def test_a_lag_that_neither_grows_nor_falls_is_ok_while_the_group_moves() -> None:
    assert status_of(looks(list(range(ENOUGH)), list(range(7, 7 + ENOUGH))), 1) is Status.OK


def test_a_position_that_went_back_is_a_rewind_until_it_is_out_of_the_window() -> None:
    assert status_of(looks([5, 3, 4], [9, 9, 9]), 1) is Status.REWIND
    assert status_of(looks([3, 4], [9, 9]), 1) is Status.OK


def test_offsets_that_were_deleted_are_a_rewind() -> None:
    assert status_of(looks([5, None], [9, 9]), 1) is Status.REWIND


def test_a_position_behind_the_log_is_a_rewind_and_all_of_the_log_is_unread() -> None:
    window = looks([50], [9])
    assert status_of(window, 1) is Status.REWIND
    assert window[0][1] == 9


def test_nothing_is_judged_before_the_window_is_full() -> None:
    assert status_of(looks([5] * (ENOUGH - 1), [9] * (ENOUGH - 1), ["s"] * (ENOUGH - 1)), 1) is Status.OK


def test_a_time_in_which_nobody_looked_makes_no_stop_nor_stall() -> None:
    apart = WINDOW_SECONDS + 2 * EVERY
    assert status_of(looks([5] * 2, [9] * 2, ["s"] * 2, every=apart), 1) is Status.OK
    assert status_of(looks([5] * 2, [9] * 2, every=apart), 1) is Status.OK
    assert status_of(looks([5] * 3, [9] * 3, ["s"] * 3, every=BLIND_SECONDS), 1) is Status.STOP


def test_a_position_that_went_back_while_nobody_looked_is_a_rewind() -> None:
    assert status_of(looks([5, 3], [9, 9], every=10 * WINDOW_SECONDS), 1) is Status.REWIND


def test_a_group_that_never_committed_has_all_of_the_log_before_it() -> None:
    look = Look(0, None, "", 3, 10)
    assert unread(look, 4) == 6
    assert status_of([(look, 6)], 0) is Status.STOP
    assert status_of([(look, 6)], 1) is Status.OK


def test_what_lies_before_the_logs_beginning_is_not_to_be_read() -> None:
    assert unread(Look(0, 2, "", 7, 10), 7) == 3


def test_markers_alone_are_no_lag() -> None:
    assert unread(Look(0, 8, "", 0, 10), None) == 0


def test_a_gap_of_compaction_is_no_lag() -> None:
    assert unread(Look(0, 0, "", 0, 1_000), 990) == 10


def test_a_clock_that_is_ahead_makes_no_negative_age() -> None:
    assert age(100.0, 101.5) == 0.0
    assert age(100.0, 98.5) == 1.5


def test_a_record_is_no_younger_than_it_was_seen_to_be_there() -> None:
    assert age(100.0, 5000.0, 30.0) == 30.0
    assert age(100.0, None, 30.0) == 30.0
    assert age(100.0, 10.0, 30.0) == 90.0


def test_a_timestamp_of_none_is_no_moment() -> None:
    assert (moment(-1), moment(0), moment(1500)) == (None, None, 1.5)


@pytest.mark.parametrize(("statuses", "expected"), [({}, Status.OK), ({0: Status.OK, 1: Status.STALL}, Status.STALL)])
def test_a_group_is_as_its_worst_partition(statuses: dict[int, Status], expected: Status) -> None:
    assert worst(statuses) is expected


@given(
    st.lists(
        st.tuples(st.none() | st.integers(0, 40), st.integers(0, 30), st.text(max_size=1)), min_size=1, max_size=15
    ),
    st.integers(0, 3),
)
def test_whatever_is_seen_has_a_status_and_a_lag_that_is_not_negative(
    seen: list[tuple[int | None, int, str]], members: int
) -> None:
    window = looks([one[0] for one in seen], [one[1] for one in seen], [one[2] for one in seen])
    assert min(lag for _, lag in window) >= 0
    assert status_of(window, members) in Status
