"""A broker that lets in only those who log in over TLS, and lets them do only what ACLs say; certificates for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from local.kafka import START_SECONDS, EmbeddedKafka
from local.ports import LOOPBACK, answers, free_port
from local.process import Child
from runtime.acls import _configuration
from runtime.brokers import Brokers

ADMIN: Final = "admin"
AUDIENCE: Final = "kafka"
REAUTHENTICATE_SECONDS: Final = 2
"""How long a login by token lasts."""


def password(user: str) -> str:
    return f"secret of {user}"


@dataclass(frozen=True)
class Authority:
    """A certificate authority of its own. Files are made in `folder`."""

    folder: Path
    name: str = "authority"

    def __post_init__(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self._write(f"{self.name}.key", _private(key))
        self._write(self.file.name, _signed(self.name, key.public_key(), self.name, key, ca=True))

    @property
    def file(self) -> Path:
        """Its certificate, as PEM."""
        return self.folder / f"{self.name}.pem"

    def certify(self, name: str, *addresses: str) -> Path:
        """A key and a certificate of it for these addresses, in one PEM file."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = serialization.load_pem_private_key((self.folder / f"{self.name}.key").read_bytes(), None)
        assert isinstance(authority, ec.EllipticCurvePrivateKey)
        certificate = _signed(name, key.public_key(), self.name, authority, *addresses)
        return self._write(f"{name}.pem", _private(key) + certificate + self.file.read_bytes())

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


class SecureKafka(EmbeddedKafka):
    """SASL_SSL with SCRAM-SHA-512 and OAUTHBEARER on 127.0.0.1, for which alone its certificate is.

    Args:
        home: its folder
        users: who may log in, besides the super user
        jwks: of the issuer of tokens for AUDIENCE; a file
        issuer: its name
    """

    protocol = "SASL_SSL"

    def __init__(self, home: Path, users: Sequence[str], jwks: Path, issuer: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(home)
        self.format_arguments = [
            f"--add-scram=SCRAM-SHA-512=[name={user},password={password(user)}]" for user in (ADMIN, *users)
        ]
        self.jvm_arguments = [f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={jwks.as_uri()}"]
        security = "org.apache.kafka.common.security"
        scram = f'{security}.scram.ScramLoginModule required username="{ADMIN}" password="{password(ADMIN)}";'
        oauth = "listener.name.sasl_ssl.oauthbearer"
        super().__init__(
            home,
            free_port(),
            properties={
                "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
                "inter.broker.listener.name": "SASL_SSL",
                "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
                "sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": scram,
                f"{oauth}.sasl.jaas.config": f"{security}.oauthbearer.OAuthBearerLoginModule required;",
                f"{oauth}.sasl.server.callback.handler.class": (
                    f"{security}.oauthbearer.OAuthBearerValidatorCallbackHandler"
                ),
                f"{oauth}.sasl.oauthbearer.jwks.endpoint.url": jwks.as_uri(),
                f"{oauth}.sasl.oauthbearer.expected.audience": AUDIENCE,
                f"{oauth}.sasl.oauthbearer.expected.issuer": issuer,
                f"{oauth}.connections.max.reauth.ms": str(REAUTHENTICATE_SECONDS * 1000),
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self.authority.certify("broker", LOOPBACK)),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.authority.file),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                # Never killed here, and slow at times where all is encrypted: it must not be given up for that.
                "broker.session.timeout.ms": "30000",
                # Nobody is anonymous but on the controller's own port.
                "super.users": f"User:{ADMIN};User:ANONYMOUS",
            },
        )

    def wait_ready(self, child: Child) -> None:
        child.wait_until(lambda: answers(self.port) and self._serves(), START_SECONDS)

    def _serves(self) -> bool:
        with AdminClient(_configuration(self.brokers(ADMIN))) as client:
            try:
                return bool(client.list_topics(timeout=5).brokers)
            except KafkaException:
                return False

    def brokers(self, user: str) -> Brokers:
        """How a user reaches it."""
        return Brokers(
            self.bootstrap_servers,
            "SASL_SSL",
            "SCRAM-SHA-512",
            sasl_username=user,
            sasl_password=SecretStr(password(user)),
            ssl_ca_file=self.authority.file,
        )


def _signed(
    name: str,
    key: ec.EllipticCurvePublicKey,
    by: str,
    with_key: ec.EllipticCurvePrivateKey,
    *addresses: str,
    ca: bool = False,
) -> bytes:
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(by))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if addresses:
        names = [x509.IPAddress(ip_address(address)) for address in addresses]
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return made.sign(with_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
