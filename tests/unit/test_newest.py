"""Which record of a file is the newest is told from keys, revisions and offsets alone."""

from hypothesis import given
from hypothesis import strategies as st

from consumer_query.newest import Newest
from consumer_query.records import LARGEST_REVISION

KEYS = st.sampled_from([b"a", b"b", b"c"])
REVISIONS = st.integers(1, 4) | st.integers(LARGEST_REVISION - 1, LARGEST_REVISION)
LARGEST_OFFSET = 2**63 - 1


def told(records: list[tuple[bytes, int, int]]) -> Newest:
    newest = Newest()
    for key, revision, offset in records:
        newest.offer(key, revision, offset)
    return newest


@given(st.lists(st.tuples(KEYS, REVISIONS)), st.integers(0, LARGEST_OFFSET - 100))
def test_of_each_key_one_record_is_the_newest_the_last_one_of_the_greatest_revision(
    log: list[tuple[bytes, int]], first: int
) -> None:
    records = [(key, revision, first + place) for place, (key, revision) in enumerate(log)]
    newest = told(records)
    found = {key: (revision, offset) for key, revision, offset in records if newest.is_newest(key, offset)}
    expected = {key: max((r, o) for k, r, o in records if k == key) for key, _, _ in records}
    assert found == expected
    assert {key: newest.revision(key) for key in expected} == {key: at[0] for key, at in expected.items()}
    assert len(newest) == len(expected)


@given(st.lists(st.tuples(KEYS, REVISIONS), min_size=1), st.randoms())
def test_the_order_in_which_records_are_offered_does_not_matter(log: list[tuple[bytes, int]], chance: object) -> None:
    records = [(key, revision, offset) for offset, (key, revision) in enumerate(log)]
    shuffled = sorted(records, key=lambda _: chance.random())  # type: ignore[attr-defined]
    one, other = told(records), told(shuffled)
    for key, _, offset in records:
        assert one.is_newest(key, offset) == other.is_newest(key, offset)


def test_a_greater_revision_wins_over_any_later_offset() -> None:
    newest = told([(b"a", 2, 0), (b"a", 1, LARGEST_OFFSET)])
    assert newest.is_newest(b"a", 0)
    assert not newest.is_newest(b"a", LARGEST_OFFSET)


def test_a_key_that_was_never_offered_has_no_newest_record() -> None:
    newest = Newest()
    assert not any(newest.is_newest(b"a", offset) for offset in (0, 1, 2**62, LARGEST_OFFSET - 1))


def test_nothing_of_a_forgotten_key_is_the_newest_and_the_others_stay() -> None:
    newest = told([(b"a", 1, 0), (b"b", 1, 1)])
    newest.forget([b"a", b"never offered"])
    assert not newest.is_newest(b"a", 0)
    assert newest.is_newest(b"b", 1)
    assert len(newest) == 1
