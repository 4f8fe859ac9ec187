"""Positions are stored with the rows, so rows and positions can never disagree; the group's offsets only follow.

Each generation of the cache has its own, since each holds other rows. A position is the next offset to read, never
"last record + 1": transaction markers and compaction leave gaps. It moves by compare-and-set, so a projector that lost
the partition cannot move it behind the new owner's back.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from consumer_query.errors import PositionMovedError
from consumer_query.guards import Standing, Witness
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
UPDATE projector_positions AS stored
SET next_offset = move.upto, reached_offset = greatest(stored.reached_offset, move.upto), moved_at = clock_timestamp()
FROM unnest($3::int[], $4::bigint[], $5::bigint[]) AS move (partition, since, upto)
WHERE stored.generation = $1 AND stored.topic = $2 AND stored.partition = move.partition
  AND stored.next_offset = move.since
"""
REACHED: Final = """
SELECT partition, greatest(next_offset, reached_offset) AS reached FROM projector_positions
WHERE generation = $1 AND topic = $2
"""
STANDINGS: Final = """
SELECT partition, next_offset, cluster_id, witness_offset, witness,
    extract(epoch FROM clock_timestamp() - caught_up_at)::float AS away_seconds
FROM projector_positions WHERE generation = $1 AND topic = $2
"""
# Rows that a lane is about to move are left for the next time: waiting for them in another order than it takes them in
# would be a deadlock. That the end was reached is told from the row itself, so it does not matter who owns it.
RENEW: Final = """
WITH free AS (
    SELECT partition FROM projector_positions WHERE generation = $1 AND topic = $2 FOR UPDATE SKIP LOCKED
)
UPDATE projector_positions AS stored
SET caught_up_at = CASE WHEN stored.next_offset >= seen.log_end THEN greatest(stored.caught_up_at, seen.heard_at)
        ELSE stored.caught_up_at END,
    cluster_id = coalesce($3, stored.cluster_id),
    witness_offset = CASE WHEN seen.witness_offset < stored.next_offset THEN seen.witness_offset
        ELSE stored.witness_offset END,
    witness = CASE WHEN seen.witness_offset < stored.next_offset THEN seen.witness ELSE stored.witness END
FROM free JOIN unnest($4::int[], $5::bigint[], $6::timestamptz[], $7::bigint[], $8::bytea[])
    AS seen (partition, log_end, heard_at, witness_offset, witness) USING (partition)
WHERE stored.generation = $1 AND stored.topic = $2 AND stored.partition = free.partition
RETURNING stored.partition, stored.next_offset >= seen.log_end AS caught_up
"""
BEGIN_ANEW: Final = """
UPDATE projector_positions
SET caught_up_at = clock_timestamp(), reached_offset = 0, cluster_id = NULL, witness_offset = NULL, witness = NULL
WHERE generation = $1 AND topic = $2 AND partition = ANY($3::int[])
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


async def reached(connection: Connection | asyncpg.Pool, generation: int, topic: str) -> Mapping[int, int]:
    """What a generation's rows hold by partition: its positions, or more while it is replayed."""
    return {row["partition"]: row["reached"] for row in await connection.fetch(REACHED, generation, topic)}


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


async def standings(connection: Connection, generation: int, topic: str) -> Mapping[int, Standing]:
    """Positions of a generation by partition, with what there is to recognise their log by."""
    rows = await connection.fetch(STANDINGS, generation, topic)
    return {
        row["partition"]: Standing(
            row["next_offset"],
            row["away_seconds"],
            row["cluster_id"],
            None if row["witness"] is None else Witness(row["witness_offset"], row["witness"]),
        )
        for row in rows
    }


@dataclass(frozen=True)
class Seen:
    """Where a partition's log ended, when that was heard by the database's clock, and what was applied of it."""

    partition: int
    log_end: int
    heard_at: datetime
    witness: Witness | None


async def renew(
    connection: Connection, generation: int, topic: str, cluster_id: str | None, seen: Sequence[Seen]
) -> set[int]:
    """Note when ends of the log were reached, and witnesses, within the caller's transaction.

    Returns:
        Partitions whose rows hold all that was in the log when its end was heard.
    """
    rows = await connection.fetch(
        RENEW,
        generation,
        topic,
        cluster_id,
        [one.partition for one in seen],
        [one.log_end for one in seen],
        [one.heard_at for one in seen],
        [one.witness and one.witness.offset for one in seen],
        [one.witness and one.witness.digest for one in seen],
    )
    return {row["partition"] for row in rows if row["caught_up"]}


async def begin_anew(connection: Connection, generation: int, topic: str, partitions: Collection[int]) -> None:
    """Forget by what the log was known, within the transaction that sets positions to its beginning."""
    await connection.execute(BEGIN_ANEW, generation, topic, list(partitions))
