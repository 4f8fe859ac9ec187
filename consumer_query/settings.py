"""What the Query processes read from the environment, each only what it needs."""

from pydantic import Field, PositiveInt, SecretStr

from runtime.settings import KafkaSettings, ProcessSettings


class QueryDatabaseSettings(ProcessSettings):
    """Enough to migrate."""

    query_database_url: SecretStr = Field(description="postgresql://user:password@host:port/artstore_query")


class QueryApiSettings(QueryDatabaseSettings):
    """The search API. It does not know Kafka."""

    query_api_host: str = "127.0.0.1"
    query_api_port: int = 8030
    query_api_management_port: int = 8031


class ProjectorSettings(QueryDatabaseSettings, KafkaSettings):
    """The projector: topic to rows."""

    query_projector_management_port: int = 8032
    kafka_consumer_group: str = "query-module-consumers"
    event_subscribe_enabled: bool = Field(
        default=True, description="false stops applying; search goes on from what is there."
    )
    cache_sync_batch_size: PositiveInt = Field(2000, description="Records in one transaction at most.")
    schema_registry_url: str | None = Field(None, description="Asked for schemas of records in Confluent framing.")
