"""Files that nobody asks for, among which the judged ones have to be found; the same ones in each run.

They share single words with the questions, but no file holds all that a question asks for. Some of their words are
close to what is asked in spelling and far from it in meaning, so that stems and corrections can go wrong.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from schemas.events import EventType, FileEvent, FileMetadata

WORDS: Final = Path(__file__).parent / "judged" / "distractors.txt"
_FIRST_DAY: Final = datetime(2019, 1, 1, tzinfo=UTC)
_DAYS: Final = 2_500
"""Up to after the newest judged file: among equals, the newer would win."""
_TYPES: Final = {
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".txt": "text/plain",
    ".zip": "application/zip",
    ".mp4": "video/mp4",
}
_UPLOADERS: Final = (
    ("petrova_as", "Анастасия Петрова"), ("j.smithers", "Janet Smithers"), ("morozov_n", "Никита Морозов"),
    ("emil.clark", "Emil Clark"), ("sidorenko", "Олег Сидоренко"), ("volkova.manager", "Вера Волкова"),
    ("garcin_m", "Marc Garcin"), ("archive-robot", None), ("egorova", "Егорова Дарья Ильинична"),
    ("t.lind", "Tove Lind"),
)  # fmt: skip
_TAGS: Final = {"russian": ("разное", "проект", "архив", "входящие"), "english": ("misc", "project", "inbox", "old")}


def distractors(count: int, seed: int = 7) -> Iterator[FileEvent]:
    """The first records of `count` files."""
    chance = random.Random(seed)  # noqa: S311 - the same files in each run
    words = vocabulary()
    for number in range(count):
        language = chance.choice(("russian", "english"))
        name, ending = _camera(chance) if chance.random() < 0.1 else _name(chance, words, language, number)
        made = _FIRST_DAY + timedelta(days=chance.randrange(_DAYS), seconds=chance.randrange(86_400))
        username, fullname = chance.choice(_UPLOADERS)
        yield FileEvent(
            event_id=_uuid(chance),
            event_type=EventType.CREATED,
            occurred_at=made,
            file_id=_uuid(chance),
            revision=1,
            storage_element_id="office-01",
            metadata=FileMetadata(
                original_filename=name,
                storage_filename=chance.randbytes(12).hex(),
                file_size=chance.randrange(1_000, 50_000_000),
                mime_type=_TYPES[ending],
                created_at=made,
                updated_at=made,
                created_by_username=username,
                created_by_fullname=fullname,
                description=_sentence(chance, words, language, 12) if chance.random() < 0.6 else None,
                tags=tuple(chance.sample(_TAGS[language], chance.randrange(3))),
                storage_path=f"files/{made:%Y/%m/%d}",
                checksum=f"sha256:{chance.randbytes(32).hex()}",
            ),
        )


def vocabulary() -> Mapping[str, Sequence[str]]:
    """By kind: words of both languages, those that questions hold too, and those that are spelled like such a word."""
    found: dict[str, list[str]] = {}
    kind = ""
    for line in WORDS.read_text().split():
        if line.startswith("["):
            kind = line.strip("[]")
        else:
            found.setdefault(kind, []).append(line)
    return found


def _camera(chance: random.Random) -> tuple[str, str]:
    day = _FIRST_DAY + timedelta(days=chance.randrange(1_400))
    return f"IMG_{day:%Y%m%d}_{chance.randrange(100_000, 140_000)}.jpg", ".jpg"


def _name(chance: random.Random, words: Mapping[str, Sequence[str]], language: str, number: int) -> tuple[str, str]:
    """As people write them: joined in one of five ways, often with a year or a number behind."""
    parts = _sentence(chance, words, language, 4).split(" ")
    joined = chance.choice(("_", "-", " ", ".", ""))
    text = joined.join(part.capitalize() for part in parts) if not joined else joined.join(parts)
    text += chance.choice(("", f"_{chance.randrange(2015, 2023)}", f" ({chance.randrange(2, 9)})", f"-{201 + number}"))
    ending = chance.choice(list(_TYPES))
    return text + ending, ending


def _sentence(chance: random.Random, words: Mapping[str, Sequence[str]], language: str, longest: int) -> str:
    kinds = chance.choices((language, "shared", "near"), weights=(80, 12, 8), k=chance.randrange(1, longest + 1))
    return " ".join(chance.choice(words[kind]) for kind in kinds)


def _uuid(chance: random.Random) -> UUID:
    return UUID(bytes=chance.randbytes(16), version=4)
