"""An address that lets nobody in until it is opened, and counts who tried; then what stands behind it answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from local.ports import free_port


class Gate:
    """A port of this machine, shut at first: whoever connects is hung up on."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self.port = free_port()
        self.knocks = 0
        """How many were hung up on."""
        self.is_open = False
        self._server: asyncio.Server | None = None
        self._passing: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._passing:
            task.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            self.knocks += 1
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._passing.add(task)
        try:
            behind, to_behind = await asyncio.open_connection(self._host, self._port)
            try:
                await asyncio.gather(_copy(reader, to_behind), _copy(behind, writer))
            finally:
                to_behind.close()
        finally:
            writer.close()
            self._passing.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def gate(target: str) -> AsyncIterator[Gate]:
    made = Gate(target)
    await made.listen()
    try:
        yield made
    finally:
        await made.close()
