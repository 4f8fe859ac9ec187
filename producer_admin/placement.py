"""New bytes go only where they can be kept: an element that is online, healthy and has room for them.

Among those the draw is weighted by free space, so that elements fill up together and a new, empty one is favoured
without taking everything. One without a bound weighs as much as the roomiest that has one: it says nothing of how
much more it could take.
"""

from collections.abc import Sequence
from typing import Protocol

from producer_admin.errors import NoElementError, NoRoomError


class Candidate(Protocol):
    """What placement asks of an element."""

    @property
    def element_id(self) -> str:
        """Its name."""

    @property
    def writable(self) -> bool:
        """Online and healthy."""

    @property
    def free_bytes(self) -> int | None:
        """Bytes that it can still take, never below 0; None when it has no bound."""


def choose(elements: Sequence[Candidate], size: int | None, draw: float) -> str:
    """The element for `size` new bytes.

    Args:
        elements: all that there are
        size: bytes; None when it is not known yet, which counts as 0
        draw: a random number, 0 <= draw < 1

    Raises:
        NoElementError: none is online and healthy.
        NoRoomError: all that are, are full.
    """
    writable = [one for one in elements if one.writable]
    if not writable:
        raise NoElementError("No storage element is online and healthy. Try again later.")
    # A full one takes not even an empty file: of unknown size, the file would be empty only by chance.
    least = max(1, size or 0)
    roomy = [one for one in writable if one.free_bytes is None or one.free_bytes >= least]
    if not roomy:
        raise NoRoomError("Every storage element that takes new files is full.")
    weights = _weights([one.free_bytes for one in roomy])
    rest = draw * sum(weights)
    for one, weight in zip(roomy, weights, strict=True):
        rest -= weight
        if rest < 0:
            return one.element_id
    # Rounding of the sum can leave a last crumb.
    return roomy[-1].element_id


def _weights(free: Sequence[int | None]) -> list[int]:
    unbounded = max((one for one in free if one is not None), default=1)
    return [unbounded if one is None else one for one in free]
