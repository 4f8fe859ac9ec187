"""Reading a record: a file's state, or a reason; never anything else."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_query.projection import FileState
from consumer_query.read_model import row_of
from consumer_query.records import BadRecordError, Reason, RecordReader, claim_of
from schemas.codec import encode
from schemas.events import EventType, FileEvent, record_headers
from tests.samples import created, deleted, events, updated

READER = RecordReader(None)
FILE = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")


def read(event: FileEvent, key: bytes | None = None) -> FileState:
    return READER.state_of(str(event.file_id).encode() if key is None else key, encode(event), {})


def reason_of(key: bytes | None, value: bytes | None, headers: dict[str, bytes]) -> Reason:
    with pytest.raises(BadRecordError) as caught:
        READER.state_of(key, value, headers)
    return caught.value.reason


@given(events())
def test_every_event_of_the_contract_is_a_state_or_is_refused_with_a_reason(event: FileEvent) -> None:
    try:
        state = read(event)
        row = row_of(state)
    except BadRecordError as error:
        assert error.reason in {Reason.UNSTORABLE_TEXT, Reason.OUT_OF_RANGE}  # noqa: PT017 - either outcome is right
        return
    assert (row.file_id, row.revision) == (str(event.file_id), event.revision)
    assert state.deleted == (event.event_type is EventType.DELETED)
    assert state.event_type == event.event_type


@given(st.none() | st.binary(max_size=80), st.none() | st.binary(max_size=200), st.binary(max_size=12))
def test_rubbish_is_refused_and_breaks_nothing(key: bytes | None, value: bytes | None, revision: bytes) -> None:
    if value is not None and value[:1] in {b"\x00", b"\xc3"}:
        value = b"x" + value
    assert reason_of(key, value, {"revision": revision}) in {Reason.UNDECODABLE, Reason.BREAKS_CONTRACT}


@given(st.binary(min_size=1, max_size=20), st.data())
def test_a_damaged_event_is_never_anything_but_a_state_or_refused(noise: bytes, data: st.DataObject) -> None:
    value = encode(created(FILE))
    place = data.draw(st.integers(10, len(value)))
    damaged = value[:place] + noise + value[place + len(noise) :]
    try:
        row_of(READER.state_of(str(FILE).encode(), damaged, {}))
    except BadRecordError:
        return


def test_a_tombstone_deletes_at_the_revision_in_its_header() -> None:
    state = READER.state_of(str(FILE).encode(), None, {"revision": b"7"})
    assert (state.file_id, state.revision, state.deleted, state.event_type) == (str(FILE), 7, True, "tombstone")


@pytest.mark.parametrize(
    "revision", [b"", b"0", b"-1", b"1.0", b"\xb2", b"9223372036854775808", b"1" * 5_000, b"1 ", None]
)
def test_a_tombstone_without_a_revision_is_refused(revision: bytes | None) -> None:
    headers = {} if revision is None else {"revision": revision}
    assert reason_of(str(FILE).encode(), None, headers) is Reason.BREAKS_CONTRACT


@pytest.mark.parametrize("key", [None, b"", b"x", str(FILE).upper().encode(), FILE.bytes, b"\xff" * 36])
def test_a_key_that_is_no_file_id_is_refused(key: bytes | None) -> None:
    assert reason_of(key, None, {"revision": b"1"}) is Reason.BREAKS_CONTRACT
    assert reason_of(key, encode(created(FILE)), {}) is Reason.BREAKS_CONTRACT


def test_an_event_of_another_file_is_refused() -> None:
    assert reason_of(str(uuid4()).encode(), encode(created(FILE)), {}) is Reason.BREAKS_CONTRACT


def test_bytes_left_over_are_refused() -> None:
    assert reason_of(str(FILE).encode(), encode(created(FILE)) + b"\x00", {}) is Reason.UNDECODABLE


@pytest.mark.parametrize(
    "changes",
    [{"description": "a\x00"}, {"tags": ("\x00",)}, {"original_filename": "\x00.txt"}, {"version": "\\\x00"}],
)
def test_NUL_anywhere_is_refused(changes: dict[str, Any]) -> None:  # noqa: N802 - its name
    with pytest.raises(BadRecordError) as caught:
        row_of(read(created(**changes)))
    assert caught.value.reason is Reason.UNSTORABLE_TEXT


def test_the_letters_that_json_writes_for_NUL_are_no_NUL() -> None:  # noqa: N802 - its name
    assert row_of(read(updated(FILE, 2, description=r"\u0000 and \\u0000")))


def test_a_deletion_has_no_columns_but_its_own() -> None:
    assert read(deleted(FILE, 3)).columns == {"file_id": str(FILE), "revision": 3, "deleted": True}


@given(st.integers(1, 2**63 - 1), st.integers(1, 2**63 - 1))
def test_a_record_tells_unread_what_it_is_of_unless_its_header_and_value_disagree(written: int, told: int) -> None:
    key, value = str(FILE).encode(), encode(updated(FILE, written))
    assert claim_of(key, value, record_headers(written, FILE)) == (str(FILE), written)
    assert claim_of(key, None, record_headers(told, FILE)) == (str(FILE), told)
    if told != written:
        assert claim_of(key, value, record_headers(told, FILE)) is None


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (None, encode(created(FILE)), [("revision", b"1")]),
        (b"x", encode(created(FILE)), [("revision", b"1")]),
        (str(UUID(int=1)).encode(), encode(created(FILE)), [("revision", b"1")]),
        (str(FILE).encode(), encode(created(FILE)), []),
        (str(FILE).encode(), encode(created(FILE)), [("revision", b"0")]),
        (str(FILE).encode(), b"", [("revision", b"1")]),
        (str(FILE).upper().encode(), None, [("revision", b"1")]),
    ],
)
def test_what_does_not_tell_clearly_has_to_be_read(
    key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]
) -> None:
    assert claim_of(key, value, headers) is None
