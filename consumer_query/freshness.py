"""What an answer may claim of its freshness is never more than what the projector has proven.

The lag is an upper bound: all that the log held so long ago is in the rows; `freshness_beat` says of what moment. It is
to be asked before the search it is told with looks at any file, and of the same server. What a client has been told by
the Admin module, a file's revision, can be waited for by itself.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self
from uuid import UUID

import asyncpg

from consumer_query import generations, read_model
from consumer_query.errors import BadSearchError, QueryError
from runtime.errors import FieldError
from runtime.postgres import Connection

POLL_SECONDS: Final = 0.05
LONGEST_WAIT_SECONDS: Final = 30.0
LARGEST_LAG_SECONDS: Final = 86_400.0

# A few rows, by the key. What is known of another generation holds for the live one too, where its rows are as far:
# so after a swap the lag goes on as if nothing had been. What the clock has not come to yet was told by another clock.
LAG: Final = """
WITH fresh AS (
    SELECT max(known.fresh_at) AS fresh_at
    FROM cache_generation JOIN projector_positions AS stored ON stored.generation = cache_generation.live
    LEFT JOIN projector_positions AS known ON known.topic = stored.topic AND known.partition = stored.partition
        AND greatest(known.next_offset, known.reached_offset) <= greatest(stored.next_offset, stored.reached_offset)
        AND known.fresh_at <= clock_timestamp()
    GROUP BY stored.topic, stored.partition
)
SELECT greatest(0, extract(epoch FROM clock_timestamp() - min(fresh_at)))::float8
FROM fresh HAVING bool_and(fresh_at IS NOT NULL)
"""

_TOKEN: Final = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})@([0-9]{1,19})", re.IGNORECASE | re.ASCII)
_LARGEST_REVISION: Final = 2**63 - 1
_TIME: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s)", re.ASCII)


class StaleIndexError(QueryError):
    """The index may be further behind than the caller takes."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "Index too far behind"
    retryable: ClassVar[bool] = True
    expected: ClassVar[bool] = True


class NotYetVisibleError(QueryError):
    """What was waited for did not come in time; `errors` tells how far each file is."""

    status: ClassVar[int] = 504
    title: ClassVar[str] = "Not visible yet"
    retryable: ClassVar[bool] = True
    expected: ClassVar[bool] = True


@dataclass(frozen=True)
class Token:
    """A state of a file that the Admin module has told of: this revision or a later one."""

    file_id: UUID
    revision: int
    """1 or more."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read FILE_ID@REVISION.

        Raises:
            BadSearchError: it is not that.
        """
        found = _TOKEN.fullmatch(text)
        if found is None or not 1 <= int(found[2]) <= _LARGEST_REVISION:
            raise _refused("at_least", "is not FILE_ID@REVISION, such as an upload was answered with")
        return cls(UUID(found[1]), int(found[2]))


def parse_wait(text: str) -> float:
    """How long to wait, in seconds, of "2s" or "500ms"; 30 s at most.

    Raises:
        BadSearchError: it is not that.
    """
    return _seconds("wait", text, LONGEST_WAIT_SECONDS)


def parse_max_lag(text: str) -> float:
    """How far the index may be behind, in seconds, of "5s" or "500ms"; a day at most.

    Raises:
        BadSearchError: it is not that.
    """
    return _seconds("max_lag", text, LARGEST_LAG_SECONDS)


async def lag_seconds(connection: Connection | asyncpg.Pool) -> float | None:
    """How far the live generation may be behind the log: all that the log held so many seconds ago is in the rows.

    Of the partition that is furthest behind, and never negative. None when that is not known: before all of the log has
    been read for the first time.
    """
    found: float | None = await connection.fetchval(LAG)
    return found


def require_fresh(lag: float | None, most: float) -> None:
    """Refuse to answer from an index that may be too far behind.

    Args:
        lag: as `lag_seconds` tells it
        most: seconds

    Raises:
        StaleIndexError: the lag is more than that, or not known.
    """
    if lag is None:
        raise StaleIndexError(f"The index has not been filled yet; a lag of {most:g} s at most was asked for.")
    if lag > most:
        raise StaleIndexError(f"The index is {lag:.3g} s behind; a lag of {most:g} s at most was asked for.")


async def wait_for(pool: asyncpg.Pool, tokens: Sequence[Token], seconds: float) -> None:
    """Wait until search sees each of the files at its revision or a later one; deleted files count as well.

    Args:
        pool: of the Query database
        tokens: what to wait for
        seconds: how long; with 0 there is one look

    Raises:
        NotYetVisibleError: they did not come in time.
    """
    wanted: dict[UUID, int] = {}
    for one in tokens:
        wanted[one.file_id] = max(one.revision, wanted.get(one.file_id, 0))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    seen: Mapping[str, int] = {}
    while wanted:
        seen = await _revisions(pool, list(wanted))
        wanted = {file_id: revision for file_id, revision in wanted.items() if seen.get(str(file_id), 0) < revision}
        if (left := deadline - loop.time()) <= 0:
            break
        if wanted:
            await asyncio.sleep(min(POLL_SECONDS, left))
    if wanted:
        raise _not_yet_visible(wanted, seen, seconds, await lag_seconds(pool))


async def _revisions(pool: asyncpg.Pool, file_ids: Sequence[UUID]) -> Mapping[str, int]:
    """What the live generation holds of files, by primary key, deleted ones too."""
    async with pool.acquire() as connection:
        live = await connection.fetchval(generations.LIVE)
        try:
            return await read_model.revisions(connection, live, list(map(str, file_ids)))
        except asyncpg.UndefinedTableError:
            return {}  # another one is live by now, and this one is gone; the next look is at that


def _not_yet_visible(
    wanted: Mapping[UUID, int], seen: Mapping[str, int], seconds: float, lag: float | None
) -> NotYetVisibleError:
    errors = tuple(
        FieldError(
            "at_least",
            f"file {file_id} is at revision {seen[str(file_id)]}, and not yet at {revision}"
            if str(file_id) in seen
            else f"file {file_id} is not there yet at any revision, nor at {revision}",
        )
        for file_id, revision in wanted.items()
    )
    behind = "has not been filled yet" if lag is None else f"is {lag:.3g} s behind at most"
    said = "; ".join(one.message for one in errors)
    return NotYetVisibleError(f"After {seconds:g} s {said}. The index {behind}.", errors)


def _seconds(parameter: str, text: str, most: float) -> float:
    found = _TIME.fullmatch(text)
    seconds = float(found[1]) / (1000 if found[2] == "ms" else 1) if found else None
    if seconds is None or seconds > most:
        raise _refused(parameter, f"is not a time such as 2s or 500ms, of {most:g} s at most")
    return seconds


def _refused(parameter: str, message: str) -> BadSearchError:
    return BadSearchError(f"{parameter}: {message}", (FieldError(parameter, message),))
