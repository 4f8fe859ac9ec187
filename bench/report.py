"""Figures of several rounds, so that a neighbour's noise can be seen and does not decide.

What is compared runs in each round, in an order that turns from round to round; a ratio is taken within each round.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

Contender = TypeVar("Contender")


@dataclass(frozen=True)
class Figure:
    """One quantity over all rounds."""

    name: str
    unit: str
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """What is quoted."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Greatest minus smallest, as a share of the median; large means: measure again on a quieter machine."""
        return (max(self.rounds) - min(self.rounds)) / self.median if self.median else 0.0


def turned(contenders: Sequence[Contender], rounds: int) -> Iterator[Sequence[Contender]]:
    """The order of each round: forwards, then backwards, and so on."""
    for number in range(rounds):
        yield contenders if number % 2 == 0 else contenders[::-1]


def ratio(name: str, of: Figure, to: Figure) -> Figure:
    """`of` divided by `to`, round by round."""
    return Figure(name, "", tuple(one / other for one, other in zip(of.rounds, to.rounds, strict=True)))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of `values` do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
