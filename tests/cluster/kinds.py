"""The kinds that the chart uses and Kubernetes does not have: KEDA's, those of Prometheus' operator, and Strimzi's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.chart_tools import definitions
from tests.cluster.kube import Cluster

_CRD: Final = "customresourcedefinition"
_ESTABLISHED_SECONDS: Final = 60


@contextmanager
def custom_kinds(cluster: Cluster) -> Iterator[None]:
    """Have the cluster know them. Operators that are there keep their own; what was added is taken away again."""
    there = {one["metadata"]["name"] for one in cluster.objects(_CRD)}
    missing = {one["metadata"]["name"]: one for one in definitions() if one["metadata"]["name"] not in there}
    try:
        cluster.create(*missing.values())
        for name in missing:
            cluster.kubectl(
                "wait", f"{_CRD}/{name}", "--for=condition=Established", f"--timeout={_ESTABLISHED_SECONDS}s"
            )
        yield
    finally:
        for name in missing:
            cluster.kubectl("delete", _CRD, name, "--ignore-not-found")
