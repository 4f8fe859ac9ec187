"""Which station holds a file's newest change up follows from what each of them tells; who is silent proves nothing.

    saga  →  outbox  →  topic  →  dead letter, if it was put aside  →  cache

A change that was recorded was promised to its client, so it goes before one that a saga still works on. What search
shows is asked last of all: a station says nothing of a change that is behind it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from consumer_query.lag import Status as LagStatus
from consumer_query.resolutions import Status
from schemas.trace_views import AdminTrace, SagaTrace, SentTrace, WaitingTrace

UNDONE: Final = frozenset({Status.OPEN, Status.FAILED, Status.DROPPED})
"""Of a letter whose record was not applied, and of whose file nothing newer was announced because of it."""


class HeldUpBy(StrEnum):
    """Where the newest change of a file is."""

    NOTHING = "nothing"
    """Search shows it."""
    SAGA = "saga"
    """It is not recorded."""
    OUTBOX = "outbox"
    """It is recorded, and not sent."""
    TOPIC = "topic"
    """It is on the topic, and not applied."""
    DEAD_LETTER = "dead_letter"
    """It was put aside."""
    CACHE = "cache"
    """Nothing of it is on the way, and what search shows is wrong: only a comparison repairs that."""
    UNCLEAR = "unclear"
    """Whoever could tell does not answer."""
    UNKNOWN = "unknown"
    """All answered, and nobody knows the file."""


class Part(StrEnum):
    """Who is asked."""

    ADMIN = "admin"
    DATABASE = "database"
    """The cache's."""
    LAG = "lag"
    """What the broker says of the group."""
    DEAD_LETTERS = "dead_letters"
    TOPIC = "topic"
    """Only where the Admin module is silent: the records that are not applied."""


@dataclass(frozen=True)
class Row:
    """A file in the cache."""

    revision: int
    deleted: bool


@dataclass(frozen=True)
class Cached:
    """What the cache's database says, as of one moment."""

    generation: int
    """The live one."""
    row: Row | None
    position: int | None
    """The next offset of the file's partition to be applied; None when none of it ever was."""
    reached: int
    """The rows hold all that is below; more than the position while a partition is replayed."""
    idle: float | None
    """Seconds since the position moved."""


@dataclass(frozen=True)
class Log:
    """What the broker says of the file's partition."""

    committed: int | None
    """By the projectors' group."""
    end: int
    """The last stable offset."""
    status: LagStatus
    members: int
    """Of the group."""
    looked_at: datetime


@dataclass(frozen=True)
class Letter:
    """A dead letter of the file."""

    position: str
    """topic/partition/offset of the record."""
    offset: int
    revision: int | None
    """None when the record does not tell."""
    reason: str
    error: str
    status: Status
    at: datetime


@dataclass(frozen=True)
class Letters:
    """The file's dead letters."""

    letters: tuple[Letter, ...]
    """The oldest first."""
    complete: bool
    """All were looked at; else the newest of them, as far as there was time."""


@dataclass(frozen=True)
class Unread:
    """The newest record of the file that is not applied."""

    offset: int
    revision: int


@dataclass(frozen=True)
class Facts:
    """What was found out about a file. None: the part did not answer, and `troubles` says why."""

    file_id: UUID
    partition: int
    admin: AdminTrace | None
    cached: Cached | None
    log: Log | None
    letters: Letters | None
    unread: Unread | None = None
    """Looked for only where the Admin module does not say what was sent."""
    troubles: Mapping[Part, str] = field(default_factory=dict)

    @property
    def row(self) -> Row | None:
        """The file in the cache, if it is there and was told."""
        return None if self.cached is None else self.cached.row

    @property
    def target(self) -> int | None:
        """The newest revision that was recorded, as far as anybody tells."""
        if self.admin is None:
            return self.unread.revision if self.unread is not None else None
        told = [self.admin.revision, *(one.revision for one in self.admin.waiting)]
        return max((one for one in told if one is not None), default=None)

    @property
    def under_way(self) -> SagaTrace | None:
        """The saga that is making a change, not yet recorded. Of a file that is deleted none can be."""
        sagas = [] if self.admin is None or self.admin.deleted else self.admin.sagas
        return next((one for one in sagas if one.state == "running"), None)

    @property
    def given_up(self) -> SagaTrace | None:
        """The newest saga, where it was given up."""
        newest = next(iter(self.admin.sagas if self.admin is not None else ()), None)
        return newest if newest is not None and newest.state in {"compensating", "compensated"} else None

    @property
    def sent(self) -> SentTrace | None:
        """The newest revision's event, if the audit log says that it was sent."""
        sent = None if self.admin is None else self.admin.sent
        return sent if sent is not None and sent.revision >= (self.target or 0) else None

    @property
    def waiting(self) -> WaitingTrace | None:
        """The newest revision's event, if it waits and was not sent before."""
        if self.admin is None or self.sent is not None:
            return None
        return next((one for one in self.admin.waiting if one.revision == self.target), None)

    @property
    def offset(self) -> int | None:
        """Of the newest revision's record, if anybody says."""
        if self.admin is None:
            return None if self.unread is None else self.unread.offset
        return None if self.sent is None else self.sent.offset

    @property
    def is_beside_the_log(self) -> bool:
        """Whether the log ends before the record that was sent: the topic was made anew or was cut."""
        sent = self.sent
        if sent is None or sent.offset is None or self.log is None or self.log.looked_at <= sent.sent_at:
            return False
        return sent.offset >= self.log.end

    @property
    def passed(self) -> bool | None:
        """Whether the projector is beyond the newest revision's record; None when nobody says."""
        if self.cached is not None:
            if self.offset is not None:
                return self.offset < self.cached.reached
            # Not known where it is: surely below the end of a log that was looked at since.
            if self.log is None or (self.sent is not None and self.log.looked_at <= self.sent.sent_at):
                return None
            return self.cached.reached >= self.log.end
        if self.log is None or self.log.committed is None or self.offset is None:
            return None
        return self.offset < self.log.committed  # what is committed is in the rows

    @property
    def letter(self) -> Letter | None:
        """The letter of the newest revision, or of a later record, if it was neither applied nor replaced."""
        letters = () if self.letters is None else self.letters.letters
        return next((one for one in reversed(letters) if one.status in UNDONE and self._matters(one)), None)

    def _matters(self, letter: Letter) -> bool:
        if self.offset is not None and letter.offset == self.offset:
            return True
        if letter.revision is not None:
            shown = 0 if self.row is None else self.row.revision
            return letter.revision >= (self.target or shown + 1)
        return self.row is None if self.offset is None else letter.offset > self.offset

    @property
    def shown(self) -> bool | None:
        """Whether search is at the newest revision; None when nobody says what that is, or what search shows."""
        if self.cached is None or self.admin is None or self.target is None:
            return None
        if self.row is None:
            # A deletion of which the topic has forgotten all leaves no row in a new generation.
            return self.admin.deleted and self.waiting is None and self.passed is not False
        return self.row.revision >= self.target


def judge(facts: Facts) -> HeldUpBy:
    """Where the newest change of the file is."""
    if facts.admin is None:
        return _judge_alone(facts)
    if facts.target is None:
        return _judge_unrecorded(facts)
    if facts.shown:
        assert facts.target is not None  # noqa: S101 - for the type checker
        if facts.row is not None and facts.row.revision > facts.target:
            return HeldUpBy.CACHE
        return HeldUpBy.SAGA if facts.under_way is not None else HeldUpBy.NOTHING
    if facts.waiting is not None:
        return HeldUpBy.OUTBOX
    if facts.passed is None:
        return HeldUpBy.UNCLEAR
    if not facts.passed:
        return HeldUpBy.TOPIC
    if facts.letter is not None:
        return HeldUpBy.DEAD_LETTER
    if facts.cached is None or facts.letters is None or not facts.letters.complete:
        return HeldUpBy.UNCLEAR
    return HeldUpBy.CACHE


def _judge_unrecorded(facts: Facts) -> HeldUpBy:
    """Of a file that the Admin module never recorded."""
    if facts.row is not None and not facts.row.deleted:
        return HeldUpBy.CACHE
    if facts.under_way is not None or facts.given_up is not None:
        return HeldUpBy.SAGA
    if facts.letter is not None and facts.letter.status.is_open:
        return HeldUpBy.DEAD_LETTER
    if facts.row is not None or (facts.letters is not None and facts.letters.letters):
        return HeldUpBy.NOTHING
    all_told = not facts.troubles and facts.letters is not None and facts.letters.complete
    return HeldUpBy.UNKNOWN if all_told else HeldUpBy.UNCLEAR


def _judge_alone(facts: Facts) -> HeldUpBy:
    """Of a file of which only this side tells."""
    if facts.cached is None:
        return HeldUpBy.UNCLEAR
    shown = 0 if facts.row is None else facts.row.revision
    if facts.unread is not None and facts.unread.revision > shown:
        return HeldUpBy.TOPIC
    return HeldUpBy.DEAD_LETTER if facts.letter is not None else HeldUpBy.UNCLEAR
