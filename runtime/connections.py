"""A connection holds neither memory nor a place for nothing: its requests' heads are bounded in size and in time.

uvicorn bounds neither over httptools. What breaks a bound gets problem+json and its connection is closed, after the
client had a moment to read why. Bodies are for the application: `front`.
"""

import asyncio
import json
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runtime.answers import guarded

MAX_TARGET_BYTES: Final = 16 * 1024
"""Path and query of a request; longer ones answer 414."""
MAX_HEADERS: Final = 100
MAX_HEAD_BYTES: Final = 64 * 1024
"""Names and values of all headers; more answer 431. Those of the longest upload of ours have 2 KiB."""
HEAD_SECONDS: Final = 15.0
"""From a connection, or the first byte of a later request, to the end of the request's headers; later ones answer 408.

Also how long the rest of a body is taken and thrown away that was refused before its end.
"""
UNREAD_SECONDS: Final = 60.0
"""A client that takes nothing of its answer for so long is hung up on. Slow ones that take some are not."""
LINGER_SECONDS: Final = 1.0
"""Between a refusal and the end: who is still sending would not see the answer else."""


class BoundedConnection(HttpToolsProtocol):
    """One connection of a client; see the module."""

    def connection_made(self, transport: Any) -> None:
        """A client is there; one too many gets 503."""
        super().connection_made(transport)
        self._refused = False
        self._fault: tuple[int, str] | None = None
        self._in_head = True
        self._head_bytes = self._header_count = self._header_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        # uvicorn counts as well, but answers once it has read a request, and not as we do.
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            self._refuse(503, "There are too many connections. Try again.")
        else:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_waiting()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a client, which may be any part of one request or of several."""
        if self._refused:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_over:
            return
        if self._head_bytes > MAX_TARGET_BYTES + MAX_HEAD_BYTES:
            self._refuse(431, _TOO_LARGE)
        elif self._timer is None and (self._in_head or self._is_idle):
            self._wait()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head = True
        self._head_bytes = self._header_count = self._header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Some of a request's target."""
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            self._break(414, f"The path and query are longer than {MAX_TARGET_BYTES} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One whole header, or trailer."""
        self._header_count += 1
        self._header_bytes += len(name) + len(value)
        # A trailer is no header (RFC 9110, section 6.5.1): a proxy that vouches for one has not looked at it.
        if self._in_head:
            super().on_header(name, value)
        if self._header_count > MAX_HEADERS or self._header_bytes > MAX_HEAD_BYTES:
            self._break(431, _TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The application may begin."""
        # The parser takes what follows for another protocol's, and so would a body for the next request.
        if self.parser.should_upgrade() and any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in self.headers
        ):
            self._break(400, "A request with a body may not ask for another protocol (Upgrade).")
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()
        if self.expect_100_continue:
            # After a refusal the body may come or not (RFC 9110, section 10.1.1): what follows cannot be told from it.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Some of a request's body, and no head."""
        self._head_bytes = 0
        super().on_body(body)

    def pause_writing(self) -> None:
        """The client takes its answer more slowly than we make it."""
        super().pause_writing()
        self._watch_writing(self.transport.get_write_buffer_size() + 1)

    def resume_writing(self) -> None:
        """The client has taken enough for now."""
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What the parser, or one of the callbacks above, did not take."""
        status, detail = self._fault or (400, msg)
        self._refuse(status, detail)

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None at first

    @property
    def _is_over(self) -> bool:
        return self._refused

    def _break(self, status: int, detail: str) -> None:
        """Leave the parser, which stops at any exception and has it answered."""
        self._fault = status, detail
        raise ValueError(detail)

    def _refuse(self, status: int, detail: str) -> None:
        self._refused = True
        self._stop_waiting()
        if self.transport.is_closing():
            return
        # Whoever is refused counts no more among those who are served.
        self.connections.discard(self)
        if self._is_idle:
            self.transport.write(_problem(status, detail))
            self.transport.write_eof()
            self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            self.transport.close()

    def _wait(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self._late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self._is_idle:
            # A later request came in pieces, and we read no more of it before this one is answered.
            self._wait()
        elif self._in_head:
            self._refuse(408, f"The headers were not complete within {HEAD_SECONDS:g} s.")
        else:
            self.transport.close()

    def _watch_writing(self, before: int) -> None:
        """Hang up if not a byte was taken since `before` of them were left."""
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._writing = self.loop.call_later(UNREAD_SECONDS, self._watch_writing, left)
        else:
            self.transport.abort()


_TOO_LARGE: Final = f"There are more than {MAX_HEADERS} headers, or they are larger than {MAX_HEAD_BYTES} bytes."


def _problem(status: int, detail: str) -> bytes:
    """A whole answer, as `http` would make it."""
    phrase = HTTPStatus(status).phrase
    problem = {"type": "about:blank", "title": phrase, "status": status, "detail": detail, "errors": []}
    body = json.dumps(problem).encode()
    headers = guarded(
        "",
        [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *([(b"retry-after", b"1")] if status == HTTPStatus.SERVICE_UNAVAILABLE else []),
        ],
    )
    lines = [f"HTTP/1.1 {status} {phrase}".encode(), *(name + b": " + value for name, value in headers)]
    return b"\r\n".join([*lines, b"", body])
