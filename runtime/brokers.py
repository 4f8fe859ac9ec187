"""Where the brokers are and how they are spoken to is one value, so no Kafka client of a process goes its own way.

What contradicts itself is refused when the value is made, before anything connects. It shows no secret, and may be
handed to another process, which opens certificates and asks for tokens anew.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from pydantic import SecretStr

if TYPE_CHECKING:
    from runtime.tokens import Tokens

SecurityProtocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]

_LOGIN: Final = ("sasl_username", "sasl_password")
_OAUTH: Final = ("oauth_token_url", "oauth_client_id", "oauth_client_secret")
_TLS: Final = ("ssl_ca_file", "ssl_certificate_file", "ssl_key_file", "ssl_key_password")


@dataclass(frozen=True)
class Brokers:
    """Field by field what the settings KAFKA_… say.

    Raises:
        ValueError: they contradict each other, or a certificate cannot be used; names the settings, no secret.
    """

    servers: str
    security_protocol: SecurityProtocol = "PLAINTEXT"
    sasl_mechanism: SaslMechanism | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_file: Path | None = None
    ssl_certificate_file: Path | None = None
    ssl_key_file: Path | None = None
    ssl_key_password: SecretStr | None = None
    oauth_token_url: str | None = None
    oauth_client_id: str | None = None
    oauth_client_secret: SecretStr | None = None
    oauth_scope: str | None = None

    def __post_init__(self) -> None:
        if refused := self._contradiction():
            raise ValueError(refused)
        if self.uses_tls:
            _ = self._context

    def __getstate__(self) -> Mapping[str, Any]:
        """Leave out what was made of the fields: an open certificate store cannot be copied."""
        return {name: value for name, value in self.__dict__.items() if name in self.__dataclass_fields__}

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted, and the broker's certificate and host name are checked."""
        return self.security_protocol.endswith("SSL")

    @property
    def logs_in(self) -> bool:
        """Whether the broker is told a user over SASL."""
        return self.security_protocol.startswith("SASL")

    def client_options(self) -> dict[str, Any]:
        """What every client of aiokafka is made with."""
        options: dict[str, Any] = {"bootstrap_servers": self.servers, "security_protocol": self.security_protocol}
        if self.uses_tls:
            options["ssl_context"] = self._context
        if self.logs_in:
            options["sasl_mechanism"] = self.sasl_mechanism
            if self.sasl_mechanism == "OAUTHBEARER":
                options["sasl_oauth_token_provider"] = self._tokens
            else:
                options["sasl_plain_username"] = self.sasl_username
                options["sasl_plain_password"] = _revealed(self.sasl_password)
        return options

    def _contradiction(self) -> str | None:
        """The first thing that is missing, or has no use here and so shows that something else was meant."""
        by = f"KAFKA_SECURITY_PROTOCOL={self.security_protocol}"
        if not self.uses_tls and (idle := self._given(_TLS)):
            return f"{_named(idle[0])} is set, but {by} uses no TLS: take SSL or SASL_SSL."
        if not self.logs_in:
            idle = self._given(("sasl_mechanism", *_LOGIN, *_OAUTH, "oauth_scope"))
            return f"{_named(idle[0])} is set, but {by} does not log in: take SASL_SSL." if idle else None
        if self.sasl_mechanism is None:
            return f"KAFKA_SASL_MECHANISM is needed with {by}."
        is_oauth = self.sasl_mechanism == "OAUTHBEARER"
        needed, useless = (_OAUTH, _LOGIN) if is_oauth else (_LOGIN, (*_OAUTH, "oauth_scope"))
        by = f"KAFKA_SASL_MECHANISM={self.sasl_mechanism}"
        if missing := [name for name in needed if name not in self._given(needed)]:
            return f"{_named(missing[0])} is needed with {by}."
        if idle := self._given(useless):
            return f"{_named(idle[0])} is set, but {by} does not use it."
        return None

    def _given(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if getattr(self, name) is not None]

    @cached_property
    def _context(self) -> ssl.SSLContext:
        if self.ssl_key_password is not None and self.ssl_key_file is None:
            raise ValueError("KAFKA_SSL_KEY_PASSWORD is set without KAFKA_SSL_KEY_FILE.")
        if (self.ssl_certificate_file is None) != (self.ssl_key_file is None):
            raise ValueError("KAFKA_SSL_CERTIFICATE_FILE and KAFKA_SSL_KEY_FILE are needed together.")
        try:
            context = ssl.create_default_context(cafile=self.ssl_ca_file)
        except OSError as error:
            raise ValueError(f"KAFKA_SSL_CA_FILE {self.ssl_ca_file} cannot be used: {error}") from error
        if self.ssl_certificate_file is not None:
            # Without a password of our own, OpenSSL would ask for one on the terminal.
            password = _revealed(self.ssl_key_password) or ""
            try:
                context.load_cert_chain(self.ssl_certificate_file, self.ssl_key_file, password)
            except OSError as error:
                raise ValueError(
                    f"KAFKA_SSL_CERTIFICATE_FILE {self.ssl_certificate_file} with its key cannot be used: {error}"
                ) from error
        return context

    @cached_property
    def _tokens(self) -> "Tokens":
        from runtime.tokens import Tokens  # noqa: PLC0415 - httpx is read by those alone who need it

        assert self.oauth_token_url and self.oauth_client_id and self.oauth_client_secret  # noqa: S101, PT018 - checked
        return Tokens(self.oauth_token_url, self.oauth_client_id, self.oauth_client_secret, self.oauth_scope)


AnyBrokers: TypeAlias = Brokers | str
"""A plain host:port is a broker that lets everybody in."""


def client_options(brokers: AnyBrokers) -> dict[str, Any]:
    """What a client of aiokafka is made with."""
    return (Brokers(brokers) if isinstance(brokers, str) else brokers).client_options()


def _named(field: str) -> str:
    return f"KAFKA_{field.upper()}"


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
