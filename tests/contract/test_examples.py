"""Golden records: every version ever written is read by the newest reader (BACKWARD_TRANSITIVE), byte for byte.

A new schema version adds a folder beside the old ones; a change that cannot read an old folder fails here. To add
examples for a new version, write the events with that version's encoder once and commit the files for ever.
"""

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schemas.codec import Decoder, encode, versions
from schemas.events import EventType, FileEvent, FileMetadata

EXAMPLES = Path("schemas/examples")
ALL = sorted(EXAMPLES.glob("v*/*.hex"))


def as_json(event: FileEvent) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(event), default=str))  # type: ignore[no-any-return]


def event_of(values: dict[str, Any]) -> FileEvent:
    def moment(text: str | None) -> datetime | None:
        return text and datetime.fromisoformat(text)  # type: ignore[return-value]

    known = values["metadata"]
    if known is not None:
        times = {name: moment(known[name]) for name in ("created_at", "updated_at", "retention_expires_at")}
        known = FileMetadata(**known | times | {"tags": tuple(known["tags"])})
    return FileEvent(
        **values
        | {
            "event_id": UUID(values["event_id"]),
            "file_id": UUID(values["file_id"]),
            "event_type": EventType(values["event_type"]),
            "occurred_at": moment(values["occurred_at"]),
            "metadata": known,
        }
    )


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_record_of_any_version_reads_as_it_did_when_it_was_written(path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text())
    assert as_json(Decoder().decode(bytes.fromhex(path.read_text()))) == expected


@pytest.mark.parametrize(
    "path", [path for path in ALL if path.parent.name == f"v{versions()[-1].number}"], ids=lambda path: path.stem
)
def test_the_newest_version_is_written_as_its_examples_are(path: Path) -> None:
    event = event_of(json.loads(path.with_suffix(".json").read_text()))
    assert encode(event).hex() == path.read_text().strip()


def test_each_version_has_examples_of_each_event_type() -> None:
    for version in versions():
        folder = EXAMPLES / f"v{version.number}"
        types = {json.loads(path.read_text())["event_type"] for path in folder.glob("*.json")}
        assert types == set(EventType)
