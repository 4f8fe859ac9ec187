"""The tools that look at the chart are built once from Go's modules, in the versions and with the hashes of a lock.

`requirements/chart/go.mod` and `go.sum` are the lock. What is built lies in the cache, in a folder that is named after
the versions and renamed into place when it is whole.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from cli.terminal import Waiting
from local.settings import CHECKOUT, CacheSettings
from tests.chart_schemas import of_definition, of_kubernetes, write

LOCK: Final = CHECKOUT / "requirements" / "chart"
HAND_WRITTEN: Final = CHECKOUT / "helm" / "tests" / "crds"
_TOOLS: Final = (
    "helm.sh/helm/v3/cmd/helm",
    "github.com/yannh/kubeconform/cmd/kubeconform",
    "github.com/helm-unittest/helm-unittest/cmd/helm-unittest",
)
_KUBERNETES: Final = "k8s.io/kubernetes@v1.34.4"
_DEFINITIONS: Final = {
    "github.com/kedacore/keda/v2@v2.20.2": (
        "config/crd/bases/keda.sh_scaledobjects.yaml",
        "config/crd/bases/keda.sh_triggerauthentications.yaml",
    ),
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
}
_KINDS: Final = (
    ("", "v1", "ConfigMap"),
    ("", "v1", "PersistentVolumeClaim"),
    ("", "v1", "Secret"),
    ("", "v1", "Service"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "StatefulSet"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    ("batch", "v1", "CronJob"),
    ("batch", "v1", "Job"),
    ("networking.k8s.io", "v1", "Ingress"),
    ("networking.k8s.io", "v1", "NetworkPolicy"),
    ("policy", "v1", "PodDisruptionBudget"),
)


class ToolError(Exception):
    """A tool cannot be had."""


def tools(waiting: Waiting) -> Path:
    """The folder of helm, kubeconform and helm-unittest, whole or not at all.

    Raises:
        ToolError: Go is missing, or does not build them.
    """
    lock = (LOCK / "go.mod").read_text()
    folder = CacheSettings().folder / "chart-tools" / "_".join(f"{_name(one)}-{_version(lock, one)}" for one in _TOOLS)
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as fresh:
            _build(Path(fresh), waiting)
            with contextlib.suppress(OSError):  # another one was quicker
                Path(fresh).rename(folder)
    return folder


def schemas(folder: Path) -> None:
    """Fill the folder that kubeconform reads.

    Raises:
        ToolError: a module cannot be had.
    """
    document = json.loads((_module(_KUBERNETES) / "api/openapi-spec/swagger.json").read_text())
    write(of_kubernetes(document, _KINDS), folder)
    for crd in definitions():
        write(of_definition(crd), folder)


def definitions() -> Iterator[dict[str, Any]]:
    """The CustomResourceDefinitions of all that the chart may make.

    Raises:
        ToolError: a module cannot be had.
    """
    paths = [_module(module) / path for module, inside in _DEFINITIONS.items() for path in inside]
    for path in [*paths, *sorted(HAND_WRITTEN.glob("*.yaml"))]:
        yield from filter(None, yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader))


def _build(folder: Path, waiting: Waiting) -> None:
    waiting.tell("Building the tools (once, some minutes): 0 packages")
    environment = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
    with subprocess.Popen(
        [_go(), "install", "-v", "-ldflags=-s -w", *_TOOLS],
        cwd=LOCK,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as building:
        assert building.stderr is not None
        last = ""
        for number, last in enumerate(building.stderr, 1):  # noqa: B007 - the last line is the reason
            waiting.tell(f"Building the tools (once, some minutes): {number} packages")
    if building.returncode != 0:
        raise ToolError(f"Go does not build the tools: {last.strip()}")


def _module(module: str) -> Path:
    """The folder of a module's sources, whose hash the checksum database has confirmed."""
    # Outside of any module, so that none is changed.
    answer = subprocess.run(
        [_go(), "mod", "download", "-json", module],
        cwd=tempfile.gettempdir(),
        env={**os.environ, "GOFLAGS": "", "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise ToolError(f"Go does not get {module}: {answer.stdout.strip()[-300:]} {answer.stderr.strip()[-300:]}")
    return Path(json.loads(answer.stdout)["Dir"])


def _go() -> str:
    found = shutil.which("go")
    if found is None:
        raise ToolError("Go is not on the path. Install Go 1.26 or later; the chart's tools are built with it.")
    return found


def _name(tool: str) -> str:
    return tool.rsplit("/", 1)[-1]


def _version(lock: str, tool: str) -> str:
    module = tool.partition("/cmd/")[0]
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} v(\S+)", lock, re.MULTILINE)
    if found is None:
        raise ToolError(f"{LOCK / 'go.mod'} does not name {module}.")
    return found[1]
