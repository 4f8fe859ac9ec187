"""A Query database full of files as a working archive holds them, made in minutes.

Processes make the rows and copy them as a rebuild does, so that what search goes through is exactly the product's; the
indexes are built afterwards. Whoever makes a row counts what it is to be found by, so that answers can be checked
against what was written, and not against what was indexed.
"""

import asyncio
import math
import multiprocessing
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import accumulate
from typing import Final, NamedTuple

import asyncpg
import uvloop

from bench.search_words import Vocabulary, lexeme_of, vocabulary
from bench.servers import Tell
from consumer_query import generations, read_model
from consumer_query.analysis import lexeme, lower_words
from consumer_query.generations import INDEXES, table_name
from consumer_query.projection import FileState
from consumer_query.read_model import Row, row_of

CHUNK: Final = 5_000
"""Files that one process makes and copies at once."""
FILL_SECONDS: Final = 1_800.0
INDEX_MEMORY: Final = "SET maintenance_work_mem = '1GB'"

_BEGIN: Final = datetime(2021, 11, 1, tzinfo=UTC)
_MICROSECONDS: Final = 1_000_000
_BEGUN: Final = int(_BEGIN.timestamp()) * _MICROSECONDS
_SPAN: Final = 5 * 365 * 86_400 * _MICROSECONDS
_DAY: Final = 86_400 * _MICROSECONDS
_JITTER: Final = 3_600 * _MICROSECONDS
_DELETED: Final = 0.02
_TAKEN_OVER: Final = 0.05
"""Of files: created long before they came into the table."""
_CHANGED: Final = 0.3
_RETAINED: Final = 0.1
_DESCRIBED: Final = 0.85
_USUAL_WORDS: Final = 12
_GLUE: Final = ("и", "в", "на", "по", "для", "с", "of", "the", "for", "and")
"""Stop words, one of five words of a description."""
_TAGS: Final = 300
_UPLOADERS: Final = 300
ELEMENTS: Final = ("se-01", "se-02", "se-03", "archive-01", "s3-cold", "gcs-eu")
_ELEMENT_WEIGHTS: Final = (40, 25, 15, 10, 7, 3)


class _Format(NamedTuple):
    mime_type: str
    usual_size: int
    """Bytes, the median of a log-normal distribution."""
    spread: float
    """Its sigma."""


_FORMATS: Final = {
    "pdf": _Format("application/pdf", 400_000, 1.4),
    "docx": _Format("application/vnd.openxmlformats-officedocument.wordprocessingml.document", 60_000, 1.2),
    "xlsx": _Format("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", 40_000, 1.4),
    "pptx": _Format("application/vnd.openxmlformats-officedocument.presentationml.presentation", 3_000_000, 1.0),
    "jpg": _Format("image/jpeg", 2_500_000, 0.8),
    "png": _Format("image/png", 500_000, 1.3),
    "tif": _Format("image/tiff", 20_000_000, 0.9),
    "mp4": _Format("video/mp4", 80_000_000, 1.3),
    "mp3": _Format("audio/mpeg", 6_000_000, 0.6),
    "zip": _Format("application/zip", 8_000_000, 1.8),
    "csv": _Format("text/csv", 90_000, 2.0),
    "txt": _Format("text/plain", 4_000, 1.6),
}
_SURNAMES: Final = (
    "Иванова", "Смирнова", "Кузнецова", "Попова", "Васильева", "Петрова", "Соколова", "Михайлова", "Новикова",
    "Фёдорова", "Морозова", "Волкова", "Алексеева", "Лебедева", "Семёнова", "Егорова", "Павлова", "Козлова",
)  # fmt: skip
_GIVEN: Final = ("Мария", "Анна", "Елена", "Ольга", "Наталья", "Ирина", "Татьяна", "Светлана", "Юлия", "Дарья")
_ABROAD: Final = ("Smith", "Johnson", "Brown", "Taylor", "Wilson", "Davies", "Evans", "Thomas", "Walker", "Wright")
_ABROAD_GIVEN: Final = ("Alice", "Olivia", "Emma", "Grace", "Sophie")


class Made(NamedTuple):
    """A file, and the lexemes of its words that are counted."""

    state: FileState
    lexemes: frozenset[str]


@dataclass(frozen=True)
class Filled:
    """What a table was filled with."""

    generation: int
    rows: int
    files: int
    """Those that are not deleted."""
    known: Counter[str]
    """By lexeme: how many of the files hold it in their name, tags or description. Those that names of people or the
    like can hold too are left out."""


async def fill(database: str, rows: int, tell: Tell, seed: int = 7) -> Filled:
    """Make the live generation of a prepared, empty Query database hold so many rows, with all its indexes.

    Args:
        database: URL
        rows: deleted ones among them
        tell: called with what is being done
        seed: of everything that is random
    """
    connection = await asyncpg.connect(database)
    try:
        generation = await generations.live(connection)
        await _without_indexes(connection, generation)
        known: Counter[str] = Counter()
        files = done = 0
        begins = range(0, rows, CHUNK)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), context) as makers:
            chunks = [
                asyncio.wrap_future(
                    makers.submit(_copy, database, generation, begin, min(CHUNK, rows - begin), rows, seed)
                )
                for begin in begins
            ]
            for chunk in asyncio.as_completed(chunks):
                of_it, counted = await chunk
                files += of_it
                known.update(counted)
                done += CHUNK
                tell(f"Filling the table: {min(done, rows):,} of {rows:,}")
        await build_indexes(connection, generation, tell)
    finally:
        await connection.close()
    return Filled(generation, rows, files, known)


async def build_indexes(connection: asyncpg.Connection, generation: int, tell: Tell) -> None:
    """Make all indexes of a full table, and have done what autovacuum does with a table that is in service."""
    await connection.execute(INDEX_MEMORY)
    for name, statement in INDEXES.items():
        tell(f"Making the index {name}")
        await connection.execute(statement.format(table=table_name(generation)), timeout=FILL_SECONDS)
    tell("Vacuuming")
    await connection.execute(f"VACUUM (ANALYZE) {table_name(generation)}", timeout=FILL_SECONDS)


def files(begin: int, count: int, rows: int, seed: int) -> Iterator[Made]:
    """`count` files from the number `begin` on, of `rows` in all: the same in each run and each process.

    They are created in the order of their numbers, but for few, and one in fifty is deleted.
    """
    chance = random.Random(f"{seed} {begin}")  # noqa: S311 - the same files in each run
    words = vocabulary()
    for number in range(begin, begin + count):
        file_id = _uuid(chance)
        if chance.random() < _DELETED:
            columns = {"file_id": file_id, "revision": 2, "deleted": True}
            yield Made(FileState(file_id, 2, columns, "tombstone"), frozenset())
            continue
        yield _file(chance, words, file_id, number, rows)


def counted(made: Iterable[Made]) -> tuple[int, Counter[str]]:
    """How many files these are, deleted ones left out, and by how many each lexeme is held; see `Filled.known`."""
    alive, known = 0, Counter[str]()
    for one in made:
        alive += not one.state.deleted
        known.update(one.lexemes)
    for uncounted in _elsewhere():
        del known[uncounted]
    return alive, known


def _file(chance: random.Random, words: Vocabulary, file_id: str, number: int, rows: int) -> Made:
    created = _BEGUN + (number * _SPAN) // rows + chance.randrange(_JITTER)
    if chance.random() < _TAKEN_OVER:
        created = _BEGUN + chance.randrange(_SPAN)
    updated, revision = created, 1
    if chance.random() < _CHANGED:
        updated, revision = created + int(chance.expovariate(1 / (30 * _DAY))), chance.randrange(2, 9)
    name, extension, used = _name(chance, words, number, created)
    described = chance.random() < _DESCRIBED
    length = max(3, min(400, round(chance.lognormvariate(math.log(_USUAL_WORDS), 0.8)))) if described else 0
    picked = words.picks(chance, length)
    tags = _tags(chance)
    kind, [(username, fullname)] = _FORMATS[extension], chance.choices(_people(), cum_weights=_zipf(_UPLOADERS))
    retained = chance.random() < _RETAINED
    digest = chance.randbytes(32).hex()
    columns = {
        "file_id": file_id,
        "revision": revision,
        "deleted": False,
        "storage_element_id": chance.choices(ELEMENTS, _ELEMENT_WEIGHTS)[0],
        "original_filename": name,
        "storage_filename": f"{file_id}_{digest[:12]}",
        "file_size": max(1, int(chance.lognormvariate(math.log(kind.usual_size), kind.spread))),
        "mime_type": kind.mime_type,
        "created_at": created,
        "updated_at": updated,
        "created_by_username": username,
        "created_by_fullname": fullname,
        "description": _described(chance, [words.forms[one] for one in picked]) if described else None,
        "version": f"{revision}.0",
        "tags": tags,
        "storage_path": f"files/{digest[:2]}/{digest[2:4]}",
        "checksum": f"sha256:{digest}",
        "retention_expires_at": created + chance.randrange(1, 11) * 365 * _DAY if retained else None,
    }
    lexemes = {words.lexemes[one] for one in (*picked, *used)}
    lexemes.update(_tag_lexemes()[tag] for tag in tags)
    return Made(FileState(file_id, revision, columns, "file:created"), frozenset(lexemes))


def _name(chance: random.Random, words: Vocabulary, number: int, created: int) -> tuple[str, str, list[int]]:
    """The name of a file, its extension, and the places of the words in it."""
    moment = _BEGIN + timedelta(microseconds=created - _BEGUN)
    style = chance.random()
    if style < 0.12:
        return f"IMG_{moment:%Y%m%d_%H%M%S}.jpg", "jpg", []
    if style < 0.16:
        return f"DSC{number % 100_000:05}.JPG", "jpg", []
    if style < 0.20:
        return f"Screenshot {moment:%Y-%m-%d} at {moment:%H.%M.%S}.png", "png", []
    if style < 0.23:
        return f"VID-{moment:%Y%m%d}-WA{number % 10_000:04}.mp4", "mp4", []
    extension = chance.choices(_DOCUMENTS, _DOCUMENT_WEIGHTS)[0]
    if style < 0.30:
        return f"invoice-{number % 1_000_000:06}.{extension}", extension, []
    if style < 0.37:
        return f"Счёт №{number % 100_000} от {moment:%d.%m.%Y}.{extension}", extension, []
    if style < 0.60:
        used = words.picks(chance, 2)
        first, second = (words.forms[one] for one in used)
        return f"{first.capitalize()}_{second}_{moment:%Y-%m-%d}_v{chance.randrange(1, 6)}.{extension}", extension, used
    if style < 0.72:
        used = words.picks(chance, 2)
        parts = [words.forms[one].capitalize() for one in used]
        if parts[0].isascii() and parts[1].isascii():
            return f"{''.join(parts)}Q{chance.randrange(1, 5)}.{extension}", extension, used
        return f"{' '.join(parts)} {moment:%Y}.{extension}", extension, used
    used = words.picks(chance, chance.randrange(2, 6))
    between = chance.choice((" ", " ", "_", "-", "."))
    copy = chance.choice(("", "", "", " (1)", " - копия", "_FINAL", " (подписано)"))
    return f"{between.join(words.forms[one] for one in used)}{copy}.{extension}", extension, used


_IN_NAMES: Final = "img dsc screenshot at vid wa invoice счёт от v q final копия подписано"
_DOCUMENTS: Final = ("pdf", "docx", "xlsx", "pptx", "tif", "zip", "csv", "txt", "mp3")
_DOCUMENT_WEIGHTS: Final = (45, 18, 14, 5, 5, 5, 3, 4, 1)


def _described(chance: random.Random, words: list[str]) -> str:
    """A sentence or two of these words, in the order given."""
    for place in range(4, len(words), 5):
        words[place] = f"{chance.choice(_GLUE)} {words[place]}"
    text = " ".join(words)
    return text[0].upper() + text[1:] + "."


def _tags(chance: random.Random) -> list[str]:
    known = tag_names()
    return list(dict.fromkeys(chance.choices(known, cum_weights=_zipf(len(known)), k=chance.randrange(6))))


def _uuid(chance: random.Random) -> str:
    digits = chance.randbytes(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


@cache
def tag_names() -> Sequence[str]:
    """All tags, the most frequent first. They are words too, so that some files have them in their text as well."""
    forms = vocabulary().forms
    return tuple(dict.fromkeys(form for form in forms[100 : 100 + 40 * _TAGS : 40]))


@cache
def _tag_lexemes() -> dict[str, str]:
    return {tag: lexeme_of(tag) for tag in tag_names()}


@cache
def usernames() -> Sequence[str]:
    """Those who upload, the most diligent first."""
    return tuple(username for username, _ in _people())


@cache
def _people() -> Sequence[tuple[str, str]]:
    """User names and full names."""
    people = []
    for place in range(_UPLOADERS):
        if place % 4 == 3:
            surname, given = _ABROAD[place // 4 % len(_ABROAD)], _ABROAD_GIVEN[place // 7 % len(_ABROAD_GIVEN)]
            people.append((f"{given[0].lower()}.{surname.lower()}{place}", f"{given} {surname}"))
        else:
            surname, given = _SURNAMES[place % len(_SURNAMES)], _GIVEN[place // 3 % len(_GIVEN)]
            people.append((f"user{place:03}", f"{surname} {given}"))
    return tuple(people)


@cache
def _elsewhere() -> frozenset[str]:
    """Lexemes of what stands in names without being picked from the vocabulary."""
    people = " ".join(f"{username} {fullname}" for username, fullname in _people())
    return frozenset(lexeme(word) for word in lower_words(f"{_IN_NAMES} {people} {' '.join(_FORMATS)}"))


@cache
def _zipf(how_many: int) -> Sequence[float]:
    return tuple(accumulate(1 / rank for rank in range(1, how_many + 1)))


def _copy(database: str, generation: int, begin: int, count: int, rows: int, seed: int) -> tuple[int, Counter[str]]:
    """Make a chunk in this process and copy it: how many files it has, and by how many each lexeme is held."""
    made = list(files(begin, count, rows, seed))
    uvloop.run(_write(database, generation, [row_of(one.state) for one in made]))
    return counted(made)


async def _write(database: str, generation: int, rows: Sequence[Row]) -> None:
    connection = await asyncpg.connect(database, server_settings={"synchronous_commit": "off"})
    try:
        await read_model.teach(connection)
        await read_model.load(connection, generation, rows)
    finally:
        await connection.close()


async def _without_indexes(connection: asyncpg.Connection, generation: int) -> None:
    table = table_name(generation)
    await connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey")
    for name in INDEXES:
        await connection.execute(f"DROP INDEX IF EXISTS {table}_{name}")
