"""GET over connections that are kept open, with next to nothing of its own in the times.

What it does not do: redirects, encodings, proxies, TLS, answers without a length.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlencode

IDLE_SECONDS: Final = 2.0
"""A server closes what is idle for longer than it likes."""


class Answer(NamedTuple):
    """What came back, whole."""

    status: int
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    since: float
    """When it was last of use, by the monotonic clock."""


class PlainClient:
    """A client of one server; a connection for each answer that is waited for.

    Args:
        host: to connect to
        port: likewise
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._free: list[_Connection] = []

    async def get(self, path: str, asked: Mapping[str, object]) -> Answer:
        """Ask, and wait for all of the answer.

        Raises:
            OSError: the server is away.
            asyncio.IncompleteReadError: it went away.
        """
        reader, writer = await self._connection()
        target = f"{path}?{urlencode(asked, doseq=True)}"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n\r\n".encode())
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers["content-length"]))
        self._free.append(_Connection(reader, writer, time.monotonic()))
        return Answer(int(first.split(" ", 2)[1]), headers, body)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            reader, writer, since = self._free.pop()
            if time.monotonic() - since < IDLE_SECONDS:
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)

    def close(self) -> None:
        """Let go of all connections."""
        for one in self._free:
            one.writer.close()
