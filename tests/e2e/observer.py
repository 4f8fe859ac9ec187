"""Somebody who looks on all the time: an offset that is committed before its rows are there will not go unnoticed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import asyncpg
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from runtime.kafka import admin_client
from tests.e2e.query_side import AWAY, PARTITIONS, STORED, Scene
from tests.running import running

OBSERVE_SECONDS: Final = 0.03


@dataclass
class Observer:
    """Looks at the group's offsets first and at the stored positions then: none may ever be beyond its position."""

    scene: Scene
    seen: int = 0
    moved: int = 0
    """Observations in which some offset was another than before."""
    beyond: list[str] = field(default_factory=list)

    async def run(self, stopping: asyncio.Event) -> None:
        """Observe until `stopping`, whatever is away. Not to be cancelled: Kafka's client would leave a socket open."""
        before: dict[int, int] = {}
        while not stopping.is_set():
            try:
                async with admin_client(self.scene.side.kafka.bootstrap_servers) as admin:
                    connection = await asyncpg.connect(self.scene.database, command_timeout=5)
                    try:
                        while not stopping.is_set():
                            before = await self._look(admin, connection, before)
                            await asyncio.sleep(OBSERVE_SECONDS)
                    finally:
                        connection.terminate()
            except AWAY:
                await asyncio.sleep(0.1)

    async def _look(
        self, admin: AIOKafkaAdminClient, connection: asyncpg.Connection, before: dict[int, int]
    ) -> dict[int, int]:
        partitions = [TopicPartition(self.scene.topic, number) for number in PARTITIONS]
        answer = await admin.list_consumer_group_offsets(self.scene.group, partitions=partitions)
        # Empty while the broker does not know the group's coordinator yet.
        committed = {one.partition: found.offset for one, found in answer.items()}
        stored = {row["partition"]: row["next_offset"] for row in await connection.fetch(STORED, self.scene.topic)}
        self.seen += 1
        self.moved += committed != before
        self.beyond += [
            f"partition {number}: committed {offset}, stored {stored.get(number)}"
            for number, offset in committed.items()
            if offset > stored.get(number, 0)
        ]
        return committed


@asynccontextmanager
async def observed(scene: Scene) -> AsyncIterator[Observer]:
    """Observe until the end, and then require that nothing was wrong and that there was something to see."""
    async with running(Observer(scene)) as observer:
        yield observer
    assert not observer.beyond, f"{len(observer.beyond)} offsets too far, first: {observer.beyond[0]}"
    assert observer.moved > 1, f"{observer.seen} observations, and no offset moved"
