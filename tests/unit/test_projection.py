"""Folding: of all records of a file, the greatest revision is its state, in whatever order they come."""

from random import Random
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_query.projection import FileState, newest
from tests.samples import METADATA

FILES = [UUID(int=number) for number in range(4)]
states = st.builds(
    lambda file_id, revision: FileState(file_id, revision, "se-01", METADATA),
    st.sampled_from(FILES),
    st.integers(1, 20),
)


@given(st.lists(states), st.randoms(use_true_random=False))
def test_the_newest_state_does_not_depend_on_the_order_or_on_repeats(batch: list[FileState], random: Random) -> None:
    shuffled = batch + random.sample(batch, k=len(batch) // 2)
    random.shuffle(shuffled)
    assert newest(shuffled) == newest(batch)
    assert {state.file_id: state.revision for state in newest(batch)} == {
        file_id: max(state.revision for state in batch if state.file_id == file_id)
        for file_id in {state.file_id for state in batch}
    }


@given(st.lists(states))
def test_rows_are_written_in_the_same_order_by_everyone(batch: list[FileState]) -> None:
    ids = [state.file_id for state in newest(batch)]
    assert ids == sorted(set(ids))


def test_a_tombstone_deletes_at_the_revision_in_its_header() -> None:
    file_id = uuid4()
    assert FileState.of_tombstone(str(file_id).encode(), b"7") == FileState(file_id, 7, None, None)


@pytest.mark.parametrize(("key", "revision"), [(None, b"1"), (b"x", b"1"), (str(uuid4()).encode(), None)])
def test_a_tombstone_without_file_or_revision_is_refused(key: bytes | None, revision: bytes | None) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which of the two is wrong is in the message of the library
        FileState.of_tombstone(key, revision)
