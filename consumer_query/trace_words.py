"""A trace in words: a line for each station, with where the change is seen from there, and a sentence for all of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from consumer_query.lag import Status as LagStatus
from consumer_query.trace import Facts, HeldUpBy, Part
from schemas.trace_views import SagaTrace

STILL_SECONDS: Final = 10.0
"""A position that has not moved for so long, with records behind it, is worth a word."""
_RELAYS: Final = {
    "sending": "a relay sends this shard",
    "held": "publishing is held (EVENT_PUBLISH_ENABLED=false)",
    "nobody": "no relay sends this shard",
}
_GROUPS: Final = {
    LagStatus.STOP: "nobody in its group commits",
    LagStatus.STALL: "its group commits and does not move",
    LagStatus.WARN: "its group falls further behind",
    LagStatus.REWIND: "its group went back",
}


class Mark(StrEnum):
    """How a station stands to the newest change."""

    DONE = "done"
    HERE = "here"
    NOT_YET = "not_yet"
    UNCLEAR = "unclear"


class Name(StrEnum):
    """The stations in the order of the way."""

    SAGA = "saga"
    OUTBOX = "outbox"
    TOPIC = "topic"
    DEAD_LETTER = "dead_letter"
    CACHE = "cache"


@dataclass(frozen=True)
class Station:
    """One line of a trace."""

    name: Name
    mark: Mark
    told: str


def stations(facts: Facts, held_up_by: HeldUpBy) -> list[Station]:
    """The way of the newest change, station by station. That of dead letters is left out where there are none."""
    lines = {
        Name.SAGA: _saga(facts),
        Name.OUTBOX: _outbox(facts),
        Name.TOPIC: _topic(facts),
        Name.DEAD_LETTER: _letters(facts),
        Name.CACHE: _cache(facts),
    }
    marks = dict(zip(Name, _marks(facts, held_up_by), strict=True))
    return [Station(name, marks[name], line) for name, line in lines.items() if line is not None]


def _marks(facts: Facts, held_up_by: HeldUpBy) -> Sequence[Mark]:
    if held_up_by is HeldUpBy.NOTHING:
        return [Mark.DONE] * len(Name)
    if held_up_by in {HeldUpBy.UNCLEAR, HeldUpBy.UNKNOWN}:
        recorded = facts.target is not None  # else nobody says what its newest change is
        sent = recorded and (facts.sent is not None or facts.unread is not None)
        done = (recorded, sent, recorded and bool(facts.passed), False, False)
        return [Mark.DONE if any(done[place:]) else Mark.UNCLEAR for place in range(len(Name))]
    here = list(Name).index(Name(held_up_by.value))
    return [_mark(place - here) for place in range(len(Name))]


def _mark(beyond: int) -> Mark:
    if not beyond:
        return Mark.HERE
    return Mark.DONE if beyond < 0 else Mark.NOT_YET


def sentence(facts: Facts, held_up_by: HeldUpBy) -> str:
    """Where the newest change is, for people."""
    match held_up_by:
        case HeldUpBy.NOTHING:
            return _visible(facts)
        case HeldUpBy.SAGA:
            return _in_saga(facts)
        case HeldUpBy.OUTBOX:
            return f"Revision {facts.target} is recorded and waits in the outbox: {_relay(facts)}."
        case HeldUpBy.TOPIC:
            return _on_topic(facts)
        case HeldUpBy.DEAD_LETTER:
            return _put_aside(facts)
        case HeldUpBy.CACHE:
            return _wrong(facts)
        case HeldUpBy.UNCLEAR:
            said = ("It cannot be told how far its newest change is.", _known(facts), _silent(facts))
            return " ".join(filter(None, said))
        case HeldUpBy.UNKNOWN:
            return f"Nobody knows a file {facts.file_id}: it was never recorded, or its id is mistyped."


def _visible(facts: Facts) -> str:
    row = facts.row
    if facts.target is None:
        if row is not None:
            return f"It was deleted at revision {row.revision}, and the Admin module knows no such file."
        return "No such file exists, and what was put aside of it is dealt with."
    if facts.admin is not None and facts.admin.deleted:
        return f"It was deleted at revision {facts.target}, and search does not show it."
    return f"Search shows revision {facts.target}, the newest."


def _in_saga(facts: Facts) -> str:
    saga = facts.under_way
    if saga is None:
        saga = facts.given_up
        assert saga is not None  # noqa: S101 - else no saga would hold it up
        return f"Its {saga.kind} was given up, and there is no such file: {saga.error or 'no reason was noted'}."
    shown = "Nothing of it is recorded" if facts.target is None else f"Search shows revision {facts.target}"
    who = "" if saga.attended else " Its process does not tell of itself; another takes it up."
    return f"{shown}; its {saga.kind} is at the step {saga.step}, for {span(saga.seconds)}.{who}"


def _on_topic(facts: Facts) -> str:
    place = f"partition {facts.partition}"
    if facts.is_beside_the_log:
        return (
            f"Revision {facts.target} was sent to offset {facts.offset} of {place}, and the log ends before that: "
            "the topic was made anew."
        )
    said = [f"Revision {facts.target} is on the topic, {_behind(facts)}"]
    said += _standing(facts)
    return "; ".join(said) + "."


def _behind(facts: Facts) -> str:
    """How far the projector is before the record."""
    at, name = _position(facts)
    if at is None:
        return f"and nothing of partition {facts.partition} was ever applied"
    if facts.offset is None:
        return f"and not all of partition {facts.partition} is applied: {name} is {at}"
    left = _count(facts.offset + 1 - at, "offset")
    return f"{left} before the projector has applied it ({name} {at}, record {facts.offset})"


def _standing(facts: Facts) -> Iterator[str]:
    if facts.log is not None and not facts.log.members:
        yield "no projector is in its group"
    elif facts.log is not None and facts.log.status in _GROUPS:
        yield _GROUPS[facts.log.status]
    if facts.cached is None:
        yield f"the rows of the cache are {_not_told(facts, Part.DATABASE)}"
    elif facts.cached.idle is not None and facts.cached.idle > STILL_SECONDS:
        yield f"the position has not moved for {span(facts.cached.idle)}"


def _put_aside(facts: Facts) -> str:
    letter = facts.letter
    assert letter is not None  # noqa: S101 - else none would hold it up
    revision = "A record of it" if letter.revision is None else f"Revision {letter.revision}"
    return f"{revision} could not be applied and was put aside: {letter.reason}. The dead letter is {letter.status}."


def _wrong(facts: Facts) -> str:
    row = facts.row
    if facts.target is None and row is not None:
        return f"Search shows revision {row.revision} of a file that the Admin module does not know."
    if row is not None and row.revision > (facts.target or 0):
        return f"The cache has revision {row.revision}, and there never was one beyond {facts.target}."
    has = "nothing of it" if row is None else f"revision {row.revision}"
    return f"Revision {facts.target} was passed by, is not among the dead letters, and the cache has {has}."


def _known(facts: Facts) -> str:
    if facts.cached is None:
        return "" if facts.target is None else f"Revision {facts.target} is recorded."
    if facts.row is None:
        return "The cache does not have it."
    return f"The cache has {_row(facts)}."


def _silent(facts: Facts) -> str:
    cut = facts.letters is not None and not facts.letters.complete
    silent = [f"{part.value.replace('_', ' ')}: {why}" for part, why in facts.troubles.items()]
    silent += ["dead letters: there was no time for all of them"] if cut else []
    return f"Not told: {'; '.join(silent)}." if silent else "The log was looked at before it was sent."


def _saga(facts: Facts) -> str:
    if facts.admin is None:
        return _not_told(facts, Part.ADMIN)
    said = []
    if facts.target is not None:
        said.append(f"{'its deletion ' if facts.admin.deleted else ''}recorded at revision {facts.target}")
    said += [_unfinished(saga) for saga in facts.admin.sagas if saga.state not in {"done", "compensated"}]
    if facts.given_up is not None and facts.given_up.state == "compensated":
        said.append(f"the last one, {facts.given_up.kind}, was given up: {facts.given_up.error}")
    return "; ".join(said) or "no such file was recorded"


def _unfinished(saga: SagaTrace) -> str:
    how = {"running": "at", "recorded": "recorded, left to do", "compensating": "given up, being undone from"}
    why = f": {saga.error}" if saga.error else ""
    nobody = "" if saga.attended else ", nobody works on it now"
    return f"{saga.kind} {how.get(saga.state, saga.state)} {saga.step} for {span(saga.seconds)}{nobody}{why}"


def _outbox(facts: Facts) -> str:
    if facts.admin is None:
        return _not_told(facts, Part.ADMIN)
    if facts.waiting is not None:
        return f"revision {facts.waiting.revision} has waited for {span(facts.waiting.seconds)}; {_relay(facts)}"
    if facts.sent is not None:
        return f"sent at {facts.sent.sent_at:%Y-%m-%d %H:%M:%S} UTC"
    return "nothing waits" if facts.target is None else "sent longer ago than the audit log remembers"


def _relay(facts: Facts) -> str:
    if facts.admin is None:
        return ""
    before = f"{_count(facts.admin.ahead, 'event')} before it, and " if facts.admin.ahead else ""
    return f"{before}{_RELAYS[facts.admin.relay]}"


def _topic(facts: Facts) -> str:
    place = f"partition {facts.partition}"
    if facts.offset is not None:
        place += f", offset {facts.offset}"
    at, name = _position(facts)
    told = "position not told" if at is None and facts.cached is None else f"{name} {'none' if at is None else at}"
    if facts.log is None:
        return f"{place}; {told}, log end {_not_told(facts, Part.LAG)}"
    old = f" ({facts.troubles[Part.LAG]})" if Part.LAG in facts.troubles else ""
    return f"{place}; {told}, log end {facts.log.end}{old}"


def _letters(facts: Facts) -> str | None:
    if facts.letters is None:
        return _not_told(facts, Part.DEAD_LETTERS)
    cut = "" if facts.letters.complete else "; there was no time for the others"
    if not facts.letters.letters:
        return f"none was found{cut}" if cut else None
    told = facts.letter or facts.letters.letters[-1]
    return f"{told.position}: {told.reason}, {told.status}{cut}"


def _cache(facts: Facts) -> str:
    if facts.cached is None:
        return _not_told(facts, Part.DATABASE)
    return "not there" if facts.row is None else _row(facts)


def _row(facts: Facts) -> str:
    assert facts.row is not None  # noqa: S101 - asked before
    return f"{'its deletion, ' if facts.row.deleted else ''}revision {facts.row.revision}"


def _position(facts: Facts) -> tuple[int | None, str]:
    """Where the projector stands: by its rows, else by its group."""
    if facts.cached is not None:
        return facts.cached.position, "position"
    return None if facts.log is None else facts.log.committed, "committed offset"


def _not_told(facts: Facts, part: Part) -> str:
    return f"not told: {facts.troubles.get(part, 'no answer')}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def span(seconds: float) -> str:
    """A time for people: 12 s, 3 min, 5 h, 2 d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
