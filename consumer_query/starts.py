"""Where an assignment starts is stored, with whatever speaks against the rows, before anything of it is applied.

One transaction, in the generation that is live: a crash leaves either the old positions, by which the same is noticed
again, or the new ones and the doubt.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from consumer_query import doubts, generations, positions
from consumer_query.cache_guard import CacheGuard
from consumer_query.positions import Start, start_of

_log = structlog.get_logger()


class Begin(NamedTuple):
    """Where a partition starts, and where its log ended then."""

    position: int
    end: int


async def begin(
    pool: asyncpg.Pool,
    consumer: AIOKafkaConsumer,
    topic: str,
    guard: CacheGuard,
    wanted: Mapping[TopicPartition, bool],
    is_current: Callable[[], bool],
) -> Mapping[TopicPartition, Begin]:
    """Decide and store where partitions start.

    Args:
        pool: of the Query database
        consumer: the member of the group that has them
        topic: of file events
        guard: asked whether the rows are of this log
        wanted: the partitions, and whether their log became shorter while it was read
        is_current: whether the assignment is still the one that they were wanted for

    Returns:
        Where they start; nothing when the assignment or the generation has changed meanwhile.

    Raises:
        WrongShapeError: the live generation is not ours to write.
        aiokafka.errors.KafkaError: the broker is away.
    """
    async with pool.acquire() as connection:
        generation = await generations.live(connection)
        standings = await positions.standings(connection, generation, topic)
        begins = await consumer.beginning_offsets(list(wanted))
        ends = await consumer.end_offsets(list(wanted))
        bounds = {one.partition: (begins[one], ends[one]) for one in wanted}
        found, anew = await guard.examine(standings, bounds, {one.partition for one in wanted if wanted[one]})
        begun: dict[TopicPartition, Begin] = {}
        for one in wanted:
            committed = await consumer.committed(one)
            standing = standings.get(one.partition)
            if one.partition in anew:
                start = Start(begins[one], "another log under this name: reading all of it")
            else:
                stored = None if standing is None else standing.next_offset
                start = start_of(stored, committed, *bounds[one.partition])
            if start.warning:
                _log.warning(start.warning, partition=one.partition, offset=start.position, committed=committed)
            begun[one] = Begin(start.position, ends[one])
        if not is_current():
            return {}
        async with connection.transaction():
            if await generations.hold_live(connection) != generation:
                return {}  # swapped meanwhile
            new = await doubts.note(connection, generation, found)
            starts = {one.partition: at.position for one, at in begun.items()}
            await positions.take(connection, generation, topic, starts)
            await positions.begin_anew(connection, generation, topic, anew)
    guard.say(new)
    return begun if is_current() else {}
