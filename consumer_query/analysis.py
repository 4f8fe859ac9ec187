"""Text becomes lexemes in one place, for what is stored and for what is asked, so that both meet.

`search_vector` makes a tsvector as Postgres receives it; `asking` makes queries of the same lexemes.
Cyrillic words are stemmed as Russian, Latin ones as English, words that hold digits not at all. Stop words are lexemes
only in names of files and people: a file called "the" is found, and descriptions do not fill the index with them.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from itertools import chain, compress
from operator import is_not
from typing import Final, Generic, TypeVar

import Stemmer

from consumer_query.errors import QueryError
from consumer_query.stop_words import STOP_WORDS

ANALYZER: Final = 4
"""Version of what is stored for a text. Raised with every change of it, a change of Snowball's stemmers included."""

GAP: Final = 5
"""Positions left free between two fields or tags, so that a phrase does not match across."""

# Limits of PostgreSQL's tsvector.
_MOST_BYTES: Final = 2**20 - 1
_LAST_POSITION: Final = 2**14 - 1
_MOST_POSITIONS: Final = 255

_LONGEST_LEXEME: Final = 1000
"""Bytes. Postgres allows 2,046; what is longer is found by its digest."""
_FEW: Final = 1000
"""Positions. So many lexemes of the longest length are within Postgres' limits."""
_LONG_TEXT: Final = 8000
"""Characters of one file from which on it is checked for having too many words before any is stemmed."""
_MOST_CACHED: Final = 50_000
_SHORT_STEM: Final = 5
"""Letters; shorter ones are other words too often without one."""
_VOWELS: Final = frozenset("аеиоуыэюя")
_LONGEST_CACHED: Final = 64

# Where a name changes gear: fileName, HTMLPage, report2024, 2024год.
GEAR: Final = re.compile(
    r"(?<=[a-zа-я0-9])(?=[A-ZА-Я])|(?<=[A-ZА-Я])(?=[A-ZА-Я][a-zа-я])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])"
)
# Most words; seen before the above, which is slower.
_ONE_GEAR: Final = re.compile(r"\d+|[^\W\d_][a-zа-я]*").fullmatch
# The same as `split` for texts of ASCII alone, three times as fast.
_ascii_words: Final = re.compile("[A-Za-z0-9]+").findall
_has_digits: Final = re.compile("[0-9]").search
# Without their own caches: words are cached here.
_RUSSIAN: Final = Stemmer.Stemmer("russian", 0).stemWord
_ENGLISH: Final = Stemmer.Stemmer("english", 0).stemWord


_Made = TypeVar("_Made")


class TooManyWordsError(QueryError, ValueError):
    """A file's texts have more different words than a tsvector can hold: 1 MiB with their positions."""


class Remembered(dict[str, _Made], Generic[_Made]):
    """What is made of texts that come again and again, which have no more than 64 characters; emptied when full."""

    def __init__(self, make: Callable[[str], _Made], *, of_numbers: bool = True) -> None:
        super().__init__()
        self._make = make
        self._of_numbers = of_numbers

    def __missing__(self, text: str) -> _Made:
        made = self._make(text)
        if len(text) <= _LONGEST_CACHED and (self._of_numbers or not _has_digits(text)):
            if len(self) >= _MOST_CACHED:
                self.clear()
            self[text] = made
        return made


class _Letters(dict[int, str | None]):
    """For str.translate: letters and digits stay, without the accents of Latin ones; the rest separates words."""

    def __missing__(self, code: int) -> str | None:
        self[code] = letter = _letter(chr(code))
        return letter


def _letter(character: str) -> str | None:
    if character in "ёЁ":
        return "е" if character == "ё" else "Е"
    name = unicodedata.name(character, "")
    if character.isalnum():
        return unicodedata.normalize("NFD", character)[0] if name.startswith("LATIN ") else character
    category = unicodedata.category(character)
    # Stress and other accents that no letter has taken in, soft hyphens, joiners, emoji's selectors: nobody types them.
    if unicodedata.combining(character) or category in {"Cf", "Me"} or name.startswith(("COMBINING", "VARIATION")):
        return None
    return character if category in {"Mn", "Mc"} else " "


_LETTERS: Final = _Letters()


def split(text: str) -> list[str]:
    """The words of a text in their order, in one spelling for what people type as the same, their case kept."""
    return unicodedata.normalize("NFKC", text).translate(_LETTERS).split()


def lower_words(text: str) -> list[str]:
    """The words of a text in lower case, each by itself: what a letter becomes can depend on its neighbours."""
    if text.isascii():
        return _ascii_words(text.lower())
    return [word.lower() for word in split(text)]


def lexeme(word: str) -> str:
    """What a word in lower case is in the index, whether or not it is a stop word."""
    if len(word) > _LONGEST_LEXEME // 4 and len(word.encode()) > _LONGEST_LEXEME:
        return hashlib.sha256(word.encode()).hexdigest()
    if not word.isalpha() or word in STOP_WORDS:
        return word
    if word.isascii():
        stem: str = _ENGLISH(word)
        return stem
    return _one_of_all_forms(_RUSSIAN(word))


def _one_of_all_forms(stem: str) -> str:
    """What Snowball leaves apart, in one: журнал, which it takes for a past tense, and журналы; список and списки."""
    if len(stem) >= _SHORT_STEM and stem[-1] in "лн" and stem[-2] in "ая":
        return stem[:-1]
    if len(stem) >= _SHORT_STEM and stem[-1] in "кц" and stem[-2] in "ое" and stem[-3] not in _VOWELS:
        return stem[:-2] + stem[-1]
    return stem


def name_term(name: str) -> str:
    """One lexeme for the whole name as typed, whatever its case: a digest, since most are long and there only once."""
    return "=" + hashlib.blake2b(one_spelling(name).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def name_lexeme(name: str) -> bytes:
    """The above as it stands in a vector."""
    return name_term(name).encode() + _END


def one_spelling(text: str) -> str:
    """What people type as the same in one spelling, for texts that are compared whole."""
    return unicodedata.normalize("NFKC", text).strip().lower().replace("ё", "е")


def quoted_term(term: str) -> str:
    """A lexeme in the text form of a tsvector or tsquery."""
    escaped = term.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def search_vector(
    original_filename: str,
    tags: Sequence[str],
    description: str | None,
    created_by_username: str,
    created_by_fullname: str | None,
    terms: Sequence[bytes] = (),
) -> bytes:
    """What a file is found by, as a tsvector in the binary form (tsvectorrecv in PostgreSQL's tsvector.c).

    Weight A has the words of the name and the parts of those that camel case or digits join, B the tags, C the
    description, D the uploader; the whole name and `terms` are lexemes without a position. No text may hold NUL.

    Raises:
        TooManyWordsError: Postgres would refuse it.
    """
    text = description or ""
    long = len(text) > _LONG_TEXT or len(original_filename) > _LONG_TEXT or len(tags) > _FEW
    if long:
        _refuse_too_many((original_filename, *tags, text))
    term = name_lexeme(original_filename)
    lexemes = _name_lexemes(original_filename)
    end = len(lexemes)
    places = _PLACES["A"][:end]
    end += GAP
    for tag in tags:
        more = _TEXTS[tag]
        lexemes += more
        places += _PLACES["B"][end : end + len(more)]
        end += len(more) + GAP
    end += GAP
    more = _PEOPLE[f"{created_by_username} {created_by_fullname or ''}"][0]
    lexemes += more
    places += _PLACES["D"][end : end + len(more)]
    end += len(more) + GAP
    before = len(lexemes)
    lexemes += _long_text_lexemes(text) if long else chain.from_iterable(map(_TEXTS.__getitem__, text.split()))
    begin, end = end, end + len(lexemes) - before
    places += _PLACES["C"][begin:end]
    if end > _FEW:
        # Behind the last position there is only that one, and what stands there counts as description.
        places += [_PLACES["C"][-1]] * (len(lexemes) - len(places))
        return _long_vector((term, *terms), lexemes, places)
    # Stop words and gaps are empty. Where a lexeme is there again, what was kept of it is another place.
    found = {b"": b"", term: _NO_PLACE, **dict.fromkeys(terms, _NO_PLACE)}
    kept = map(found.setdefault, lexemes, places)
    for one, place in list(compress(zip(lexemes, places, strict=True), map(is_not, kept, places))):
        known = found[one]
        if one and (count := len(known) // 2) <= _MOST_POSITIONS:
            found[one] = _COUNTS[count] + known[2:] + place[2:]
    pieces = [b""] * (2 * len(found) + 1)
    pieces[0] = (len(found) - 1).to_bytes(4, "big")
    pieces[1::2] = found
    pieces[2::2] = found.values()
    return b"".join(pieces)


def _name_lexemes(name: str) -> list[bytes]:
    lexemes: list[bytes] = []
    parts: list[bytes] = []
    # What stands between these is a word or more, and comes again more often than all of it.
    for chunk in name.replace(".", " ").replace("_", " ").replace("-", " ").split():
        if chunk.isdigit() and chunk.isascii() and len(chunk) <= _LONGEST_CACHED:
            lexemes.append(chunk.encode() + _END)
            continue
        whole, of_them = _NAMES[chunk]
        lexemes += whole
        parts += of_them
    return [*lexemes, *_HOLES, *parts] if parts else lexemes


def _long_vector(terms: Sequence[bytes], lexemes: Sequence[bytes], places: Sequence[bytes]) -> bytes:
    """The same for texts of any length, within Postgres' limits."""
    found: dict[bytes, list[bytes]] = {term: [] for term in terms}
    size = sum(len(term) - 1 for term in found)
    for one, place in zip(lexemes, places, strict=True):
        if not one:
            continue
        if (known := found.get(one)) is None:
            found[one] = [place[2:]]
            length = len(one) - 1
            # Behind a lexeme, at an even address: how many positions, and the first, two bytes each.
            size += length + length % 2 + 4
        # Postgres takes a position once, whatever the weights.
        elif known and len(known) < _MOST_POSITIONS and known[-1] not in _LAST_PLACES:
            known.append(place[2:])
            size += 2
    if size > _MOST_BYTES:
        raise TooManyWordsError(f"The words would take {size} bytes of at most {_MOST_BYTES} in the index.")
    pieces = [len(found).to_bytes(4, "big")]
    for one, known in found.items():
        pieces += (one, len(known).to_bytes(2, "big"), *known)
    return b"".join(pieces)


def _refuse_too_many(texts: Sequence[str]) -> None:
    """Count words before they are stemmed, which is quick. No stem is longer than its word."""
    # Not lower_words: twice as slow, for the sake of letters that hardly any text has.
    words = set(split(" ".join(texts).lower())) - STOP_WORDS
    size = len("".join(words).encode()) + 4 * len(words)
    if size > _MOST_BYTES:
        raise TooManyWordsError(f"The words would take {size} bytes of at most {_MOST_BYTES} in the index.")


def _long_text_lexemes(text: str) -> list[bytes]:
    words = lower_words(text)
    known = {word: _text_lexeme(word) for word in set(words)}
    return [known[word] for word in words]


def text_lexemes(text: str) -> tuple[bytes, ...]:
    """Those of a text as they stand in a vector; of a stop word nothing, in its place."""
    return tuple(map(_text_lexeme, lower_words(text)))


def _text_lexeme(word: str) -> bytes:
    return b"" if word in STOP_WORDS else _ended(word)


def name_lexemes_and_parts(text: str) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Those of a name's words, stop words too, and those of the parts of words that consist of several."""
    whole: list[bytes] = []
    parts: list[bytes] = []
    for word in _ascii_words(text) if text.isascii() else split(text):
        if len(word) <= _LONGEST_CACHED and word.isascii() and word.isdigit():
            whole.append(word.encode() + _END)  # what `_ended` makes of it, ten times as fast
            continue
        one, of_it = _NAME_WORDS[word]
        whole.append(one)
        parts += of_it
    return tuple(whole), tuple(parts)


def _name_word(word: str) -> tuple[bytes, tuple[bytes, ...]]:
    parts = () if _ONE_GEAR(word) else [part for part in GEAR.split(word) if part != word]
    return _ended(word.lower()), tuple(_ended(part.lower()) for part in parts)


def _ended(word: str) -> bytes:
    return lexeme(word).encode() + _END


_END: Final = b"\0"
_NO_PLACE: Final = b"\0\0"
_COUNTS: Final = [count.to_bytes(2, "big") for count in range(_MOST_POSITIONS + 1)]
_HOLES: Final = (b"",) * GAP
# By weight: that there is one position, and which, with the weight in its two highest bits.
_PLACES: Final = {
    weight: [b"\0\1" + (bits << 14 | position).to_bytes(2, "big") for position in range(1, _LAST_POSITION + 1)]
    for bits, weight in enumerate("DCBA")
}
_LAST_PLACES: Final = frozenset(places[-1][2:] for places in _PLACES.values())
_TEXTS: Final = Remembered(text_lexemes)
# Numbers in the names of files hardly ever come again; in the names of people they do.
_NAMES: Final = Remembered(name_lexemes_and_parts, of_numbers=False)
_PEOPLE: Final = Remembered(name_lexemes_and_parts)
_NAME_WORDS: Final = Remembered(_name_word)
