"""Tracing costs nothing when it is off, and a collector that is away or hangs costs nothing but its spans."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import structlog.testing
from opentelemetry import trace
from opentelemetry.trace import SpanKind

from local.ports import free_port
from runtime import tracing
from runtime.settings import ProcessSettings
from runtime.tracing import Traced, of_batches
from tests.collector import Collector, collector
from tests.waiting import eventually

CONTEXT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def kept() -> Iterator[Collector]:
    with collector() as made:
        yield made


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture(autouse=True)
def _send_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.span_export.SEND_SECONDS", 0.05)


def settings(url: str | None, share: float = 1.0) -> ProcessSettings:
    return ProcessSettings(otel_exporter_otlp_endpoint=url, otel_traces_sampler_arg=share)


@pytest.mark.parametrize("url", [None, ""])
def test_without_a_collector_no_span_is_made(url: str | None) -> None:
    with tracing.tracing("tests", settings(url)), tracing.span("one"):
        assert tracing.traceparent() is None
        assert not tracing.ids()
        assert not trace.get_current_span().get_span_context().is_valid
        assert of_batches("all", "each", SpanKind.CONSUMER, {}) is None
        assert tracing.of_requests()["tracing"] is False


def test_a_process_that_does_not_trace_imports_nothing_for_it() -> None:
    processes = "producer_admin.relay_process, producer_admin.api_process, consumer_query.projector_process"
    code = f"import sys, {processes}; print([one for one in sys.modules if one.startswith('opentelemetry.sdk')])"
    assert subprocess.check_output([sys.executable, "-P", "-c", code], text=True).strip() == "[]"


def test_spans_within_each_other_are_one_trace_and_named_after_the_process(kept: Collector) -> None:
    with tracing.tracing("tests", settings(kept.url)):
        with tracing.span("outer", saga_id="s"):
            outer = tracing.ids()
            stored = tracing.traceparent()
            with tracing.span("inner"):
                pass
        with tracing.span("later", stored):
            pass
    inner, later = kept.one("inner"), kept.one("later")
    assert inner.service == "tests"
    assert {inner.trace, later.trace} == {outer["trace_id"]}
    assert {inner.parent, later.parent} == {outer["span_id"]}
    assert stored is not None
    assert stored.startswith(f"00-{outer['trace_id']}-{outer['span_id']}-0")
    assert kept.one("outer").attributes == {"artstore.saga_id": "s"}


def test_a_share_of_none_makes_no_trace_here_and_stores_no_context(kept: Collector) -> None:
    with tracing.tracing("tests", settings(kept.url, 0.0)), tracing.span("one"):
        assert tracing.traceparent() is None
    assert kept.spans == []


LOGS = """
import logging, structlog, sys
from runtime.logging import configure_logging
from runtime.settings import ProcessSettings
from runtime.tracing import ids, span, tracing

configure_logging("tests", "INFO", "json")
log = structlog.get_logger()
with tracing("tests", ProcessSettings(otel_exporter_otlp_endpoint=sys.argv[1])):
    with span("one"):
        log.info("ours", **{f"expected_{key}": value for key, value in ids().items()})
        logging.getLogger("a.library").warning("theirs")
    log.info("outside")
for number in (1, 1, 2):
    logging.getLogger("aiokafka").error("cannot connect to %s", number)
"""


def test_log_lines_name_the_trace_that_they_belong_to_and_the_kafka_client_does_not_repeat_itself(
    kept: Collector,
) -> None:
    run = subprocess.run([sys.executable, "-P", "-c", LOGS, kept.url], capture_output=True, text=True, check=True)
    ours, theirs, outside, *clients = map(json.loads, run.stderr.splitlines())
    assert (ours["trace_id"], ours["span_id"]) == (ours["expected_trace_id"], ours["expected_span_id"])
    assert theirs["trace_id"] == ours["trace_id"] == kept.one("one").trace
    assert "trace_id" not in outside
    assert [one["event"] for one in clients] == ["cannot connect to 1", "cannot connect to 2"]


def test_what_fails_is_told_as_failed(kept: Collector) -> None:
    with tracing.tracing("tests", settings(kept.url)), pytest.raises(RuntimeError), tracing.span("one"):
        raise RuntimeError("boom")
    assert kept.one("one").failed


async def test_of_a_batch_those_that_are_traced_are_told_and_linked_to_it(kept: Collector) -> None:
    now = time.time_ns()
    with tracing.tracing("tests", settings(kept.url)):
        spans = of_batches("all", "each", SpanKind.CONSUMER, {"shared": 1})
        assert spans is not None
        contexts = [CONTEXT, "nonsense", CONTEXT[:-1] + "0"]
        await spans.done(now - 10**9, now, (Traced(one, {"n": number}) for number, one in enumerate(contexts)), 7)
        await spans.done(now, now, [Traced("nonsense", {})], 1)
        spans.failed(now, now, 3, RuntimeError("boom"))
    told = kept.one("each")
    assert told.trace == CONTEXT.split("-")[1]
    assert told.attributes == {"shared": 1, "n": 0}
    assert told.seconds == pytest.approx(1)
    well, failed = kept.named("all")
    assert told.links == ((well.trace, well.span),)
    assert (well.attributes["messaging.batch.message_count"], well.failed, failed.failed) == (7, False, True)


async def test_many_spans_of_a_batch_leave_others_their_turn(kept: Collector) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    with tracing.tracing("tests", settings(kept.url)):
        spans = of_batches("all", "each", SpanKind.CONSUMER, {})
        assert spans is not None
        beside = asyncio.create_task(other())
        await spans.done(0, 1, [Traced(CONTEXT, {})] * 200, 200)
        beside.cancel()
    assert turns >= 200 / tracing.SLICE


async def test_a_collector_that_is_away_is_told_of_once_and_once_more_when_it_is_back(
    kept: Collector, logged: list[Any]
) -> None:
    async def said(count: int) -> bool:
        with tracing.span("one"):
            pass
        return len(logged) >= count

    kept.status = 400
    with tracing.tracing("tests", settings(kept.url)):
        await eventually(lambda: said(1))
        before = kept.requests

        async def tried() -> bool:
            return await said(0) and kept.requests > before + 3

        await eventually(tried)
        kept.status = 200
        await eventually(lambda: said(2))
    assert [one["event"] for one in logged] == [
        "the collector does not take spans; they are lost",
        "the collector takes spans again",
    ]
    assert "400" in logged[0]["error"]


async def test_a_collector_that_hangs_holds_up_neither_spans_nor_the_end(kept: Collector) -> None:
    kept.answering.clear()
    with tracing.tracing("tests", settings(kept.url)):
        begin = time.perf_counter()
        for _ in range(5000):
            with tracing.span("one"):
                pass
        took = time.perf_counter() - begin
        ending = time.perf_counter()
    assert time.perf_counter() - ending < 2
    assert took < 2, "more than the queue holds, within what making them takes"


def test_an_address_where_nobody_listens_holds_up_no_end(logged: list[Any]) -> None:
    with tracing.tracing("tests", settings(f"http://127.0.0.1:{free_port()}")):
        with tracing.span("one"):
            pass
        begin = time.perf_counter()
    assert time.perf_counter() - begin < 2
    assert len(logged) <= 1


def test_the_last_spans_are_sent_at_the_end(kept: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.span_export.SEND_SECONDS", 3600)
    with tracing.tracing("tests", settings(kept.url)), tracing.span("last"):
        pass
    assert kept.one("last").service == "tests"
