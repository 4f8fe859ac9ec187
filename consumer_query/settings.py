"""What the Query processes read from the environment, each only what it needs."""

from functools import cached_property
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, SecretStr

from runtime.brokers import Brokers
from runtime.settings import (
    AuthSettings,
    HttpSettings,
    KafkaAccessSettings,
    KafkaSettings,
    PlainUrl,
    ProcessSettings,
    ServiceTokenSettings,
)


class QueryDatabaseSettings(ProcessSettings):
    """Enough to migrate."""

    query_database_url: SecretStr = Field(description="postgresql://user:password@host:port/artstore_query")


class QueryApiSettings(QueryDatabaseSettings, HttpSettings, KafkaAccessSettings, AuthSettings, ServiceTokenSettings):
    """The search API. Search does not need Kafka; only the routes for dead letters and lag do."""

    query_search_database_url: SecretStr | None = Field(
        None, description="The same database for searches alone, by a role that only reads. Unset: query_database_url."
    )
    query_api_host: str = "127.0.0.1"
    query_api_port: int = 8030
    query_api_management_port: int = 8031
    kafka_bootstrap_servers: str | None = Field(
        None, description="Where the dead letters are, and the lag is told. Unset: neither is served."
    )
    file_events_topic: str = KafkaSettings.model_fields["file_events_topic"].default
    kafka_consumer_group: str = Field("query-module-consumers", description="The projectors', whose lag is watched.")
    schema_registry_url: str | None = Field(
        None, description="Asked for schemas of dead letters, as the projector does."
    )
    admin_api_url: PlainUrl | None = Field(
        None, description="Asked to announce a file anew instead of a dead letter, and how far a file's changes are."
    )
    admin_public_url: PlainUrl | None = Field(
        None,
        description="Where clients reach the Admin API, in links to content. Unset: as admin_api_url, or relative.",
    )
    search_timeout_seconds: PositiveFloat = Field(
        2.0, description="A search that takes the database longer is stopped: statement_timeout of its sessions."
    )

    @cached_property
    def brokers(self) -> Brokers | None:
        """For every Kafka client of the process; None where the settings do not say where Kafka is."""
        return None if self.kafka_bootstrap_servers is None else self.brokers_at(self.kafka_bootstrap_servers)


class MaintenanceSettings(QueryDatabaseSettings, KafkaSettings, ServiceTokenSettings):
    """Rebuilds, and the comparison with the Admin module."""

    query_maintenance_management_port: int = 8034
    kafka_consumer_group: str = "query-module-consumers"
    schema_registry_url: str | None = Field(None, description="Asked for schemas of records in Confluent framing.")
    admin_api_url: PlainUrl | None = Field(None, description="Asked which side is right where two generations differ.")
    dead_letter_max_share: PositiveFloat = Field(
        0.5, description="Of the last 500 records; when more are bad, none is put aside. Above 1: no limit."
    )
    rebuild_readers: PositiveInt = Field(2, description="Processes that load at once; each takes a core.")
    rebuild_index_memory: str = Field("512MB", description="maintenance_work_mem while indexes are made.")
    rebuild_keep_hours: PositiveFloat = Field(
        24.0, description="How long the previous generation is kept for a rollback."
    )
    sync_interval_seconds: NonNegativeInt = Field(
        3600, description="Between full syncs, which compare the cache with the Admin module; 0 is never."
    )
    lexemes_interval_seconds: NonNegativeInt = Field(
        3600, description="Until a few changes make lexemes be counted anew; many do so at once. 0 is never."
    )


class ProjectorSettings(QueryDatabaseSettings, KafkaSettings):
    """The projector: topic to rows."""

    query_projector_management_port: int = 8032
    kafka_consumer_group: str = "query-module-consumers"
    event_subscribe_enabled: bool = Field(
        default=True, description="false stops applying; search goes on from what is there."
    )
    cache_sync_batch_size: PositiveInt = Field(2000, description="Records in one transaction at most.")
    cache_sync_lanes: PositiveInt = Field(
        3, description="Transactions at once in a backlog; fresh records have one more."
    )
    dead_letter_max_share: PositiveFloat = Field(
        0.5, description="Of the last 500 records; when more are bad, none is put aside. Above 1: no limit."
    )
    cache_guard: Literal["rebuild", "demand"] = Field(
        "rebuild", description="What becomes of a doubt about the cache: a rebuild is begun, or demanded of people."
    )
    kafka_session_timeout_ms: int = Field(
        10_000, ge=1_000, description="A projector that is silent for so long loses its partitions."
    )
    kafka_group_instance_id: str | None = Field(
        None, description="Unique, and kept when it is started again after a crash (KIP-345): the pod's name, say."
    )
    schema_registry_url: str | None = Field(None, description="Asked for schemas of records in Confluent framing.")
