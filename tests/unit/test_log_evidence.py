"""Witnesses are read all at once, and none is hidden by another that cannot be read."""

from collections.abc import Mapping
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaConnectionError, KafkaError

from consumer_query.guards import Sighting, witness_of
from consumer_query.log_evidence import _sight

PARTITIONS = [TopicPartition("events", number) for number in range(4)]


def record(partition: TopicPartition, offset: int, value: bytes = b"value") -> "ConsumerRecord[bytes, bytes]":
    return ConsumerRecord(*partition, offset, 0, 0, b"key", value, None, 3, 5, ())


class Log:
    """A consumer over records at hand, which drains all that it is asked for before it raises."""

    def __init__(self, records: Mapping[TopicPartition, "ConsumerRecord[bytes, bytes]"], error: KafkaError) -> None:
        self._records = records
        self._error = error
        self._positions: dict[TopicPartition, int] = {}
        self._resumed: set[TopicPartition] = set()
        self.polls = 0

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._positions[partition] = offset

    def resume(self, *partitions: TopicPartition) -> None:
        self._resumed.update(partitions)

    def pause(self, *partitions: TopicPartition) -> None:
        self._resumed.difference_update(partitions)

    async def getmany(self, *partitions: TopicPartition, **_: Any) -> Mapping[TopicPartition, Any]:
        assert set(partitions) == self._resumed
        self.polls += 1
        found = {}
        for one in partitions:
            self._positions[one] += 1
            if one in self._records:
                found[one] = [self._records[one]]
        if PARTITIONS[3] in partitions:
            raise self._error
        return found

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]


async def seen(log: Log, count: int) -> dict[int, Sighting]:
    witnesses = {one: witness_of(record(one, 5)) for one in PARTITIONS[:count]}
    sightings: dict[int, Sighting] = {}
    await _sight(log, witnesses, sightings)
    return sightings


RECORDS = {PARTITIONS[0]: record(PARTITIONS[0], 5), PARTITIONS[1]: record(PARTITIONS[1], 5, b"another")}


async def test_all_are_read_with_one_poll() -> None:
    log = Log(RECORDS, KafkaConnectionError())
    assert await seen(log, 3) == {0: Sighting.SAME, 1: Sighting.OTHER, 2: Sighting.ABSENT}
    assert log.polls == 1


async def test_one_that_cannot_be_read_hides_no_other() -> None:
    log = Log(RECORDS, CorruptRecordException())
    assert await seen(log, 4) == {0: Sighting.SAME, 1: Sighting.OTHER, 2: Sighting.ABSENT, 3: Sighting.ABSENT}


async def test_a_broker_that_is_away_is_no_missing_record() -> None:
    with pytest.raises(KafkaConnectionError):
        await seen(Log(RECORDS, KafkaConnectionError()), 4)


async def test_of_no_witnesses_nothing_is_seen() -> None:
    log = Log({}, KafkaConnectionError())
    assert (await seen(log, 0), log.polls) == ({}, 0)
