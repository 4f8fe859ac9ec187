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

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
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
            sightings = {}
            try:
                async with asyncio.timeout(SIGHT_SECONDS):
                    for number, witness in witnesses.items():
                        one = all_of_them[number]
                        if witness.offset < ends[one]:
                            sightings[number] = await _sight(consumer, one, witness)
            except TimeoutError:
                _log.warning("not all witnesses were read in time", read=len(sightings), of=len(witnesses))
            return {number: ends[one] for number, one in all_of_them.items()}, sightings
        finally:
            await consumer.stop()


async def _sight(consumer: AIOKafkaConsumer, partition: TopicPartition, witness: Witness) -> Sighting:
    """Read the first record at or behind the witness' offset."""
    consumer.seek(partition, witness.offset)
    consumer.resume(partition)
    try:
        while True:
            if records := (await consumer.getmany(partition, timeout_ms=_POLL_MS, max_records=1)).get(partition):
                return sighting_of(witness, records[0])
            # Markers and aborted records are passed over in silence.
            if await consumer.position(partition) > witness.offset:
                return Sighting.ABSENT
    except Exception as error:
        if isinstance(error, KafkaError) and not isinstance(error, CorruptRecordException):
            raise
        _log.info("a witness cannot be read", partition=partition.partition, error=f"{type(error).__name__}: {error}")
        return Sighting.ABSENT
    finally:
        consumer.pause(partition)
