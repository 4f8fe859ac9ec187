"""Events as a working archive makes them: most are new files, most changes hit a file that is not in this run yet."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import accumulate
from typing import Final
from uuid import UUID

from schemas.events import EventType, FileEvent, FileMetadata

_BEGIN: Final = datetime(2026, 1, 13, 9, 0, tzinfo=UTC)
_STEP: Final = timedelta(milliseconds=13)
_SYLLABLES: Final = {
    "ru": ("до", "го", "вор", "пос", "тав", "от", "чёт", "квар", "тал", "счёт", "акт", "свер", "ка", "ми", "лен"),
    "en": ("con", "tract", "sup", "pli", "re", "port", "in", "voi", "sca", "fin", "dra", "ter", "mo", "del", "ark"),
}
_ENDINGS: Final = {
    "ru": ("", "а", "у", "ом", "е", "ы", "ов", "ами", "ный", "ного", "ная", "ных", "ение", "ения", "ить", "или"),
    "en": ("", "s", "ed", "ing", "er", "ers", "ion", "ions", "al", "ly", "ment", "ness"),
}
_ROOTS: Final = {"ru": 1_500, "en": 800}
_DESCRIBED: Final = 0.85
"""Of files; the rest have no description."""
_USUAL_WORDS: Final = 12
"""Of a description; a fifth have fewer than half as many, one in fifty has five times as many."""
_TAGS: Final = 200
_YOUNG: Final = 500
"""A second thought hits one of this many files that were made last."""


@dataclass
class _File:
    file_id: UUID
    revision: int
    metadata: FileMetadata


def events(count: int, seed: int = 4) -> Iterator[FileEvent]:
    """`count` events in the order of their changes, about 800 B each.

    Of 100: 75 new files, 18 changes of old files, 4 changes of files that this run made or changed, 3 deletions.
    """
    chance = random.Random(seed)  # noqa: S311 - the same events in each run
    young: list[_File] = []
    for number in range(count):
        now = _BEGIN + number * _STEP
        what = chance.random()
        if what < 0.75 or not young:
            young.append(_file(chance, 1, number, now))
            yield _event(EventType.CREATED, young[-1], now, chance)
        elif what < 0.93:
            young.append(_file(chance, chance.randrange(2, 9), number, now))
            yield _event(EventType.UPDATED, young[-1], now, chance)
        elif what < 0.97:
            file = chance.choice(young)
            file.revision += 1
            file.metadata = replace(file.metadata, description=_description(chance), updated_at=now)
            yield _event(EventType.UPDATED, file, now, chance)
        else:
            yield _event(EventType.DELETED, _file(chance, chance.randrange(2, 9), number, now), now, chance)
        del young[:-_YOUNG]


def twice_each(files: int, seed: int = 4) -> Iterator[FileEvent]:
    """Two records of each of `files` files: all are made first, then all are changed, but 5 of 100 deleted."""
    chance = random.Random(seed)  # noqa: S311 - the same events in each run
    made: list[_File] = []
    for number in range(files):
        made.append(_file(chance, 1, number, now := _BEGIN + number * _STEP))
        yield _event(EventType.CREATED, made[-1], now, chance)
    for number, file in enumerate(made):
        now = _BEGIN + (files + number) * _STEP
        file.revision = 2
        if chance.random() < 0.05:
            yield _event(EventType.DELETED, file, now, chance)
        else:
            file.metadata = replace(file.metadata, description=_description(chance), updated_at=now)
            yield _event(EventType.UPDATED, file, now, chance)


def _file(chance: random.Random, revision: int, number: int, now: datetime) -> _File:
    file_id = _uuid(chance)
    metadata = FileMetadata(
        original_filename=f"{_sentence(chance, 4)} {number}.pdf",
        storage_filename=f"{file_id}_{chance.randbytes(6).hex()}",
        file_size=chance.randrange(10_000_000),
        mime_type="application/pdf",
        created_at=now,
        updated_at=now,
        created_by_username=f"user{chance.randrange(50)}",
        created_by_fullname="Иванова Мария Петровна",
        description=_description(chance),
        version="1.0",
        tags=tuple(chance.sample(_vocabulary().words[:_TAGS], 3)),
        storage_path=f"files/{now:%Y/%m/%d}",
        checksum=f"sha256:{chance.randbytes(32).hex()}",
    )
    return _File(file_id, revision, metadata)


def _event(event_type: EventType, file: _File, now: datetime, chance: random.Random) -> FileEvent:
    return FileEvent(
        event_id=_uuid(chance),
        event_type=event_type,
        occurred_at=now,
        file_id=file.file_id,
        revision=file.revision,
        storage_element_id="se-01",
        metadata=None if event_type is EventType.DELETED else file.metadata,
    )


def _uuid(chance: random.Random) -> UUID:
    return UUID(bytes=chance.randbytes(16), version=4)


def _description(chance: random.Random) -> str | None:
    if chance.random() >= _DESCRIBED:
        return None
    return _sentence(chance, max(3, min(400, round(chance.lognormvariate(math.log(_USUAL_WORDS), 0.8)))))


def _sentence(chance: random.Random, words: int) -> str:
    known = _vocabulary()
    return " ".join(chance.choices(known.words, cum_weights=known.weights, k=words))


@dataclass(frozen=True)
class _Vocabulary:
    words: tuple[str, ...]
    """The most frequent first."""
    weights: tuple[float, ...]
    """Cumulative."""


@cache
def _vocabulary() -> _Vocabulary:
    """Forms of made-up words of both languages, as frequent as words are: by Zipf's law."""
    chance = random.Random(1)  # noqa: S311 - the same words in each run
    words: dict[str, None] = {}
    for language, roots in _ROOTS.items():
        for _ in range(roots):
            root = "".join(chance.choices(_SYLLABLES[language], k=chance.randrange(2, 4)))
            words.update(dict.fromkeys(root + ending for ending in chance.sample(_ENDINGS[language], 3)))
    ranked = list(words)
    chance.shuffle(ranked)
    weights = accumulate(1 / rank for rank in range(1, len(ranked) + 1))
    return _Vocabulary(tuple(ranked), tuple(weights))
