"""What the Admin processes read from the environment, each only what it needs."""

from pydantic import Field, PositiveInt, SecretStr

from runtime.settings import AuthSettings, HttpSettings, KafkaSettings, PlainUrl, ProcessSettings


class AdminDatabaseSettings(ProcessSettings):
    """Enough to migrate."""

    admin_database_url: SecretStr = Field(description="postgresql://user:password@host:port/artstore_admin")


class AdminApiSettings(AdminDatabaseSettings, HttpSettings, AuthSettings):
    """The REST API and the saga. It does not know Kafka."""

    admin_api_host: str = "127.0.0.1"
    admin_api_port: int = 8010
    admin_api_management_port: int = 8011
    storage_element_id: str = "se-01"
    storage_element_url: str = Field(description="file:///folder, s3://bucket/prefix, gs://… or az://….")
    storage_check_seconds: PositiveInt = Field(10, description="Between checks of each storage element's health.")
    admin_public_url: PlainUrl | None = Field(None, description="Where clients reach this API; in links to content.")
    max_upload_bytes: PositiveInt = Field(5 * 2**40, description="Larger uploads answer 413.")
    max_name_characters: int = Field(255, ge=1, le=255, description="Of a file's name; a longer one answers 422.")
    max_description_characters: int = Field(10_000, ge=0, le=10_000, description="A longer one answers 422.")
    max_tags: int = Field(100, ge=0, le=100, description="Of one file; more answer 422.")
    max_tag_characters: int = Field(100, ge=1, le=100, description="Of one tag; a longer one answers 422.")
    retention_sweep_seconds: PositiveInt = Field(60, description="How soon an expired file is deleted.")
    idempotency_keep_hours: PositiveInt = Field(48, description="How long a retry gets the first answer.")
    saga_keep_days: PositiveInt = Field(30, description="How long sagas that ended can be looked up.")


class RepairSettings(AdminDatabaseSettings):
    """Backfill and republish: they fill the outbox, and need to know whether anybody empties it."""

    event_publish_enabled: bool = Field(default=True, description="false: do not wait for the relay to make room.")


class RelaySettings(AdminDatabaseSettings, KafkaSettings):
    """The relay: outbox to topic."""

    admin_relay_management_port: int = 8012
    event_publish_enabled: bool = Field(default=True, description="false holds events in the outbox; none is lost.")
    relay_batch_size: PositiveInt = Field(2000, description="Outbox rows in one Kafka transaction at most.")
    relay_batch_bytes: PositiveInt = Field(2**20, description="Payload in one Kafka transaction at most.")
    relay_in_flight: PositiveInt = Field(12, description="Kafka transactions at once, over all shards.")
    outbox_audit_days: PositiveInt = Field(30, description="How long sent events stay in the audit log.")
