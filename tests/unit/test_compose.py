"""docker-compose.kafka.yml says what is true of the processes, and nothing that ought not to be in a file.

Of Helm's templates only the names of variables are read, as text; what they make of values is the chart's own suite.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from pydantic_settings import BaseSettings

from cli.health import PORTS, management_address
from cli.secrets import DATABASE_URLS
from consumer_query.settings import MaintenanceSettings, ProjectorSettings, QueryApiSettings, QueryDatabaseSettings
from producer_admin.settings import AdminApiSettings, AdminDatabaseSettings, RelaySettings
from runtime.settings import KafkaSettings

FILE: dict[str, Any] = yaml.safe_load(Path("docker-compose.kafka.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"].startswith("artstore/")}
SETTINGS: dict[str, type[BaseSettings]] = {
    "admin api": AdminApiSettings,
    "admin relay": RelaySettings,
    "admin migrate": AdminDatabaseSettings,
    "admin roles": AdminDatabaseSettings,
    "query api": QueryApiSettings,
    "query projector": ProjectorSettings,
    "query maintenance": MaintenanceSettings,
    "query migrate": QueryDatabaseSettings,
    "query roles": QueryDatabaseSettings,
    "topics ensure": KafkaSettings,
}
"""By verb what it reads."""
COMPONENTS = {f"{one.replace(' ', '-')}": one for one in SETTINGS} | {
    "migrations": "query migrate",
    "topics": "topics ensure",
}
"""By folder of the chart, or service: the verb that runs there."""
PROCESSES = [name for name, one in OURS.items() if one["restart"] != "no"]


def verb(service: dict[str, Any]) -> str:
    return " ".join(service["command"][:2])


def names(settings: type[BaseSettings]) -> set[str]:
    return {name.upper() for name in settings.model_fields}


def documented() -> set[str]:
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", Path(".env.example").read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", OURS)
def test_every_variable_that_compose_sets_is_a_setting_of_that_process(name: str) -> None:
    given = set(OURS[name].get("environment", {}))
    settings = SETTINGS.get(verb(OURS[name]))
    assert given <= (names(settings) if settings else set())
    assert given <= documented()


@pytest.mark.parametrize("name", [name for name in OURS if verb(OURS[name]) in SETTINGS])
def test_a_process_is_given_every_setting_that_has_no_default(name: str) -> None:
    needed = {name.upper() for name, field in SETTINGS[verb(OURS[name])].model_fields.items() if field.is_required()}
    [secrets] = [*mounted(name), ""][:1]
    files = {one.upper() for one in DATABASE_URLS.get(secrets, {})}
    assert needed <= set(OURS[name].get("environment", {})) | files


def test_every_variable_that_helm_sets_is_a_setting_of_that_process() -> None:
    found = 0
    for path in [path for path in Path("helm/templates").rglob("*") if path.suffix in {".tpl", ".yaml"}]:
        folder = path.relative_to("helm/templates").parts[0]
        if folder == "dev":  # a broker and a database for trying out, which have variables of their own
            continue
        given = set(re.findall(r"^ *- (?:\{ *)?name: ([A-Z][A-Z0-9]*_[A-Z0-9_]+)", path.read_text(), re.MULTILINE))
        given -= {"ARTSTORE_TOKEN"}  # of the command line, whatever it asks for
        of_one = SETTINGS.get(COMPONENTS.get(folder, ""))
        known = names(of_one) if of_one else {name for one in SETTINGS.values() for name in names(one)}
        assert given <= known & documented(), path
        found += len(given)
    assert found > 20


def test_every_image_has_a_version() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[a-z0-9./-]+:v?\d[\w.]*", service["image"]), name


def test_nothing_in_the_file_is_a_secret() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY|DATABASE_URL", variable):
                assert re.fullmatch(r"/secrets(/[\w.]+)?", str(value)), (name, variable)
    assert "@" not in Path("docker-compose.kafka.yml").read_text().replace("1@localhost", "")


def mounted(name: str) -> list[str]:
    """The secrets that a service sees as /secrets."""
    return re.findall(r"secrets-([\w-]+):/secrets:ro", " ".join(SERVICES[name].get("volumes", [])))


def test_each_container_sees_its_own_secrets_alone_and_cannot_change_them() -> None:
    for name, service in SERVICES.items():
        volumes = [one for one in service.get("volumes", []) if one.startswith("secrets-")]
        assert name == "secrets" or len(volumes) <= 1
        assert name == "secrets" or all(one.endswith(":/secrets:ro") for one in volumes)
    assert {name: mounted(name)[0] for name in SERVICES if mounted(name)} == {
        "postgres": "postgres",
        "admin-roles": "roles",
        "query-roles": "roles",
        "admin-migrate": "admin-migrate",
        "query-migrate": "query-migrate",
        "admin-api": "admin",
        "admin-relay": "admin",
        "query-projector": "projector",
        "query-maintenance": "maintenance",
        "query-api": "query-api",
        "token": "issuer",
        "grafana": "grafana",
    }


def test_each_process_logs_in_to_postgres_with_the_least_role_that_does() -> None:
    asked = [word for name in ("admin-roles", "query-roles") for word in SERVICES[name]["command"] if "=" in word]
    role_of = {user: role for role, user in (word.split("=") for word in asked)} | {"postgres": "superuser"}
    assert {name: {url: role_of[user] for url, user in urls.items()} for name, urls in DATABASE_URLS.items()} == {
        "roles": {"admin_database_url": "superuser", "query_database_url": "superuser"},
        "admin-migrate": {"admin_database_url": "migrate"},
        "admin": {"admin_database_url": "write"},
        "query-migrate": {"query_database_url": "migrate"},
        "maintenance": {"query_database_url": "maintain"},
        "projector": {"query_database_url": "write"},
        "query-api": {"query_database_url": "write", "query_search_database_url": "read"},
    }


def test_ports_are_open_to_this_host_alone() -> None:
    ports = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    assert set(ports) == {"admin-api", "query-api", "prometheus", "grafana"}
    for name, published in ports.items():
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", one) for one in published), name
    assert FILE["networks"]["inside"] == {"internal": True}
    assert {name for name, one in SERVICES.items() if "outside" in one.get("networks", [])} == set(ports)


def test_a_container_can_do_no_more_than_it_needs() -> None:
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service or name == "secrets"
        assert service["security_opt"] == ["no-new-privileges:true"], name
        limits = service["deploy"]["resources"]["limits"]
        assert {"memory", "pids"} <= set(limits), name
        # Whose images write into their own folders when they start.
        assert service.get("read_only") or name in {"kafka", "schema-registry"}


def test_everything_that_stays_has_a_health_check_and_a_step_is_waited_for() -> None:
    for name, service in SERVICES.items():
        if service["restart"] == "no":
            assert service["healthcheck"] == {"disable": True}
        elif name in OURS:
            assert "healthcheck" not in service  # the image's own
        else:
            assert service["healthcheck"]["test"][0] == "CMD", name
        for other, how in service.get("depends_on", {}).items():
            step = SERVICES[other]["restart"] == "no"
            assert (how["condition"] == "service_completed_successfully") == step, (name, other)


def test_monitoring_and_tokens_are_asked_for_by_name() -> None:
    profiles = {name: one["profiles"] for name, one in SERVICES.items() if "profiles" in one}
    assert profiles == {"prometheus": ["monitoring"], "grafana": ["monitoring"], "token": ["token"]}


def test_every_volume_is_named() -> None:
    used = {one.partition(":")[0] for service in SERVICES.values() for one in service.get("volumes", [])}
    assert {one for one in used if not one.startswith("./")} == set(FILE["volumes"])
    assert all(Path(one).exists() for one in used if one.startswith("./"))


def test_prometheus_asks_the_services_where_they_answer() -> None:
    here = yaml.safe_load(Path("compose/prometheus.yaml").read_text())
    there = yaml.safe_load(Path("monitoring/prometheus/prometheus.yaml").read_text())
    ports = {"-".join(words): port for words, (_, port) in PORTS.items()}
    targets = {job["job_name"]: job["static_configs"] for job in here["scrape_configs"]}
    assert targets == {name: [{"targets": [f"{name}:{port}"]}] for name, port in ports.items()}
    assert [job["job_name"] for job in there["scrape_configs"]] == list(targets)
    assert set(targets) == set(PROCESSES)
    assert {name: one for name, one in here.items() if name != "scrape_configs"} == {
        name: one for name, one in there.items() if name != "scrape_configs"
    }


def test_a_health_check_asks_the_process_of_its_own_container() -> None:
    for words, (setting, port) in PORTS.items():
        settings = SETTINGS[" ".join(words)]
        assert settings.model_fields[setting.lower()].default == port
        command = ["/opt/artstore/bin/python", "-P", "-m", "cli", *words, ""]
        assert management_address(command, {}) == ("127.0.0.1", port)
        assert management_address(command, {"MANAGEMENT_HOST": "0.0.0.0", setting: "81"}) == ("127.0.0.1", 81)
        assert management_address(command, {"MANAGEMENT_HOST": "10.0.0.3"}) == ("10.0.0.3", port)
    assert management_address(["python", "artstore", "admin", "migrate"], {}) is None
