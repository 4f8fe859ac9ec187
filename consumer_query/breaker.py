"""When most records turn bad, the records are not to blame: the topic is not emptied into dead letters."""

from collections import deque
from typing import Final

WINDOW: Final = 500
"""Records that are looked back on, the batch in question included."""
FEWEST_BAD: Final = 100
"""Fewer bad ones than this in the window are never systemic: a share of few records says nothing."""


class Breaker:
    """Remembers how many of the last records were bad.

    Args:
        share: of bad records (0 to 1) that is taken for systemic; above 1 never
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._batches: deque[tuple[int, int]] = deque()
        self._records = 0
        self._bad = 0

    def is_systemic(self, records: int, bad: int) -> bool:
        """Whether a batch with `bad` bad ones among `records` must not go to the dead letters.

        A batch without bad records is never held up.
        """
        if not bad:
            return False
        bad += self._bad
        return bad >= FEWEST_BAD and bad >= self._share * (self._records + records)

    def note(self, records: int, bad: int) -> None:
        """A batch was applied, its bad records are among the dead letters."""
        self._batches.append((records, bad))
        self._records += records
        self._bad += bad
        while self._records - self._batches[0][0] >= WINDOW:
            old_records, old_bad = self._batches.popleft()
            self._records -= old_records
            self._bad -= old_bad
