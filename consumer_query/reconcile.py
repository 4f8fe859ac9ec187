"""Two sides are compared by sums of digests, going down only where they differ: equal sides cost one question.

    everything, in pieces  →  pieces that differ, in pieces  →  …  →  small ones: file by file  →  ids that differ

What differs at one moment need not be wrong: a change may be on its way. So this names candidates; `confirm` looks
again at each before it counts.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from schemas.digests import EVERYTHING, MOST_CUTS, MOST_RANGES, Range, Span, Sum

FIRST_PIECES: Final = 1024
"""Of everything: 1,000 files each when there are a million. More cost equal sides more than they spare unequal ones."""
PIECES: Final = 16
"""Of a piece that differs, as many files in each."""
SMALL: Final = 128
"""Files on the side that has fewer, from which on a piece is compared file by file. At least PIECES."""


class Listed(NamedTuple):
    """A file that exists, as one side has it."""

    file_id: UUID
    revision: int
    digest: int


class Page(NamedTuple):
    """Files of some ranges, by id."""

    files: Sequence[Listed]
    upto: UUID | None = None
    """Below this id nothing is left out; None means nowhere."""


class Side(Protocol):
    """One of the two that are compared."""

    async def sums(self, spans: Sequence[Span]) -> list[list[Sum]]:
        """Of each span, piece by piece."""
        ...

    async def listing(self, ranges: Sequence[Range]) -> Page:
        """Files that exist in ranges that rise."""
        ...


class OurSide(Side, Protocol):
    """The one that is at hand."""

    async def cut(self, pieces: Sequence[tuple[Range, int]]) -> list[Span]:
        """Cut ranges with so many files into at most PIECES pieces with as many files each.

        Ids need not be spread evenly, such as those that begin with the time, so where to cut is told by what is there.
        """
        ...


class Seen(NamedTuple):
    """What the cache, or the topic, says of a file that it knows."""

    revision: int
    digest: int | None
    """None when it is deleted."""


class Truth(NamedTuple):
    """What the Admin module says of a file."""

    revision: int | None
    """None when it knows no such file."""
    digest: int | None
    """None unless it exists."""
    waiting: bool = False
    """An event of it may not be on the topic yet."""
    partition: int = 0


class Class(StrEnum):
    """How a file differs."""

    MISSING = "missing"
    """It exists, and is not there."""
    GHOST = "ghost"
    """It is there, and does not exist."""
    STALE = "stale"
    """An older revision is there."""
    AHEAD = "ahead"
    """A greater revision is there than there ever was."""
    DIFFERS = "differs"
    """The revision is right and the content is not."""


@dataclass
class Found:
    """What going down has found."""

    file_ids: set[UUID] = field(default_factory=set)
    """Candidates."""
    our_files: int = 0
    their_files: int = 0
    complete: bool = True
    """False when there were more candidates than were asked for."""


def classify(ours: Seen | None, theirs: Truth) -> Class | None:
    """How a file differs; None where both agree. That one side has forgotten a deletion is no difference."""
    if theirs.digest is None:
        return None if ours is None or ours.digest is None else Class.GHOST
    assert theirs.revision is not None  # noqa: S101 - it exists
    if ours is None or ours.digest is None:
        return Class.MISSING
    if ours.revision != theirs.revision:
        return Class.STALE if ours.revision < theirs.revision else Class.AHEAD
    return None if ours.digest == theirs.digest else Class.DIFFERS


async def find(ours: OurSide, theirs: Side, most: int) -> Found:
    """Find the files on which two sides differ, each asked at the same time as the other.

    Args:
        ours: at hand
        theirs: to be asked as seldom as can be
        most: candidates; of more, some are left for the next time
    """
    found = Found()
    small: list[Range] = []
    spans = [Span(EVERYTHING, tuple(_even_cuts(FIRST_PIECES)))]
    while spans:
        large: list[tuple[Range, int]] = []
        for asked in _batches(spans):
            sums = await asyncio.gather(ours.sums(asked), theirs.sums(asked))
            for span, our_sums, their_sums in zip(asked, *sums, strict=True):
                if span.range == EVERYTHING:
                    found.our_files = sum(one.files for one in our_sums)
                    found.their_files = sum(one.files for one in their_sums)
                for piece, our_sum, their_sum in zip(span.pieces, our_sums, their_sums, strict=True):
                    if our_sum == their_sum:
                        continue
                    if min(our_sum.files, their_sum.files) <= SMALL:
                        small.append(piece)
                    else:
                        large.append((piece, our_sum.files))
        # Each holds a difference at least.
        spans = [one for one in await ours.cut(large[:most]) if one.cuts] if large else []
        cut = {span.range for span in spans}
        small += [piece for piece, _ in large[:most] if piece not in cut]  # those that have shrunk meanwhile
        found.complete &= len(large) <= most
    await _list(ours, theirs, sorted(small), most, found)
    return found


async def _list(ours: Side, theirs: Side, ranges: Sequence[Range], most: int, found: Found) -> None:
    """Compare ranges file by file, page by page: either side may have very many there that the other has not."""
    for begin in range(0, len(ranges), MOST_RANGES):
        left: Sequence[Range] = ranges[begin : begin + MOST_RANGES]
        while left:
            if len(found.file_ids) >= most:
                found.complete = False
                return
            our_page, their_page = await asyncio.gather(ours.listing(left), theirs.listing(left))
            upto = min((one for one in (our_page.upto, their_page.upto) if one is not None), default=None)
            found.file_ids |= differing(our_page.files, their_page.files, upto)
            left = [] if upto is None else beyond(left, upto)


def differing(ours: Iterable[Listed], theirs: Iterable[Listed], upto: UUID | None) -> set[UUID]:
    """Ids below `upto` that only one of two lists has, or the two not alike."""
    return {one.file_id for one in set(ours) ^ set(theirs) if upto is None or one.file_id < upto}


def beyond(ranges: Iterable[Range], begin: UUID) -> list[Range]:
    """What is left of ranges from an id on."""
    return [Range(max(one.first, begin), one.last) for one in ranges if one.last >= begin]


def even_step(files: int) -> int:
    """Every how manieth file begins another piece."""
    return max(1, -(-files // PIECES))


def _even_cuts(pieces: int) -> Iterator[UUID]:
    return (UUID(int=number * (2**128 // pieces)) for number in range(1, pieces))


def _batches(spans: Sequence[Span]) -> Iterator[Sequence[Span]]:
    """As much as may be asked at once."""
    batch: list[Span] = []
    cuts = 0
    for span in spans:
        if batch and (len(batch) == MOST_RANGES or cuts + len(span.cuts) > MOST_CUTS):
            yield batch
            batch, cuts = [], 0
        batch.append(span)
        cuts += len(span.cuts)
    if batch:
        yield batch
