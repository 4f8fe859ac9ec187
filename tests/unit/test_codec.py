"""The codec: what was ever written stays readable, and foreign bytes are told apart from unknown schemas."""

import json
from pathlib import Path

import fastavro.schema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import (
    CodecError,
    Decoder,
    MalformedRecordError,
    UnknownSchemaError,
    encode,
    versions,
)
from schemas.events import EventType, FileEvent
from tests.samples import MOMENT, created, deleted, events

AVRO = Path("schemas/avro")


@given(events())
def test_what_is_encoded_is_decoded(event: FileEvent) -> None:
    assert Decoder().decode(encode(event)) == event


@given(st.binary(max_size=200))
def test_foreign_bytes_are_an_error_of_the_codec_and_nothing_else(value: bytes) -> None:
    with pytest.raises(CodecError):
        Decoder().decode(value)


@given(events(), st.data())
def test_a_cut_record_is_malformed(event: FileEvent, data: st.DataObject) -> None:
    value = encode(event)
    with pytest.raises(MalformedRecordError):
        Decoder().decode(value[: data.draw(st.integers(0, len(value) - 1))])


def test_bytes_behind_the_event_are_malformed() -> None:
    with pytest.raises(MalformedRecordError):
        Decoder().decode(encode(created()) + b"x")


def test_a_record_begins_with_the_fingerprint_that_the_avro_specification_gives() -> None:
    # The specification's own vector: CRC-64-AVRO of "int" is 7275d51a3f395c8f, written little endian.
    assert bytes.fromhex(fastavro.schema.fingerprint('"int"', "CRC-64-AVRO"))[::-1].hex() == "7275d51a3f395c8f"
    assert encode(created()).startswith(versions()[-1].header)
    assert versions()[-1].header[:2] == b"\xc3\x01"


def test_an_unknown_fingerprint_is_an_unknown_schema_not_a_bad_record() -> None:
    value = encode(created())
    with pytest.raises(UnknownSchemaError, match="fingerprint") as raised:
        Decoder().decode(value[:2] + b"\x00" * 8 + value[10:])
    assert not raised.value.in_registry


def test_a_confluent_frame_is_read_once_its_schema_is_learned() -> None:
    event = created()
    framed = b"\x00" + (42).to_bytes(4, "big") + encode(event)[10:]
    decoder = Decoder()
    with pytest.raises(UnknownSchemaError) as raised:
        decoder.decode(framed)
    assert (raised.value.schema, raised.value.in_registry) == (42, True)
    decoder.learn(42, json.loads((AVRO / "file_event.v1.avsc").read_text()))
    assert decoder.decode(framed) == event


def test_every_field_of_every_schema_version_says_what_it_is() -> None:
    def undocumented(node: object, path: str) -> list[str]:
        if isinstance(node, list):
            return [one for item in node for one in undocumented(item, path)]
        if not isinstance(node, dict):
            return []
        found = []
        for field in node.get("fields", []):
            if not field.get("doc"):
                found.append(f"{path}.{field['name']}")
            found += undocumented(field["type"], f"{path}.{field['name']}")
        return found + undocumented(node["type"], path) if isinstance(node.get("type"), dict | list) else found

    for path in AVRO.glob("*.avsc"):
        assert undocumented(json.loads(path.read_text()), path.stem) == []


def test_a_deletion_carries_no_metadata_and_everything_else_does() -> None:
    with pytest.raises(ValueError, match="metadata"):
        FileEvent(
            event_id=deleted(created().file_id, 2).event_id,
            event_type=EventType.CREATED,
            occurred_at=MOMENT,
            file_id=created().file_id,
            revision=1,
            storage_element_id="se-01",
            metadata=None,
        )
    with pytest.raises(ValueError, match="revision"):
        created(revision=0)
