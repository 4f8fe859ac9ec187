"""What `artstore sync` says and how it exits, over a real Query API and a worker in this process."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from typer.testing import CliRunner, Result

import cli.sync
from cli.errors import CliError
from consumer_query.admin_client import AdminClient
from consumer_query.api_process import query_app
from consumer_query.confirm import Difference
from consumer_query.findings import Findings, Outcome
from consumer_query.reconcile import Class, Seen, Truth
from consumer_query.sync_reports import claim, finish
from consumer_query.sync_worker import SyncWorker
from consumer_query.topic_side import TopicReader
from tests.running import running, served
from tests.waiting import eventually


@pytest.fixture
async def url(query_pool: asyncpg.Pool) -> AsyncIterator[str]:
    """Of a Query API; nobody makes comparisons."""
    async with served(query_app(query_pool)) as answering:
        yield answering


async def verb(*arguments: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(cli.sync.sync, list(arguments)))


async def ended(pool: asyncpg.Pool, findings: Findings, outcome: Outcome, trouble: str | None = None) -> None:
    """Be the worker that ends a comparison, as soon as there is one."""
    claimed = await eventually(lambda: claim(pool))
    assert claimed is not None
    report, token = claimed
    await finish(pool, report.report_id, token, outcome, trouble, findings)


def different() -> Findings:
    findings = Findings(query_files=1_000, admin_files=999, requests=3, compared_in_seconds=0.5, held_back="Too many.")
    findings.note_found(
        {
            uuid4(): Difference(Class.GHOST, Seen(4, 1), Truth(None, None)),
            uuid4(): Difference(Class.STALE, Seen(4, 1), Truth(5, 1)),
        }
    )
    return findings


async def test_differences_that_remain_are_shown_by_class_and_exit_with_2(url: str, query_pool: asyncpg.Pool) -> None:
    findings = different()
    _, shown = await asyncio.gather(ended(query_pool, findings, findings.outcome), verb("full", "--url", url))
    assert shown.exit_code == 2
    example = findings.examples[Class.GHOST][0].file_id
    assert f"{example} (4, -)" in shown.output
    assert "1,000 files, the Admin module 999" in shown.output
    assert "Not repaired: Too many." in shown.output
    _, told = await asyncio.gather(ended(query_pool, findings, findings.outcome), verb("topic", "--url", url, "--json"))
    assert told.exit_code == 2
    assert json.loads(told.stdout)["findings"]["found"] == {"ghost": 1, "stale": 1}
    listed = await verb("reports", "--url", url)
    assert (listed.exit_code, listed.output.count("different")) == (0, 2)


@pytest.mark.parametrize(
    ("outcome", "trouble", "code", "said"),
    [
        (Outcome.EQUAL, None, 0, "Both are equal."),
        (Outcome.UNCONFIRMED, None, 1, "it could not be told"),
        (Outcome.FAILED, "The Admin API does not answer", 1, "The Admin API does not answer"),
    ],
)
async def test_the_exit_code_says_how_it_ended(
    url: str, query_pool: asyncpg.Pool, outcome: Outcome, trouble: str | None, code: int, said: str
) -> None:
    findings = Findings()
    if outcome is Outcome.UNCONFIRMED:
        findings.note_unconfirmed({uuid4(): "the relay stands still"})
    _, shown = await asyncio.gather(ended(query_pool, findings, outcome, trouble), verb("full", "--url", url))
    assert shown.exit_code == code
    assert said in shown.output


async def test_that_nobody_makes_comparisons_is_said_with_what_to_do(
    url: str, monkeypatch: pytest.MonkeyPatch, query_pool: asyncpg.Pool
) -> None:
    monkeypatch.setattr(cli.sync, "HINT_SECONDS", 0.1)
    monkeypatch.setattr(cli.sync, "UNATTENDED_SECONDS", 0.5)
    shown = await verb("full", "--url", url)
    assert isinstance(shown.exception, CliError)
    assert "python -m consumer_query maintenance" in str(shown.exception)
    assert "Nobody runs comparisons" in shown.output
    other = await verb("full", "--url", url)
    assert isinstance(other.exception, CliError)
    assert "has not ended" in str(other.exception)
    assert await query_pool.fetchval("SELECT count(*) FROM sync_reports") == 1


async def test_an_admin_module_that_is_away_is_named(url: str, query_pool: asyncpg.Pool) -> None:
    nowhere: Any = AdminClient("http://127.0.0.1:1")
    try:
        async with running(SyncWorker(query_pool, nowhere, TopicReader("127.0.0.1:1", "none", None), None)):
            shown = await verb("full", "--url", url)
    finally:
        await nowhere.close()
    assert shown.exit_code == 1
    assert "The Admin API does not answer" in shown.output


async def test_force_and_dry_run_exclude_one_another(url: str) -> None:
    shown = await verb("full", "--force", "--dry-run", "--url", url)
    assert shown.exit_code == 2
