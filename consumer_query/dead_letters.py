"""A record that cannot be applied is put aside as it was, and whoever puts it aside goes on only once Kafka has it.

Key, value and headers stay as they were, in their order; what we know of the failure stands in headers behind them. A
crash may put one aside twice: the position of the source record says which it is, and readers take each once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from aiokafka import ConsumerRecord

from consumer_query.metrics import DEAD_LETTERS
from runtime.acknowledged import AcknowledgedTopic, Headers, NewRecord
from runtime.brokers import AnyBrokers

LONGEST_ERROR: Final = 2_000
"""Characters. An error may quote the whole record; that is in the dead letter already."""
FOREIGN: Final = "foreign"
"""The reason of a record on the topic that nobody put aside: its position is its own."""

_PREFIX: Final = "dlq."
_FIELDS: Final = ("reason", "error", "topic", "partition", "offset", "timestamp", "at", "attempt", "group")
_NAMES: Final = tuple(_PREFIX + field for field in _FIELDS)


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A record that could not be applied, and why. `topic`, `partition` and `offset` are where it was read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """Of the source record, in milliseconds since 1970; -1 when it has none."""
    key: bytes | None
    value: bytes | None
    headers: Headers
    reason: str
    error: str
    """Class and message of the exception."""
    at: datetime
    """When it was put aside."""
    attempt: int
    """How often it had been tried by then."""
    group: str = ""
    """The consumer group that could not apply it."""

    @property
    def position(self) -> str:
        """Which record this is: topic/partition/offset."""
        return f"{self.topic}/{self.partition}/{self.offset}"

    @property
    def named(self) -> dict[str, str | int]:
        """The fields of a log line by which it is found. Its key is a file's id, unless that is what is bad."""
        file_id = (self.key or b"").decode(errors="replace")
        return {"position": self.position, "partition": self.partition, "offset": self.offset, "file_id": file_id}

    @property
    def error_class(self) -> str:
        """The class of the exception, by which letters are counted."""
        return self.error.partition(":")[0]

    def to_record(self) -> NewRecord:
        """As it stands on the topic: the source record, our headers behind its own."""
        told = {
            "reason": self.reason,
            "error": self.error[:LONGEST_ERROR],
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp": self.timestamp_ms,
            "at": self.at.astimezone(UTC).isoformat(),
            "attempt": self.attempt,
            "group": self.group,
        }
        ours = tuple((_PREFIX + field, str(told[field]).encode(errors="backslashreplace")) for field in _FIELDS)
        return NewRecord(self.key, self.value, (*self.headers, *ours), int(self.at.timestamp() * 1000))


def letter_of(record: "ConsumerRecord[bytes, bytes]", reason: str, error: Exception, group: str) -> DeadLetter:
    """The letter of a record that was refused at its first try."""
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
        reason=reason,
        error=f"{type(error).__name__}: {error}",
        at=datetime.now(UTC),
        attempt=1,
        group=group,
    )


def from_record(record: "ConsumerRecord[bytes, bytes]") -> DeadLetter:
    """Read a dead letter. Never raises: a record that is none is returned as one with the reason FOREIGN."""
    headers = tuple(record.headers)
    source, ours = headers[: -len(_NAMES)], headers[-len(_NAMES) :]
    try:
        if tuple(name for name, _ in ours) != _NAMES:
            raise ValueError("it does not end with the headers of a dead letter")
        told = {name.removeprefix(_PREFIX): (value or b"").decode() for name, value in ours}
        at = datetime.fromisoformat(told["at"])
        if at.tzinfo is None:
            raise ValueError("its moment has no time zone")
        return DeadLetter(
            topic=told["topic"],
            partition=int(told["partition"]),
            offset=int(told["offset"]),
            timestamp_ms=int(told["timestamp"]),
            key=record.key,
            value=record.value,
            headers=source,
            reason=told["reason"],
            error=told["error"],
            at=at,
            attempt=int(told["attempt"]),
            group=told["group"],
        )
    except ValueError as error:
        return DeadLetter(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp,
            key=record.key,
            value=record.value,
            headers=headers,
            reason=FOREIGN,
            error=f"NotADeadLetter: {error}",
            at=_moment(record.timestamp),
            attempt=0,
        )


class DeadLetterWriter(Protocol):
    """Where letters are put; the projector's port."""

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Return when all are acknowledged; nothing may be taken for written when this raises.

        Raises:
            aiokafka.errors.KafkaError: refused, or the broker is away.
            TimeoutError: the outcome is unknown.
        """
        ...

    async def close(self) -> None:
        """Let go. Does not wait for a broker that is away."""
        ...


class TopicDeadLetters:
    """Dead letters on a topic, written as `runtime.acknowledged` does."""

    def __init__(self, bootstrap_servers: AnyBrokers, topic: str) -> None:
        self._topic = AcknowledgedTopic(bootstrap_servers, topic, "query-dead-letters")

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """See `DeadLetterWriter`."""
        await self._topic.put([letter.to_record() for letter in letters])
        for letter in letters:
            DEAD_LETTERS.labels(letter.reason).inc()

    async def close(self) -> None:
        """See `DeadLetterWriter`."""
        await self._topic.close()


def _moment(timestamp_ms: int) -> datetime:
    """The moment of a record; 1970 where it has none that is sensible."""
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)
