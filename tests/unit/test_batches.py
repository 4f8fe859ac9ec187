"""What goes into the next transaction, and what is held for later ones."""

from collections.abc import Sequence
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from producer_admin.batches import Held, Limits, next_batch
from producer_admin.outbox import OutboxRow

FILES = [UUID(int=number) for number in range(1, 5)]


def row(outbox_id: int, file_id: UUID, size: int = 1) -> OutboxRow:
    return OutboxRow(outbox_id, file_id, outbox_id, UUID(int=outbox_id), "file:updated", b"x" * size, 0)


rows = st.lists(st.tuples(st.sampled_from(FILES), st.integers(0, 30))).map(
    lambda drawn: [row(number, file_id, size) for number, (file_id, size) in enumerate(drawn)]
)


def of_file(found: Sequence[OutboxRow], file_id: UUID) -> list[int]:
    return [one.outbox_id for one in found if one.file_id == file_id]


@given(rows, st.integers(0, 20), st.integers(0, 200))
def test_a_batch_has_the_oldest_row_of_each_file_and_held_are_the_next_ones_without_a_gap(
    given_rows: list[OutboxRow], most_rows: int, most_bytes: int
) -> None:
    batch, held = next_batch(given_rows, Limits(most_rows, most_bytes))
    for file_id in FILES:
        all_of_it = of_file(given_rows, file_id)
        assert of_file(batch, file_id) == all_of_it[:1]
        held_of_it = of_file(held.rows, file_id)
        assert held_of_it == all_of_it[1 : 1 + len(held_of_it)]
    assert len(held.rows) <= most_rows
    assert sum(len(one.payload) for one in held.rows) <= most_bytes


def test_held_are_second_revisions_of_all_files_before_third_ones_of_any() -> None:
    hot, other = FILES[:2]
    given_rows = [*(row(number, hot) for number in range(10)), row(10, other), row(11, other)]
    _, held = next_batch(given_rows, Limits(2, 100))
    assert [one.outbox_id for one in held.rows] == [1, 11]


def test_what_is_held_for_a_batch_takes_room_in_it_and_there_is_always_room_for_one_row() -> None:
    hot, other = FILES[:2]
    held = Held((row(1, hot, 30), row(2, other, 40), row(3, hot, 90)))
    assert held.files == {hot, other}
    assert held.room(Limits(10, 100)) == Limits(8, 30)
    assert held.room(Limits(2, 50)) == Limits(1, 0)
    assert Held().room(Limits(10, 100)) == Limits(10, 100)
