"""What `artstore search` says and how it exits, over a real Query API."""

import asyncio
import csv
import io
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typer.testing import CliRunner, Result

from cli.__main__ import app
from cli.search import SearchError
from cli.search_words import MARK, marked
from consumer_query.api_process import query_app
from consumer_query.search_api import SearchDesk
from consumer_query.search_parameters import SearchAsked
from local.ports import free_port
from tests.integration.test_search import apply, cache
from tests.running import run_verb, served
from tests.samples import MOMENT, created


@pytest.fixture
async def url(query_pool: asyncpg.Pool) -> AsyncIterator[str]:
    desk = SearchDesk(query_pool, query_pool, 5.0, "http://admin")
    async with served(query_app(query_pool, search=desk)) as answering:
        yield answering


async def verb(url: str, *arguments: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, ["search", "--url", url, *arguments]))


def listed(result: Result) -> list[str]:
    return [json.loads(line)["original_filename"] for line in result.stdout.splitlines()]


async def test_hits_are_shown_with_sizes_and_moments_for_people(query_pool: asyncpg.Pool, url: str) -> None:
    await cache(
        query_pool,
        "Отчёт [bold]\x1b[31m&.pdf",
        file_size=3 * 2**19,
        description="Итоги\nгода: отчёт",
        tags=("срочно", "отчеты"),
    )
    result = await verb(url, "отчет")
    assert result.exit_code == 0, result.stderr
    assert "Search отчет: 1 found" in result.stdout
    assert "Отчёт [bold]\\u001b[31m&.pdf" in result.stdout
    assert "1.5 MiB  application/pdf" in result.stdout
    assert f"{MOMENT.astimezone():%Y-%m-%d %H:%M}" in result.stdout
    assert "Итоги года: отчёт #срочно #отчеты" in result.stdout
    assert "not known: does a projector run?" in result.stderr


def test_marks_of_the_api_become_colours_and_nothing_else_does() -> None:
    text = marked("a &lt;mark&gt; <mark>b &amp; c</mark> [red]d\x1b[31m")
    assert text.plain == "a <mark> b & c [red]d\\u001b[31m"
    assert [(text.plain[span.start : span.end], span.style) for span in text.spans if span.style] == [("b & c", MARK)]


async def test_nothing_found_exits_with_1_and_a_fault_with_2_as_grep_does(query_pool: asyncpg.Pool, url: str) -> None:
    await cache(query_pool, "a")
    assert (await verb(url, "a")).exit_code == 0
    for arguments in ((), ("--json",), ("--csv",), ("--all",)):
        assert (await verb(url, "unheard", *arguments)).exit_code == 1, arguments
    assert (await verb(url, "a", "--page", "2")).exit_code == 1
    assert (await verb(url, "a", "--min-size", "many")).exit_code == 2
    assert (await verb(url, "a", "--json", "--csv")).exit_code == 2
    artstore = (sys.executable, "-P", "-m", "cli", "search", "a", "--url")
    code, out, err = await run_verb((*artstore, url, "--type", "png"))
    assert (code, out) == (2, "")
    assert "type.0: not a media type such as image/png" in err
    code, out, err = await run_verb((*artstore, f"http://127.0.0.1:{free_port()}"))
    assert (code, out) == (2, "")
    assert "The Query API does not answer" in err


async def test_pages_are_shown_one_by_one_or_all(query_pool: asyncpg.Pool, url: str) -> None:
    names = [f"report {number:03}" for number in range(250)]
    await cache(query_pool, *names)
    first = await verb(url, "--sort", "name", "--limit", "100")
    assert "There are more: --page 2, or --all." in first.stderr
    assert "report 099" in first.stdout
    assert "report 100" not in first.stdout
    assert listed(await verb(url, "--sort", "name", "--limit", "100", "--page", "3", "--json")) == names[200:]
    assert listed(await verb(url, "--sort", "name", "--all", "--json")) == names
    everything = await verb(url, "report", "--sort", "name", "--all")
    assert [line[:10] for line in everything.stdout.splitlines() if line.startswith("report")] == names
    assert everything.stdout.count("NAME") == 1
    table = list(csv.DictReader(io.StringIO((await verb(url, "--sort", "name", "--all", "--csv")).stdout)))
    assert [row["original_filename"] for row in table] == names


async def test_a_table_for_spreadsheets_holds_no_formula(query_pool: asyncpg.Pool, url: str) -> None:
    await cache(query_pool, "=1+1", tags=("a", "b"))
    [row] = csv.DictReader(io.StringIO((await verb(url, "--csv")).stdout))
    assert (row["original_filename"], row["tags"], row["created_by_fullname"]) == ("'=1+1", "a; b", "")


async def test_facets_are_counted_below_the_hits(query_pool: asyncpg.Pool, url: str) -> None:
    await cache(query_pool, "a.png", "b.png", mime_type="image/png", tags=("red",))
    result = await verb(url, "--facets")
    assert "image/png (2)" in result.stdout
    assert "red (2)" in result.stdout


class Overhears:
    """Middleware that keeps the bodies of requests."""

    def __init__(self, app: ASGIApp, bodies: list[bytes]) -> None:
        self._app = app
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def heard() -> Message:
            message = await receive()
            if message.get("body"):
                self._bodies.append(message["body"])
            return message

        await self._app(scope, heard, send)


async def test_every_option_reaches_the_api(query_pool: asyncpg.Pool) -> None:
    bodies: list[bytes] = []
    overheard = query_app(query_pool)
    overheard.add_middleware(Overhears, bodies)
    file_id = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
    await apply(query_pool, created(file_id, 3, retention_expires_at=datetime(2090, 1, 1, tzinfo=UTC)))
    digest = "a1b2c3d4" * 8
    options = [
        *("contract", "--limit", "5", "--sort", "largest", "--type", "image/*", "--type", "application/pdf"),
        *("--tag", "urgent", "--any-tag", "x", "--any-tag", "contract", "--min-size", "1M", "--max-size", "10MB"),
        *("--created-from", "2026-01-01", "--created-before", "2026-02-01T00:00Z", "--updated-from", "2026-01-01"),
        *("--updated-before", "2027-01-01", "--uploader", "ivanov", "--storage-element", "se-01"),
        *("--checksum", digest, "--at-least", f"{file_id}@3", "--wait", "2s", "--typing", "--exactly", "--json"),
    ]
    async with served(overheard) as url:
        assert (await verb(url, *options)).exit_code == 0
        assert (await verb(url, "--retention", "active")).exit_code == 0
        refused = await verb(url, "--max-lag", "5s")
    assert isinstance(refused.exception, SearchError)
    assert "has not been filled yet" in str(refused.exception)
    body, kept, fresh = map(json.loads, bodies)
    assert (kept["retention"], fresh["max_lag"]) == ("active", "5s")
    midnight = datetime(2026, 1, 1).astimezone(UTC).isoformat()
    assert body == {
        "query": "contract",
        "limit": 5,
        "sort": "largest",
        "type": ["image/*", "application/pdf"],
        "tag": ["urgent"],
        "any_tag": ["x", "contract"],
        "min_size": 2**20,
        "max_size": 10_000_000,
        "created_from": midnight,
        "created_before": "2026-02-01T00:00:00+00:00",
        "updated_from": midnight,
        "updated_before": datetime(2027, 1, 1).astimezone(UTC).isoformat(),
        "uploader": ["ivanov"],
        "storage_element": ["se-01"],
        "checksum": digest,
        "at_least": [f"{file_id}@3"],
        "wait": "2s",
        "typing": True,
        "correct": False,
        "facets": False,
    }
    assert body.keys() | {"retention", "max_lag", "cursor"} == SearchAsked.model_fields.keys()
