"""How far a rebuild has come, told from what its worker has committed: nothing is kept for it, so nothing can be stale.

The per cent of a whole job does not go back while its phases and its loading go forward. What follows a goal that moves
away, as catching up does, therefore has no share in it; its distance is told instead.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import asyncpg

from consumer_query import rebuild_jobs
from consumer_query.generations import INDEXES, table_name
from consumer_query.rebuild_jobs import Job, Kind, Loaded, Phase, Wish

Span = tuple[float, float]

SPANS: Final[Mapping[Kind, Mapping[Phase, Span]]] = {
    Kind.REBUILD: {
        Phase.QUEUED: (0, 0),
        Phase.LOADING: (0, 75),
        Phase.INDEXING: (75, 94),
        Phase.CATCHING_UP: (94, 94),
        Phase.VERIFYING: (96, 96),
        Phase.SWAPPING: (99, 99),
        Phase.SWAPPED: (100, 100),
    },
    Kind.ROLLBACK: {
        Phase.QUEUED: (0, 0),
        Phase.CATCHING_UP: (10, 10),
        Phase.VERIFYING: (80, 80),
        Phase.SWAPPING: (95, 95),
        Phase.SWAPPED: (100, 100),
    },
}
"""Per cent of a job at the beginning and at the end of a phase: about what each takes of a million files."""
INDEXING_FOR_LOADING: Final = 0.25
"""Seconds of making indexes for a second of loading without a throttle, until they are being made."""

# The catalog by name; the progress view has a row for each session that makes an index; positions by their key.
SEEN: Final = """
SELECT clock_timestamp() AS now,
    (SELECT count(*) FROM unnest($4::text[]) AS name WHERE to_regclass(name) IS NOT NULL)::int AS indexes_made,
    coalesce((
        SELECT CASE WHEN tuples_total > 0 THEN 0.5 + 0.5 * tuples_done / tuples_total
                    WHEN blocks_total > 0 THEN 0.5 * blocks_done / blocks_total ELSE 0 END
        FROM pg_stat_progress_create_index WHERE datname = current_database() AND relid = to_regclass($1) LIMIT 1
    ), 0)::float AS index_share,
    behind.caught, behind.behind
FROM (
    SELECT sum(own.next_offset - loading.target_offset)::bigint AS caught,
        sum(greatest(live.next_offset - own.next_offset, 0))::bigint AS behind
    FROM projector_positions AS own
    JOIN projector_positions AS live ON live.generation = (SELECT live FROM cache_generation)
        AND live.topic = own.topic AND live.partition = own.partition
    LEFT JOIN rebuild_partitions AS loading ON loading.job_id = $3 AND loading.partition = own.partition
    WHERE own.generation = $2
) AS behind
"""


@dataclass(frozen=True)
class Seen:
    """What Postgres tells besides the job's own rows."""

    now: datetime
    """By the database's clock, as all moments of a job are."""
    indexes_made: int = 0
    index_share: float = 0.0
    """Of the index that is being made, 0 to 1."""
    caught: int | None = None
    """Offsets applied since loading; None when there were none to begin with."""
    behind: int | None = None
    """Offsets to the live generation's positions; None before there are positions."""


@dataclass(frozen=True)
class Progress:
    """How far a job has come."""

    percent: float | None
    """Of the whole job, 0 to 100, which only a swap reaches; None when it ended without one."""
    records_per_second: float | None
    """Read while loading, on average."""
    eta_seconds: float | None
    """Until the swap, by the average so far; None when nobody works on it, or it cannot be told."""
    seconds_in_phase: float
    seconds: float
    """Since a worker took it up first, until it ended or now."""
    behind: int | None
    """While catching up: offsets that the live generation is ahead."""


async def progress(pool: asyncpg.Pool, job: Job) -> tuple[Loaded, Progress]:
    """How far a job has come now."""
    loaded = await rebuild_jobs.loaded(pool, job.job_id)
    table = None if job.generation is None else table_name(job.generation)
    indexes = [f"{table}_{name}" for name in INDEXES] if table else []
    row = await pool.fetchrow(SEEN, table, job.generation, job.job_id, indexes)
    assert row is not None  # noqa: S101 - an aggregate
    return loaded, progress_of(job, loaded, Seen(**row))


def progress_of(job: Job, loaded: Loaded, seen: Seen) -> Progress:
    """How far a job has come, by what is seen of it."""
    share = loading_share(loaded)
    until = job.finished_at or seen.now
    in_phase = 0.0 if job.finished_at else _seconds(job.phase_since, seen.now)
    works = job.attended and job.wish is Wish.RUN
    return Progress(
        percent=percent_of(job, loaded, indexing_share(seen)),
        records_per_second=_told(loaded.records / loaded.seconds if loaded.seconds > 0 else None),
        eta_seconds=_told(_eta(job, loaded, share, seen, in_phase) if works else None),
        seconds_in_phase=in_phase,
        seconds=_seconds(job.started_at, until) if job.started_at else 0.0,
        behind=seen.behind if job.phase is Phase.CATCHING_UP else None,
    )


def percent_of(job: Job, loaded: Loaded, indexed: float = 0.0) -> float | None:
    """How much of a whole job is done, 0 to 100; None when it ended without a swap.

    Args:
        job: the job
        loaded: how far its loading has come
        indexed: how much of the indexes is made, 0 to 1
    """
    span = SPANS[job.kind].get(job.phase)
    if span is None:
        return None
    shares = {Phase.LOADING: loading_share(loaded), Phase.INDEXING: indexed}
    begin, end = span
    return round(begin + (end - begin) * shares.get(job.phase, 0.0), 1)


def loading_share(loaded: Loaded) -> float:
    """How much of the log is loaded, 0 to 1, by offsets: how many records lie between two of them is not known."""
    if loaded.partitions and loaded.partitions_loaded >= loaded.partitions:
        return 1.0
    return min(1.0, max(0.0, loaded.offsets_done / loaded.offsets)) if loaded.offsets > 0 else 0.0


def indexing_share(seen: Seen) -> float:
    """How much of the indexes is made, 0 to 1, each counting alike."""
    made = min(seen.indexes_made, len(INDEXES))
    building = min(1.0, max(0.0, seen.index_share)) if made < len(INDEXES) else 0.0
    return (made + building) / len(INDEXES)


def _eta(job: Job, loaded: Loaded, share: float, seen: Seen, in_phase: float) -> float | None:
    match job.phase:
        case Phase.LOADING if share > 0 and loaded.seconds > 0:
            rest = (1 - share) / share
            if job.rows_per_second is not None:
                return max(loaded.seconds * rest, loaded.rows * rest / job.rows_per_second)
            return loaded.seconds * (rest + INDEXING_FOR_LOADING / share)
        case Phase.INDEXING if (made := indexing_share(seen)) > 0:
            return in_phase * (1 - made) / made
        case Phase.CATCHING_UP if seen.behind is not None and seen.caught and in_phase > 0:
            return seen.behind * in_phase / seen.caught if seen.caught > 0 else None
        case _:
            return None


def _told(figure: float | None) -> float | None:
    """What was divided by next to nothing tells nothing."""
    return figure if figure is not None and math.isfinite(figure) else None


def _seconds(begin: datetime, end: datetime) -> float:
    return max(0.0, (end - begin).total_seconds())
