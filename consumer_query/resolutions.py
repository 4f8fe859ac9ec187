"""What became of a dead letter is a record on a compacted topic, so it outlives the cache, and nobody's action is lost.

Its key is the position of the source record, its value the status with the history that led there: the audit log. A
letter that was put aside again after it had been redriven is open again: the cache it was redriven into may be gone.
"""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from enum import StrEnum
from typing import Final

import structlog
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from consumer_query.dead_letters import DeadLetter
from consumer_query.metrics import RESOLUTIONS
from runtime.acknowledged import AcknowledgedTopic, NewRecord
from runtime.brokers import AnyBrokers
from runtime.whole_topic import whole_topic

HISTORY_KEPT: Final = 50
"""Actions on one letter, the newest. All are in the log of the process that did them."""
LONGEST_NOTE: Final = 1_000
"""Characters; fifty of the longest stay far below the topic's bound."""

_log = structlog.get_logger()


class Status(StrEnum):
    """Where a letter stands."""

    OPEN = "open"
    """Nobody has tried anything yet."""
    FAILED = "failed"
    """A redrive failed; as open as the others."""
    REDRIVEN = "redriven"
    """The record was applied."""
    SUPERSEDED = "superseded"
    """The cache held that revision or a newer one already."""
    REPUBLISHED = "republished"
    """The Admin module has announced the file anew, under a greater revision."""
    DROPPED = "dropped"
    """An operator decided that it does not matter."""

    @property
    def is_open(self) -> bool:
        """Whether somebody still has to do something."""
        return self in {Status.OPEN, Status.FAILED}


class Action(BaseModel):
    """One thing that was done about a letter."""

    model_config = ConfigDict(frozen=True)

    at: AwareDatetime
    actor: str
    action: str
    outcome: Status
    note: str


class Resolution(BaseModel):
    """What was done about a letter so far. Fields are added, never renamed: the topic keeps what it has."""

    model_config = ConfigDict(frozen=True)

    status: Status
    attempts: int
    """Redrives that failed."""
    timestamp_ms: int
    """Of the source record: tells it from another at the same position, when the source topic was made anew."""
    history: tuple[Action, ...]
    """Oldest first."""


def status_of(letter: DeadLetter, resolution: Resolution | None) -> Status:
    """Where a letter stands, given what was done about the record at its position."""
    if resolution is None or resolution.timestamp_ms != letter.timestamp_ms:
        return Status.OPEN
    if resolution.status is Status.REDRIVEN and letter.at > resolution.history[-1].at:
        return Status.OPEN
    return resolution.status


def resolved(
    letter: DeadLetter, before: Resolution | None, outcome: Status, *, at: datetime, actor: str, action: str, note: str
) -> Resolution:
    """The resolution after one more action."""
    if before is None or before.timestamp_ms != letter.timestamp_ms:
        before = Resolution(status=Status.OPEN, attempts=0, timestamp_ms=letter.timestamp_ms, history=())
    done = Action(at=at, actor=actor, action=action, outcome=outcome, note=note[:LONGEST_NOTE])
    return Resolution(
        status=outcome,
        attempts=before.attempts + (outcome is Status.FAILED),
        timestamp_ms=letter.timestamp_ms,
        history=(*before.history, done)[-HISTORY_KEPT:],
    )


class Book:
    """The resolutions of all letters, as bytes: of thousands, a page is looked at."""

    def __init__(self, pages: Mapping[bytes, bytes]) -> None:
        self._pages = pages

    def of(self, letter: DeadLetter) -> Resolution | None:
        """What was done about the record at the letter's position. One that cannot be read counts for nothing."""
        page = self._pages.get(letter.position.encode())
        if page is None:
            return None
        try:
            return Resolution.model_validate_json(page)
        except ValidationError as error:
            _log.warning("resolution cannot be read, its letter is open", error=str(error), **letter.named)
            return None


class Resolutions:
    """The topic of resolutions."""

    def __init__(self, bootstrap_servers: AnyBrokers, topic: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._name = topic
        self._topic = AcknowledgedTopic(bootstrap_servers, topic, "query-dead-letter-resolutions")

    async def read(self) -> Book:
        """All of them. Raises as `whole_topic` does."""
        pages: dict[bytes, bytes] = {}
        async with aclosing(whole_topic(self._bootstrap_servers, self._name)) as records:
            async for record in records:
                if record.key is not None and record.value is not None:
                    pages[record.key] = record.value
        return Book(pages)

    async def put(self, resolutions: Sequence[tuple[DeadLetter, Resolution]]) -> None:
        """Write resolutions and log the newest action of each. Raises as `AcknowledgedTopic.put` does."""
        await self._topic.put(
            [NewRecord(letter.position.encode(), one.model_dump_json().encode()) for letter, one in resolutions]
        )
        for letter, one in resolutions:
            RESOLUTIONS.labels(one.status).inc()
            done = one.history[-1]
            _log.info(
                "dead letter acted upon",
                **letter.named,
                reason=letter.reason,
                action=done.action,
                outcome=done.outcome,
                actor=done.actor,
                note=done.note,
            )

    async def close(self) -> None:
        """Let go of the topic."""
        await self._topic.close()
