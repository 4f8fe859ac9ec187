"""Kafka clients that are let go of at any moment. A connection left open fails the test that comes by its garbage."""

import asyncio
import contextlib
import gc
import random
from collections.abc import Callable
from typing import Any

import pytest

from runtime.kafka import admin_client, group_consumer, idempotent_producer, plain_consumer, transactional_producer
from tests.backends import Backend

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
