"""Names are data: in the place of the bytes, in SQL, in logs, in headers and on terminals they do nothing.

Each name goes through a real upload, with the logs of a process.
"""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import asyncpg
import httpx
import pytest
import structlog
from rich.console import Console

from cli.search_words import show_hits
from producer_admin.marks import MARK
from runtime.logging import configure_logging

NAMES = {
    "a path": "../../../../etc/passwd",
    "a path of Windows": "..\\..\\boot.ini",
    "an absolute path": "/etc/cron.d/x",
    "SQL": "'; DROP TABLE files; -- \" $1 %s {0} :id",
    "formats": "%s%n%(asctime)s{}{0.__class__}",
    "the other direction": "photo\u202egpj.exe",
    "line separators": "one\u2028two\u2029three",
    "marks that are not seen": "a\u200bb\ufeffc\u00add",
    "quotes and ends of a header": "a\"b'c;filename=evil.html;d",
    "long": "ж" * 255,
    "JSON": '"}, {"event": "forged',
}
REFUSED = {
    "NUL": "a\x00b",
    "a line end": "a\r\nX-Forged: 1\r\n\r\n<script>",
    "a control sequence": "\x1b]0;title\x07\x1b[2J",
    "a control sequence of one byte": "\x9b31m",
    "too long": "x" * 256,
}


@pytest.fixture(params=["json", "console"])
def log_format(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def log(log_format: Any) -> Iterator[io.StringIO]:
    """What a process would log, all of it."""
    root = logging.getLogger()
    before = root.handlers, root.level
    configure_logging("tests", "DEBUG", log_format)
    structlog.configure(cache_logger_on_first_use=False)  # this ends with the test
    written = io.StringIO()
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    root.handlers, root.level = before
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def one_line_each(written: str, log_format: str) -> None:
    """Nothing in a log moves a cursor or begins a line by itself."""
    assert all(one.isprintable() or one == "\n" for one in written)
    for line in written.splitlines():
        if log_format == "json":
            assert json.loads(line)["event"] != "forged"
        else:
            assert re.match(r"\d\d:\d\d:\d\d |  ", line)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_a_hostile_name_is_stored_as_it_is_and_does_nothing(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, storage_folder: Path, name: str
) -> None:
    tags = [name[:100]]
    answer = await admin.post(
        "/upload",
        files={"file": ("x", b"content")},
        data={"original_filename": name, "tags": tags, "description": name},
    )
    assert answer.status_code == 201, answer.text
    stored = answer.json()
    assert (stored["original_filename"], stored["tags"], stored["description"]) == (name, tags, name)
    row = await admin_pool.fetchrow("SELECT original_filename, tags, description FROM files")
    assert row is not None
    assert tuple(row) == (name, tags, name)

    [path] = [one for one in storage_folder.rglob("*") if one.is_file() and one.name != MARK]
    place = path.relative_to(storage_folder).as_posix()
    assert re.fullmatch(rf"files/\d{{4}}/\d\d/\d\d/{stored['file_id']}_[0-9a-f]{{12}}", place), place

    content = await admin.get(f"/{stored['file_id']}/content")
    assert content.content == b"content"
    disposition = content.headers["content-disposition"]
    told = re.fullmatch(r"attachment; filename\*=UTF-8''([A-Za-z0-9%._~-]+)", disposition)
    assert told is not None, disposition
    assert unquote(told[1]) == name
    assert content.headers["content-security-policy"].startswith("default-src 'none'")
    assert content.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
async def test_a_name_that_nothing_should_hold_is_refused(
    admin: httpx.AsyncClient, admin_pool: asyncpg.Pool, name: str
) -> None:
    for fields in ({"original_filename": name}, {"tags": [name]}, {"created_by_username": name}):
        answer = await admin.post("/upload", files={"file": ("x", b"content")}, data=fields)
        assert answer.status_code == 422, fields
        assert answer.headers["content-type"] == "application/problem+json"
    assert await admin_pool.fetchval("SELECT count(*) FROM files") == 0


@pytest.mark.parametrize("name", [*NAMES.values(), *REFUSED.values()], ids=[*NAMES, *REFUSED])
def test_a_log_line_stays_one_line_whatever_is_in_it(log: io.StringIO, log_format: str, name: str) -> None:
    named = structlog.get_logger("tests")
    named.warning("told", file_name=name, names=[name], error=f"OSError: {name}")
    logging.getLogger("library").warning("said of %s", name)
    try:
        raise ValueError(name)
    except ValueError:
        named.exception("failed")
    one_line_each(log.getvalue(), log_format)


async def test_what_a_request_holds_forges_no_line(admin: httpx.AsyncClient, log: io.StringIO, log_format: str) -> None:
    await admin.get("/%0d%0a%1b[2J%c2%9b/content", headers=[(b"X-Request-ID", b"x\x9b[2J"), (b"X-Actor", b"\x9b")])
    await admin.get("/0/%e2%80%ae")
    one_line_each(log.getvalue(), log_format)


@pytest.mark.parametrize("name", [*NAMES.values(), *REFUSED.values()], ids=[*NAMES, *REFUSED])
def test_a_name_that_was_found_tells_the_terminal_nothing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    written = io.StringIO()
    monkeypatch.setattr(Console, "file", property(lambda _: written))
    hit = {
        "original_filename": name,
        "file_size": 1,
        "mime_type": name,
        "created_at": "2026-01-13T10:00:00Z",
        "content_url": "/x",
        "highlights": {"original_filename": f"<mark>{name}</mark>", "description": name, "tags": [name]},
    }
    show_hits(name, {"results": [hit], "total": 1, "total_is": "exact", "took_ms": 1.0})
    assert "found in" in written.getvalue()
    assert all(one.isprintable() or one == "\n" for one in written.getvalue())
