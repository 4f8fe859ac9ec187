"""Both APIs keep what their OpenAPI documents say, whatever is sent: no 5xx, no status or body that is not documented.

schemathesis makes the requests of both documents, and runs all of its checks but one. What a document cannot say, such
as that the end of a range comes behind its beginning, is refused all the same: not all that it allows is accepted.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis.engine import events, from_schema
from sqlalchemy.ext.asyncio import AsyncEngine

from consumer_query import api, search_parameters
from consumer_query.api_process import query_app
from consumer_query.freshness import parse_wait
from producer_admin.api_process import admin_app
from producer_admin.saga_steps import Means
from tests.integration.conftest import LIMITS
from tests.running import served

CHECKS: Mapping[str, Any] = {
    # Storage elements that are full are among what is made: 507 tells so. Without a broker nobody knows of lag: 503.
    # What is waited for by at_least is not there: 504.
    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "503", "504", "507"]},
    # Too many items can be too large a body before anybody counts them.
    "negative_data_rejection": {"expected-statuses": ["400", "404", "405", "409", "412", "413", "415", "422", "503"]},
    "positive_data_acceptance": {"enabled": False},
}
# With other methods than theirs, these are paths of an {id} that is no UUID.
AS_AN_ID: Sequence[Mapping[str, Any]] = [
    {
        "include-path": path,
        "checks": {"unsupported_method": {"enabled": False}, "allow_header_conformance": {"enabled": False}},
    }
    for path in ("/api/v1/files/upload", "/api/v1/admin/rebuild/previous")
]


@pytest.fixture(params=["admin", "query"])
def app(request: pytest.FixtureRequest, means: Means, admin_engine: AsyncEngine, query_pool: asyncpg.Pool) -> FastAPI:
    return admin_app(means, admin_engine, LIMITS) if request.param == "admin" else query_app(query_pool)


@pytest.mark.timeout(900)
async def test_an_api_keeps_its_document(app: FastAPI) -> None:
    await keeps_its_document(app, examples=1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_an_api_keeps_its_document_for_long(app: FastAPI) -> None:
    await keeps_its_document(app, examples=300)


@pytest.fixture(autouse=True)
def hardly_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for will never be there; the bounds of `wait` are kept."""
    for module in (api, search_parameters):
        monkeypatch.setattr(module, "parse_wait", lambda text: parse_wait(text) / 1000)


async def keeps_its_document(app: FastAPI, examples: int) -> None:
    async with served(app) as url:
        sent, found = await asyncio.to_thread(attacked, app.openapi(), url, examples)
    operations = {f"{method.upper()} {path}" for path, ones in app.openapi()["paths"].items() for method in ones}
    assert sent.keys() == operations
    assert not found, "\n\n".join(found)


def attacked(document: dict[str, Any], url: str, examples: int) -> tuple[Counter[str], list[str]]:
    """Requests sent by operation, and what was wrong with the answers."""
    config = schemathesis.Config.from_dict(
        {
            "seed": 9,
            "base-url": url,
            "continue-on-failure": True,
            "request-timeout": 240.0,
            "generation": {"deterministic": True, "max-examples": examples, "database": "none"},
            "checks": CHECKS,
            "operations": AS_AN_ID,
            # Its stories of several requests are those of tests/integration/test_saga_machine.py, and of others.
            "phases": {"stateful": {"enabled": False}},
        }
    )
    sent: Counter[str] = Counter()
    found: list[str] = []
    for event in from_schema(schemathesis.openapi.from_dict(document, config=config)).execute():
        match event:
            case events.ScenarioFinished(recorder=recorder):
                sent[recorder.label] += len(recorder.interactions)
                found += [
                    f"{recorder.label}: {check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
                    for checks in recorder.checks.values()
                    for check in checks
                    if check.failure_info is not None
                ]
            case events.NonFatalError(label=label, value=error):
                found.append(f"{label}: {error!r}")
            case events.FatalError(exception=error):
                raise error
    return sent, found
