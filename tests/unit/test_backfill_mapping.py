"""A row of an older system becomes the file that it describes, or is refused with a reason that names its column."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer_admin.backfill_mapping import FIELDS, REQUIRED, Mapping, Plan, Refused, plan, read_mapping
from producer_admin.errors import MappingError
from producer_admin.files import FileRecord
from schemas.codec import Decoder, encode
from schemas.events import EventType, FileEvent

FILE_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
ROW: dict[str, Any] = {
    "file_id": FILE_ID,
    "storage_element_id": "se-01",
    "original_filename": "Договор.pdf",
    "storage_filename": "dogovor_ivanov.pdf",
    "file_size": 1048576,
    "mime_type": "application/pdf",
    "created_at": "2026-01-13T10:00:00",
    "created_by_username": "ivanov",
    "created_by_fullname": "Иван Иванов",
    "description": "Contract document",
    "version": "1.0",
    "tags": ["urgent", "contract"],
    "storage_path": "files/active",
    "checksum": "sha256:" + "a1b2c3d4" * 8,
    "retention_expires_at": "2027-01-13T13:00:00+03:00",
}
SAME_NAMES = Plan({name: name for name in FIELDS}, {}, ())
COLUMNS = dict.fromkeys(FIELDS, "text") | dict.fromkeys(
    ("created_at", "retention_expires_at"), "timestamp with time zone"
)


def read(fitted: Plan = SAME_NAMES, /, **changes: Any) -> FileRecord:
    found = fitted.record_of(json.dumps(ROW | changes))
    assert isinstance(found, FileRecord), found
    return found


def reason(fitted: Plan = SAME_NAMES, /, **changes: Any) -> str:
    found = fitted.record_of(json.dumps(ROW | changes))
    assert isinstance(found, Refused), found
    return found.reason


def test_every_field_of_a_row_is_taken_over() -> None:
    record = read()
    known = record.metadata
    assert (record.file_id, record.revision, record.storage_element_id) == (UUID(FILE_ID), 1, "se-01")
    assert (known.original_filename, known.storage_filename, known.storage_path, known.file_size) == (
        "Договор.pdf",
        "dogovor_ivanov.pdf",
        "files/active",
        1048576,
    )
    assert (known.mime_type, known.version, known.tags) == ("application/pdf", "1.0", ("urgent", "contract"))
    assert (known.created_by_username, known.created_by_fullname) == ("ivanov", "Иван Иванов")
    assert (known.description, known.checksum) == ("Contract document", "sha256:" + "a1b2c3d4" * 8)
    assert known.created_at == datetime(2026, 1, 13, 10, tzinfo=UTC)
    assert known.retention_expires_at == datetime(2027, 1, 13, 10, tzinfo=UTC)


@pytest.mark.parametrize("written", ["AB" * 32, "sha256:" + "ab" * 32, "SHA256:" + "Ab" * 32, f" {'ab' * 32}\n"])
def test_a_checksum_is_taken_with_or_without_its_algorithm_in_any_case(written: str) -> None:
    assert read(checksum=written).metadata.checksum == "sha256:" + "ab" * 32


@pytest.mark.parametrize("written", ["ab" * 16, "md5:" + "ab" * 32, "sha512:" + "ab" * 64, "zz" * 32, "sha256:", 7])
def test_another_checksum_is_refused(written: Any) -> None:
    assert reason(checksum=written).startswith("checksum: ")


@pytest.mark.parametrize(
    ("written", "tags"),
    [
        (["a", "б"], ("a", "б")),
        ("a, б,,a ", ("a", "б")),
        ('["a", "б, в"]', ("a", "б, в")),
        ("[не список", ("[не список",)),
        ("[" * 50, ("[" * 50,)),
        ([" a ", None, "", "a"], ("a",)),
        (None, ()),
        ("", ()),
        ([], ()),
        ("[]", ()),
    ],
)
def test_tags_are_a_list_or_json_or_text_with_commas(written: Any, tags: tuple[str, ...]) -> None:
    assert read(tags=written).metadata.tags == tags


@pytest.mark.parametrize("written", [{"a": 1}, 7, [1], ["a\x00"], ["x" * 101], [str(n) for n in range(101)]])
def test_other_tags_are_refused(written: Any) -> None:
    assert reason(tags=written).startswith("tags: ")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("file_id", "not-a-uuid"),
        ("file_id", 5),
        ("storage_element_id", "SE 01"),
        ("original_filename", "a\nb"),
        ("original_filename", "a\x00b"),
        ("original_filename", "x" * 256),
        ("original_filename", "\ud800"),
        ("storage_filename", ".."),
        ("storage_filename", "a/b"),
        ("storage_filename", "a\x1bb"),
        ("storage_path", "../../etc"),
        ("storage_path", "a//b"),
        ("storage_path", "/"),
        ("storage_path", "a/\x07"),
        ("storage_path", "a/" * 600),
        ("file_size", -1),
        ("file_size", 2**63),
        ("file_size", 1.5),
        ("file_size", "many"),
        ("created_at", "infinity"),
        ("created_at", "20000-01-01T00:00:00"),
        ("created_at", "1969-12-31T23:59:59"),
        ("created_at", 1768298400),
        ("retention_expires_at", "0044-03-15T00:00:00 BC"),
        ("mime_type", "pdf"),
        ("description", "x" * 10_001),
        ("description", "a\x00b"),
        ("version", "1\t0"),
        ("created_by_username", "x" * 101),
        ("created_by_fullname", "\x7f"),
    ],
)
def test_a_value_that_an_upload_may_not_have_is_refused_and_its_column_named(column: str, value: Any) -> None:
    said = reason(**{column: value})
    assert said.startswith(f"{column}: ")
    assert said.isprintable()


@pytest.mark.parametrize("column", REQUIRED)
@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_a_file_without_what_it_needs_is_refused(column: str, nothing: Any) -> None:
    assert reason(**{column: nothing}) == f"{column}: Field required"


def test_what_a_file_may_lack_becomes_what_an_upload_that_says_nothing_gets() -> None:
    known = read(**dict.fromkeys(set(FIELDS) - set(REQUIRED), None)).metadata
    assert (known.mime_type, known.created_by_username, known.tags) == ("application/pdf", "anonymous", ())
    assert {known.created_by_fullname, known.description, known.version, known.retention_expires_at} == {None}
    assert read(version="", description=" ", created_by_fullname="").metadata.version is None


def test_all_faults_of_a_row_are_named_by_the_columns_of_the_source() -> None:
    fitted = Plan({**SAME_NAMES.columns, "file_size": "Bytes", "checksum": "hash"}, {}, ())
    said = reason(fitted, file_size=-1, checksum="x")
    assert "Bytes: " in said
    assert "; hash: " in said


@pytest.mark.parametrize("row", ["[" * 100_000, '{"file_size": ' + "9" * 5_000 + "}", "{"])
def test_a_row_that_no_json_reader_takes_is_refused(row: str) -> None:
    assert isinstance(SAME_NAMES.record_of(row), Refused)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=4)
)


@given(st.dictionaries(st.sampled_from(FIELDS), _json))
def test_whatever_a_row_holds_it_is_refused_or_can_be_announced_and_stored(changes: dict[str, Any]) -> None:
    found = SAME_NAMES.record_of(json.dumps(ROW | changes))
    if isinstance(found, Refused):
        assert found.reason.isprintable()
        return
    event = FileEvent(
        event_id=UUID(int=1),
        event_type=EventType.CREATED,
        occurred_at=found.metadata.created_at,
        file_id=found.file_id,
        revision=1,
        storage_element_id=found.storage_element_id,
        metadata=found.metadata,
    )
    assert Decoder().decode(encode(event)) == event
    assert "\x00" not in repr(found)


def test_without_a_mapping_the_fields_own_names_are_columns() -> None:
    fitted = plan(Mapping(), COLUMNS)
    assert fitted.columns == SAME_NAMES.columns
    assert fitted.remarks == ()


def test_a_missing_column_is_named_with_those_that_there_are() -> None:
    del (columns := dict(COLUMNS))["checksum"]
    with pytest.raises(MappingError, match=r"no column checksum\. Its columns are original_filename, "):
        plan(Mapping(), columns)
    # Named in the mapping, it has to be there even if a file could do without.
    with pytest.raises(MappingError, match="no column labels"):
        plan(Mapping(columns={"tags": "labels"}), COLUMNS)


def test_columns_that_files_can_do_without_may_be_missing_and_this_is_remarked() -> None:
    columns = {name: kind for name, kind in COLUMNS.items() if name in REQUIRED}
    fitted = plan(Mapping(), columns)
    assert fitted.columns.keys() == set(REQUIRED)
    assert len(fitted.remarks) == 1
    assert "mime_type, description, version, tags" in fitted.remarks[0]


def test_moments_without_a_zone_are_taken_as_utc_and_this_is_remarked() -> None:
    fitted = plan(Mapping(columns={"created_at": "added"}), COLUMNS | {"added": "timestamp without time zone"})
    assert fitted.remarks == ("Moments in added that name no time zone are taken as UTC.",)


def test_a_constant_stands_for_a_column() -> None:
    del (columns := dict(COLUMNS))["storage_element_id"]
    fitted = plan(Mapping(constants={"storage_element_id": "se-07", "tags": ["old"]}), columns)
    assert read(fitted, tags=["new"]).storage_element_id == "se-07"
    assert read(fitted, tags=["new"]).metadata.tags == ("old",)


@pytest.mark.parametrize("constants", [{"storage_element_id": "SE 01"}, {"storage_path": ""}, {"file_size": -1}])
def test_a_constant_that_breaks_a_rule_is_found_before_any_row_is_read(constants: dict[str, Any]) -> None:
    with pytest.raises(MappingError, match=f"Constant {next(iter(constants))} of the mapping breaks a rule"):
        plan(Mapping(constants=constants), COLUMNS)


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("columns = [", "not TOML"),
        ("colums = {}", "says colums; it may say table, key, columns, constants"),
        ("table = 3", "table of the mapping file must be text"),
        ("columns = 'x'", "columns of the mapping file must be a table"),
        ("[columns]\nname = 'x'", "no field name; they have original_filename"),
        ("[columns]\ntags = 3", "The column of tags"),
        ("[columns]\ntags = 'x'\n[constants]\ntags = []", "gives tags both"),
    ],
)
def test_a_mapping_file_with_a_fault_is_refused_by_name(toml: str, said: str) -> None:
    with pytest.raises(MappingError, match=said):
        read_mapping(toml)


def test_the_example_mapping_reads() -> None:
    mapping = read_mapping(Path("tests/examples/documents.toml").read_text(encoding="utf-8"))
    assert (mapping.table, mapping.key, mapping.columns["original_filename"]) == ("documents", "id", "title")
