"""One release in dev mode with the project's own image, and what a client needs to use it."""

import base64
import os
import re
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from runtime.dev_tokens import mint
from tests.cluster.kube import CHART, INSTANCE, Cluster, Object, pods_ready

NAME: Final = "artstore"
OURS: Final = ("admin-api", "admin-relay", "query-api", "query-projector", "query-maintenance")
WAIT: Final = ("--wait", "--timeout", "10m")
SCOPES: Final = ("files:read", "files:write", "sync:admin")
_VERSION: Final = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["version"]
_FORWARDED: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


def image() -> str:
    """The project's image, which the nodes must have or be able to get."""
    return os.environ.get("ARTSTORE_TEST_IMAGE", f"artstore/file-events:{_VERSION}")


def next_image() -> str:
    """That of an upgrade: another, or the same, which rolls the pods as well."""
    return os.environ.get("ARTSTORE_TEST_NEXT_IMAGE", image())


@dataclass(frozen=True)
class Release:
    """An installation in a namespace of its own."""

    cluster: Cluster
    namespace: str
    values: tuple[str, ...]
    """What is set besides the image."""

    def install(self) -> float:
        """Install and wait. Returns the seconds until all is ready."""
        return self._timed("install", NAME, CHART, *self._settings(image()))

    def upgrade(self) -> float:
        """Upgrade with a value that makes every pod of ours anew. Returns the seconds until all is ready."""
        rolled = ("--set-string", f"pods.annotations.rolled={time.time_ns()}")
        return self._timed("upgrade", NAME, CHART, *self._settings(next_image()), *rolled)

    def rollback(self) -> float:
        """Go back by one revision. Returns the seconds until all is ready."""
        return self._timed("rollback", NAME)

    def uninstall(self) -> None:
        """Take it away."""
        self.cluster.helm("uninstall", NAME, "--namespace", self.namespace, *WAIT)

    def _settings(self, tagged: str) -> tuple[str, ...]:
        repository, _, tag = tagged.rpartition(":")
        return (*self.values, "--set", f"image.repository={repository}", "--set-string", f"image.tag={tag}")

    def _timed(self, *command: str | Path) -> float:
        begin = time.monotonic()
        self.cluster.helm(*command, "--namespace", self.namespace, *WAIT)
        return time.monotonic() - begin

    def pods(self) -> list[Object]:
        """All pods of the release that are not on their way out, hooks aside."""
        found = self.cluster.objects("pods", "--namespace", self.namespace, "--selector", f"{INSTANCE}={NAME}")
        return [
            pod
            for pod in found
            if "deletionTimestamp" not in pod["metadata"] and "job-name" not in pod["metadata"]["labels"]
        ]

    def ready(self) -> bool:
        """Whether each of them is."""
        return pods_ready(self.pods())

    def processes(self) -> list[Object]:
        """The pods of our own processes."""
        return [pod for pod in self.pods() if _component(pod) in OURS]

    def generation(self) -> set[str]:
        """Their names, which are others after a roll-out."""
        return {pod["metadata"]["name"] for pod in self.processes()}

    def start_seconds(self) -> dict[str, float]:
        """By component: how long its slowest pod took from being made to being ready."""
        slowest: dict[str, float] = {}
        for pod in self.processes():
            ready = next(one for one in pod["status"]["conditions"] if one["type"] == "Ready")
            seconds = (_moment(ready["lastTransitionTime"]) - _moment(pod["metadata"]["creationTimestamp"])).seconds
            slowest[_component(pod)] = max(slowest.get(_component(pod), 0.0), seconds)
        return slowest

    def token(self) -> str:
        """By the key of dev mode, as the chart's notes say."""
        secret = self.cluster.objects(
            "secrets", "--namespace", self.namespace, f"--field-selector=metadata.name={NAME}-dev-key"
        )
        key = base64.b64decode(secret[0]["data"]["tls.key"])
        return mint(key, f"https://{NAME}.dev.invalid", "artstore", "cluster-suite", SCOPES, time.time(), 7200)

    @contextmanager
    def client(self, service: str, port: int) -> Iterator[httpx.Client]:
        """A client of one of the services, through a port of this machine."""
        command = ["kubectl", "--namespace", self.namespace, "port-forward", f"service/{NAME}-{service}", f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
            try:
                assert forwarding.stdout is not None
                found = _FORWARDED.match(line := forwarding.stdout.readline())
                assert found, f"kubectl does not forward: {line!r}"
                headers = {"Authorization": f"Bearer {self.token()}"}
                url = f"http://127.0.0.1:{found[1]}"
                with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
                    yield client
            finally:
                forwarding.terminate()


def _component(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get("app.kubernetes.io/component"))


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def client_pod(release: Release, program: str, *arguments: str) -> dict[str, Any]:
    """A pod that runs a program of the tests in the project's image, with a token, as a client of the release."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "load", "namespace": release.namespace, "labels": CLIENT},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "load",
                    "image": image(),
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "-c", program, *arguments],
                    "env": [{"name": "ARTSTORE_TOKEN", "value": release.token()}],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


CLIENT: Final = {"artstore-test": "client"}
