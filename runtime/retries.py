"""Waiting between tries: longer each time, never the same for two processes, cut short by a stop."""

import asyncio
import random
from collections.abc import Iterator

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 10.0


def backoff(longest: float = LONGEST_SECONDS) -> Iterator[float]:
    """Seconds to wait before the next try: doubling from 0.1 s to `longest`, each between half and whole (jitter)."""
    ceiling = FIRST_SECONDS
    while True:
        yield ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        ceiling = min(ceiling * 2, longest)


async def pause(seconds: float, stopping: asyncio.Event) -> None:
    """Wait, but not longer than until `stopping` is set; let others run in any case."""
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return
