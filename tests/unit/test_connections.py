"""What a server takes of a client before any application sees it, spoken over real sockets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from local.ports import free_port
from runtime import connections
from runtime.process import http_server
from tests.waiting import eventually

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECES = 400
PIECE = b"x" * 65_536


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers /large with PIECES pieces, and all else with the length of the body; it reads none of /refused."""
    large = scope["path"] == "/large"
    size, more = 0, scope["path"] == "/"
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    names = b" ".join(name for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-names", names)]})
    for _ in range(PIECES if large else 0):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": str(size).encode()})


class Client:
    """One connection to the server, spoken by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer that has a length or is chunked."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        if "content-length" in headers:
            return int(head[0].split()[1]), headers, await self._reader.readexactly(int(headers["content-length"]))
        body = await self._reader.readuntil(b"0\r\n\r\n")
        return int(head[0].split()[1]), headers, body

    async def ended(self) -> bytes:
        """What comes before the server hangs up."""
        try:
            return await self._reader.read()
        except ConnectionError:
            return b""

    async def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def serving(max_connections: int = 20) -> AsyncIterator[int]:
    """Port of a server."""
    stopping, port = asyncio.Event(), free_port()
    task = asyncio.create_task(http_server(app, "127.0.0.1", port, max_connections=max_connections)(stopping))

    async def listens() -> bool:
        try:
            async with connected(port) as client:
                await client.send(GET, b"\r\n")
                return (await client.answer())[0] == 200
        except ConnectionError:
            return False

    try:
        await eventually(listens)
        yield port
    finally:
        stopping.set()
        await task


@asynccontextmanager
async def connected(port: int, limit: int = 2**20) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", port, limit=limit))
    try:
        async with asyncio.timeout(20):
            yield client
    finally:
        await client.close()


def problem(answer: tuple[int, dict[str, str], bytes]) -> dict[str, Any]:
    status, headers, body = answer
    assert headers["content-type"] == "application/problem+json"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["connection"] == "close"
    said: dict[str, Any] = json.loads(body)
    assert said["status"] == status
    return said


HEADER = b"X-%d: %s\r\n"


@pytest.mark.parametrize(
    ("request_head", "status", "names"),
    [
        ([b"GET /", b"a" * connections.MAX_TARGET_BYTES, b" HTTP/1.1\r\nHost: x\r\n\r\n"], 414, "path and query"),
        ([b"GET /?q=", b"a" * connections.MAX_TARGET_BYTES, b" HTTP/1.1\r\nHost: x\r\n\r\n"], 414, "path and query"),
        ([GET, *(HEADER % (one, b"x") for one in range(connections.MAX_HEADERS)), b"\r\n"], 431, "headers"),
        ([GET, HEADER % (1, b"x" * connections.MAX_HEAD_BYTES), b"\r\n"], 431, "headers"),
        # Headers that never end: the parser tells of one when it is whole.
        ([GET, b"X: ", *(b"x" * 10_000 for _ in range(100))], 431, "headers"),
        ([b"what is this\r\n\r\n"], 400, "Invalid"),
    ],
    ids=["long path", "long query", "many headers", "a large header", "a header without end", "no HTTP"],
)
async def test_a_head_that_is_too_large_is_refused_with_a_problem(
    request_head: Sequence[bytes], status: int, names: str
) -> None:
    async with serving() as port, connected(port) as client:
        await client.send(*request_head)
        said = problem(await client.answer())
        assert said["status"] == status
        assert names in said["detail"]
        assert await client.ended() == b""


async def test_what_is_within_the_limits_is_served() -> None:
    async with serving() as port, connected(port) as client:
        for _ in range(2):
            await client.send(b"GET /?q=", b"a" * (connections.MAX_TARGET_BYTES - 4), b" HTTP/1.1\r\nHost: x\r\n")
            await client.send(*(HEADER % (one, b"x" * 600) for one in range(connections.MAX_HEADERS - 1)), b"\r\n")
            assert (await client.answer())[0] == 200


@pytest.mark.parametrize(
    "begun", [b"", b"GET /", GET, b"\r\n"], ids=["nothing", "some of a line", "a header", "a blank"]
)
async def test_a_head_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    async with serving() as port:
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
        async with connected(port) as client:
            await client.send(begun)
            assert problem(await client.answer())["status"] == 408
            assert await client.ended() == b""


async def test_neither_is_a_later_one_on_the_same_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as port, connected(port) as client:
        await client.send(GET, b"\r\n")
        assert (await client.answer())[0] == 200
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
        await client.send(b"GET / HT")
        assert problem(await client.answer())["status"] == 408


async def test_a_request_is_not_cut_however_long_its_body_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as port:
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
        async with connected(port) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
            for _ in range(4):
                await asyncio.sleep(0.1)
                await client.send(b"x")
            status, _, body = await client.answer()
            assert (status, b"4" in body) == (200, True)


async def test_a_trailer_is_no_header_however_early_it_comes() -> None:
    """Else a client behind a trusted proxy said X-Forwarded-For itself."""
    async with serving() as port, connected(port) as client:
        await client.send(CHUNKED + b"1\r\na\r\n0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
        assert (await client.answer())[1]["x-names"] == "host transfer-encoding"
        await client.send(GET, b"\r\n")
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize("path", [b"/", b"/refused"])
async def test_a_trailer_without_end_is_not_kept(path: bytes) -> None:
    async with serving() as port, connected(port) as client:
        await client.send(CHUNKED.replace(b"/", path, 1), b"1\r\na\r\n0\r\nX: ")
        async with asyncio.timeout(connections.HEAD_SECONDS / 2):
            with contextlib.suppress(ConnectionError):
                await client.send(*(b"x" * 10_000 for _ in range(100)))
            await client.ended()


@pytest.mark.parametrize("length", [b"Content-Length: 28", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
async def test_no_body_is_taken_for_a_request_where_another_protocol_is_asked_for(
    protocol: bytes, length: bytes
) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n"
    async with serving() as port, connected(port) as client:
        await client.send(GET + upgrade + b"\r\n")
        assert (await client.answer())[0] == 200
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + upgrade + length + b"\r\n\r\n")
        assert "Upgrade" in problem(await client.answer())["detail"]
        with contextlib.suppress(ConnectionError):
            await client.send(GET, b"\r\n")
        assert await client.ended() == b""


async def test_nothing_is_taken_for_a_body_that_was_refused_before_it_was_sent() -> None:
    """Else what a proxy sends for somebody else on the same connection would be."""
    async with serving() as port, connected(port) as client:
        await client.send(b"POST /refused HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 30\r\n\r\n")
        status, headers, _ = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.ended() == b""


async def test_one_connection_too_many_is_told_so_and_the_others_go_on() -> None:
    async with serving(max_connections=2) as port, connected(port) as first, connected(port) as second:
        for client in (first, second):
            await client.send(GET, b"\r\n")
            assert (await client.answer())[0] == 200
        async with connected(port) as third:
            answer = await third.answer()
            assert problem(answer)["status"] == 503
            assert answer[1]["retry-after"] == "1"
            assert await third.ended() == b""
        await first.send(GET, b"\r\n")
        assert (await first.answer())[0] == 200


async def test_a_client_that_takes_nothing_of_its_answer_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.3)
    async with serving(max_connections=1) as port, connected(port, limit=1024) as client:
        await client.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")

        async def has_room() -> bool:
            async with connected(port) as other:
                await other.send(GET, b"\r\n")
                try:
                    return (await other.answer())[0] == 200
                except (ConnectionError, asyncio.IncompleteReadError):
                    return False

        await eventually(has_room)
        assert len(await client.ended()) < PIECES * len(PIECE)


async def test_a_client_that_takes_it_slowly_gets_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.5)
    async with serving() as port, connected(port, limit=65_536) as client:
        await client.send(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        size = 0
        while got := await client._reader.read(4 * 2**20):
            size += len(got)
            await asyncio.sleep(0.003)
        assert size > PIECES * len(PIECE)
