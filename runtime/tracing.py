"""One trace goes from a request to the row that search finds: the context of a change travels with its event.

    request  →  saga, step by step  →  outbox row  →  record header  →  sent to the topic, and applied to the rows

What is stored with the event is the parent of all that is done with it later, by whoever, however often: a retry, a
redelivery or a span that was lost leaves no trace broken. While the settings name no collector nothing is made,
measured or imported for it.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runtime.settings import ProcessSettings
from schemas.events import TRACEPARENT_HEADER

if TYPE_CHECKING:  # half of the processes have nothing to do with it
    from fastapi.telemetry import TelemetryConfig

Attributes: TypeAlias = Mapping[str, str | int | float | bool]

SLICE: Final = 20
"""Spans made before others get their turn: about half a millisecond."""

_W3C: Final = TraceContextTextMapPropagator()


class _Tracing(NamedTuple):
    provider: TracerProvider
    tracer: Tracer


_tracing: _Tracing | None = None
"""What this process traces by; None while it does not."""


@contextmanager
def tracing(process: str, settings: ProcessSettings) -> Iterator[None]:
    """While this lasts, spans of this process go to the collector that the settings name, if they name one."""
    global _tracing  # noqa: PLW0603 - as there is one log of a process, there is one tracer
    if not settings.otel_exporter_otlp_endpoint:
        yield
        return
    # Takes 60 ms and 15 MB, which those who do not trace need not spend.
    from runtime.span_export import close, open_provider  # noqa: PLC0415

    provider = open_provider(process, settings.otel_exporter_otlp_endpoint, settings.otel_traces_sampler_arg)
    _tracing = _Tracing(provider, provider.get_tracer("artstore"))
    try:
        yield
    finally:
        _tracing = None
        close(provider)


def of_requests() -> "TelemetryConfig":
    """How FastAPI traces requests: one span each, which goes on with the trace that the client tells."""
    return {
        "tracing": _tracing is not None,
        "tracer_provider": None if _tracing is None else _tracing.provider,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
    }


@contextmanager
def span(name: str, parent: str | None = None, **attributes: str | int) -> Iterator[None]:
    """Make a span of what is done in here, unless this process does not trace.

    Args:
        name: few different ones
        parent: a context that was stored; the current span when there is none
        attributes: each becomes `artstore.NAME`
    """
    if _tracing is None:
        yield
        return
    context = None if parent is None else _context_of(parent)
    named = {f"artstore.{key}": value for key, value in attributes.items()}
    with _tracing.tracer.start_as_current_span(name, context, attributes=named):
        yield


def note(**attributes: str | int) -> None:
    """Add to the current span, if there is one."""
    if _tracing is not None:
        trace.get_current_span().set_attributes({f"artstore.{key}": value for key, value in attributes.items()})


def traceparent() -> str | None:
    """The context of the current span, 55 characters; None unless that span goes to a collector."""
    if _tracing is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.trace_flags.sampled:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def ids() -> Mapping[str, str]:
    """The current trace and span, as a log line names them; empty without one."""
    if _tracing is None:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


class Traced(NamedTuple):
    """One of the things that were done together, which belongs to a trace of its own."""

    traceparent: str
    """The context that came with it."""
    attributes: Attributes


class BatchSpans:
    """Spans of what is done for many traces at once: one for each of them, and one for all, to which they are linked.

    Args:
        tracer: makes them
        batch: the name of the span for all
        each: the name of the span for one
        kind: of the latter
        shared: attributes of all of them
    """

    def __init__(self, tracer: Tracer, batch: str, each: str, kind: SpanKind, shared: Attributes) -> None:
        self._tracer = tracer
        self._batch = batch
        self._each = each
        self._kind = kind
        self._shared = shared

    async def done(self, began: int, ended: int, traced: Iterable[Traced], size: int) -> None:
        """Tell of a batch. Nothing is told when none of it belongs to a trace.

        Args:
            began: nanoseconds since 1970
            ended: likewise
            traced: those that came with a context; made in slices, so that others get their turn
            size: how many there were in the batch, traced or not
        """
        links: list[Link] = []
        for number, one in enumerate(traced, 1):
            context = _context_of(one.traceparent)
            if not trace.get_current_span(context).get_span_context().trace_flags.sampled:
                continue
            links = links or [self._of_all(began, ended, size)]
            attributes = {**self._shared, **one.attributes}
            self._tracer.start_span(self._each, context, self._kind, attributes, links, began).end(ended)
            if number % SLICE == 0:
                await asyncio.sleep(0)

    def failed(self, began: int, ended: int, size: int, error: BaseException) -> None:
        """Tell of a batch that came to nothing, and will be tried again."""
        self._of_all(began, ended, size, Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))

    def _of_all(self, began: int, ended: int, size: int, status: Status | None = None) -> Link:
        attributes = {**self._shared, "messaging.batch.message_count": size}
        made = self._tracer.start_span(self._batch, Context(), attributes=attributes, start_time=began)
        if status is not None:
            made.set_status(status)
        made.end(ended)
        return Link(made.get_span_context())


def of_batches(batch: str, each: str, kind: SpanKind, shared: Attributes) -> BatchSpans | None:
    """What tells of batches; None while this process does not trace, and then nobody looks for contexts."""
    return None if _tracing is None else BatchSpans(_tracing.tracer, batch, each, kind, shared)


def _context_of(text: str) -> Context:
    """The context that a header tells; an empty one where it tells none."""
    return _W3C.extract({TRACEPARENT_HEADER: text}, Context())
