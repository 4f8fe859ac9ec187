"""All records of a file are on one partition, that of its key, so whoever knows the file knows where to look."""

from typing import Final
from uuid import UUID

from aiokafka.partitioner import murmur2

from schemas.topics import FILE_EVENTS, cards

PARTITIONS: Final = cards()[FILE_EVENTS].partitions


def partition_of(file_id: UUID) -> int:
    """The Kafka partition of a file's key, as every Kafka client computes it (murmur2 of the key)."""
    return int(murmur2(str(file_id).encode()) & 0x7FFFFFFF) % PARTITIONS
