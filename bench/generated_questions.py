"""Questions whose answer needs no judgement: made of the files, and so many that nothing can be fitted to them.

- `generated_name`, `generated_uuid`, `generated_checksum`: of files among thousands with the same words
- `generated_typo`: a word that only one file has, with one slip of the fingers that makes no word of any file. Some
  slips come out as near to another word as to the one that was meant.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from bench.judgements import Question
from schemas.events import FileEvent, FileMetadata

_WORD: Final = re.compile(r"[^\W\d_]{5,}")
"""Shorter ones are hardly ever corrected rightly, by anybody."""
_LATIN: Final = "abcdefghijklmnopqrstuvwxyz"
_CYRILLIC: Final = "абвгдежзийклмнопрстуфхцчшщъыьэюя"


def of_whole_values(events: Sequence[FileEvent], count: int, seed: int = 5) -> Iterator[Question]:
    """`count` questions of each kind for exactly one file: its name, its id, its checksum."""
    chance = random.Random(seed)  # noqa: S311 - the same questions in each run
    named = Counter(_known(event).original_filename.lower() for event in events)
    for event in chance.sample([one for one in events if named[_known(one).original_filename.lower()] == 1], count):
        metadata = _known(event)
        name = [metadata.original_filename]
        yield Question("generated_name", metadata.original_filename, {}, name)
        yield Question("generated_uuid", str(event.file_id), {}, name)
        yield Question("generated_checksum", metadata.checksum, {}, name)


def of_slips(events: Sequence[FileEvent], asked: Sequence[FileEvent], count: int, seed: int = 6) -> Iterator[Question]:
    """`count` questions for words of the files in `asked`, each mistyped.

    Args:
        events: all files
        asked: those of them that are looked for
        count: at most as many as there are words that one file alone has
        seed: of the choice
    """
    chance = random.Random(seed)  # noqa: S311 - the same questions in each run
    files = Counter(word for event in events for word in _words(event))
    alone = [(word, _known(event)) for event in asked for word in sorted(_words(event)) if files[word] == 1]
    for word, metadata in chance.sample(alone, count):
        while (typed := _slipped(word, chance)) in files:
            pass
        yield Question("generated_typo", typed, {}, [metadata.original_filename])


def _slipped(word: str, chance: random.Random) -> str:
    """A letter too many, too few, another, or two changed about; never the first one, which people hardly mistype."""
    place = chance.randrange(1, len(word) - 1)
    before, letter, behind = word[:place], word[place], word[place + 1 :]
    other = chance.choice(_LATIN if word.isascii() else _CYRILLIC)
    return chance.choice(
        (
            before + other + letter + behind,
            before + behind,
            before + other + behind,
            before + behind[0] + letter + behind[1:],
        )
    )


def _words(event: FileEvent) -> set[str]:
    metadata = _known(event)
    text = " ".join((metadata.original_filename, *metadata.tags, metadata.description or ""))
    return {word.replace("ё", "е") for word in _WORD.findall(text.lower())}


def _known(event: FileEvent) -> FileMetadata:
    if event.metadata is None:
        raise ValueError("a deleted file cannot be asked for")
    return event.metadata
