"""The environment of the one-machine mode, read once into a frozen value. A field in upper case is its variable."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from local.errors import LocalError
from local.ports import free_ports

CHECKOUT = Path(__file__).resolve().parent.parent

Port = Annotated[int, Field(ge=1, le=65535)]
Folder = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class CacheSettings(BaseSettings):
    """Where downloads are kept between checkouts."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    artstore_cache: Folder | None = None
    xdg_cache_home: Folder = Path("~/.cache")

    @property
    def folder(self) -> Path:
        """The cache folder; it may not exist yet."""
        return self.artstore_cache or self.xdg_cache_home.expanduser() / "artstore"


class StackSettings(CacheSettings):
    """Where the stack lives and listens. The processes' own variables keep their names."""

    artstore_home: Folder = CHECKOUT / ".artstore"
    artstore_kafka_port: Port = 9092
    artstore_postgres_port: Port = 54329
    admin_api_host: str = "127.0.0.1"
    admin_api_port: Port = 8010
    admin_api_management_port: Port = 8011
    admin_relay_management_port: Port = 8012
    query_api_host: str = "127.0.0.1"
    query_api_port: Port = 8030
    query_api_management_port: Port = 8031
    query_projector_management_port: Port = 8032
    query_maintenance_management_port: Port = 8034
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"
    storage_element_id: str = "se-01"
    file_events_topic: str = "artstore.file-events"
    kafka_consumer_group: str = "query-module-consumers"

    @classmethod
    def on_free_ports(cls, home: Path) -> Self:
        """A stack that is in nobody's way, with a home of its own.

        Raises:
            LocalError: another variable's value is refused.
        """
        ports = [name for name in cls.model_fields if name.endswith("_port")]
        return cls.read(artstore_home=home, **dict(zip(ports, free_ports(len(ports)), strict=True)))

    @classmethod
    def read(cls, **overrides: object) -> Self:
        """Read the environment; `overrides` win.

        Raises:
            LocalError: a variable's value is refused; the message names it.
        """
        try:
            return cls(**overrides)  # type: ignore[arg-type]
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0]).upper()
            raise LocalError(f"{name} is refused: {first['msg'].lower()} (found {first['input']!r}).") from error
