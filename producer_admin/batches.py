"""At most one revision of a file in a transaction: one that is sent again then repeats a revision, and never goes back.

What was read beyond that is held for the next transactions, so that a file with thousands of revisions waiting is
neither read again for each of them nor in the way of the others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from producer_admin.outbox import OutboxRow


@dataclass(frozen=True)
class Limits:
    """How much one sender has in hand: this in its transaction, and at most the same again held for the next."""

    rows: int
    payload_bytes: int
    """One row may be larger by itself."""


@dataclass(frozen=True)
class Held:
    """Rows that wait in memory: of each file here the oldest that are unsent, without a gap."""

    rows: tuple[OutboxRow, ...] = ()

    @property
    def files(self) -> set[UUID]:
        """What the outbox need not be asked for."""
        return {row.file_id for row in self.rows}

    def room(self, limits: Limits) -> Limits:
        """What may be read from the outbox for the next transaction, beside the rows held for it."""
        batch, _ = next_batch(self.rows, Limits(0, 0))
        return Limits(max(1, limits.rows - len(batch)), max(0, limits.payload_bytes - _bytes(batch)))


def next_batch(rows: Sequence[OutboxRow], keep: Limits) -> tuple[Sequence[OutboxRow], Held]:
    """Split rows, in order on each file, into the next transaction and what is held, at most `keep`.

    Held are first all second revisions, then all third ones and so on. What exceeds `keep` is left to the outbox.
    """
    if len({row.file_id for row in rows}) == len(rows):
        return rows, Held()
    turns: dict[UUID, int] = {}
    rounds: list[list[OutboxRow]] = [[]]
    for row in rows:
        turn = turns.get(row.file_id, 0)
        turns[row.file_id] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(row)
    held: list[OutboxRow] = []
    size = 0
    for row in (row for later in rounds[1:] for row in later):
        size += len(row.payload)
        if len(held) == keep.rows or size > keep.payload_bytes:
            break
        held.append(row)
    return rounds[0], Held(tuple(held))


def _bytes(rows: Iterable[OutboxRow]) -> int:
    return sum(len(row.payload) for row in rows)
