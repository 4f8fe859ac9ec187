"""A topic is what its card says: the code, the operator and the broker read the same one.

The cards stand in `topics.toml`; this reads them. Making topics and comparing them with a broker is
`runtime.topics`.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

FILE_EVENTS: Final = "artstore.file-events"
DEAD_LETTERS: Final = "artstore.file-events.dlq"
RESOLUTIONS: Final = "artstore.file-events.dlq-resolutions"


@dataclass(frozen=True)
class TopicSetting:
    """One broker-side setting of a topic, and the reason it has this value."""

    value: str
    why: str


@dataclass(frozen=True)
class TopicCard:
    """Everything a stranger has to know about a topic."""

    name: str
    purpose: str
    key: str
    value: str
    headers: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    compatibility: str
    partitions: int
    config: Mapping[str, TopicSetting]


@cache
def cards() -> Mapping[str, TopicCard]:
    """All topic cards by topic name.

    Raises:
        TypeError: a card lacks a field or has one too many.
    """
    with (Path(__file__).parent / "topics.toml").open("rb") as file:
        return {name: _card(name, dict(fields)) for name, fields in tomllib.load(file).items()}


def topic_name(card: str, file_events: str) -> str:
    """A topic's name on a broker where that of the file events is `file_events`: the others are named after it."""
    return file_events + card.removeprefix(FILE_EVENTS)


def _card(name: str, fields: dict[str, object]) -> TopicCard:
    config = fields.pop("config")
    assert isinstance(config, dict)  # noqa: S101 - TOML tables are dicts
    fields["writers"] = tuple(fields["writers"])  # type: ignore[arg-type]
    fields["readers"] = tuple(fields["readers"])  # type: ignore[arg-type]
    settings = {key: TopicSetting(**setting) for key, setting in config.items()}
    return TopicCard(name=name, config=settings, **fields)  # type: ignore[arg-type]
