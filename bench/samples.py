"""Events as a working archive makes them: most are new files, most changes hit a file that is not in this run yet."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from schemas.events import EventType, FileEvent, FileMetadata

_BEGIN: Final = datetime(2026, 1, 13, 9, 0, tzinfo=UTC)
_STEP: Final = timedelta(milliseconds=13)
_WORDS: Final = (
    "договор", "поставка", "отчёт", "квартал", "счёт", "акт", "сверка",
    "contract", "supplier", "report", "invoice", "scan", "final", "draft",
)  # fmt: skip
_YOUNG: Final = 500
"""A second thought hits one of this many files that were made last."""


@dataclass
class _File:
    file_id: UUID
    revision: int
    metadata: FileMetadata


def events(count: int, seed: int = 4) -> Iterator[FileEvent]:
    """`count` events in the order of their changes, about 520 B each.

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
            file.metadata = replace(file.metadata, description=_sentence(chance, 12), updated_at=now)
            yield _event(EventType.UPDATED, file, now, chance)
        else:
            yield _event(EventType.DELETED, _file(chance, chance.randrange(2, 9), number, now), now, chance)
        del young[:-_YOUNG]


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
        description=_sentence(chance, 12),
        version="1.0",
        tags=tuple(chance.sample(_WORDS, 3)),
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


def _sentence(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(_WORDS, k=words))
