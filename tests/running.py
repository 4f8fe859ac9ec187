"""What runs until it is told to stop in this process, and verbs in processes of their own, ended whatever happens."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

import httpx
from fastapi import FastAPI

from local.ports import free_port
from runtime.process import http_server
from tests.waiting import eventually

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


@asynccontextmanager
async def served(app: FastAPI, port: int | None = None) -> AsyncIterator[str]:
    """URL of an application that listens, on a free port unless told which."""
    stopping, port = asyncio.Event(), port or free_port()
    task = asyncio.create_task(http_server(app, "127.0.0.1", port)(stopping))
    url = f"http://127.0.0.1:{port}"

    async def listens() -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            try:
                return (await client.get(f"{url}/openapi.json")).status_code == 200
            except httpx.TransportError:
                return False

    try:
        await eventually(listens)
        yield url
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
