"""That the rows hold all of the log is told about once a second, and never of a moment at which they did not.

What proves it is a fetch's answer. It tells where the log ends, as the broker saw it after it was asked; and the client
asks only when the answer before has come. So when everything below that end is in the rows, they hold all that the log
held when the answer before had not been seen yet. No time of day of this machine comes into it: an answer that waited
in a process that was frozen proves nothing about its wake, and the moment is told by Postgres' clock, asked before.

Where there is always something new the rows never hold all of it; then it is told of the end that was seen before.
What relays have not committed is not in the log.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final, NamedTuple

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer

from consumer_query.buffers import Buffer
from runtime.postgres import AWAY, NOW

LOOK_SECONDS: Final = 0.2
"""Between looks at the client's answers; two of them are the price of not trusting a clock."""
TELL_SECONDS: Final = 1.0
"""Between updates: each is a new version of every partition's row, some 2 kB of WAL, which nobody waits for."""

# By the key (generation, topic, partition); `fresh_at` is in no index, so the new versions stay on their page (HOT).
# Rows that a lane is about to move are left for the next time: waiting for them in another order than it takes them in
# would be a deadlock. What is told is checked on the row itself, so it does not matter who owns the partition.
TELL: Final = """
WITH free AS (
    SELECT generation, partition FROM projector_positions
    WHERE generation = (SELECT live FROM cache_generation) AND topic = $1 AND partition = ANY($2::int[])
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE projector_positions AS stored SET fresh_at = seen.fresh_at
FROM free JOIN unnest($2::int[], $3::bigint[], $4::timestamptz[]) AS seen (partition, log_end, fresh_at)
    USING (partition)
WHERE stored.generation = free.generation AND stored.topic = $1 AND stored.partition = free.partition
  AND stored.next_offset >= seen.log_end
RETURNING stored.partition
"""

_log = structlog.get_logger()


class LogEnd(NamedTuple):
    """All that the log held at a moment is below an offset."""

    offset: int
    at: float
    """By the event loop's clock."""


class Progress:
    """How the rows follow the log of one partition of one assignment, seen from time to time."""

    def __init__(self) -> None:
        self._answer: int | None = None
        """By what the last answer that was seen is known from the next."""
        self._looked_at: float | None = None
        self._asked_after: float | None = None
        """Whatever answer comes next, it was asked for after this moment."""
        self._awaited: LogEnd | None = None
        """An end that the rows had not reached when it was seen."""
        self.reached: LogEnd | None = None
        """The last end that they have."""

    def look(self, now: float, answer: int | None, end: int | None, applied: int) -> None:
        """Take note of what the client knows.

        Args:
            now: the event loop's clock
            answer: another number after each answer, such as its time in milliseconds; None before the first
            end: the last stable offset that it told
            applied: the rows hold everything below
        """
        newest: LogEnd | None = None
        if answer is not None and answer != self._answer:
            # An end before what was applied is another log's, or of a broker that has not caught up.
            if self._asked_after is not None and end is not None and end >= applied:
                newest = LogEnd(end, self._asked_after)
            # This answer came after the look before, so the next one is asked for after it, too.
            self._answer, self._asked_after = answer, self._looked_at
        self._looked_at = now
        if self._awaited is not None and self._awaited.offset <= applied:
            self.reached, self._awaited = self._awaited, None
        if newest is not None and newest.offset <= applied:
            self.reached = newest
        elif self._awaited is None:
            self._awaited = newest


async def tell_freshness(
    pool: asyncpg.Pool, topic: str, consumer: AIOKafkaConsumer, buffers: Callable[[], Iterable[Buffer]]
) -> None:
    """Write down of what moments the live generation holds all, until cancelled.

    Args:
        pool: of the Query database
        topic: of file events
        consumer: started, reads what is committed only
        buffers: the partitions of this assignment
    """
    known: dict[Buffer, Progress] = {}
    stored: dict[int, LogEnd] = {}
    tell_at, trouble = 0.0, ""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        assigned = consumer.assignment()
        # Another assignment, or another seek, has other buffers.
        known = {one: known.get(one, Progress()) for one in buffers() if one.partition in assigned}
        for one, progress in known.items():
            answer, end = consumer.last_poll_timestamp(one.partition), consumer.last_stable_offset(one.partition)
            progress.look(_now(), answer, end, one.applied)
        reached = {one.partition.partition: known[one].reached for one in known}
        new = {number: end for number, end in reached.items() if end is not None and end != stored.get(number)}
        if not new or _now() < tell_at:
            continue
        tell_at = _now() + TELL_SECONDS
        try:
            stored |= {number: new[number] for number in await _store(pool, topic, new)}
            trouble = ""
        except (*AWAY, OSError, asyncpg.PostgresError) as error:
            before, trouble = trouble, f"{type(error).__name__}: {error}"
            if trouble != before:
                _log.warning("freshness not told", error=trouble)


async def _store(pool: asyncpg.Pool, topic: str, ends: dict[int, LogEnd]) -> list[int]:
    """Those of the partitions whose rows have reached their ends indeed."""
    async with pool.acquire() as connection:
        # Asked before: this answer may be long in coming, and what is told then is of a moment too early at worst.
        heard_at = await connection.fetchval(NOW)
        now = _now()
        moments = [heard_at - timedelta(seconds=now - one.at) for one in ends.values()]
        rows = await connection.fetch(TELL, topic, list(ends), [one.offset for one in ends.values()], moments)
    return [row["partition"] for row in rows]


def _now() -> float:
    return asyncio.get_running_loop().time()
