"""What processes tell of themselves: each metric is one process', and a batch is counted as its values would be."""

import subprocess
import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

import consumer_query.metrics
import producer_admin.metrics
from runtime.metrics import BatchHistogram

BOUNDS = (0.1, 1, 5)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0, 4.0, 5.0, 100.0]), max_size=5), max_size=5))
def test_a_batch_is_counted_as_each_of_its_values_would_be(batches: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    batched = BatchHistogram("one_seconds", "One.", BOUNDS, ours)
    single = Histogram("one_seconds", "One.", buckets=BOUNDS, registry=theirs)
    for batch in batches:
        batched.observe(batch)
        for value in batch:
            single.observe(value)
    assert told(ours) == pytest.approx(told(theirs))


def told(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
        if "_created" not in name
    }


@pytest.mark.parametrize(
    ("module", "processes"),
    [
        (producer_admin.metrics, (producer_admin.metrics.API, producer_admin.metrics.RELAY)),
        (
            consumer_query.metrics,
            (consumer_query.metrics.API, consumer_query.metrics.PROJECTOR, consumer_query.metrics.MAINTENANCE),
        ),
    ],
    ids=["admin", "query"],
)
def test_every_metric_is_told_by_one_process(module: ModuleType, processes: tuple[tuple[object, ...], ...]) -> None:
    declared = {id(one) for one in vars(module).values() if isinstance(one, (MetricWrapperBase, BatchHistogram))}
    told_of = [id(one) for process in processes for one in process]
    assert sorted(told_of) == sorted(declared)


def test_a_process_tells_nothing_of_what_others_count() -> None:
    program = """
from prometheus_client import generate_latest
from consumer_query import metrics
from runtime.metrics import tell_only
tell_only(metrics, metrics.API)
print(generate_latest().decode())
"""
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert "artstore_query_group_members 0.0" in said
    assert "artstore_query_broker_up" not in said
    assert "artstore_query_change_searchable_seconds" not in said
