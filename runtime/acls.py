"""Each user of ours may do what its process does, and nothing else; what is allowed besides is an operator's to remove.

Kafka refuses what no ACL allows. To write or to read a topic or a group is also to describe it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from aiokafka.errors import KafkaError
from pydantic import SecretStr

from runtime.brokers import Brokers
from schemas.topics import DEAD_LETTERS, RESOLUTIONS, topic_name

Process = Literal["relay", "projector", "maintenance", "query-api"]
"""Those that know Kafka."""
Operation = Literal["Read", "Write", "Describe", "DescribeConfigs"]
Resource = Literal["topic", "group", "transactional-id"]

ANSWER_SECONDS: Final = 15.0


class Acl(NamedTuple):
    """One thing that a user may do, from any host."""

    user: str
    operation: Operation
    resource: Resource
    name: str
    is_prefix: bool
    """Whether it is for all that begin with the name."""

    @property
    def arguments(self) -> str:
        """What kafka-acls.sh takes behind --add."""
        pattern = "--resource-pattern-type prefixed " if self.is_prefix else ""
        return (
            f"--allow-principal 'User:{self.user}' --operation {self.operation} "
            f"{pattern}--{self.resource} '{self.name}'"
        )


class AclError(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The ACLs could not be made."""

    def __str__(self) -> str:
        return str(self.args[0])


def acls(users: Mapping[Process, str], file_events: str, group: str) -> list[Acl]:
    """The least that the processes need, each once: one user may run several.

    Args:
        users: by process; those that are not named get nothing
        file_events: the topic of file events, after which the others are named
        group: of the projectors
    """
    letters, resolutions = topic_name(DEAD_LETTERS, file_events), topic_name(RESOLUTIONS, file_events)
    reading: list[tuple[Operation, Resource, str]] = [
        ("Read", "topic", file_events),
        # How long it keeps deletions, without which a cache cannot be trusted for longer than a day.
        ("DescribeConfigs", "topic", file_events),
        ("Write", "topic", letters),
    ]
    needs: Mapping[Process, Sequence[tuple[Operation, Resource, str]]] = {
        # Of the transactional ids, those of `publisher.py` alone: who has one shuts out whoever had it.
        "relay": [("Write", "topic", file_events), ("Write", "transactional-id", f"{file_events}.relay-")],
        "projector": [*reading, ("Read", "group", group)],
        "maintenance": reading,
        "query-api": [
            ("Read", "topic", file_events),
            ("Describe", "group", group),
            ("Read", "topic", letters),
            ("Read", "topic", resolutions),
            ("Write", "topic", resolutions),
        ],
    }
    made = [
        Acl(user, operation, resource, name, resource == "transactional-id")
        for process, user in users.items()
        for operation, resource, name in needs[process]
    ]
    return list(dict.fromkeys(made))


def ensure_acls(brokers: Brokers, wanted: Sequence[Acl]) -> list[tuple[Acl, bool]]:
    """Make those that are missing; each, and whether it was made. Safe to run twice, and twice at once.

    Raises:
        AclError: the client that can do it is not installed, or the broker refuses or is silent for ANSWER_SECONDS.
    """
    try:
        from confluent_kafka import KafkaException  # noqa: PLC0415 - an extra
        from confluent_kafka.admin import AclBinding, AclBindingFilter, AdminClient  # noqa: PLC0415
    except ImportError as error:
        raise AclError("ACLs need confluent-kafka: install artstore-file-events[kafka-admin].") from error
    with AdminClient(_configuration(brokers)) as admin:
        try:
            asked = [admin.describe_acls(AclBindingFilter(*_binding(one))) for one in wanted]
            found = [bool(answer.result(ANSWER_SECONDS)) for answer in asked]
            missing = [AclBinding(*_binding(one)) for one, is_there in zip(wanted, found, strict=True) if not is_there]
            for made in admin.create_acls(missing).values() if missing else ():
                made.result(ANSWER_SECONDS)
        except KafkaException as error:
            fault = error.args[0]
            # What a broker says of its own accord may be long, and about its inside.
            raise AclError(f"The broker makes no ACLs: {fault.name()}: {fault.str():.150}") from error
        except TimeoutError as error:
            raise AclError(f"The broker did not answer within {ANSWER_SECONDS:g} s.") from error
    return [(one, not is_there) for one, is_there in zip(wanted, found, strict=True)]


def _binding(acl: Acl) -> tuple[str, str, str, str, str, str, str]:
    """In the order and the words of the client."""
    return (
        acl.resource.replace("-", "_"),
        acl.name,
        "prefixed" if acl.is_prefix else "literal",
        f"User:{acl.user}",
        "*",
        "describe_configs" if acl.operation == "DescribeConfigs" else acl.operation,
        "allow",
    )


def _configuration(brokers: Brokers) -> dict[str, Any]:
    """What the settings are called in librdkafka."""
    settings: dict[str, Any] = {
        "bootstrap.servers": brokers.servers,
        "security.protocol": brokers.security_protocol,
        "sasl.mechanisms": brokers.sasl_mechanism,
        "sasl.username": brokers.sasl_username,
        "sasl.password": brokers.sasl_password,
        "ssl.ca.location": brokers.ssl_ca_file,
        "ssl.certificate.location": brokers.ssl_certificate_file,
        "ssl.key.location": brokers.ssl_key_file,
        "ssl.key.password": brokers.ssl_key_password,
        "sasl.oauthbearer.method": "oidc" if brokers.oauth_token_url else None,
        "sasl.oauthbearer.token.endpoint.url": brokers.oauth_token_url,
        "sasl.oauthbearer.client.id": brokers.oauth_client_id,
        "sasl.oauthbearer.client.secret": brokers.oauth_client_secret,
        "sasl.oauthbearer.scope": brokers.oauth_scope,
    }
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in settings.items()
        if value is not None
    }
