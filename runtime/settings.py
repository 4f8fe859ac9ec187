"""The environment is read once, at start, into a frozen value that is passed down.

A field's name in upper case is the variable's name. `.env.example` lists them all; a test compares.
"""

import sys
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class ProcessSettings(BaseSettings):
    """What every process of either service reads."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "json"
    management_host: str = Field("127.0.0.1", description="Where health and metrics are answered.")
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        pattern=r"^(https?://.+)?$",
        description="Base URL of a collector of traces, OTLP over HTTP. Unset or empty: no traces.",
    )
    otel_traces_sampler_arg: float = Field(
        1.0, ge=0, le=1, description="Share of traces that begin here; those that a client began go as it says."
    )


class KafkaSettings(BaseSettings):
    """How to reach the broker, and the topic that joins the services."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    kafka_bootstrap_servers: str = Field(description="host:port, several joined by commas.")
    file_events_topic: str = "artstore.file-events"


def say_refused(error: ValidationError) -> None:
    """Name each variable that is missing or refused on standard error, and why."""
    for one in error.errors():
        sys.stderr.write(f"{'.'.join(map(str, one['loc'])).upper()}: {one['msg']}\n")
