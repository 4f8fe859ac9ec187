"""Dead letters as an operator sees them: each once, in the order in which they were put aside, with what became of it.

The topic is streamed from where a page begins. Of what was read only the positions stay in memory, and of what is
listed a few words: one record may be a megabyte.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from consumer_query.dead_letters import DeadLetter, from_record
from consumer_query.errors import DeadLetterNotFoundError, DeadLettersAwayError
from consumer_query.records import LARGEST_REVISION
from consumer_query.resolutions import Resolution, Resolutions, Status, status_of
from runtime.brokers import AnyBrokers
from runtime.whole_topic import whole_topic
from schemas.codec import CodecError, Decoder
from schemas.events import REVISION_HEADER

EXAMPLES: Final = 3
"""Of each group: enough to recognise it, few enough for a page."""
MOST_GROUPS: Final = 200
"""A reason and a class of exceptions are a group. Foreign records could make any number of them."""


@cache
def _decoder() -> Decoder:
    """Knows the schemas of the checkout; a registry is not asked for a list."""
    return Decoder()


class Listed(NamedTuple):
    """A letter, and what became of it."""

    offset: int
    """On the topic of dead letters."""
    letter: DeadLetter
    status: Status
    resolution: Resolution | None


@dataclass(frozen=True)
class Brief:
    """A letter in a few words."""

    position: str
    reason: str
    error: str
    at: datetime
    size: int
    """Of the value, in bytes."""
    status: Status
    attempts: int
    """Redrives that failed."""
    file_id: UUID | None
    revision: int | None
    name: str | None

    @classmethod
    def of(cls, one: Listed) -> "Brief":
        """What stands in lists of a letter."""
        letter, said = one.letter, told(one.letter)
        return cls(
            position=letter.position,
            reason=letter.reason,
            error=letter.error,
            at=letter.at,
            size=len(letter.value or b""),
            status=one.status,
            attempts=one.resolution.attempts if one.resolution else 0,
            file_id=said.file_id,
            revision=said.revision,
            name=said.name,
        )


@dataclass(frozen=True)
class Selection:
    """Which letters are meant: those that agree with all that is given."""

    reason: str | None = None
    error: str | None = None
    """Class of the exception."""
    position: str | None = None
    """topic/partition/offset of the source record."""
    statuses: frozenset[Status] = frozenset(Status)

    def has(self, one: Listed) -> bool:
        """Whether a letter is meant."""
        letter = one.letter
        return (
            one.status in self.statuses
            and self.reason in {None, letter.reason}
            and self.error in {None, letter.error_class}
            and self.position in {None, letter.position}
        )


@dataclass(frozen=True)
class Page:
    """Some letters, and the offset where the next page begins; None behind the last."""

    letters: list[Brief]
    next_cursor: int | None


@dataclass
class Group:
    """Letters that failed alike."""

    reason: str
    error: str
    open: int = 0
    resolved: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    examples: list[Brief] = field(default_factory=list)
    """The first that are open; or the first, where none is."""

    def add(self, one: Listed) -> None:
        """Count a letter."""
        if one.status.is_open:
            if not self.open:
                self.examples.clear()
            self.open += 1
        else:
            self.resolved += 1
        if len(self.examples) < EXAMPLES and (one.status.is_open or not self.open):
            self.examples.append(Brief.of(one))
        at = one.letter.at
        self.first_at = min(self.first_at or at, at)
        self.last_at = max(self.last_at or at, at)


class DeadLetterLog:
    """Both topics, read together. All methods raise DeadLettersAwayError when Kafka does not give them."""

    def __init__(self, bootstrap_servers: AnyBrokers, topic: str, resolutions: Resolutions) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self.resolutions = resolutions

    async def read(self, begin: int = 0) -> AsyncGenerator[Listed, None]:
        """All letters from an offset on; below 0 it is counted from the end.

        One that was put aside twice comes once, unless only one of both is open.
        """
        try:
            book = await self.resolutions.read()
            seen: set[tuple[str, int, int, int, bool]] = set()
            async with aclosing(whole_topic(self._bootstrap_servers, self._topic, begin)) as records:
                async for record in records:
                    letter = from_record(record)
                    resolution = book.of(letter)
                    status = status_of(letter, resolution)
                    known = (letter.topic, letter.partition, letter.offset, letter.timestamp_ms, status.is_open)
                    if known not in seen:
                        seen.add(known)
                        yield Listed(record.offset, letter, status, resolution)
        except UnknownTopicOrPartitionError as error:
            missing = "The broker has no topic of dead letters or of their resolutions: artstore topics ensure"
            raise DeadLettersAwayError(missing) from error
        except (KafkaError, TimeoutError) as error:
            raise DeadLettersAwayError(f"Kafka does not answer: {type(error).__name__}: {error}") from error

    async def groups(self) -> list[Group]:
        """Counts and examples, those with most open letters first. Groups beyond MOST_GROUPS are counted as one."""
        found: dict[tuple[str, str], Group] = {}
        async with aclosing(self.read()) as letters:
            async for one in letters:
                key = (one.letter.reason, one.letter.error_class)
                if key not in found and len(found) >= MOST_GROUPS:
                    key = ("others", "")
                found.setdefault(key, Group(*key)).add(one)
        return sorted(found.values(), key=lambda group: (-group.open, -group.resolved))

    async def page(self, selection: Selection, begin: int, limit: int) -> Page:
        """Letters of a selection, `limit` at most."""
        page: list[Brief] = []
        async with aclosing(self.read(begin)) as letters:
            async for one in letters:
                if selection.has(one):
                    if len(page) == limit:
                        return Page(page, one.offset)
                    page.append(Brief.of(one))
        return Page(page, None)

    async def get(self, position: str) -> Listed:
        """The letter of a source position; the last that was put aside, if several were.

        Raises:
            DeadLetterNotFoundError: there is none.
        """
        found = None
        selection = Selection(position=position)
        async with aclosing(self.read()) as letters:
            async for one in letters:
                if selection.has(one):
                    found = one
        if found is None:
            raise DeadLetterNotFoundError(f"No dead letter was read at {position}.")
        return found


class Told(NamedTuple):
    """What a letter says of its file, as far as it can be told."""

    file_id: UUID | None
    revision: int | None
    record: dict[str, Any] | None
    """The event as it is in Avro, however wrong."""

    @property
    def name(self) -> str | None:
        """The file's name."""
        metadata = (self.record or {}).get("metadata")
        return metadata["original_filename"] if metadata else None


def told(letter: DeadLetter) -> Told:
    """What a letter says of its file: by its key and its header first, which need no schema. Never raises."""
    record = None
    if letter.value is not None:
        try:
            record = _decoder().read(letter.value)
        except CodecError:
            record = None
    return Told(_file_id(letter, record), _revision(letter, record), record)


def _file_id(letter: DeadLetter, record: dict[str, Any] | None) -> UUID | None:
    for text in ((letter.key or b"").decode(errors="replace"), str(record["file_id"]) if record else ""):
        with suppress(ValueError):
            return UUID(text)
    return None


def _revision(letter: DeadLetter, record: dict[str, Any] | None) -> int | None:
    header = dict(letter.headers).get(REVISION_HEADER)
    try:
        revision = int(header or b"")
    except ValueError:
        revision = record["revision"] if record else 0
    return revision if 1 <= revision <= LARGEST_REVISION else None
