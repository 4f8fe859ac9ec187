"""What the Admin processes read from the environment, each only what it needs."""

from pydantic import Field, PositiveInt, SecretStr

from runtime.settings import KafkaSettings, ProcessSettings


class AdminDatabaseSettings(ProcessSettings):
    """Enough to migrate."""

    admin_database_url: SecretStr = Field(description="postgresql://user:password@host:port/artstore_admin")


class AdminApiSettings(AdminDatabaseSettings):
    """The REST API and the saga. It does not know Kafka."""

    admin_api_host: str = "127.0.0.1"
    admin_api_port: int = 8010
    admin_api_management_port: int = 8011
    storage_element_id: str = "se-01"
    storage_element_url: str = Field(description="file:///absolute/folder")
    max_upload_bytes: PositiveInt = Field(5 * 2**40, description="Larger uploads answer 413.")


class RelaySettings(AdminDatabaseSettings, KafkaSettings):
    """The relay: outbox to topic."""

    admin_relay_management_port: int = 8012
    event_publish_enabled: bool = Field(default=True, description="false holds events in the outbox; none is lost.")
    relay_batch_size: PositiveInt = Field(500, description="Outbox rows in one Kafka transaction at most.")
