"""Where the newest change of a file is: named exactly where all parts tell, and never wrongly where some are silent."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from cli.__main__ import app
from cli.trace import next_steps
from consumer_query.lag import Status as LagStatus
from consumer_query.resolutions import Status
from consumer_query.trace import Cached, Facts, HeldUpBy, Letter, Letters, Log, Part, Row, Unread, judge
from consumer_query.trace_api import TraceView
from consumer_query.trace_words import Mark, Name, sentence, span, stations
from schemas.trace_views import AdminTrace, SagaTrace, SentTrace, WaitingTrace

FILE = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
NOW = datetime(2026, 1, 13, 12, tzinfo=UTC)
SILENT = {Part.ADMIN: "admin", Part.DATABASE: "cached", Part.LAG: "log", Part.DEAD_LETTERS: "letters"}
VERBS = cast("Any", get_command(app)).commands
NOTHING, SAGA, OUTBOX, TOPIC = HeldUpBy.NOTHING, HeldUpBy.SAGA, HeldUpBy.OUTBOX, HeldUpBy.TOPIC
DEAD_LETTER, CACHE, UNCLEAR, UNKNOWN = HeldUpBy.DEAD_LETTER, HeldUpBy.CACHE, HeldUpBy.UNCLEAR, HeldUpBy.UNKNOWN


def saga(state: str, **changes: Any) -> SagaTrace:
    made = SagaTrace(
        saga_id=FILE,
        kind="upload",
        state=state,
        step="store_bytes",
        error=None,
        attempts=0,
        revision=None,
        seconds=12,
        attended=True,
    )
    return made.model_copy(update=changes)


def waiting(revision: int) -> WaitingTrace:
    return WaitingTrace(revision=revision, event_type="file:updated", occurred_at=NOW, seconds=30)


def sent(revision: int, offset: int | None = 100) -> SentTrace:
    return SentTrace(revision=revision, event_type="file:updated", sent_at=NOW, offset=offset)


def admin(revision: int | None, **changes: Any) -> AdminTrace:
    made = AdminTrace(
        file_id=FILE,
        partition=4,
        revision=revision,
        deleted=False,
        sagas=[],
        waiting=[],
        ahead=0,
        relay="sending",
        sent=None if revision is None else sent(revision),
    )
    return made.model_copy(update=changes)


def cached(revision: int | None, position: int | None = 200, *, deleted: bool = False, **changes: Any) -> Cached:
    row = None if revision is None else Row(revision, deleted)
    return replace(Cached(1, row, position, position or 0, 0.5), **changes)


def letter(revision: int | None, offset: int = 100, status: Status = Status.OPEN) -> Letter:
    return Letter(f"events/4/{offset}", offset, revision, "undecodable", "BadRecordError: no", status, NOW)


def letters(*some: Letter, complete: bool = True) -> Letters:
    return Letters(some, complete)


def facts(**changes: Any) -> Facts:
    """A file whose newest change, revision 3 at offset 100, is visible."""
    log = Log(200, 200, LagStatus.OK, 1, NOW + timedelta(seconds=5))
    return replace(Facts(FILE, 4, admin(3), cached(3), log, letters()), **changes)


@dataclass(frozen=True)
class Case:
    facts: Facts
    held_up_by: HeldUpBy


CASES = {
    "visible": Case(facts(), NOTHING),
    "it waits": Case(facts(admin=admin(3, waiting=[waiting(3)], sent=sent(2, 90)), cached=cached(2)), OUTBOX),
    "it waits behind one that waits": Case(
        facts(admin=admin(3, waiting=[waiting(2), waiting(3)], sent=None), cached=cached(None)), OUTBOX
    ),
    "it waits a second time, and was applied": Case(facts(admin=admin(3, waiting=[waiting(3)])), NOTHING),
    "it waits a second time, and the first was not applied": Case(
        facts(admin=admin(3, waiting=[waiting(3)]), cached=cached(2, 100)), TOPIC
    ),
    "the projector is right before it": Case(facts(cached=cached(2, 100)), TOPIC),
    "the projector is right behind it": Case(facts(cached=cached(2, 101), letters=letters(letter(3))), DEAD_LETTER),
    "nothing was ever applied": Case(facts(cached=cached(None, None)), TOPIC),
    "replayed, and was behind it before": Case(
        facts(cached=cached(2, 50, reached=150), letters=letters(letter(3))), DEAD_LETTER
    ),
    "put aside": Case(facts(cached=cached(2), letters=letters(letter(3))), DEAD_LETTER),
    "put aside, and a redrive failed": Case(
        facts(cached=cached(2), letters=letters(letter(3, status=Status.FAILED))), DEAD_LETTER
    ),
    "put aside and dropped": Case(
        facts(cached=cached(2), letters=letters(letter(3, status=Status.DROPPED))), DEAD_LETTER
    ),
    "put aside, told by its offset alone": Case(facts(cached=cached(2), letters=letters(letter(None))), DEAD_LETTER),
    "one of before was put aside": Case(facts(letters=letters(letter(2, 90))), NOTHING),
    "one of before was put aside, and this was lost": Case(
        facts(cached=cached(2), letters=letters(letter(2, 90), letter(None, 80))), CACHE
    ),
    "redriven, and not there": Case(facts(cached=cached(2), letters=letters(letter(3, status=Status.REDRIVEN))), CACHE),
    "passed by, and the letters were not all read": Case(
        facts(cached=cached(2), letters=letters(complete=False)), UNCLEAR
    ),
    "passed by without a letter": Case(facts(cached=cached(2)), CACHE),
    "a revision that never was": Case(facts(cached=cached(4)), CACHE),
    "deleted, and a row says so": Case(facts(admin=admin(3, deleted=True), cached=cached(3, deleted=True)), NOTHING),
    "deleted, and no row is left": Case(facts(admin=admin(3, deleted=True, sent=None), cached=cached(None)), NOTHING),
    "deleted, and still shown": Case(facts(admin=admin(3, deleted=True), cached=cached(2, 100)), TOPIC),
    "deleted before it was ever shown": Case(
        facts(admin=admin(3, deleted=True, waiting=[waiting(3)], sent=sent(2)), cached=cached(None)), OUTBOX
    ),
    "deleted, and neither was applied": Case(facts(admin=admin(3, deleted=True), cached=cached(None, 100)), TOPIC),
    "being uploaded": Case(facts(admin=admin(None, sagas=[saga("running")]), cached=cached(None)), SAGA),
    "an upload that was given up": Case(
        facts(admin=admin(None, sagas=[saga("compensated", error="no room")]), cached=cached(None)), SAGA
    ),
    "being replaced, and what was before is shown": Case(facts(admin=admin(3, sagas=[saga("running")])), SAGA),
    "being replaced, and what was before waits": Case(
        facts(admin=admin(3, sagas=[saga("running")], waiting=[waiting(3)], sent=None), cached=cached(2)), OUTBOX
    ),
    "deleted while it was being replaced": Case(
        facts(admin=admin(3, deleted=True, sagas=[saga("running")]), cached=cached(3, deleted=True)), NOTHING
    ),
    "recorded, with bytes left to remove": Case(facts(admin=admin(3, sagas=[saga("recorded")])), NOTHING),
    "a change that was given up": Case(facts(admin=admin(3, sagas=[saga("compensating")])), NOTHING),
    "nobody knows it": Case(facts(admin=admin(None), cached=cached(None)), UNKNOWN),
    "nobody knows it, and some letters were not read": Case(
        facts(admin=admin(None), cached=cached(None), letters=letters(complete=False)), UNCLEAR
    ),
    "nobody knows it, and some part was silent": Case(
        facts(admin=admin(None), cached=cached(None), log=None, troubles={Part.LAG: "away"}), UNCLEAR
    ),
    "shown, and it does not exist": Case(facts(admin=admin(None)), CACHE),
    "deleted in the cache, and never known": Case(facts(admin=admin(None), cached=cached(3, deleted=True)), NOTHING),
    "put aside, and never known": Case(
        facts(admin=admin(None), cached=cached(None), letters=letters(letter(3))), DEAD_LETTER
    ),
    "put aside and dropped, and never known": Case(
        facts(admin=admin(None), cached=cached(None), letters=letters(letter(3, status=Status.DROPPED))), NOTHING
    ),
    "sent long ago, and all is applied": Case(
        facts(admin=admin(3, sent=None), cached=cached(2), letters=letters(letter(3))), DEAD_LETTER
    ),
    "sent long ago, and not all is applied": Case(facts(admin=admin(3, sent=None), cached=cached(2, 199)), TOPIC),
    "sent to nobody knows where, and the log was looked at before": Case(
        facts(admin=admin(3, sent=sent(3, None)), cached=cached(2), log=Log(200, 200, LagStatus.OK, 1, NOW)), UNCLEAR
    ),
    "the log ends before it": Case(facts(admin=admin(3, sent=sent(3, 300)), cached=cached(None)), TOPIC),
    "the database is silent, and the group is not behind it": Case(facts(cached=None), UNCLEAR),
    "the database is silent, and the group is before it": Case(
        facts(cached=None, log=Log(100, 200, LagStatus.STALL, 1, NOW)), TOPIC
    ),
    "the database is silent, and it waits": Case(
        facts(cached=None, admin=admin(3, waiting=[waiting(3)], sent=None)), OUTBOX
    ),
    "Admin is silent, and it is shown": Case(facts(admin=None), UNCLEAR),
    "Admin is silent, and a newer record is not applied": Case(facts(admin=None, unread=Unread(210, 4)), TOPIC),
    "Admin is silent, and the record that is not applied is a repeat": Case(
        facts(admin=None, unread=Unread(210, 3)), UNCLEAR
    ),
    "Admin is silent, and a newer one was put aside": Case(facts(admin=None, letters=letters(letter(4))), DEAD_LETTER),
    "Admin is silent, and an older one was put aside": Case(
        facts(admin=None, letters=letters(letter(3), letter(None))), UNCLEAR
    ),
    "all are silent": Case(facts(admin=None, cached=None, log=None, letters=None), UNCLEAR),
}


@pytest.mark.parametrize("name", CASES)
def test_the_station_that_holds_the_newest_change_up_is_named(name: str) -> None:
    assert judge(CASES[name].facts) is CASES[name].held_up_by


@pytest.mark.parametrize("name", CASES)
def test_marks_agree_with_the_verdict_and_words_are_found_for_everything(name: str) -> None:
    case = CASES[name]
    lines = stations(case.facts, case.held_up_by)
    marks = {one.name: one.mark for one in lines}
    assert list(marks) == [one for one in Name if one in marks]
    assert all(one.told for one in lines)
    if case.held_up_by in {NOTHING, UNCLEAR, UNKNOWN}:
        assert Mark.HERE not in marks.values()
    else:
        assert [one for one in marks if marks[one] is Mark.HERE] == [Name(case.held_up_by.value)]
    order = [Mark.DONE, Mark.HERE, Mark.UNCLEAR, Mark.NOT_YET]
    assert list(marks.values()) == sorted(marks.values(), key=order.index)
    if case.held_up_by is NOTHING:
        assert set(marks.values()) == {Mark.DONE}
    said = sentence(case.facts, case.held_up_by)
    assert said.endswith(".")
    assert "None" not in said + "".join(one.told for one in lines)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].held_up_by is not UNKNOWN])
def test_the_verb_knows_what_to_do_about_everything_and_names_only_commands_that_exist(name: str) -> None:
    case = CASES[name]
    hints = list(next_steps(TraceView.of(case.facts, case.held_up_by).model_dump(mode="json")))
    assert bool(hints) is (case.held_up_by is not NOTHING)
    for verb, _, arguments in (hint.partition("artstore ")[2].partition(" ") for hint in hints if "artstore " in hint):
        command = VERBS[verb.strip("`")]
        below = getattr(command, "commands", None)
        assert below is None or arguments.split()[0] in below


@st.composite
def ways(draw: st.DrawFn) -> tuple[Facts, HeldUpBy]:
    """A file somewhere on its way as an honest world has it, and where that is."""
    revision = draw(st.integers(1, 5))
    offset = draw(st.integers(0, 50))
    end = draw(st.integers(offset + 1, 80))
    place = draw(st.sampled_from([OUTBOX, TOPIC, DEAD_LETTER, NOTHING]))
    before = draw(st.sampled_from([None, *range(1, revision)]))
    # A deletion that was put aside holds nothing up where nothing of the file is shown.
    deleted = draw(st.booleans()) and not (before is None and place is DEAD_LETTER)
    if place is OUTBOX:
        end = draw(st.integers(0, offset))
        known = admin(revision, deleted=deleted, waiting=[waiting(revision)], sent=None)
    else:
        known = admin(revision, deleted=deleted, sent=sent(revision, offset))
    position = draw(st.integers(0, offset if place is TOPIC else end))
    if place in {DEAD_LETTER, NOTHING}:
        position = draw(st.integers(offset + 1, end))
    row = Row(revision, deleted) if place is NOTHING else None if before is None else Row(before, deleted=False)
    # What is committed follows what is in the rows.
    log = Log(draw(st.none() | st.integers(0, position)), end, LagStatus.OK, 1, NOW + timedelta(seconds=5))
    put_aside = (letter(revision, offset),) if place is DEAD_LETTER else ()
    unread = Unread(offset, revision) if place is TOPIC else None
    told = Facts(FILE, 4, known, Cached(1, row, position, position, 1.0), log, letters(*put_aside), unread)
    return told, place


@given(ways())
def test_where_all_parts_tell_the_place_is_named_exactly(way: tuple[Facts, HeldUpBy]) -> None:
    told, place = way
    assert judge(told) is place


@given(ways(), st.sets(st.sampled_from(list(SILENT))))
def test_a_part_that_is_silent_never_makes_the_others_tell_what_is_not_so(
    way: tuple[Facts, HeldUpBy], silent: set[Part]
) -> None:
    told, place = way
    nothing: dict[str, Any] = {SILENT[part]: None for part in silent}
    heard = replace(told, **nothing, troubles=dict.fromkeys(silent, "away"))
    if Part.DATABASE in silent:
        heard = replace(heard, unread=None)
    # Without the database a commit that is late is all there is to tell how far the rows are.
    late = Part.DATABASE in silent and judge(heard) is TOPIC
    assert judge(heard) in {place, UNCLEAR} or late
    stations(heard, judge(heard))
    sentence(heard, judge(heard))


def test_nothing_is_told_to_be_done_while_nobody_says_what_the_newest_change_is() -> None:
    told = facts(admin=None, troubles={Part.ADMIN: "away"})
    assert {one.mark for one in stations(told, UNCLEAR)} == {Mark.UNCLEAR}


def test_the_silent_are_named_in_what_is_told() -> None:
    told = facts(admin=None, troubles={Part.ADMIN: "ADMIN_API_URL is not set"})
    assert "admin: ADMIN_API_URL is not set" in sentence(told, UNCLEAR)
    assert {one.name: one.told for one in stations(told, UNCLEAR)}[Name.OUTBOX] == "not told: ADMIN_API_URL is not set"


def test_what_stands_still_is_told_with_how_far_it_is_before_the_record() -> None:
    log = Log(90, 200, LagStatus.STALL, 1, NOW)
    said = sentence(facts(cached=cached(2, 90, idle=300.0), log=log), TOPIC)
    assert "11 offsets before" in said
    assert "its group commits and does not move" in said
    assert "the position has not moved for 5 min" in said
    for status in (LagStatus.STOP, LagStatus.OK):
        nobody = sentence(facts(cached=cached(2, 90), log=replace(log, status=status, members=0)), TOPIC)
        assert "no projector is in its group" in nobody


def test_what_the_broker_told_some_time_ago_is_shown_as_old() -> None:
    told = facts(cached=cached(2, 90), troubles={Part.LAG: "what the broker told is 30 s old: no answer"})
    [line] = [one.told for one in stations(told, TOPIC) if one.name is Name.TOPIC]
    assert line == "partition 4, offset 100; position 90, log end 200 (what the broker told is 30 s old: no answer)"


@pytest.mark.parametrize(
    ("relay", "words"), [("nobody", "no relay"), ("held", "EVENT_PUBLISH_ENABLED"), ("sending", "a relay sends")]
)
def test_who_is_to_send_what_waits_is_told(relay: str, words: str) -> None:
    told = facts(admin=admin(3, waiting=[waiting(3)], sent=None, relay=relay, ahead=1_234), cached=cached(2))
    assert words in sentence(told, OUTBOX)
    assert "1,234 events before it" in sentence(told, OUTBOX)


def test_a_record_that_the_log_does_not_have_any_more_is_told_of_as_lost() -> None:
    lost = facts(admin=admin(3, sent=sent(3, 300)), cached=cached(None))
    assert "the log ends before that: the topic was made anew" in sentence(lost, TOPIC)
    before = replace(lost, log=Log(200, 200, LagStatus.OK, 1, NOW - timedelta(seconds=1)))
    assert "made anew" not in sentence(before, judge(before))


def test_times_are_told_in_units_of_people() -> None:
    assert [span(seconds) for seconds in (0, 1.25, 59, 200, 4 * 3600, 3 * 86_400)] == [
        "0.0 s", "1.2 s", "59 s", "3 min", "4 h", "3 d",
    ]  # fmt: skip


def test_every_verdict_has_a_case() -> None:
    assert {case.held_up_by for case in CASES.values()} == set(HeldUpBy)
