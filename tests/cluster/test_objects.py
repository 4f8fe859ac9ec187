"""Every object of every values file is taken by the API server, also over upgrades; nothing runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml  # type: ignore[import-untyped]

from tests.cluster.kube import CHART, Cluster, Object, wait_for
from tests.cluster.leftovers import kept, left_behind

VALUES: Final = sorted((CHART / "ci").glob("*-values.yaml"))
MINIMAL: Final = CHART / "ci" / "minimal-values.yaml"
RELEASE: Final = "objects"
GONE_SECONDS: Final = 120.0
pytestmark = pytest.mark.usefixtures("kinds")
RESTRICTED: Final = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    """Takes restricted pods only, and none of those: objects alone are looked at."""
    with cluster.namespace("artstore-objects", RESTRICTED) as name:
        cluster.create(
            {
                "apiVersion": "v1",
                "kind": "ResourceQuota",
                "metadata": {"name": "no-pods", "namespace": name},
                "spec": {"hard": {"pods": "0"}},
            }
        )
        yield name


@pytest.fixture(autouse=True)
def _taken_away(cluster: Cluster, namespace: str) -> Iterator[None]:
    """Whatever a test that failed has left: the next begins with nothing."""
    yield
    cluster.helm("uninstall", RELEASE, "--ignore-not-found", "--no-hooks", "--namespace", namespace)
    for one in kept(cluster, namespace):
        cluster.kubectl("delete", one, "--namespace", namespace)


@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_every_object_is_accepted_and_a_switch_goes_off_and_on_again_by_upgrades(
    cluster: Cluster, namespace: str, values: Path
) -> None:
    here = ("--namespace", namespace)
    # Hooks are Jobs that would never end where no pod runs: the API server is asked about them without making them.
    changes: list[tuple[str | Path, ...]] = [
        ("install", RELEASE, CHART, "--values", values),
        ("upgrade", RELEASE, CHART, "--reset-values", "--values", MINIMAL),
        # No rollback: Helm 3 cannot take up again custom objects that it kept.
        ("upgrade", RELEASE, CHART, "--reset-values", "--values", values),
    ]
    for change in changes:
        said = cluster.helm(*change, "--no-hooks", *here)
        assert "Warning" not in said.complaints, said.complaints
        assert present(cluster, namespace) == expected(cluster, namespace), change
    if hooks := cluster.helm("get", "hooks", RELEASE, *here).out.strip():
        said = cluster.kubectl("create", "--dry-run=server", "--filename=-", *here, given=hooks)
        assert "Warning" not in said.complaints, said.complaints

    cluster.helm("uninstall", RELEASE, "--no-hooks", *here)
    wait_for(lambda: not left_behind(cluster, RELEASE, namespace), GONE_SECONDS, "nothing left behind")
    print(f"\n{values.name}: kept on purpose: {kept(cluster, namespace) or 'nothing'}")


def expected(cluster: Cluster, namespace: str) -> set[tuple[str, str]]:
    """Kind and name of all objects of the release, hooks aside."""
    manifest = cluster.helm("get", "manifest", RELEASE, "--namespace", namespace).out
    return {_identity(one) for one in yaml.safe_load_all(manifest) if one}


def present(cluster: Cluster, namespace: str) -> set[tuple[str, str]]:
    """Those of them that the API server has."""
    manifest = cluster.helm("get", "manifest", RELEASE, "--namespace", namespace).out
    found = cluster.kubectl(
        "get", "--filename=-", "--ignore-not-found", "-o", "json", "--namespace", namespace, given=manifest
    )
    told: Object = json.loads(found.out)
    return {_identity(one) for one in told.get("items", [told])}


def _identity(one: Object) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]
