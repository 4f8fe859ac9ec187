"""What the spans of a batch tell of its records; nobody asks while nothing is traced."""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from opentelemetry.trace import SpanKind

from consumer_query.buffers import Take
from runtime.tracing import BatchSpans, Traced, of_batches
from schemas.events import TRACEPARENT_HEADER


def spans_of_applying(topic: str) -> BatchSpans | None:
    """What tells of batches, and of each traced record in them; None while nothing is traced."""
    shared = {"messaging.system": "kafka", "messaging.operation.type": "process", "messaging.destination.name": topic}
    return of_batches("apply batch", "apply file event", SpanKind.CONSUMER, shared)


def traced(takes: Sequence[Take], stale: AbstractSet[int], refused: AbstractSet[int]) -> Iterator[Traced]:
    """The records that came with the context of a trace, and what became of them.

    Args:
        takes: what was applied
        stale: records that the rows were known to surpass, by identity: a replay would tell of all of them again
        refused: records among the dead letters, likewise
    """
    for take in takes:
        for record in take.records:
            context = dict(record.headers).get(TRACEPARENT_HEADER)
            if context is None or id(record) in stale:
                continue
            attributes: dict[str, str | int] = {
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
                "artstore.file_id": (record.key or b"").decode(errors="replace"),
                "artstore.outcome": "dead letter" if id(record) in refused else "visible",
            }
            yield Traced(context.decode(errors="replace"), attributes)
