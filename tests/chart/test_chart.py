"""Each switch of the chart gives what a cluster takes; of topics and rights its templates say what the code says."""

import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from runtime.acls import acls
from schemas.topics import cards
from tests import monitoring
from tests.chart.rendering import CHART, CLUSTER, FILES, Helm

every_file = pytest.mark.parametrize("values", FILES, ids=lambda path: path.name.removesuffix("-values.yaml"))


@every_file
def test_the_chart_is_well_made(helm: Helm, values: Path) -> None:
    helm.run("lint", CHART, "--strict", "-f", values, *CLUSTER)


@every_file
def test_an_api_server_would_take_all_objects(helm: Helm, binaries: Path, kinds: Path, values: Path) -> None:
    assert conformity(binaries, kinds, helm.render(values)) == ""


def test_a_field_that_no_api_knows_and_a_null_are_noticed(helm: Helm, binaries: Path, kinds: Path) -> None:
    rendered = helm.render(CHART / "ci" / "autoscaling-values.yaml")
    for right, wrong in (("minReplicaCount:", "minReplikaCount:"), ("maxSurge: 1", "maxSurge: null")):
        assert right in rendered
        assert conformity(binaries, kinds, rendered.replace(right, wrong)) != ""


def test_a_value_of_another_kind_or_name_is_refused(helm: Helm, tmp_path: Path) -> None:
    wrong = {
        "kafka": {"securityProtocol": "TLS", "bootstrapServers": "kafka"},
        "auth": {"jwksUrl": "http://login.example.org/keys"},
        "adminApi": {"replicas": 0, "ingress": {"enabled": True}, "settings": {"LOG_LEVEL": "DEBUG"}},
        "queryApi": {"settings": {"SEARCH_TIMEOUT_SECONDS": 1}},
        "queryProjector": {"replica": 3},
        "storage": {"elementUrl": "ftp://files", "volume": {"accessMode": "ReadOnlyMany"}},
        "monitoring": {"interval": "often"},
    }
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(wrong))
    refusal = helm.refusal("template", "artstore", CHART, "-f", FILES[0], "-f", values, *CLUSTER)
    for path in (
        "kafka/securityProtocol",
        "kafka/bootstrapServers",
        "auth/jwksUrl",
        "adminApi/replicas",
        "adminApi/ingress/host",
        "adminApi/settings",
        "queryApi/settings/SEARCH_TIMEOUT_SECONDS",  # pragma: allowlist secret
        "queryProjector",
        "storage/elementUrl",
        "storage/volume/accessMode",
        "monitoring/interval",
    ):
        assert f"at '/{path}'" in refusal, refusal


def test_the_charts_own_tests_pass(binaries: Path) -> None:
    done = subprocess.run([binaries / "helm-unittest", "--strict", CHART], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_kafka_topics_are_as_their_cards_say(helm: Helm) -> None:
    found = {one["spec"]["topicName"]: one["spec"] for one in _of_kind(helm, "strimzi", "KafkaTopic")}
    assert {name: (one["partitions"], one["config"]) for name, one in found.items()} == {
        card.name: (card.partitions, {name: setting.value for name, setting in card.config.items()})
        for card in cards().values()
    }


def test_kafka_users_may_do_what_the_processes_need_and_no_more(helm: Helm) -> None:
    found = {
        (user["metadata"]["name"], operation, rule["resource"]["type"], rule["resource"]["name"])
        for user in _of_kind(helm, "strimzi", "KafkaUser")
        for rule in user["spec"]["authorization"]["acls"]
        for operation in rule["operations"]
    }
    users = {
        "relay": "artstore-relay",
        "projector": "artstore-projector",
        "maintenance": "artstore-maintenance",
        "query-api": "artstore-query-api",
    }
    needed = acls(users, "artstore.file-events", "query-module-consumers")  # type: ignore[arg-type]
    resource = {"topic": "topic", "group": "group", "transactional-id": "transactionalId"}
    assert found == {(one.user, one.operation, resource[one.resource], one.name) for one in needed}


def test_rules_and_dashboard_are_those_of_the_repository(helm: Helm) -> None:
    [rules] = _of_kind(helm, "monitoring", "PrometheusRule")
    assert rules["spec"] == monitoring.read(monitoring.RULES)
    [dashboard] = _of_kind(helm, "monitoring", "ConfigMap")
    assert dashboard["data"] == {"artstore.json": monitoring.DASHBOARD.read_text()}


def test_a_package_holds_what_its_links_lead_to_and_no_tests(helm: Helm, tmp_path: Path) -> None:
    helm.run("package", CHART, "--destination", tmp_path)
    [package] = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        held = {one.name.partition("/")[2]: one for one in archive.getmembers()}
        rules = archive.extractfile(held["files/rules.yaml"])
        assert rules is not None
        assert rules.read() == monitoring.RULES.read_bytes()
    assert not [name for name in held if name.startswith(("tests/", "ci/"))]


def conformity(binaries: Path, kinds: Path, rendered: str) -> str:
    """What kubeconform has against it."""
    location = f"{kinds}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    command: list[str | Path] = [binaries / "kubeconform", "-strict", "-schema-location", location, "-"]
    done = subprocess.run(command, input=rendered, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == bool(done.stdout + done.stderr)
    return done.stdout + done.stderr


def _of_kind(helm: Helm, values: str, kind: str) -> list[dict[str, Any]]:
    return [one for one in helm.objects(CHART / "ci" / f"{values}-values.yaml") if one["kind"] == kind]
