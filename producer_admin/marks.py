"""A storage element's place carries a mark with the element's id, so that no other place is taken for it.

An empty mount point is not the disk that belongs there, and one folder is not two elements: a scrub of the second would
see the files of the first as garbage.
"""

from collections.abc import AsyncIterator
from typing import Final

from producer_admin.errors import ElementTakenError, StorageError
from producer_admin.storage import StorageElement

MARK: Final = "artstore-element"
"""Key of the object that holds the id."""
_LONGEST: Final = 200


async def read_mark(storage: StorageElement) -> str | None:
    """The id of the element that this place is; None when it carries no mark.

    Raises:
        StorageError: it cannot be read.
    """
    if await storage.find(MARK) is None:
        return None
    content = b"".join([chunk async for chunk in await storage.read(MARK, 0, _LONGEST)])
    return content.decode(errors="replace").strip()


async def claim(storage: StorageElement, element_id: str) -> None:
    """Mark a place as this element, unless it is marked so already.

    Raises:
        ElementTakenError: it is another element.
        StorageError: it cannot be read, or not written to.
    """
    holder = await read_mark(storage)
    if holder is None:

        async def mark() -> AsyncIterator[bytes]:
            yield f"{element_id}\n".encode()

        await storage.write(MARK, mark())
    elif holder != element_id:
        raise ElementTakenError(f"This place is storage element {holder} already.")


async def verify(storage: StorageElement, element_id: str) -> None:
    """Return when this place is the element.

    Raises:
        StorageError: it is not, or cannot be read.
    """
    holder = await read_mark(storage)
    if holder != element_id:
        found = f"carries the mark of {holder}" if holder else f"does not carry the mark of {element_id}"
        raise StorageError(f"This place {found}. Is the right disk mounted?")
