"""Fixtures of the chart suite, which `./artstore test --chart` starts by name; Go builds its tools once."""

from pathlib import Path

import pytest

from cli.terminal import Waiting
from tests.chart.rendering import Helm
from tests.chart_tools import schemas, tools

BUILD_SECONDS = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[0].add_marker(pytest.mark.timeout(BUILD_SECONDS))  # Whoever comes first waits for the build.


@pytest.fixture(scope="session")
def binaries(pytestconfig: pytest.Config) -> Path:
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), Waiting("Looking for helm, kubeconform and helm-unittest") as waiting:
        return tools(waiting)


@pytest.fixture(scope="session")
def helm(binaries: Path) -> Helm:
    return Helm(binaries / "helm")


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the schemas of all kinds."""
    folder = tmp_path_factory.mktemp("kinds")
    schemas(folder)
    return folder
