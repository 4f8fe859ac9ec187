"""Folding: of all records of a file, the greatest revision is its state, in whatever order they come."""

from random import Random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from consumer_query.projection import FileState, Fold

FILES = [str(UUID(int=number)) for number in range(4)]
states = st.builds(
    lambda file_id, revision: FileState(file_id, revision, {"deleted": False}, "file:updated"),
    st.sampled_from(FILES),
    st.integers(1, 20),
)


def folded(batch: list[FileState]) -> Fold[FileState, int]:
    fold = Fold[FileState, int]()
    for place, state in enumerate(batch):
        fold.offer(state, place)
    return fold


@given(st.lists(states), st.randoms(use_true_random=False))
def test_the_newest_state_does_not_depend_on_the_order_or_on_repeats(batch: list[FileState], random: Random) -> None:
    shuffled = batch + random.sample(batch, k=len(batch) // 2)
    random.shuffle(shuffled)
    newest = folded(batch).newest()
    assert folded(shuffled).newest() == newest
    assert {state.file_id: state.revision for state in newest} == {
        file_id: max(state.revision for state in batch if state.file_id == file_id)
        for file_id in {state.file_id for state in batch}
    }


@given(st.lists(states))
def test_rows_are_written_in_the_same_order_by_everyone(batch: list[FileState]) -> None:
    ids = [state.file_id for state in folded(batch).newest()]
    assert ids == sorted(set(ids))


@given(st.lists(states), st.sets(st.integers(1, 20)))
def test_when_revisions_are_refused_the_newest_of_the_others_is_the_state_and_each_refused_origin_is_named_once(
    batch: list[FileState], bad: set[int]
) -> None:
    fold = folded(batch)
    named: list[int] = []
    remaining = fold.newest()
    while wrong := [state for state in remaining if state.revision in bad]:
        for state in wrong:
            origins, following = fold.refuse(state.file_id)
            named += origins
            assert following in [None, *fold.newest()]
        remaining = fold.newest()
    good = [state for state in batch if state.revision not in bad]
    assert remaining == folded(good).newest()
    kept = {state.file_id: state.revision for state in remaining}
    assert sorted(named) == [
        place
        for place, state in enumerate(batch)
        if state.revision in bad and state.revision > kept.get(state.file_id, 0)
    ]
