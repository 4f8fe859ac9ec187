"""The environment is read once, at start, into a frozen value that is passed down.

A field's name in upper case is the variable's name. `.env.example` lists them all; a test compares. What the
environment does not say may stand in a file of the folder SECRETS_DIR, so that no password need be in the environment.
"""

import os
import sys
from dataclasses import fields
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    DirectoryPath,
    Field,
    FilePath,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from runtime.brokers import Brokers, SaslMechanism, SecurityProtocol

EmptyIsUnset = BeforeValidator(lambda value: value or None)
"""For what a deployment passes on whether it has it or not."""

PlainUrl = Annotated[str, Field(pattern=r"^(https?://[^@/?#\s]+(/[^?#\s]*)?)?$")]
"""The place of an API of ours, which is told to others: it holds no password."""


class Settings(BaseSettings):
    """Read from the environment, or else from the file in SECRETS_DIR that has the field's name."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    secrets_dir: DirectoryPath | None = Field(None, description="A folder of files named as settings, in lower case.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there is no such file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - its folder would be known too early
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over files. A folder that is not there is refused as the setting that it is."""
        folder = os.environ.get("SECRETS_DIR")
        files = [SecretsSettingsSource(settings_cls, folder)] if folder and Path(folder).is_dir() else []
        return (init_settings, env_settings, *files)


class ProcessSettings(Settings):
    """What every process of either service reads."""

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


class HttpSettings(Settings):
    """What an API takes from its clients, beside the bounds that are the same everywhere (docs/security.md)."""

    rate_limit_per_second: float = Field(
        0.0,
        ge=0,
        le=1e6,
        description="Requests of one client on the average, in this process; more answer 429. 0: any.",
    )
    rate_limit_burst: PositiveInt = Field(50, description="Requests of one client at once, if there is a limit.")
    cors_allowed_origins: str = Field(
        "", description="Of pages whose scripts may use the API, such as https://files.example.org, joined by commas."
    )
    trusted_proxies: str = Field(
        "", description="Addresses and networks whose X-Forwarded-For is believed, joined by commas."
    )
    http_max_connections: PositiveInt = Field(800, description="At once; more answer 503. Keep it below ulimit -n.")

    @property
    def origins(self) -> list[str]:
        """Of pages whose scripts may use the API."""
        return [one.strip().rstrip("/") for one in self.cors_allowed_origins.split(",") if one.strip()]


class KafkaAccessSettings(Settings):
    """As whom and how safely the brokers are spoken to. Unset or empty is the same."""

    model_config = SettingsConfigDict(hide_input_in_errors=True)

    kafka_security_protocol: SecurityProtocol = Field("PLAINTEXT", description="SASL_… logs in, …SSL uses TLS.")
    kafka_sasl_mechanism: Annotated[SaslMechanism | None, EmptyIsUnset] = Field(
        None, description="How SASL logs in: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER."
    )
    kafka_sasl_username: Annotated[str | None, EmptyIsUnset] = Field(None, description="Of this process alone.")
    kafka_sasl_password: Annotated[SecretStr | None, EmptyIsUnset] = Field(None, description="ASCII.")
    kafka_ssl_ca_file: Annotated[FilePath | None, EmptyIsUnset] = Field(
        None, description="PEM; who may have signed the brokers' certificates. Unset: whom this machine trusts."
    )
    kafka_ssl_certificate_file: Annotated[FilePath | None, EmptyIsUnset] = Field(
        None, description="PEM; a certificate of this process, where brokers ask for one."
    )
    kafka_ssl_key_file: Annotated[FilePath | None, EmptyIsUnset] = Field(None, description="PEM; its key.")
    kafka_ssl_key_password: Annotated[SecretStr | None, EmptyIsUnset] = Field(None, description="Of the key.")
    kafka_oauth_token_url: Annotated[str | None, EmptyIsUnset] = Field(
        None, description="Where OAUTHBEARER gets tokens, by client credentials."
    )
    kafka_oauth_client_id: Annotated[str | None, EmptyIsUnset] = Field(None, description="Of this process alone.")
    kafka_oauth_client_secret: Annotated[SecretStr | None, EmptyIsUnset] = None
    kafka_oauth_scope: Annotated[str | None, EmptyIsUnset] = Field(None, description="Asked for with a token.")

    def brokers_at(self, servers: str) -> Brokers:
        """Brokers that are spoken to as these settings say.

        Raises:
            ValueError: they contradict each other.
        """
        access = {one.name: getattr(self, f"kafka_{one.name}") for one in fields(Brokers) if one.name != "servers"}
        return Brokers(servers, **access)

    @model_validator(mode="after")
    def _require_agreement(self) -> Self:
        self.brokers_at("")
        if self.kafka_oauth_token_url is not None:
            require_private(self.kafka_oauth_token_url, "KAFKA_OAUTH_TOKEN_URL")
        return self


class KafkaSettings(KafkaAccessSettings):
    """How to reach the broker, and the topic that joins the services."""

    kafka_bootstrap_servers: str = Field(description="host:port, several joined by commas.")
    file_events_topic: str = "artstore.file-events"

    @cached_property
    def brokers(self) -> Brokers:
        """For every Kafka client of the process."""
        return self.brokers_at(self.kafka_bootstrap_servers)


class AuthSettings(Settings):
    """Whom an API lets in (docs/auth.md)."""

    model_config = SettingsConfigDict(hide_input_in_errors=True)

    auth_mode: Literal["off", "jwt"] = Field(
        "off", description="jwt: each request needs a token. off: everybody may do everything; on the loopback only."
    )
    auth_issuer: Annotated[str | None, EmptyIsUnset] = Field(None, description="That tokens must name, to the letter.")
    auth_audience: Annotated[str | None, EmptyIsUnset] = Field(None, description="Likewise: what we are to the issuer.")
    auth_jwks_url: Annotated[str | None, EmptyIsUnset] = Field(
        None, description="Of the issuer's keys. Unset: the issuer's /.well-known/openid-configuration says it."
    )
    auth_key_file: Annotated[Path | None, EmptyIsUnset] = Field(
        None, description="JWKS, PEM public key or PEM certificate, instead of a URL. Read again when it changes."
    )
    auth_leeway_seconds: float = Field(30, ge=0, le=300, description="That the issuer's clock and ours may differ by.")

    @model_validator(mode="after")
    def _let_no_one_in(self) -> Self:
        if self.auth_mode == "off":
            for name in type(self).model_fields:
                if name.endswith("_api_host") and not is_loopback(host := getattr(self, name)):
                    raise ValueError(
                        f"{name.upper()}={host} lets other machines in, and AUTH_MODE=off lets them do everything. "
                        "Set AUTH_MODE=jwt, AUTH_ISSUER and AUTH_AUDIENCE (docs/auth.md), or listen on 127.0.0.1."
                    )
            return self
        if self.auth_issuer is None or self.auth_audience is None:
            raise ValueError(
                "AUTH_MODE=jwt needs AUTH_ISSUER and AUTH_AUDIENCE: a token must be of one, for the other."
            )
        if self.auth_key_file is None:
            require_private(
                self.auth_jwks_url or self.auth_issuer, "AUTH_JWKS_URL" if self.auth_jwks_url else "AUTH_ISSUER"
            )
        return self


class ServiceTokenSettings(Settings):
    """What this process shows to the other module's API, where that has AUTH_MODE=jwt."""

    model_config = SettingsConfigDict(hide_input_in_errors=True)

    auth_token_url: Annotated[str | None, EmptyIsUnset] = Field(
        None, description="Where this process gets its own tokens, by client credentials."
    )
    auth_client_id: Annotated[str | None, EmptyIsUnset] = Field(None, description="Of this process, at the issuer.")
    auth_client_secret: Annotated[SecretStr | None, EmptyIsUnset] = None
    auth_token_scope: Annotated[str | None, EmptyIsUnset] = Field(
        "files:read sync:admin", description="Asked for with a token. Empty: what the issuer gives by itself."
    )
    auth_token_file: Annotated[Path | None, EmptyIsUnset] = Field(
        None, description="A token that somebody else renews, instead of a URL: read anew for each request."
    )

    @model_validator(mode="after")
    def _require_one_way(self) -> Self:
        client = (self.auth_client_id, self.auth_client_secret)
        if self.auth_token_url is None:
            if client != (None, None):
                raise ValueError("AUTH_CLIENT_ID and AUTH_CLIENT_SECRET are for AUTH_TOKEN_URL, which is not set.")
            return self
        if None in client:
            raise ValueError("AUTH_TOKEN_URL needs AUTH_CLIENT_ID and AUTH_CLIENT_SECRET.")
        if self.auth_token_file is not None:
            raise ValueError("AUTH_TOKEN_URL and AUTH_TOKEN_FILE exclude each other.")
        require_private(self.auth_token_url, "AUTH_TOKEN_URL")
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_private(url: str, name: str) -> None:
    """Return when nobody on the way can read or forge what a URL answers.

    Raises:
        ValueError: it is no such URL; names the setting.
    """
    parts = urlsplit(url)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))):
        raise ValueError(f"{name} is not an https:// URL; http:// is for the loopback alone.")


def say_refused(error: ValidationError) -> None:
    """Name each variable that is missing or refused on standard error, and why."""
    for one in error.errors():
        # What settings contradict among themselves has no name of its own; its sentence has theirs.
        name = ".".join(map(str, one["loc"])).upper()
        sys.stderr.write(f"{name and name + ': '}{one['msg'].removeprefix('Value error, ')}\n")
