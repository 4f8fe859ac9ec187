"""The uploader against a stand-in for the Admin API that fails on command."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import stamina

from cli.folder import RegularFile, split
from cli.uploading import Uploaded, upload_all
from local.ports import free_port


class StandIn(ThreadingHTTPServer):
    """Answers uploads with the statuses it was given, then with 201."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses: list[int] = []
        self.bodies: list[bytes] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        status = self.server.statuses.pop(0) if self.server.statuses else 201
        answer = b'{"file_id": "id-1"}' if status == 201 else b'{"detail": "not now"}'
        self.send_response(status)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def admin() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)


@pytest.fixture
def files(tmp_path: Path) -> list[RegularFile]:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / 'say "hi".txt').write_bytes(b"content")
    return split(tmp_path)[0]


def ignore() -> None:
    pass


async def test_fields_come_before_the_file_and_name_it_exactly(admin: StandIn, files: list[RegularFile]) -> None:
    seen: list[Uploaded] = []
    outcome = await upload_all(admin.url, files, ignore, seen.append)
    assert [one.file_id for one in outcome.uploaded] == ["id-1"]
    assert seen == outcome.uploaded
    assert outcome.size == 7
    [body] = admin.bodies
    fields, _, file = body.partition(b'name="file"')
    assert b'name="original_filename"\r\n\r\nsay "hi".txt\r\n' in fields
    assert b'name="description"\r\n\r\nbelow/say "hi".txt\r\n' in fields
    assert b"Content-Type: text/plain\r\n\r\ncontent\r\n" in file


async def test_503_is_tried_again_with_the_whole_file(admin: StandIn, files: list[RegularFile]) -> None:
    admin.statuses = [503, 503]
    outcome = await upload_all(admin.url, files, ignore)
    assert len(outcome.uploaded) == 1
    assert len(admin.bodies) == 3
    assert all(b"\r\n\r\ncontent\r\n" in body for body in admin.bodies)


@pytest.mark.parametrize(
    ("statuses", "reason"),
    [([422], "upload refused (422): not now"), ([503] * 3, "upload failed: not now")],
)
async def test_what_is_not_taken_is_failed_with_the_reason(
    admin: StandIn, files: list[RegularFile], statuses: list[int], reason: str
) -> None:
    admin.statuses = list(statuses)
    outcome = await upload_all(admin.url, files, ignore)
    assert [(one.relative, one.reason) for one in outcome.failed] == [('below/say "hi".txt', reason)]
    assert len(admin.bodies) == len(statuses)


async def test_nobody_listening_is_failed_after_a_bounded_number_of_tries(files: list[RegularFile]) -> None:
    outcome = await upload_all(f"http://127.0.0.1:{free_port()}", files, ignore)
    assert [one.reason for one in outcome.failed] == ["upload failed: no connection"]


async def test_a_file_that_vanished_is_left_out(admin: StandIn, files: list[RegularFile]) -> None:
    files[0].path.unlink()
    outcome = await upload_all(admin.url, files, ignore)
    assert [one.reason for one in outcome.left_out] == ["vanished"]
    assert not outcome.failed
