"""Where the tests' Kafka and Postgres come from. Both ways give the same thing, and a missing one fails the run."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from docker.errors import DockerException  # type: ignore[import-untyped]
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from local.kafka import EmbeddedKafka
from local.ports import free_port, free_ports
from local.postgres import EmbeddedPostgres

KAFKA_IMAGE = "apache/kafka:4.2.0"
POSTGRES_IMAGE = "postgres:18"
PASSWORD = "test"


@dataclass(frozen=True)
class Backend:
    """A broker and a Postgres, running."""

    bootstrap_servers: str
    postgres: str
    """postgresql://user:password@host:port, without a database."""

    def url(self, database: str) -> str:
        return f"{self.postgres}/{database}"


@contextmanager
def embedded(folders: pytest.TempPathFactory) -> Iterator[Backend]:
    """Servers from package registries, in temporary folders on free ports."""
    kafka = EmbeddedKafka(folders.mktemp("kafka"), free_port())
    postgres = EmbeddedPostgres(folders.mktemp("postgres"), free_port(), fsync=False)
    try:
        with postgres, kafka:
            yield Backend(kafka.bootstrap_servers, postgres.url("").rstrip("/"))
    finally:
        postgres.erase()


@contextmanager
def containers() -> Iterator[Backend]:
    """Servers from the official images, through Docker.

    ARTSTORE_TEST_NETWORK=host runs them in the host's network, for a Docker daemon without a bridge.
    """
    _require_docker()
    kafka_port, controller_port, postgres_port = free_ports(3)
    kafka = _container(KAFKA_IMAGE, kafka_port, "Kafka Server started").with_envs(
        KAFKA_NODE_ID="1",
        KAFKA_PROCESS_ROLES="broker,controller",
        KAFKA_CONTROLLER_QUORUM_VOTERS=f"1@127.0.0.1:{controller_port}",
        KAFKA_LISTENERS=f"PLAINTEXT://:{kafka_port},CONTROLLER://:{controller_port}",
        KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://127.0.0.1:{kafka_port}",
        KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
        KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
        KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR="1",
        KAFKA_TRANSACTION_STATE_LOG_MIN_ISR="1",
        KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS="0",
        KAFKA_AUTO_CREATE_TOPICS_ENABLE="false",
    )
    # The image first runs a server on a Unix socket to set it up, and the real one listens before it lets anybody in.
    ready = "(?s)listening on IPv4 address.*ready to accept connections"
    postgres = _container(POSTGRES_IMAGE, postgres_port, ready).with_envs(
        POSTGRES_PASSWORD=PASSWORD,
        PGPORT=str(postgres_port),
        POSTGRES_INITDB_ARGS="--locale-provider=builtin --builtin-locale=C.UTF-8",
    )
    with ExitStack() as running:
        running.enter_context(kafka)
        running.enter_context(postgres)
        yield Backend(f"127.0.0.1:{kafka_port}", f"postgresql://postgres:{PASSWORD}@127.0.0.1:{postgres_port}")


def _require_docker() -> None:
    try:
        DockerClient().client.close()
    except DockerException as error:
        missing = f"--backend=containers needs a Docker daemon, and none answers. {error}"
    else:
        return
    # Not in the handler, whose chain of exceptions would be printed with it.
    pytest.fail(missing, pytrace=False)


def _container(image: str, port: int, ready: str) -> DockerContainer:
    container = DockerContainer(image).waiting_for(LogMessageWaitStrategy(ready).with_startup_timeout(90))
    if network := os.environ.get("ARTSTORE_TEST_NETWORK"):
        return container.with_kwargs(network_mode=network)
    return container.with_bind_ports(port, port)
