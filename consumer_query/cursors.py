"""A cursor is where a page ended, and of which list. It says nothing to a client, and none can be made up.

Signed (HMAC, RFC 2104) with a key that all replicas share, and bound to what was asked: behind another question it
would be somewhere else.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, TypeAlias

from consumer_query.errors import BadSearchError
from runtime.errors import FieldError

_SIGNATURE: Final = 16
"""Bytes."""
Key: TypeAlias = Sequence[str | int | float | bool]
"""The sort key of a hit; its file id is the last."""


@dataclass(frozen=True)
class Cursor:
    """Where the next page begins."""

    after: Key
    """Of the last hit that was given; of the part of the list that `ranked` says."""
    seen: int
    """Hits that were given by then."""
    ranked: bool = False
    """Whether it stands among the hits that are ranked; the rest follows by date."""
    horizon: tuple[int, str] | None = None
    """Creation, in microseconds since 1970, and id of the oldest hit that is ranked as a matter of course."""
    exact_given: bool = False
    """Whether all exact hits were among the ranked ones, however old they are."""
    query: str | None = None
    """What was asked instead, where the query was mistyped."""


def encoded(cursor: Cursor, key: bytes, asked: str) -> str:
    """As the text that a client hands back.

    Args:
        cursor: to be remembered
        key: of all replicas
        asked: the question in full, in any form that is the same each time
    """
    body = json.dumps(asdict(cursor), ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_signature(body, key, asked) + body).decode().rstrip("=")


def decoded(text: str, key: bytes, asked: str) -> Cursor:
    """Read what `encoded` wrote.

    Raises:
        BadSearchError: it was not given for this question.
    """
    try:
        raw = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise _refused("not a cursor that this service gave") from error
    signature, body = raw[:_SIGNATURE], raw[_SIGNATURE:]
    if not hmac.compare_digest(signature, _signature(body, key, asked)):
        raise _refused("not a cursor that this service gave for this query, these filters and this order")
    fields = json.loads(body)
    horizon = fields.pop("horizon")
    return Cursor(**fields, horizon=horizon and tuple(horizon))


def _signature(body: bytes, key: bytes, asked: str) -> bytes:
    signed = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).digest() + body
    return hmac.digest(key, signed, "sha256")[:_SIGNATURE]


def _refused(why: str) -> BadSearchError:
    return BadSearchError("The cursor cannot be used.", (FieldError("cursor", why),))
