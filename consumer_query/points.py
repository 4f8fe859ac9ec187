"""Places in projector and rebuild where a crash would hurt most. Tests kill the process there; nothing else listens."""

from collections.abc import Callable
from enum import StrEnum


class Point(StrEnum):
    """A place, named after what was done last."""

    SEEKED = "seeked, nothing read"
    FETCHED = "fetched, nothing decoded"
    PREPARED = "folded, no transaction begun"
    ROWS_WRITTEN = "rows written, transaction open"
    DEAD_LETTERS_SENT = "dead letters acknowledged, positions not moved"
    MOVED = "positions moved, transaction open"
    APPLIED = "transaction committed, offsets not"
    COMMITTED = "offsets committed"
    REVOKING = "partitions being taken away, batches in hand"
    REVOKED = "partitions taken away"


class RebuildPoint(StrEnum):
    """A place in the work of a rebuild, in the order in which it comes to them."""

    PLANNED = "ends of the log noted, nothing read"
    LOADED = "all partitions loaded, phase not moved"
    INDEXED = "one more index made"
    DELETIONS_TAKEN = "deletions taken over, nothing followed"
    CAUGHT_UP = "near the live one's positions, phase not moved"
    EQUAL = "at the live one's positions, projectors wait"
    COMPARED = "compared, decision not written"
    SWAPPING = "everybody sent to the new one, transaction open"
    SWAPPED = "transaction committed"


Watch = Callable[[Point], None]
"""Called when a point is reached."""
RebuildWatch = Callable[[RebuildPoint], None]


def unwatched(_: StrEnum) -> None:
    """What a process in service uses."""
