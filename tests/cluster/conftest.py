"""Fixtures of the cluster suite, which `./artstore test --cluster` starts by name, and what of it a cluster can run."""

import shutil
from collections.abc import Iterator

import pytest

from cli.terminal import Waiting
from tests.chart_tools import ToolError, tools
from tests.cluster.kinds import custom_kinds
from tests.cluster.kube import Cluster, NoClusterError, find_cluster

CLUSTER = pytest.StashKey[Cluster]()
NEEDS_A_NODE = "test_release.py"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A bare API server runs no pod: what needs one is left out there, and counted as deselected."""
    try:
        config.stash[CLUSTER] = cluster = find_cluster(_helm())
    except (NoClusterError, ToolError) as error:
        raise pytest.UsageError(str(error)) from error
    if not cluster.nodes:
        left_out = [item for item in items if item.path.name == NEEDS_A_NODE]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def _helm() -> str:
    """That of the path, or else that of `./artstore test --chart`."""
    if found := shutil.which("helm"):
        return found
    with Waiting("Looking for helm") as waiting:
        return str(tools(waiting) / "helm")


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Cluster:
    return pytestconfig.stash[CLUSTER]


@pytest.fixture(scope="session")
def kinds(cluster: Cluster) -> Iterator[None]:
    """The kinds of KEDA, Prometheus' operator and Strimzi; those that were not there are gone afterwards."""
    with custom_kinds(cluster):
        yield
