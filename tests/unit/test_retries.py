"""Waiting between tries."""

import asyncio
import time
from itertools import islice

from runtime.retries import LONGEST_SECONDS, backoff, pause


def test_waits_grow_to_a_limit_and_are_never_all_the_same() -> None:
    waits = list(islice(backoff(), 20))
    assert waits[0] <= 0.1
    assert max(waits) <= LONGEST_SECONDS
    assert min(waits[-5:]) >= LONGEST_SECONDS / 2
    assert len(set(waits)) == len(waits)


async def test_a_stop_cuts_a_wait_short() -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().call_soon(stopping.set)
    begun = time.monotonic()
    await pause(60, stopping)
    assert time.monotonic() - begun < 5
