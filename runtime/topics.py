"""A topic on a broker is made from its card, never changed behind an operator's back, and differences are named.

The number of partitions is not repaired: it decides where a key's revisions are ordered, so changing it would break
the order of every file's history. Settings are reported, with the reason that the card gives, and left to an operator.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from runtime.brokers import AnyBrokers
from runtime.kafka import admin_client, partition_count
from schemas.topics import TopicCard, cards, topic_name

MOST_REPLICAS: Final = 3
"""One may be down for repair and another fail, and every acknowledged record is still there."""
SETTLE_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Drift:
    """One way in which a broker's topic differs from its card."""

    setting: str
    expected: str
    found: str
    why: str


@dataclass(frozen=True)
class EnsuredTopic:
    """What `ensure_topic` found or made."""

    name: str
    created: bool
    drift: tuple[Drift, ...]


class TopicError(Exception):
    """The broker refused to make or describe a topic."""


def drift(card: TopicCard, partitions: int, config: Mapping[str, str]) -> tuple[Drift, ...]:
    """Compare a card with what a broker says."""
    found = []
    if partitions != card.partitions:
        why = "The partition of a key decides the order of its revisions; make a new topic instead of changing it."
        found.append(Drift("partitions", str(card.partitions), str(partitions), why))
    for name, setting in card.config.items():
        if config.get(name) != setting.value:
            found.append(Drift(name, setting.value, config.get(name, "unset"), setting.why))
    return tuple(found)


async def ensure_topic(
    bootstrap_servers: AnyBrokers, card: TopicCard, *, name: str | None = None, replication_factor: int | None = None
) -> EnsuredTopic:
    """Make the topic unless it exists, then compare it with its card. Safe to run twice at once.

    Args:
        bootstrap_servers: brokers to ask first
        card: what the topic should be
        name: another name for the topic than the card's
        replication_factor: copies of each partition; None is three, or as many as there are brokers

    Raises:
        TopicError: the broker refused, with its reason.
        aiokafka.errors.KafkaError: the broker is away.
    """
    topic = name or card.name
    async with admin_client(bootstrap_servers) as admin:
        brokers = len((await admin.describe_cluster())["brokers"])
        created = await _create(admin, topic, card, replication_factor or min(MOST_REPLICAS, brokers))
        partitions = await _known_partitions(admin, topic)
        return EnsuredTopic(topic, created, drift(card, partitions, await topic_config(admin, topic)))


async def ensure_topics(
    bootstrap_servers: AnyBrokers, file_events: str, *, replication_factor: int | None = None
) -> list[EnsuredTopic]:
    """Make every topic that has a card, named after that of the file events. Raises as `ensure_topic` does."""
    return await asyncio.gather(
        *(
            ensure_topic(
                bootstrap_servers, card, name=topic_name(card.name, file_events), replication_factor=replication_factor
            )
            for card in cards().values()
        )
    )


async def topic_config(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    """A topic's settings as they hold on its broker, by name.

    Raises:
        aiokafka.errors.KafkaError: the broker is away, or does not say.
    """
    answers: list[Any] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    entries = answers[0].resources[0][4]
    return {entry[0]: entry[1] for entry in entries}


async def _create(admin: AIOKafkaAdminClient, topic: str, card: TopicCard, replication_factor: int) -> bool:
    settings = {key: setting.value for key, setting in card.config.items()}
    answer = await admin.create_topics([NewTopic(topic, card.partitions, replication_factor, topic_configs=settings)])
    for _, code, message in answer.topic_errors:
        error = for_code(code)
        if error is TopicAlreadyExistsError:
            return False
        if code:
            raise TopicError(f"The broker refused to make {topic}: {message or error.__name__}")
    return True


async def _known_partitions(admin: AIOKafkaAdminClient, topic: str) -> int:
    """The number of partitions, once the broker has heard of the topic that its controller made a moment ago."""
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            while not (count := await partition_count(admin, topic)):  # noqa: ASYNC110 - nothing to wait on
                await asyncio.sleep(0.05)
            return count
    except TimeoutError as error:
        raise TopicError(f"{topic} was made, but its broker did not hear of it in {SETTLE_SECONDS:g} s.") from error
