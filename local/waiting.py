"""A coroutine run to its end from synchronous code, also where an event loop is running already."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def run_apart(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in a loop of its own, in a thread of its own; its result or exception is this call's."""
    with ThreadPoolExecutor(1, thread_name_prefix="apart") as thread:
        return thread.submit(asyncio.run, main).result()
