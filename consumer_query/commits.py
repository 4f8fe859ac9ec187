"""Offsets follow rows that are on disk and never lead them; a commit that fails costs nothing: stored positions decide.

Commits are gathered for a moment, so that many small batches do not become as many requests to the broker.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition
from aiokafka.errors import KafkaError

from consumer_query.points import Point, Watch
from runtime.postgres import AWAY

GATHER_SECONDS: Final = 0.1
COMMIT_SECONDS: Final = 5.0
"""aiokafka tries a commit again without limit while the group rebalances."""
AGAIN_SECONDS: Final = 1.0

_log = structlog.get_logger()


Settle = Callable[[Mapping[TopicPartition, int]], Awaitable[Mapping[TopicPartition, int]]]
"""Waits until positions are on disk; returns those that are."""


class Commits:
    """Positions of this assignment that are applied and not committed."""

    def __init__(self, consumer: AIOKafkaConsumer, watch: Watch, settle: Settle) -> None:
        self._consumer = consumer
        self._watch = watch
        self._settle = settle
        self._due: dict[TopicPartition, int] = {}
        self._any_due = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def owe(self, partition: TopicPartition, position: int) -> None:
        """Everything below `position` is applied."""
        self._due[partition] = position
        self._any_due.set()

    def forget(self) -> None:
        """The partitions were taken away; they are another's to commit."""
        self._due.clear()
        self._any_due.clear()

    async def run(self) -> None:
        """Commit what is due, until cancelled."""
        while True:
            await self._any_due.wait()
            await asyncio.sleep(GATHER_SECONDS)
            if not await self.flush():
                await asyncio.sleep(AGAIN_SECONDS)

    async def flush(self) -> bool:
        """Commit all that is due now.

        Returns:
            False when the broker or Postgres refused or did not answer; it stays due.
        """
        async with self._one_at_a_time:
            due, self._due = self._due, {}
            self._any_due.clear()
            if not due:
                return True
            try:
                async with asyncio.timeout(COMMIT_SECONDS):
                    if settled := await self._settle(due):
                        await self._consumer.commit({one: OffsetAndMetadata(at, "") for one, at in settled.items()})
            except (KafkaError, asyncpg.PostgresError, *AWAY, OSError) as error:
                _log.warning(
                    "offsets not committed; the stored positions hold", error=f"{type(error).__name__}: {error}"
                )
                self._due = due | self._due
                self._any_due.set()
                return False
            self._watch(Point.COMMITTED)
            return True
