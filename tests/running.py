"""What runs until it is told to stop in this process, and verbs in processes of their own, ended whatever happens."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

VERB_SECONDS = 90


class Runs(Protocol):
    async def run(self, stopping: asyncio.Event) -> None: ...


One = TypeVar("One", bound=Runs)


@asynccontextmanager
async def running(one: One) -> AsyncIterator[One]:
    stopping = asyncio.Event()
    task = asyncio.create_task(one.run(stopping))
    try:
        yield one
    finally:
        stopping.set()
        await task


async def run_verb(arguments: Sequence[str], **environment: str) -> tuple[int, str, str]:
    """Run a command with these variables besides our own: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(VERB_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()
