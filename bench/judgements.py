"""A folder of judged files and the questions that were judged on it, as they lie in `judged/`.

Judgements are decided from meaning, before anything was searched, and stay when the product fails them. A question
names every file that a reasonable person expects; `judged/README.md` says how they were made.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs
from uuid import UUID, uuid5

from consumer_query.search_parameters import SearchAsked
from schemas.events import EventType, FileEvent, FileMetadata

FOLDER: Final = Path(__file__).parent / "judged"
IDS: Final = UUID("5f0c1d52-6a3e-4b1c-9d87-2f4e8a6b7c10")
"""A judged file's id is the UUID of its name in this namespace, and its checksum the SHA-256 of its name."""


@dataclass(frozen=True)
class Question:
    """What is asked, and what it should find."""

    label: str
    """What makes it hard."""
    query: str
    parameters: Mapping[str, Any]
    """Filters and the like, by the API's names."""
    expected: Sequence[str]
    """File names, in no order."""

    def asked(self, limit: int) -> SearchAsked:
        """As the API takes it."""
        return SearchAsked.model_validate({"query": self.query, "limit": limit, **self.parameters})


def questions() -> list[Question]:
    """All of them, in the order of their file."""
    return [
        Question(
            row["label"],
            row["query"],
            {name: values if name in _LISTS else values[0] for name, values in parse_qs(row["parameters"]).items()},
            row["expected"].split(" | "),
        )
        for row in _rows("queries.tsv")
    ]


def files() -> list[FileEvent]:
    """The judged files' first records, by the time when they were made."""
    people = {row["username"]: row["full_name"] or None for row in _rows("people.tsv")}
    return [_event(row, people[row["uploader"]]) for row in _rows("files.tsv")]


_LISTS: Final = frozenset(
    name for name, field in SearchAsked.model_fields.items() if isinstance(field.get_default(), list)
)


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)


def _event(row: Mapping[str, str], fullname: str | None) -> FileEvent:
    name = row["name"]
    made = datetime.fromisoformat(row["created_at"])
    expires = row["retention_expires"]
    return FileEvent(
        event_id=uuid5(IDS, f"event {name}"),
        event_type=EventType.CREATED,
        occurred_at=made,
        file_id=uuid5(IDS, name),
        revision=1,
        storage_element_id=row["storage_element"],
        metadata=FileMetadata(
            original_filename=name,
            storage_filename=uuid5(IDS, f"storage {name}").hex,
            file_size=int(row["size"]),
            mime_type=row["type"],
            created_at=made,
            updated_at=datetime.fromisoformat(row["updated_at"]),
            created_by_username=row["uploader"],
            created_by_fullname=fullname,
            description=row["description"] or None,
            tags=tuple(filter(None, row["tags"].split(", "))),
            storage_path=f"files/{made:%Y/%m/%d}",
            checksum=f"sha256:{sha256(name.encode()).hexdigest()}",
            retention_expires_at=datetime.fromisoformat(expires).replace(tzinfo=UTC) if expires else None,
        ),
    )
