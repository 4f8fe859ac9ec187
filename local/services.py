"""The five processes of ours, and the environment in which they run as well without the launcher."""

import os
import sys
from dataclasses import dataclass

from local.kafka import EmbeddedKafka
from local.ports import LOOPBACK, PortUse
from local.postgres import EmbeddedPostgres
from local.settings import StackSettings
from local.state import Home


@dataclass(frozen=True)
class Service:
    """One process of ours."""

    name: str
    argv: tuple[str, ...]
    url: str
    ready_url: str


def python(*arguments: str) -> tuple[str, ...]:
    """A module run by this interpreter; -P, because a folder `cli` in the current one is not ours."""
    return (sys.executable, "-P", "-m", *arguments)


def services(settings: StackSettings) -> tuple[Service, ...]:
    """All of them, in the order in which a change passes through."""

    def service(name: str, argv: tuple[str, ...], management: int, url: str = "") -> Service:
        at = f"http://{LOOPBACK}:{management}"
        return Service(name, argv, url or at, f"{at}/health/ready")

    admin, query = "producer_admin", "consumer_query"
    return (
        service("admin-api", python(admin, "api"), settings.admin_api_management_port, admin_url(settings)),
        service("admin-relay", python(admin, "relay"), settings.admin_relay_management_port),
        service("query-projector", python(query, "projector"), settings.query_projector_management_port),
        service("query-maintenance", python(query, "maintenance"), settings.query_maintenance_management_port),
        service("query-api", python(query, "api"), settings.query_api_management_port, query_url(settings)),
    )


def admin_url(settings: StackSettings) -> str:
    """Where this machine finds the Admin API."""
    return f"http://{_reachable(settings.admin_api_host)}:{settings.admin_api_port}"


def query_url(settings: StackSettings) -> str:
    """Where this machine finds the Query API."""
    return f"http://{_reachable(settings.query_api_host)}:{settings.query_api_port}"


def ports(settings: StackSettings) -> tuple[PortUse, ...]:
    """Every port that the stack listens on."""
    return (
        PortUse(settings.artstore_kafka_port, "Kafka", "ARTSTORE_KAFKA_PORT"),
        PortUse(settings.artstore_postgres_port, "Postgres", "ARTSTORE_POSTGRES_PORT"),
        PortUse(settings.admin_api_port, "Admin API", "ADMIN_API_PORT"),
        PortUse(settings.admin_api_management_port, "Admin API's health", "ADMIN_API_MANAGEMENT_PORT"),
        PortUse(settings.admin_relay_management_port, "relay's health", "ADMIN_RELAY_MANAGEMENT_PORT"),
        PortUse(settings.query_api_port, "Query API", "QUERY_API_PORT"),
        PortUse(settings.query_api_management_port, "Query API's health", "QUERY_API_MANAGEMENT_PORT"),
        PortUse(settings.query_projector_management_port, "projector's health", "QUERY_PROJECTOR_MANAGEMENT_PORT"),
        PortUse(
            settings.query_maintenance_management_port, "maintenance's health", "QUERY_MAINTENANCE_MANAGEMENT_PORT"
        ),
    )


def environment(
    settings: StackSettings, home: Home, kafka: EmbeddedKafka, postgres: EmbeddedPostgres
) -> dict[str, str]:
    """What every process of ours finds in its environment."""
    # Without bytecode that is kept, each process would take 4 s longer to start.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        **inherited,
        "ADMIN_API_HOST": settings.admin_api_host,
        "ADMIN_API_PORT": str(settings.admin_api_port),
        "ADMIN_API_URL": admin_url(settings),
        "ADMIN_API_MANAGEMENT_PORT": str(settings.admin_api_management_port),
        "ADMIN_RELAY_MANAGEMENT_PORT": str(settings.admin_relay_management_port),
        "QUERY_API_HOST": settings.query_api_host,
        "QUERY_API_PORT": str(settings.query_api_port),
        "QUERY_API_MANAGEMENT_PORT": str(settings.query_api_management_port),
        "QUERY_PROJECTOR_MANAGEMENT_PORT": str(settings.query_projector_management_port),
        "QUERY_MAINTENANCE_MANAGEMENT_PORT": str(settings.query_maintenance_management_port),
        "MANAGEMENT_HOST": LOOPBACK,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "FILE_EVENTS_TOPIC": settings.file_events_topic,
        "KAFKA_CONSUMER_GROUP": settings.kafka_consumer_group,
        "ADMIN_DATABASE_URL": postgres.url("artstore_admin"),
        "QUERY_DATABASE_URL": postgres.url("artstore_query"),
        "STORAGE_ELEMENT_URL": home.files.as_uri(),
        "STORAGE_ELEMENT_ID": settings.storage_element_id,
        "LOG_FORMAT": settings.log_format,
        "LOG_LEVEL": settings.log_level,
    }


def _reachable(host: str) -> str:
    return LOOPBACK if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound
