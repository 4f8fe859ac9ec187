"""Positions are stored with the rows, so rows and positions can never disagree; the group's offsets only follow.

Each generation of the cache has its own, since each holds other rows. A position is the next offset to read, never
"last record + 1": transaction markers and compaction leave gaps. It moves by compare-and-set, so a projector that lost
the partition cannot move it behind the new owner's back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import asyncpg

from consumer_query.errors import PositionMovedError
from runtime.postgres import Connection

# All go by the key (generation, topic, partition).
STORED: Final = "SELECT partition, next_offset FROM projector_positions WHERE generation = $1 AND topic = $2"
TAKE: Final = """
INSERT INTO projector_positions (generation, topic, partition, next_offset)
SELECT $1, $2, * FROM unnest($3::int[], $4::bigint[])
ON CONFLICT (generation, topic, partition) DO UPDATE
SET next_offset = excluded.next_offset, moved_at = clock_timestamp()
"""
MOVE: Final = """
UPDATE projector_positions AS stored SET next_offset = move.upto, moved_at = clock_timestamp()
FROM unnest($3::int[], $4::bigint[], $5::bigint[]) AS move (partition, since, upto)
WHERE stored.generation = $1 AND stored.topic = $2 AND stored.partition = move.partition
  AND stored.next_offset = move.since
"""


@dataclass(frozen=True)
class Start:
    """Where an assignment starts, and a warning for the operator if that is not where the group's offset stands."""

    position: int
    warning: str | None = None


@dataclass(frozen=True)
class Move:
    """One partition applied from `since` up to, but not including, `upto`."""

    since: int
    upto: int


def start_of(stored: int | None, committed: int | None, beginning: int, end: int) -> Start:
    """Decide where to start a partition: the lower of what the rows say and what the group says.

    Args:
        stored: position stored with the rows, None in a new database
        committed: the group's offset, None when it never committed
        beginning: first offset of the log
        end: the log's last stable offset
    """
    if stored is None:
        return Start(beginning)
    if stored > end:
        warning = f"position {stored} is beyond the log's end {end}: another topic under this name? Reading all of it."
        return Start(beginning, warning)
    if committed is None or committed == stored:
        return Start(max(stored, beginning))
    if committed > stored:
        warning = f"group offset {committed} is ahead of the rows at {stored}: starting at the rows' position"
        return Start(max(stored, beginning), warning)
    return Start(max(committed, beginning), f"group offset {committed} is behind the rows at {stored}: replaying")


async def stored(connection: Connection | asyncpg.Pool, generation: int, topic: str) -> Mapping[int, int]:
    """Positions of a generation by partition; a partition never applied is absent."""
    rows = await connection.fetch(STORED, generation, topic)
    return {row["partition"]: row["next_offset"] for row in rows}


async def take(connection: Connection, generation: int, topic: str, starts: Mapping[int, int]) -> None:
    """Set positions at the start of an assignment, whatever they were."""
    await connection.execute(TAKE, generation, topic, list(starts), list(starts.values()))


async def move(connection: Connection, generation: int, topic: str, moves: Mapping[int, Move]) -> None:
    """Move positions within the caller's transaction.

    Raises:
        PositionMovedError: one is not where the caller left it; the caller's transaction must not commit.
    """
    since = [one.since for one in moves.values()]
    upto = [one.upto for one in moves.values()]
    status: str = await connection.execute(MOVE, generation, topic, list(moves), since, upto)
    if status != f"UPDATE {len(moves)}":
        raise PositionMovedError(f"Another projector has moved one of the partitions {sorted(moves)} of {topic}.")
