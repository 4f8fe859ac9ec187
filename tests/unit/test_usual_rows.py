"""Compiled code and Python make the same rows; what compiled code does not know it leaves alone."""

import sys
from importlib.util import find_spec, module_from_spec
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench import samples
from consumer_query.read_model import row_of
from consumer_query.records import RecordReader
from consumer_query.usual_rows import COMPILED, Usual, usual
from schemas.codec import encode
from schemas.events import FileEvent
from tests.samples import created, deleted, events, updated

PIECES = (
    "Договор", "договора", "ДОГОВОР", "the", "и", "file", "fileName", "HTMLPage", "report2024", "2024год", "2024",
    "0042",
    "١٢", "²", "½", "é", "e\u0301", "ё", "Ё", "е", "ﬁle", "İ", "ΟΔΥΣΣΕΥΣ", "ß", "日本", "👍", "👍🏽", "a\u00adb",
    "\u200d", "\u00a0", "\u2003", "\u3000", "\x85", "\x1c", "\x1f", "\t", "\n", "\x0b", "\x7f", "-", "_", ".", "..",
    " ",
    "  ", ",", "(", "'", "w" * 63, "w" * 64, "w" * 65, "ж" * 65, "1" * 64, "1" * 65, "ж" * 300,
)  # fmt: skip

READER = RecordReader(None)
FILE = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
KEY = str(FILE).encode()


def by_python(key: bytes, value: bytes) -> Usual:
    state = READER.state_of(key, value, {})
    return Usual(row_of(state), state.event_type)


def same(event: FileEvent) -> bool:
    """Whether compiled code knows it; its row is the same then."""
    key, value = str(event.file_id).encode(), encode(event)
    found = usual(key, value)
    assert found is None or found == by_python(key, value)
    return found is not None


def test_it_was_compiled() -> None:
    assert COMPILED, (
        "Either native/ could not be compiled: a C compiler and the headers of Python are needed for the tests; "
        "or there is a newer schema, whose layout native/artstore_rows.pyx has to learn."
    )


@pytest.mark.parametrize("module", [None, SimpleNamespace(FORM=1, RowMaker=RecordReader)], ids=["none", "an older one"])
def test_where_it_was_not_compiled_all_is_left_to_python(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "artstore_rows", module)
    spec = find_spec("consumer_query.usual_rows")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.COMPILED
    assert module.usual(KEY, encode(created(FILE))) is None


@given(events())
def test_any_event_becomes_the_same_row_or_is_left_to_python(event: FileEvent) -> None:
    same(event)


@given(st.binary(min_size=1, max_size=20), st.integers(10, 600), st.booleans())
def test_of_a_damaged_record_both_make_the_same_or_neither_makes_any(noise: bytes, place: int, insert: bool) -> None:  # noqa: FBT001 - drawn
    value = encode(created(FILE))
    place = min(place, len(value))
    damaged = value[:place] + noise + value[place + (0 if insert else len(noise)) :]
    if (found := usual(KEY, damaged)) is not None:
        assert found == by_python(KEY, damaged)


def test_of_a_record_that_ends_too_early_no_row_is_made() -> None:
    value = encode(created(FILE))
    assert usual(KEY, value) is not None
    assert [size for size in range(len(value)) if usual(KEY, value[:size])] == []
    assert usual(KEY, value + b"\x00") is None


def test_nearly_all_records_of_an_archive_are_usual() -> None:
    known = [same(event) for event in samples.events(3000) if event.metadata is not None]
    assert sum(known) > 0.99 * len(known)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example("")
def test_words_are_split_alike(text: str) -> None:
    for event in (
        created(FILE, original_filename=text),
        created(FILE, description=text, created_by_fullname=text),
        created(FILE, tags=(text, "x", text), created_by_username=text),
        created(FILE, original_filename=text, description=f"{text} {text}", mime_type=text, version=text),
        created(FILE, checksum=text, storage_path=text, storage_filename=text),
    ):
        same(event)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"description": None, "created_by_fullname": None, "version": None, "retention_expires_at": None},
        {"description": "", "created_by_fullname": "", "tags": ()},
        {"tags": ("image", "image/png", "Image"), "mime_type": "image/png"},
        {"file_size": 0},
        {"file_size": 2**63 - 1},
        {"checksum": "md5:d41d8cd98f00b204e9800998ecf8427e"},
        {"checksum": "A1B2"},
        {"storage_path": "файлы/2026", "mime_type": "тип/вид", "version": "вторая"},
        {"description": "слово " * 120},
        {"description": 'in "quotes",\r\n\ta\\b\x01'},
    ],
)
def test_these_are_usual(changes: dict[str, Any]) -> None:
    assert same(created(**changes))
    assert same(updated(FILE, 2**62, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"description": "a\x00"},
        {"tags": ("a\x00",)},
        {"description": "слово " * 141},
        {"description": "a " * 1000},
        {"description": "я" * 2000},
        {"tags": tuple(str(number) for number in range(33))},
    ],
)
def test_these_are_left_to_python(changes: dict[str, Any]) -> None:
    event = created(FILE, **changes)
    assert usual(KEY, encode(event)) is None


@pytest.mark.parametrize("key", [None, b"", b"x", KEY.upper(), KEY + b"x", KEY[:-1] + b"8"])
def test_of_another_key_no_row_is_made(key: bytes | None) -> None:
    assert usual(key, encode(created(FILE))) is None


def test_deletions_and_tombstones_are_left_to_python() -> None:
    assert usual(KEY, encode(deleted(FILE, 3))) is None
    assert usual(KEY, None) is None
