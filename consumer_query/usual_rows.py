"""The same row, whether compiled code or Python makes it; compiled code makes most, three times as fast.

`artstore_rows` (native/) is there where a C compiler was when the environment was made, and in the image. It knows
records of files that exist, as nearly all are; whatever else a record is, and all errors, are left to `records` and
`read_model`. The rules by which words and values become lexemes are `analysis` and `terms`, for both.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from consumer_query import analysis, terms
from consumer_query.read_model import Row
from consumer_query.records import EARLIEST, LATEST
from schemas.codec import EVENT_TYPES, versions

try:
    from artstore_rows import FORM, RowMaker
except ImportError:
    FORM, RowMaker = None, None


class Makers(NamedTuple):
    """What lexemes are made of, each ended as it stands in a tsvector's binary form."""

    text: Callable[[str], tuple[bytes, ...]] = analysis.text_lexemes
    name: Callable[[str], tuple[tuple[bytes, ...], tuple[bytes, ...]]] = analysis.name_lexemes_and_parts
    person: Callable[[str], tuple[bytes, ...]] = lambda text: analysis.name_lexemes_and_parts(text)[0]
    whole_name: Callable[[str], bytes] = analysis.name_lexeme
    type: Callable[[str], tuple[bytes, ...]] = terms.TYPES.__getitem__
    tag: Callable[[str], tuple[bytes, ...]] = terms.TAGS.__getitem__
    uploader: Callable[[str], tuple[bytes, ...]] = terms.UPLOADERS.__getitem__
    element: Callable[[str], tuple[bytes, ...]] = terms.ELEMENTS.__getitem__
    checksum: Callable[[str], bytes] = terms.checksum_lexeme
    sizes: Sequence[bytes] = terms.SIZES
    """By binary digits."""
    created: Mapping[int, bytes] = terms.CREATED
    """By day since 1970."""
    updated: Mapping[int, bytes] = terms.UPDATED
    """Likewise."""
    kept: Mapping[int, bytes] = terms.KEPT
    """Likewise."""
    not_kept: bytes = terms.NONE_KEPT


class Usual(NamedTuple):
    """What a record says that is as most are."""

    row: Row
    event_type: str


CURRENT_FORM: Final = 2
"""Of the rows that `binary_rows` makes. Compiled code that was left by an older checkout makes others."""
LAYOUT: Final = 1
"""The version of the schema that compiled code reads. Of a newer one, it would not know what records mean."""
_newest: Final = versions()[-1]
_maker: Final = (
    RowMaker(_newest.header, tuple(EVENT_TYPES.values()), EARLIEST, LATEST, analysis.GAP, Makers(), Row, Usual)
    if RowMaker is not None and FORM == CURRENT_FORM and _newest.number == LAYOUT
    else None
)
COMPILED: Final[bool] = _maker is not None
"""Whether `usual` ever finds any."""


def _none_is(_key: bytes | None, _value: bytes | None) -> None:
    """What there is without compiled code."""


usual: Final[Callable[[bytes | None, bytes | None], Usual | None]] = _maker.row if _maker is not None else _none_is
"""The row of a record that is as most are; None when Python has to look at it."""
