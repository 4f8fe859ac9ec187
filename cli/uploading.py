"""A folder is uploaded through the REST API, several files at once, each streamed from disk.

An upload is tried again only when it certainly did not happen (no connection, or 503): one whose answer was lost is
listed as failed, because trying it again could store the file twice.
"""

import asyncio
import getpass
import mimetypes
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import IO

import httpx
import stamina

from cli.access import shown
from cli.folder import MAX_DESCRIPTION, Failed, LeftOut, RegularFile, clip, open_regular
from cli.running import reason

CONCURRENT = 8
_ATTEMPTS = 7
_SEND_BYTES = 64 * 1024


@dataclass(frozen=True)
class Uploaded:
    """A file that the Admin API has taken."""

    file: RegularFile
    file_id: str
    size: int
    """Bytes."""
    at: float
    """When its 201 came, on the monotonic clock."""


@dataclass
class Outcome:
    """What became of a list of files."""

    uploaded: list[Uploaded] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    """Not there any more, or not readable."""
    failed: list[Failed] = field(default_factory=list)
    """Readable, and yet not uploaded."""
    seconds: float = 0.0

    @property
    def size(self) -> int:
        """Bytes uploaded."""
        return sum(one.size for one in self.uploaded)


class _TryAgainError(Exception):
    """The upload did not happen and may succeed later."""


class _Gathered(httpx.AsyncByteStream):
    """A request's body in large pieces: httpx sends each line of a form by itself, which costs more than the file."""

    def __init__(self, stream: httpx.SyncByteStream | httpx.AsyncByteStream) -> None:
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101 - this client is asynchronous
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = bytearray()
        async for piece in self._stream:
            pieces += piece
            if len(pieces) >= _SEND_BYTES:
                yield bytes(pieces)
                pieces.clear()
        if pieces:
            yield bytes(pieces)


async def upload_all(
    admin_url: str,
    files: Sequence[RegularFile],
    advance: Callable[[], None],
    on_uploaded: Callable[[Uploaded], None] = lambda _: None,
) -> Outcome:
    """Upload files, `CONCURRENT` at once.

    Args:
        admin_url: of the Admin API
        files: what to upload
        advance: called once a file, whatever became of it
        on_uploaded: called with each success at once
    """
    outcome = Outcome()
    waiting = iter(files)
    begin = time.monotonic()
    async with httpx.AsyncClient(base_url=admin_url, auth=shown(), trust_env=False, timeout=60) as client:

        async def work() -> None:
            for file in waiting:
                result = await _upload(client, file)
                match result:
                    case Uploaded():
                        outcome.uploaded.append(result)
                        on_uploaded(result)
                    case Failed():
                        outcome.failed.append(result)
                    case LeftOut():
                        outcome.left_out.append(result)
                advance()

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENT):
                group.create_task(work())
    outcome.seconds = time.monotonic() - begin
    return outcome


async def _upload(client: httpx.AsyncClient, file: RegularFile) -> Uploaded | LeftOut:
    content = open_regular(file)
    if isinstance(content, LeftOut):
        return content
    fields = {
        "original_filename": file.name,
        "description": clip(file.relative, MAX_DESCRIPTION),
        "created_by_username": _user(),
    }
    kind = mimetypes.guess_type(file.path.name)[0] or "application/octet-stream"
    size = os.fstat(content.fileno()).st_size
    with content:
        try:
            async for attempt in stamina.retry_context(on=_TryAgainError, attempts=_ATTEMPTS, wait_max=5):
                with attempt:
                    content.seek(0)
                    answer = await _post(client, fields, {"file": ("file", content, kind)})
        except (_TryAgainError, httpx.HTTPError) as error:
            return Failed(file.relative, f"upload failed: {str(error) or type(error).__name__}")
        except OSError as error:
            return LeftOut(file.relative, f"unreadable: {error.strerror}")
    if answer.status_code != 201:
        return Failed(file.relative, f"upload refused ({answer.status_code}): {reason(answer)}")
    return Uploaded(file, answer.json()["file_id"], size, time.monotonic())


async def _post(
    client: httpx.AsyncClient, fields: dict[str, str], files: dict[str, tuple[str, IO[bytes], str]]
) -> httpx.Response:
    try:
        # httpx puts the fields before the file.
        request = client.build_request("POST", "/api/v1/files/upload", data=fields, files=files)
        request.stream = _Gathered(request.stream)
        answer = await client.send(request)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise _TryAgainError("no connection") from error
    if answer.status_code in (429, 503):
        raise _TryAgainError(reason(answer))
    return answer


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return str(os.getuid())
