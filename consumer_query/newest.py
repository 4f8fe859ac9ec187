"""Of all records of a file, only the newest is worth reading. Values in, values out; no I/O.

Which one that is can be told from keys and revision headers alone, so a rebuild passes over a partition once to learn
it, and decodes only those. What has to be remembered for it is a number a file.
"""

from collections.abc import Iterable
from typing import Final

_OFFSET_BITS: Final = 63
_OFFSET: Final = (1 << _OFFSET_BITS) - 1


class Newest:
    """Where the newest record of each key of a partition stands; about 170 bytes a key."""

    def __init__(self) -> None:
        self._places: dict[bytes, int] = {}
        """Revision and offset as one number: the greater revision wins, of equal ones the later."""

    def __len__(self) -> int:
        return len(self._places)

    def offer(self, key: bytes, revision: int, offset: int) -> bool:
        """Take note of a record: whether it is the newest of its key by now."""
        place = (revision << _OFFSET_BITS) | offset
        newer = place > self._places.get(key, -1)
        if newer:
            self._places[key] = place
        return newer

    def is_newest(self, key: bytes, offset: int) -> bool:
        """Whether the record of that key at that offset is the newest."""
        return self._places.get(key, -1) & _OFFSET == offset

    def revision(self, key: bytes) -> int:
        """Of the newest record of a key that was offered."""
        return self._places[key] >> _OFFSET_BITS

    def forget(self, keys: Iterable[bytes]) -> None:
        """These are dealt with otherwise."""
        for key in keys:
            self._places.pop(key, None)
