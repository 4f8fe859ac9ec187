"""The chart as Helm renders it for one file of helm/ci/, which has one a switch."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from local.settings import CHECKOUT

CHART: Final = CHECKOUT / "helm"
FILES: Final = sorted((CHART / "ci").glob("*-values.yaml"))
CLUSTER: Final = ("--namespace", "artstore", "--kube-version", "1.34.0")


@dataclass(frozen=True)
class Helm:
    """The program."""

    path: Path

    def run(self, *arguments: str | Path) -> str:
        """What it says; fails the test unless it ends well."""
        done = self._run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refusal(self, *arguments: str | Path) -> str:
        """Why it ends badly; fails the test if it does not."""
        done = self._run(*arguments)
        assert done.returncode != 0
        return done.stderr

    def _run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.path, *arguments], capture_output=True, text=True, check=False)

    def render(self, values: Path) -> str:
        """All that an installation makes, hooks included."""
        return self.run("template", "artstore", CHART, "-f", values, *CLUSTER)

    def objects(self, values: Path) -> list[dict[str, Any]]:
        """The same, read."""
        return [one for one in yaml.safe_load_all(self.render(values)) if one]
