"""A dead letter is the record as it was, and what is said of it can be read whatever stands there."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from consumer_query.dead_letter_log import Group, Listed, Selection, told
from consumer_query.dead_letters import FOREIGN, LONGEST_ERROR, DeadLetter, from_record
from consumer_query.resolutions import HISTORY_KEPT, Resolution, Status, resolved, status_of
from schemas.codec import encode
from schemas.topics import FILE_EVENTS, RESOLUTIONS, cards, topic_name
from tests.samples import MOMENT, created

_bytes = st.none() | st.binary(max_size=30)
_name = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_headers = st.lists(st.tuples(_name, _bytes), max_size=12).map(tuple)

letters = st.builds(
    DeadLetter,
    topic=_name,
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp_ms=st.integers(-1, 2**62),
    key=_bytes,
    value=_bytes,
    headers=_headers,
    reason=_name,
    error=_name,
    at=st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    attempt=st.integers(0, 1000),
    group=_name,
)


def on_topic(key: bytes | None, value: bytes | None, headers: Any, offset: int = 7) -> "ConsumerRecord[bytes, bytes]":
    return ConsumerRecord("events.dlq", 0, offset, 1_768_298_400_000, 0, key, value, None, -1, -1, headers)


def letter(**changes: Any) -> DeadLetter:
    made = DeadLetter(
        topic="events",
        partition=3,
        offset=41,
        timestamp_ms=1_768_298_400_000,
        key=b"key",
        value=b"value",
        headers=(("revision", b"2"),),
        reason="undecodable",
        error="BadRecordError: no",
        at=MOMENT,
        attempt=1,
    )
    return replace(made, **changes)


@given(letters)
def test_what_was_put_aside_is_read_back(put: DeadLetter) -> None:
    record = put.to_record()
    assert from_record(on_topic(record.key, record.value, record.headers)) == put


@given(letters)
def test_key_value_and_headers_stand_first_and_untouched(put: DeadLetter) -> None:
    record = put.to_record()
    assert (record.key, record.value) == (put.key, put.value)
    assert record.headers[: len(put.headers)] == put.headers
    assert all(name.startswith("dlq.") for name, _ in record.headers[len(put.headers) :])


def test_a_dead_letter_that_was_put_aside_again_is_read_by_its_outer_headers() -> None:
    inner = letter().to_record()
    outer = letter(topic="other", headers=inner.headers).to_record()
    assert from_record(on_topic(None, None, outer.headers)).topic == "other"


@given(_bytes, _bytes, _headers)
def test_a_foreign_record_is_read_as_one(key: bytes | None, value: bytes | None, headers: Any) -> None:
    found = from_record(on_topic(key, value, headers))
    assert (found.reason, found.position) == (FOREIGN, "events.dlq/0/7")
    assert (found.key, found.value, found.headers) == (key, value, headers)


@given(st.lists(_bytes, min_size=9, max_size=9))
def test_our_headers_with_anything_in_them_are_read(values: list[bytes | None]) -> None:
    names = [name for name, _ in letter(headers=()).to_record().headers]
    found = from_record(on_topic(b"k", b"v", tuple(zip(names, values, strict=True))))
    assert found.reason == FOREIGN or found.position


def test_a_long_or_strange_error_is_cut_and_kept_readable() -> None:
    record = letter(error="ValueError: \ud800" + "x" * 10_000).to_record()
    found = from_record(on_topic(None, None, record.headers))
    assert found.error.startswith("ValueError: \\ud800xxx")
    assert len(found.error) < LONGEST_ERROR + 10
    assert found.error_class == "ValueError"


def failed(one: DeadLetter, before: Resolution | None = None, **changes: Any) -> Resolution:
    done: dict[str, Any] = {"at": MOMENT, "actor": "tests", "action": "redrive", "note": "still bad"} | changes
    return resolved(one, before, done.pop("outcome", Status.FAILED), **done)


def test_failures_are_counted_and_the_history_keeps_the_newest_within_the_topics_bound() -> None:
    resolution = None
    for number in range(HISTORY_KEPT + 10):
        resolution = failed(letter(), resolution, note=f"{number} " + "Ж" * 5_000, actor="Ж" * 100)
    assert resolution is not None
    assert resolution.attempts == HISTORY_KEPT + 10
    assert [one.note.split()[0] for one in resolution.history[:: HISTORY_KEPT - 1]] == ["10", "59"]
    assert len(resolution.model_dump_json().encode()) < int(cards()[RESOLUTIONS].config["max.message.bytes"].value) / 4


def test_a_letter_is_open_until_something_settles_it() -> None:
    assert status_of(letter(), None) is Status.OPEN
    for outcome in Status:
        found = status_of(letter(), failed(letter(), outcome=outcome))
        assert found is outcome
        assert found.is_open == (outcome in {Status.OPEN, Status.FAILED})


def test_a_letter_that_was_put_aside_again_after_its_redrive_is_open_again() -> None:
    later, done = letter(at=MOMENT + timedelta(seconds=1)), failed(letter(), outcome=Status.REDRIVEN)
    assert status_of(later, done) is Status.OPEN
    assert status_of(later, failed(letter(), outcome=Status.DROPPED)) is Status.DROPPED


def test_another_record_at_the_same_position_is_another_letter() -> None:
    anew, dropped = letter(timestamp_ms=1), failed(letter(), outcome=Status.DROPPED)
    assert status_of(anew, dropped) is Status.OPEN
    assert failed(anew, dropped).attempts == 1
    assert len(failed(anew, dropped).history) == 1


def test_a_letter_says_which_file_it_is_about_as_far_as_it_can() -> None:
    event = created(revision=4)
    whole = told(letter(key=str(event.file_id).encode(), value=encode(event), headers=()))
    assert (whole.file_id, whole.revision, whole.name) == (event.file_id, 4, "document.pdf")
    broken = told(letter(key=str(event.file_id).encode(), value=b"\xff"))
    assert (broken.file_id, broken.revision, broken.name) == (event.file_id, 2, None)
    keyless = told(letter(key=b"\xff", value=encode(event), headers=(("revision", b"-9"),)))
    assert (keyless.file_id, keyless.revision) == (event.file_id, None)


@given(letters)
def test_what_a_letter_says_can_always_be_told(one: DeadLetter) -> None:
    assert told(one).file_id is None or one.key


def listed(**changes: Any) -> Listed:
    status = changes.pop("status", Status.OPEN)
    return Listed(0, letter(**changes), status, None)


def test_a_group_shows_open_letters_rather_than_resolved_ones() -> None:
    group = Group("undecodable", "BadRecordError")
    for offset, status in enumerate((Status.DROPPED, Status.DROPPED, Status.OPEN, Status.REDRIVEN, Status.FAILED)):
        group.add(listed(offset=offset, status=status, at=MOMENT + timedelta(seconds=offset)))
    assert (group.open, group.resolved) == (2, 3)
    assert [one.position for one in group.examples] == ["events/3/2", "events/3/4"]
    assert (group.first_at, group.last_at) == (MOMENT, MOMENT + timedelta(seconds=4))


def test_a_selection_has_what_agrees_with_all_of_it() -> None:
    one = listed()
    assert Selection().has(one)
    assert Selection("undecodable", "BadRecordError", "events/3/41").has(one)
    for wrong in (
        Selection(reason="other"),
        Selection(error="Other"),
        Selection(position="events/3/4"),
        Selection(statuses=frozenset({Status.DROPPED})),
    ):
        assert not wrong.has(one)


def test_topics_are_named_after_that_of_the_file_events() -> None:
    assert [topic_name(name, "mine") for name in cards()] == ["mine", "mine.dlq", "mine.dlq-resolutions"]
    assert topic_name(FILE_EVENTS, FILE_EVENTS) == FILE_EVENTS
    assert all(len(setting.why) > 20 for card in cards().values() for setting in card.config.values())
