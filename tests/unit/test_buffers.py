"""Who takes what: fresh records are not held up by a backlog, and no partition is in two hands."""

from collections.abc import Sequence

from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from consumer_query.buffers import (
    BUFFERED_BYTES,
    BUFFERED_RECORDS,
    LIVE_RECORDS,
    Buffer,
    Record,
    choose,
    choose_idle,
    take,
    to_pause,
    to_resume,
)


def records(count: int, start: int = 0, step: int = 1, size: int = 10) -> list[Record]:
    return [ConsumerRecord("t", 0, start + number * step, 0, 0, b"", b"", None, 0, size, ()) for number in range(count)]


def buffer(number: int, count: int, behind: int = 0, size: int = 10) -> Buffer:
    """A partition with `count` records in memory and `behind` more on the log."""
    made = Buffer(TopicPartition("t", number), 0, 0, 0)
    made.add(records(count, size=size), count, count + behind)
    return made


def taken(buffers: Sequence[Buffer], *, express: bool, most: int = 1_000) -> dict[int, int]:
    return {
        one.buffer.partition.partition: len(one.records) for one in choose(buffers, express=express, most=most, now=1.0)
    }


def test_the_express_lane_takes_what_is_near_the_end_and_leaves_backlogs_to_the_others() -> None:
    fresh, backlog, behind = buffer(0, 3), buffer(1, LIVE_RECORDS), buffer(2, 3, behind=LIVE_RECORDS)
    assert taken([fresh, backlog, behind], express=True) == {0: 3}


def test_other_lanes_take_the_longest_backlog_first_up_to_a_batch() -> None:
    assert taken([buffer(0, 3), buffer(1, 600), buffer(2, 900)], express=False, most=1_000) == {2: 900, 1: 100}


def test_other_lanes_leave_fresh_records_to_the_express_lane_until_there_are_too_many() -> None:
    assert taken([buffer(0, 3), buffer(1, 4)], express=False) == {}
    many = [buffer(number, LIVE_RECORDS // 2) for number in range(2)]
    assert taken(many, express=False) == {0: LIVE_RECORDS // 2, 1: LIVE_RECORDS // 2}


def test_a_partition_is_in_one_hand_at_a_time() -> None:
    both = [buffer(0, 3), buffer(1, 4)]
    assert taken(both, express=True) == {0: 3, 1: 4}
    assert taken(both, express=True) == {}


def test_what_is_held_waits_for_its_time() -> None:
    held = buffer(0, 3)
    held.hold("why", until=2.0)
    assert choose([held], express=True, most=10, now=1.9) == []
    assert choose([held], express=True, most=10, now=2.0) != []


def test_a_partition_that_may_be_to_blame_is_taken_alone() -> None:
    suspect, other, another = buffer(0, 3), buffer(1, 3), buffer(2, 3)
    suspect.alone = True
    assert taken([suspect, other, another], express=True) == {0: 3}
    assert taken([other, suspect, another], express=True) == {1: 3, 2: 3}


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 4), st.integers(0, 5))
def test_positions_go_over_gaps_and_never_over_a_record(count: int, most: int, step: int, markers: int) -> None:
    one = Buffer(TopicPartition("t", 0), 0, 0, 0)
    upto = count * step + markers
    one.add(records(count, step=step), upto, upto)
    seen: list[int] = []
    while one.has_work:
        piece = take(one, most)
        assert piece.move.since == one.applied
        assert all(one.applied <= record.offset < piece.upto for record in piece.records)
        seen += [record.offset for record in piece.records]
        one.drop(len(piece.records), piece.upto)
    assert seen == [number * step for number in range(count)]
    assert (one.applied, one.bytes) == (upto, 0)


def test_a_take_that_is_cut_ends_before_the_record_that_it_was_cut_at() -> None:
    one = buffer(0, 5)
    piece = take(one, 5)
    piece.cut(2)
    assert ([record.offset for record in piece.records], piece.upto) == ([0, 1], 2)


def test_markers_alone_are_moved_over() -> None:
    idle = Buffer(TopicPartition("t", 0), 7, 9, 9)
    [piece] = choose_idle([idle, buffer(1, 3)], now=0.0)
    assert (piece.records, piece.move.since, piece.move.upto) == ([], 7, 9)


def test_memory_is_shared_by_the_partitions_in_records_and_in_bytes() -> None:
    partitions = 4
    share = BUFFERED_RECORDS // partitions
    full = buffer(0, share)
    heavy = buffer(1, 2, size=BUFFERED_BYTES // partitions)
    half = buffer(2, share * 3 // 4)
    low = buffer(3, share // 4)
    assert to_pause([full, heavy, half, low], now=0.0) == [full, heavy]
    assert to_resume([full, heavy, half, low], now=0.0) == [low]
