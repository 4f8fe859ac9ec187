"""A cluster through helm and kubectl, as an operator reaches it: the one that KUBECONFIG points at."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

Object = dict[str, Any]

CHART: Final = Path(__file__).parents[2] / "helm"
INSTANCE: Final = "app.kubernetes.io/instance"
COMMAND_SECONDS: Final = 900.0
LOOK_AGAIN_SECONDS: Final = 0.5


@dataclass(frozen=True)
class Said:
    """What a command said when all was well."""

    out: str
    complaints: str


@dataclass(frozen=True)
class Cluster:
    """One that answers."""

    helm_program: str
    kubectl_program: str = "kubectl"

    def helm(self, *arguments: str | Path) -> Said:
        """Run helm; it fails the test unless it ends well."""
        return _run(self.helm_program, *arguments)

    def kubectl(self, *arguments: str | Path, given: str | None = None) -> Said:
        """Run kubectl; it fails the test unless it ends well. `given` is its standard input."""
        return _run(self.kubectl_program, *arguments, given=given)

    def create(self, *objects: Object) -> None:
        """Make objects, or make those that are there equal to them."""
        for one in objects:
            self.kubectl("apply", "--server-side", "-f", "-", given=json.dumps(one))

    def objects(self, kinds: str, *arguments: str) -> list[Object]:
        """Objects of one or more kinds, joined by commas."""
        found: list[Object] = json.loads(self.kubectl("get", kinds, "-o", "json", *arguments).out)["items"]
        return found

    @cached_property
    def nodes(self) -> list[str]:
        """Nodes that are ready. A bare API server has none, and runs nothing."""
        return [node["metadata"]["name"] for node in self.objects("nodes") if _condition(node, "Ready")]

    def kinds(self, *, namespaced: bool) -> str:
        """All kinds that can be listed, joined by commas."""
        told = self.kubectl(
            "api-resources", "--verbs=list", f"--namespaced={str(namespaced).lower()}", "-o", "name"
        ).out
        return ",".join(name for name in told.split() if name not in _NOISE)

    @contextmanager
    def namespace(self, name: str, labels: dict[str, str] | None = None) -> Iterator[str]:
        """A namespace of one's own, gone afterwards with all that is in it."""
        self.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}})
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=true", "--timeout=180s")


_NOISE: Final = frozenset({"events", "events.events.k8s.io", "componentstatuses", "pods.metrics.k8s.io"})
"""They come and go by themselves, or cannot be listed everywhere."""


class NoClusterError(Exception):
    """There is nothing to run the suite on."""


def find_cluster(helm: str) -> Cluster:
    """The cluster that KUBECONFIG points at.

    Raises:
        NoClusterError: kubectl is missing, or nothing answers; says which.
    """
    if shutil.which("kubectl") is None:
        raise NoClusterError("kubectl is not on the path.")
    try:
        _run("kubectl", "get", "--raw", "/readyz", "--request-timeout=10s")
    except AssertionError as error:
        raise NoClusterError(f"No cluster answers; set KUBECONFIG to the file of one. {str(error)[-300:]}") from error
    return Cluster(helm)


def pods_ready(pods: list[Object]) -> bool:
    """Whether there are pods, and each takes requests or has done its work."""
    return bool(pods) and all(_condition(pod, "Ready") or pod["status"]["phase"] == "Succeeded" for pod in pods)


def _condition(one: Object, kind: str) -> bool:
    return any(found["type"] == kind and found["status"] == "True" for found in one["status"].get("conditions", ()))


def wait_for(look: Callable[[], Any], seconds: float, what: str) -> Any:
    """Look until there is something, or fail with the last thing that was seen."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds:g} s; last seen: {found!r}"
        time.sleep(LOOK_AGAIN_SECONDS)
    return found


def _run(*command: str | Path, given: str | None = None) -> Said:
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
    said = " ".join(map(str, command))
    assert result.returncode == 0, f"{said}\n{result.stdout[-2000:]}{result.stderr[-4000:]}"
    return Said(result.stdout, result.stderr)
