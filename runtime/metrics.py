"""A process tells of itself alone, and what it counts in thousands costs it nothing.

What another process of the module counts is not told as 0 here, or an alert on a 0 would mean nothing.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from types import ModuleType

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector


def tell_only(declared: ModuleType, own: Collection[Collector]) -> None:
    """Leave out of the process' metrics what a module declares for other processes. To be called once.

    Args:
        declared: the module
        own: those of its metrics that this process sets
    """
    for value in list(vars(declared).values()):
        if isinstance(value, (MetricWrapperBase, BatchHistogram)) and value not in own:
            REGISTRY.unregister(value)


class BatchHistogram(Collector):
    """A histogram that takes many values at once: one call of the library's own for each would be felt.

    Args:
        name: with its unit
        documentation: for people
        bounds: upper ones of the buckets, ascending; one without end follows
        registry: where it is told
    """

    def __init__(
        self, name: str, documentation: str, bounds: Sequence[float], registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, values: Sequence[float]) -> None:
        """Count values; those of one batch mostly are of one bucket."""
        if not values:
            return
        self._sum += sum(values)
        first = bisect_left(self._bounds, min(values))
        if first == bisect_left(self._bounds, max(values)):
            self._counts[first] += len(values)
            return
        for value in values:
            self._counts[bisect_left(self._bounds, value)] += 1

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """What `collect` will tell, without values."""
        return [HistogramMetricFamily(self._name, self._documentation)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Tell what was counted, for the registry."""
        buckets, below = [], 0
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound == math.inf else str(float(bound)), float(below)))
        return [HistogramMetricFamily(self._name, self._documentation, buckets, self._sum)]
