"""Kafka clients that are let go of at any moment. A connection left open fails the test that comes by its garbage."""

import asyncio
import contextlib
import gc
import random
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from runtime.kafka import (
    ABANDON_SECONDS,
    GOODBYE_SECONDS,
    admin_client,
    group_consumer,
    idempotent_producer,
    plain_consumer,
    transactional_producer,
)
from tests.backends import Backend
from tests.integration.conftest import Topic
from tests.waiting import eventually

CLIENTS: dict[str, Callable[[str], Any]] = {
    "an admin client": admin_client,
    "a reader": plain_consumer,
    "a member of a group": lambda servers: group_consumer(servers, "test-clients", "test-clients"),
    "a producer": lambda servers: idempotent_producer(servers, "test-clients"),
    "a producer of transactions": lambda servers: transactional_producer(servers, "test-clients"),
}
CANCELLED_TIMES = 40


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_that_is_cancelled_while_it_starts_or_stops_leaves_no_connection(
    client: str, backend: Backend
) -> None:
    async def use() -> None:
        async with CLIENTS[client](backend.bootstrap_servers):
            pass

    loop = asyncio.get_running_loop()
    began_at = loop.time()
    await use()
    whole = loop.time() - began_at
    moments = random.Random(5)
    for _ in range(CANCELLED_TIMES):
        using = asyncio.ensure_future(use())
        await asyncio.wait([using], timeout=moments.uniform(0, whole))
        using.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await using
    gc.collect()


async def test_a_reader_that_is_stopped_while_its_fetches_fail_ends_in_order(
    events_topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what its client cancels in itself would come out as if its caller had been cancelled."""
    reader = plain_consumer(events_topic.bootstrap_servers)
    await reader.start()
    refused = asyncio.Event()

    async def refuse(*_: object) -> None:
        refused.set()
        raise KafkaConnectionError

    monkeypatch.setattr(reader._client, "send", refuse)
    partition = TopicPartition(events_topic.name, 0)
    reader.assign([partition])
    reader.seek(partition, 0)
    await refused.wait()
    await reader.stop()
    gc.collect()


async def test_a_member_of_a_group_that_is_stopped_while_its_broker_hangs_ends_soon(
    events_topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = group_consumer(events_topic.bootstrap_servers, "test-clients-hung", "test-clients")
    member.subscribe([events_topic.name])
    await member.start()
    await eventually(lambda: asyncio.sleep(0, member.assignment()))

    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(member._client, "send", hang)
    async with asyncio.timeout(GOODBYE_SECONDS + 2 * ABANDON_SECONDS + 5):
        await member.stop()
    gc.collect()
