"""The chart's values are documented, known to their schema, and lead to real settings. No Helm is needed for this."""

import importlib.util
import json
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from consumer_query.settings import MaintenanceSettings, ProjectorSettings, QueryApiSettings
from local.settings import CHECKOUT
from producer_admin.settings import AdminApiSettings, RelaySettings
from runtime.settings import ProcessSettings
from tests.chart_readme import CHART, readme, values

PROCESSES: dict[str, type[ProcessSettings]] = {
    "adminApi": AdminApiSettings,
    "adminRelay": RelaySettings,
    "queryApi": QueryApiSettings,
    "queryProjector": ProjectorSettings,
    "queryMaintenance": MaintenanceSettings,
}
NOT_BY_VALUES = {
    # Ports are the chart's own.
    *(f"{process}_{kind}PORT" for process in ("ADMIN_API", "QUERY_API") for kind in ("", "MANAGEMENT_")),
    *(f"{process}_MANAGEMENT_PORT" for process in ("ADMIN_RELAY", "QUERY_PROJECTOR", "QUERY_MAINTENANCE")),
    # Keys in Secrets have none.
    "KAFKA_SSL_KEY_PASSWORD",
}


def schema() -> dict[str, Any]:
    made: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return made


def test_the_readme_says_what_the_values_say() -> None:
    assert (CHART / "README.md").read_text() == readme(), "Run: python -m tests.chart_readme"


def test_a_value_without_a_comment_is_noticed() -> None:
    with pytest.raises(ValueError, match=r"a\.b has no comment"):
        list(values("a:\n  # -- One.\n  c: 1\n  b: 2\n"))


def test_the_schema_knows_each_value_and_no_other() -> None:
    def known(one: Mapping[str, Any], default: Any, path: str) -> Iterator[str]:
        if "$ref" in one or "properties" not in one or not isinstance(default, dict):
            yield path
            return
        assert one["additionalProperties"] is False, path
        for name in {*one["properties"], *default}:
            inner = one["properties"].get(name, {})
            yield from known(inner, default.get(name), f"{path}.{name}")

    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    documented = {"." + ".".join(value.path) for value in values((CHART / "values.yaml").read_text())}
    found = set(known(schema(), defaults, ""))
    assert found - {".global"} == {
        one for path in documented for one in found if one == path or one.startswith(path + ".")
    }


@pytest.mark.parametrize("process", PROCESSES)
def test_each_setting_of_a_process_is_given_by_the_chart_or_can_be(process: str) -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    given = {*re.findall(r"- name: ([A-Z][A-Z_]+)$", templates, re.MULTILINE)}
    secret = {name.upper() for name in re.findall(r"(?:path: |\" \")([a-z]+(?:_[a-z]+)+)", templates)}
    free = set(schema()["definitions"]["settings"][process]["properties"])
    assert not free & (given | secret)
    assert {name.upper() for name in PROCESSES[process].model_fields} - given - secret - NOT_BY_VALUES == free


@pytest.mark.parametrize(
    ("link", "source"),
    [
        ("rules.yaml", "monitoring/prometheus/rules.yaml"),
        ("dashboard.json", "monitoring/grafana/artstore.json"),
        ("topics.toml", "schemas/topics.toml"),
    ],
)
def test_what_the_chart_shares_with_the_repository_is_there_once(link: str, source: str) -> None:
    assert (CHART / "files" / link).is_symlink()
    assert (CHART / "files" / link).resolve() == (CHECKOUT / source).resolve()


Answer = set[str] | None


def consumers_first(monkeypatch: pytest.MonkeyPatch, *answers: tuple[Answer, Answer], seconds: float = 5) -> bool:
    """Whether the script finds all Query pods to be of its version, by what the name service answers each time."""
    spec = importlib.util.spec_from_file_location("consumers_first", CHART / "files" / "consumers_first.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    coming = iter([one for pair in answers for one in pair])

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        answer = next(coming)
        if not answer:
            raise socket.gaierror(socket.EAI_AGAIN if answer is None else socket.EAI_NONAME, "no answer")
        return [(0, 0, 0, "", (address, 0)) for address in answer]

    monkeypatch.setattr(script.socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(script.time, "sleep", lambda _: None)
    found: bool = script.wait("all", "own", seconds)
    assert next(coming, "all asked") == "all asked"
    return found


def test_an_admin_pod_waits_until_no_query_pod_of_another_version_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert consumers_first(
        monkeypatch,
        ({"old1", "old2"}, set()),
        ({"old1", "old2", "new1"}, {"new1"}),
        ({"new1", "new2"}, {"new1", "new2"}),
    )


def test_it_does_not_wait_where_no_query_pod_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    assert consumers_first(monkeypatch, (set(), set()))


def test_silence_of_the_name_service_is_not_taken_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert consumers_first(monkeypatch, (None, set()), ({"old"}, None), ({"new"}, {"new"}))


def test_it_goes_on_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not consumers_first(monkeypatch, ({"old"}, set()), seconds=0)
