"""Spans leave this process in the background, or are lost: nothing that handles data ever waits for a collector.

Ended spans wait in a queue of 2,048; what comes when it is full takes the place of the oldest. A thread sends them
every few seconds. Imported only by processes that trace.
"""

import logging
import threading
from collections.abc import Sequence
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

SEND_SECONDS: Final = 5.0
"""Between sends; sooner when a quarter of the queue is full."""
CLOSE_SECONDS: Final = 1.5
"""How long the last spans may hold up the end of a process."""
TRACES: Final = "/v1/traces"
"""Below the collector's base URL (OTLP over HTTP)."""

_log = structlog.get_logger()


class _Reasons(logging.Filter):
    """Keeps to itself what the exporter says of each try."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        self.said.append(record.getMessage())
        return False


class ToldOnce(SpanExporter):
    """Another exporter whose trouble is logged when it begins and when it is over, not at each try."""

    def __init__(self, exporter: SpanExporter, logger: logging.Logger) -> None:
        self._exporter = exporter
        self._well = True
        self._reasons = _Reasons()
        self._logger = logger
        logger.addFilter(self._reasons)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand spans on, in the thread that sends."""
        self._reasons.said.clear()
        result = self._exporter.export(spans)
        before, self._well = self._well, result is SpanExportResult.SUCCESS
        if before and not self._well:
            _log.warning(
                "the collector does not take spans; they are lost", error=next(iter(self._reasons.said), "no answer")
            )
        elif self._well and not before:
            _log.info("the collector takes spans again")
        return result

    def shutdown(self) -> None:
        """Give up a send that is under way."""
        self._exporter.shutdown()
        self._logger.removeFilter(self._reasons)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return self._exporter.force_flush(timeout_millis)


def open_provider(process: str, collector: str, share: float) -> TracerProvider:
    """What makes the spans of a process and sends them.

    Args:
        process: its name
        collector: base URL, where OTLP is spoken over HTTP
        share: of the traces that begin here; those that a caller began are followed if the caller does
    """
    # It tells every 20 s while the queue is full, which it is while the collector is away.
    logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(share)),
        resource=Resource.create({"service.name": process, "service.namespace": "artstore"}),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(endpoint=collector.rstrip("/") + TRACES)
    told = ToldOnce(exporter, logging.getLogger(trace_exporter.__name__))
    provider.add_span_processor(BatchSpanProcessor(told, schedule_delay_millis=SEND_SECONDS * 1000))
    return provider


def close(provider: TracerProvider) -> None:
    """Send what is left, for CLOSE_SECONDS at most."""
    closing = threading.Thread(target=provider.shutdown, daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS)
