"""Whether the rows can still be those of the log, decided on values: what is stored, and what the log shows. No I/O.

Two things make a cache wrong that no record would ever put right: deletions that were compacted away before they were
read, and positions that were counted in another log. Absence of evidence is never taken for evidence.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, NamedTuple

from aiokafka import ConsumerRecord

from consumer_query.analysis import ANALYZER
from consumer_query.generations import SHAPE

KAFKA_RETENTION_SECONDS: Final = 24 * 3600.0
"""Kafka's default of delete.retention.ms, taken where the broker does not tell. Ours is longer: the cautious side."""
MARGIN: Final = 0.1
"""Of the retention. What was missed has still to be read, and no two clocks go alike: the age of a position is told by
the database's, which is another one after a failover; the age of a tombstone by the broker's."""
SHORTEST_SECONDS: Final = 10.0
"""Less than that is not told from the time between two renewals; a topic that forgets sooner is for tests."""
RENEW_SECONDS: Final = 30.0
"""Between renewals at most; what is asked of them is one a minute."""
_RENEWALS: Final = 5
"""In the time that is allowed, so that a slow one does not look like absence."""


class Reason(StrEnum):
    """Why a generation is in doubt."""

    AWAY_TOO_LONG = "away_too_long"
    """Deletions may have been compacted away unread: deleted files may still be found."""
    ANOTHER_LOG = "another_log"
    """Positions are of another log: files may be found that this one does not know."""
    LOG_CUT = "log_cut"
    """Records were removed before they were read, by other means than compaction: changes may be missing."""
    OTHER_SHAPE = "other_shape"
    """Made by an older version of this program, which cannot write into it."""


class Doubt(NamedTuple):
    """A reason, and what was seen."""

    reason: Reason
    detail: str


class Witness(NamedTuple):
    """A record that was applied, to recognise the log by."""

    offset: int
    digest: bytes


class Sighting(Enum):
    """What stands where a witness stood."""

    SAME = "same"
    OTHER = "other"
    ABSENT = "absent"
    """Nothing, or nothing that could be read: it may have been compacted away."""


@dataclass(frozen=True)
class Standing:
    """What is stored of a partition."""

    next_offset: int
    away_seconds: float
    """Since the log's end was last reached, by the database's clock."""
    cluster_id: str | None
    witness: Witness | None


@dataclass(frozen=True)
class Log:
    """What a partition's log shows."""

    beginning: int
    end: int
    """The last stable offset."""
    cluster_id: str | None
    sighting: Sighting
    began_anew: bool = False
    """Whether the client was sent back to the beginning, because its position was beyond the end."""


class Shape(Enum):
    """Whose a generation is."""

    OURS = "ours"
    OLDER = "older"
    NEWER = "newer"


def allowed_seconds(retention_seconds: float) -> float:
    """How long a projector may be away from the end of a topic that keeps tombstones for so long.

    A tombstone stays for `delete.retention.ms` from the first compaction that meets it (KIP-534), so at least for so
    long after it was written.
    """
    return max(retention_seconds * (1 - MARGIN), SHORTEST_SECONDS)


def renew_seconds(allowed: float) -> float:
    """How often the time of the last absence is written down."""
    return min(RENEW_SECONDS, allowed / _RENEWALS)


def witness_of(record: "ConsumerRecord[bytes, bytes]") -> Witness:
    """A record's offset and digest. The time is part of it: the same event announced again is another record."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(record.timestamp.to_bytes(8, "big", signed=True))
    for part in (record.key, record.value):
        digest.update(b"\x00" if part is None else b"\x01" + len(part).to_bytes(8, "big") + part)
    return Witness(record.offset, digest.digest())


def sighting_of(witness: Witness, found: "ConsumerRecord[bytes, bytes]") -> Sighting:
    """Compare a witness with the first record at or behind its offset."""
    if found.offset != witness.offset:
        return Sighting.ABSENT
    return Sighting.SAME if witness_of(found) == witness else Sighting.OTHER


def absence_of(partition: int, standing: Standing, allowed: float) -> Doubt | None:
    """Whether a partition was left for longer than deletions can be relied upon."""
    if standing.away_seconds <= allowed:
        return None
    return Doubt(
        Reason.AWAY_TOO_LONG,
        f"partition {partition} was last read to its end {_span(standing.away_seconds)} ago; deletions can be relied "
        f"upon for {_span(allowed)}",
    )


def mismatch_of(partition: int, standing: Standing, log: Log) -> Doubt | None:
    """Whether the rows are of this log."""
    for wrong, detail in _mismatches(standing, log):
        if wrong:
            return Doubt(Reason.ANOTHER_LOG, f"partition {partition}: {detail}")
    if standing.next_offset < log.beginning:
        detail = f"the log begins at {log.beginning} and the rows end at {standing.next_offset}"
        return Doubt(Reason.LOG_CUT, f"partition {partition}: {detail}")
    return None


def _mismatches(standing: Standing, log: Log) -> Iterator[tuple[bool, str]]:
    yield log.began_anew, "the log became shorter while it was read"
    yield standing.next_offset > log.end, f"the rows end at {standing.next_offset} and the log at {log.end}"
    yield log.sighting is Sighting.OTHER, f"another record stands at {standing.witness and standing.witness.offset}"
    # A mirror that keeps offsets has the same records under another id; so the record decides where there is one.
    moved = None not in (standing.cluster_id, log.cluster_id) and standing.cluster_id != log.cluster_id
    yield (
        moved and log.sighting is not Sighting.SAME,
        f"the rows are of cluster {standing.cluster_id}, this is {log.cluster_id}",
    )


def shape_of(shape: int, analyzer: int) -> Shape:
    """Whose a generation of that shape and analyzer is. Only an older one is ours to replace."""
    if (shape, analyzer) == (SHAPE, ANALYZER):
        return Shape.OURS
    return Shape.OLDER if (shape, analyzer) < (SHAPE, ANALYZER) else Shape.NEWER


def _span(seconds: float) -> str:
    """A time for people."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
