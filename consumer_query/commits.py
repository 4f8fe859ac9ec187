"""Offsets follow rows that are on disk and never lead them; a commit that fails costs nothing: stored positions decide.

Commits are gathered for a moment, so that many small batches do not become as many requests to the broker. Where
nothing moves, what was committed is committed again from time to time, with another stamp: whoever looks at the group
from outside can tell a projector that stands still from one that is gone.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
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
BEAT_SECONDS: Final = 3.0
"""Between commits that move nothing: some of them within `lag.WINDOW_SECONDS`."""

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
        self._committed: dict[TopicPartition, tuple[int, float]] = {}
        """What was committed, and when by the event loop's clock."""
        self._any_due = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def owe(self, partition: TopicPartition, position: int) -> None:
        """Everything below `position` is applied."""
        self._due[partition] = position
        self._any_due.set()

    def forget(self) -> None:
        """The partitions were taken away; they are another's to commit."""
        self._due.clear()
        self._committed.clear()
        self._any_due.clear()

    async def run(self) -> None:
        """Commit what is due, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_SECONDS):
                    await self._any_due.wait()
            await asyncio.sleep(GATHER_SECONDS)
            flushed = await self.flush()
            await self._beat()
            if not flushed:
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
                        await self._commit(settled)
            except (KafkaError, asyncpg.PostgresError, *AWAY, OSError) as error:
                _log.warning(
                    "offsets not committed; the stored positions hold", error=f"{type(error).__name__}: {error}"
                )
                self._due = due | self._due
                self._any_due.set()
                return False
            self._watch(Point.COMMITTED)
            return True

    async def _beat(self) -> None:
        """Commit once more what was committed a while ago, partition by partition: one may stand while others go on."""
        async with self._one_at_a_time:
            before = asyncio.get_running_loop().time() - BEAT_SECONDS
            silent = {one: position for one, (position, at) in self._committed.items() if at <= before}
            if not silent:
                return
            try:
                async with asyncio.timeout(COMMIT_SECONDS):
                    await self._commit(silent)
            except (KafkaError, TimeoutError) as error:
                _log.info("offsets not committed again", error=f"{type(error).__name__}: {error}")

    async def _commit(self, positions: Mapping[TopicPartition, int]) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        await self._consumer.commit({one: OffsetAndMetadata(at, stamp) for one, at in positions.items()})
        now = asyncio.get_running_loop().time()
        self._committed |= {one: (position, now) for one, position in positions.items()}
