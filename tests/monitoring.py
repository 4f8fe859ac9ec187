"""The files under monitoring/ as tests read them, and what each process tells."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import yaml  # type: ignore[import-untyped]
from prometheus_client import REGISTRY
from prometheus_client.registry import Collector

from consumer_query import metrics as query
from local.settings import CHECKOUT
from producer_admin import metrics as admin

FOLDER: Final = CHECKOUT / "monitoring"
RULES: Final = FOLDER / "prometheus" / "rules.yaml"
RULES_TEST: Final = FOLDER / "prometheus" / "rules_test.yaml"
SCRAPING: Final = FOLDER / "prometheus" / "prometheus.yaml"
DASHBOARD: Final = FOLDER / "grafana" / "artstore.json"

_TOLD: Final = {
    "admin-api": admin.API,
    "admin-relay": admin.RELAY,
    "query-projector": query.PROJECTOR,
    "query-api": query.API,
    "query-maintenance": query.MAINTENANCE,
}
_SAMPLES: Final = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


class Query(NamedTuple):
    """One query of a panel."""

    panel: str
    expression: str
    legend: str


def read(path: Any) -> Any:
    """A file of YAML."""
    return yaml.safe_load(path.read_text())


def rules() -> list[dict[str, Any]]:
    """Alerts and recorded rules."""
    return [rule for group in read(RULES)["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> dict[str, str]:
    """Expressions of recorded rules by name."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def panels() -> list[dict[str, Any]]:
    """All panels of the dashboard but the headings of rows."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Everything that the dashboard asks."""
    for panel in panels():
        for target in panel["targets"]:
            yield Query(panel["title"], target["expr"], target["legendFormat"])


def told() -> dict[str, dict[str, frozenset[str]]]:
    """Names of the samples that each process tells by its job, with their labels."""
    return {job: dict(_samples(own)) for job, own in _all_told().items()}


def families() -> dict[str, dict[str, frozenset[str]]]:
    """Names of the metrics as they are declared, with `_total`, by job, with their labels."""
    found: dict[str, dict[str, frozenset[str]]] = {}
    for job, own in _all_told().items():
        found[job] = {family.name + ("_total" if family.type == "counter" else ""): labels for family, labels in own}
    return found


def names_in(expression: str) -> set[str]:
    """Metrics that a PromQL expression names, recorded ones too."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    return {name for name in _NAME.findall(bare) if "artstore_" in name or name == "up"}


def labels_in(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Metrics with the labels that they are selected by."""
    for name, selection in re.findall(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}", expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', selection)))


def grouped_by(expression: str) -> set[str]:
    """Labels that it groups or matches by."""
    found = re.findall(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)", expression)
    return {label.strip() for labels in found for label in labels.split(",")}


def _all_told() -> Mapping[str, list[tuple[Any, frozenset[str]]]]:
    own_lag = query.OwnLag(lambda: [(0, 0, 0.0)])
    REGISTRY.unregister(own_lag)
    found = {job: [(family, _labels(one)) for one in own for family in one.describe()] for job, own in _TOLD.items()}
    found["query-projector"] += [(family, frozenset(family.samples[0].labels)) for family in own_lag.collect()]
    return found


def _labels(metric: Collector) -> frozenset[str]:
    return frozenset(getattr(metric, "_labelnames", ()))


def _samples(own: list[tuple[Any, frozenset[str]]]) -> Iterator[tuple[str, frozenset[str]]]:
    for family, labels in own:
        for suffix in _SAMPLES[family.type]:
            yield family.name + suffix, labels | ({"le"} if suffix == "_bucket" else set())
