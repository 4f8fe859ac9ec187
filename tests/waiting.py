"""Tests wait for what they expect, with a deadline; they never sleep a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")
LOOK_AGAIN_SECONDS = 0.02


async def eventually(look: Callable[[], Awaitable[Found]], seconds: float = 20, what: str = "") -> Found:
    """Look until there is something, or fail with the last thing that was seen."""
    deadline = time.monotonic() + seconds
    while True:
        found = await look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or look} did not come true within {seconds:g} s; last seen: {found!r}")
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def settles(look: Callable[[], Awaitable[Found]], expected: Found, seconds: float = 20) -> None:
    """Look until it equals `expected`, or fail with the difference."""
    deadline = time.monotonic() + seconds
    while (seen := await look()) != expected:
        if time.monotonic() > deadline:
            raise AssertionError(f"{seen!r} and not {expected!r} after {seconds:g} s")
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
