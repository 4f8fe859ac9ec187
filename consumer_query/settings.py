"""What the Query processes read from the environment, each only what it needs."""

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr

from runtime.settings import KafkaSettings, ProcessSettings


class QueryDatabaseSettings(ProcessSettings):
    """Enough to migrate."""

    query_database_url: SecretStr = Field(description="postgresql://user:password@host:port/artstore_query")


class QueryApiSettings(QueryDatabaseSettings):
    """The search API. Search does not need Kafka; only the routes for dead letters do."""

    query_api_host: str = "127.0.0.1"
    query_api_port: int = 8030
    query_api_management_port: int = 8031
    kafka_bootstrap_servers: str | None = Field(None, description="Where the dead letters are. Unset: not served.")
    file_events_topic: str = KafkaSettings.model_fields["file_events_topic"].default
    schema_registry_url: str | None = Field(
        None, description="Asked for schemas of dead letters, as the projector does."
    )
    admin_api_url: str | None = Field(None, description="Asked to announce a file anew instead of a dead letter.")


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
    kafka_session_timeout_ms: int = Field(
        10_000, ge=1_000, description="A projector that is silent for so long loses its partitions."
    )
    kafka_group_instance_id: str | None = Field(
        None, description="Static membership (KIP-345): unique and lasting for each projector."
    )
    schema_registry_url: str | None = Field(None, description="Asked for schemas of records in Confluent framing.")
