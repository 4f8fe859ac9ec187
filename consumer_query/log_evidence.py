"""What a broker shows of the log: which cluster it is, how long it keeps tombstones, and what stands at an offset.

Each question has clients of its own, outside the group and with as much time as is given: whatever goes wrong here, the
projector's client is not touched by it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaError

from consumer_query.guards import KAFKA_RETENTION_SECONDS, Sighting, Witness, sighting_of
from runtime.brokers import AnyBrokers
from runtime.kafka import FETCH_BYTES, FETCH_WAIT_MS, REQUEST_TIMEOUT_MS, admin_client, plain_consumer
from runtime.topics import topic_config

SIGHT_SECONDS: Final = 3.0
"""For all witnesses together. What is not seen by then is not known, which is no harm."""
_POLL_MS: Final = 50

_log = structlog.get_logger()


class Facts(NamedTuple):
    """What holds for all partitions."""

    cluster_id: str | None
    retention_seconds: float
    """delete.retention.ms of the topic, or what is taken for it."""


class LogEvidence:
    """Asks about one topic.

    Args:
        bootstrap_servers: where the broker is
        topic: of file events
    """

    def __init__(self, bootstrap_servers: AnyBrokers, topic: str) -> None:
        self._servers = bootstrap_servers
        self._topic = topic
        self._retention_told = True

    async def facts(self) -> Facts:
        """Ask for what holds for all partitions.

        Raises:
            aiokafka.errors.KafkaError: the broker is away.
        """
        async with admin_client(self._servers) as admin:
            cluster_id: str | None = (await admin.describe_cluster()).get("cluster_id")
            config = await topic_config(admin, self._topic)
        return Facts(cluster_id, self._retention(config))

    def _retention(self, config: Mapping[str, str]) -> float:
        told = config.get("delete.retention.ms")
        if told is None and self._retention_told:
            _log.warning(
                "the broker does not tell delete.retention.ms; allow DescribeConfigs on the topic",
                topic=self._topic,
                taken_seconds=KAFKA_RETENTION_SECONDS,
            )
        self._retention_told = told is not None
        return KAFKA_RETENTION_SECONDS if told is None else int(told) / 1000

    async def look(
        self, partitions: Sequence[int], witnesses: Mapping[int, Witness]
    ) -> tuple[Mapping[int, int], Mapping[int, Sighting]]:
        """Ask for the last stable offsets of partitions, then for what stands where witnesses stood.

        Raises:
            aiokafka.errors.KafkaError: the broker is away.
        """
        consumer = plain_consumer(
            self._servers,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        try:
            await consumer.start()
            all_of_them = {number: TopicPartition(self._topic, number) for number in partitions}
            consumer.assign(list(all_of_them.values()))
            consumer.pause(*all_of_them.values())
            ends = await consumer.end_offsets(list(all_of_them.values()))
            sightings: dict[int, Sighting] = {}
            there = {
                all_of_them[number]: one for number, one in witnesses.items() if one.offset < ends[all_of_them[number]]
            }
            try:
                async with asyncio.timeout(SIGHT_SECONDS):
                    await _sight(consumer, there, sightings)
            except TimeoutError:
                _log.warning("not all witnesses were read in time", read=len(sightings), of=len(witnesses))
            return {number: ends[one] for number, one in all_of_them.items()}, sightings
        finally:
            await consumer.stop()


async def _sight(
    consumer: AIOKafkaConsumer, witnesses: Mapping[TopicPartition, Witness], sightings: dict[int, Sighting]
) -> None:
    """Read the first record at or behind each witness' offset: all at once, and one by one if one cannot be read.

    At each rebalance nothing is applied until this is done.
    """
    try:
        await _read(consumer, witnesses, sightings)
    except Exception as error:
        if isinstance(error, KafkaError) and not isinstance(error, CorruptRecordException):
            raise
        if len(witnesses) > 1:
            for one, witness in witnesses.items():
                if one.partition not in sightings:
                    await _sight(consumer, {one: witness}, sightings)
            return
        [one] = witnesses
        _log.info("a witness cannot be read", partition=one.partition, error=f"{type(error).__name__}: {error}")
        sightings[one.partition] = Sighting.ABSENT


async def _read(
    consumer: AIOKafkaConsumer, witnesses: Mapping[TopicPartition, Witness], sightings: dict[int, Sighting]
) -> None:
    for one, witness in witnesses.items():
        consumer.seek(one, witness.offset)
    consumer.resume(*witnesses)
    try:
        while left := [one for one in witnesses if one.partition not in sightings]:
            fetched = await consumer.getmany(*left, timeout_ms=_POLL_MS)
            for one in left:
                if records := fetched.get(one):
                    sightings[one.partition] = sighting_of(witnesses[one], records[0])
                # Markers and aborted records are passed over in silence.
                elif await consumer.position(one) > witnesses[one].offset:
                    sightings[one.partition] = Sighting.ABSENT
                else:
                    continue
                consumer.pause(one)
    finally:
        consumer.pause(*witnesses)
