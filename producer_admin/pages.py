"""Lists go newest first, page by page: a page begins behind the moment and id where the one before ended.

So what is added or removed meanwhile shifts no page.
"""

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select

from producer_admin.errors import RefusedError
from runtime.errors import FieldError


@dataclass(frozen=True)
class Place:
    """Where a page ended."""

    moment: datetime
    id: UUID

    @property
    def cursor(self) -> str:
        """As the opaque text that a client hands back."""
        return base64.urlsafe_b64encode(f"{self.moment.isoformat()} {self.id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str | None) -> Place | None:
    """Where the page begins; None for the first.

    Raises:
        RefusedError: it is not a cursor of ours.
    """
    if cursor is None:
        return None
    try:
        moment, _, identity = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(" ")
        return Place(datetime.fromisoformat(moment).astimezone(UTC), UUID(identity))
    except (ValueError, OverflowError, binascii.Error) as error:
        raise RefusedError("The cursor cannot be read.", (FieldError("cursor", "not a cursor of ours"),)) from error


def page(
    statement: Select[Any],
    moment: ColumnElement[datetime],
    identity: ColumnElement[UUID],
    limit: int,
    behind: Place | None,
) -> Select[Any]:
    """`statement` ordered and cut to one page of `limit` rows. Wants an index on (moment DESC, identity)."""
    statement = statement.order_by(moment.desc(), identity).limit(limit)
    if behind is None:
        return statement
    # Not one comparison of pairs: the two columns run in opposite directions.
    later = (moment < behind.moment) | ((moment == behind.moment) & (identity > behind.id))
    return statement.where(moment <= behind.moment, later)
