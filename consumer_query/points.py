"""Places in the projector where a crash would hurt most. Tests kill the process there; nothing else listens."""

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


Watch = Callable[[Point], None]
"""Called when a point is reached."""


def unwatched(_: Point) -> None:
    """What a process in service uses."""
