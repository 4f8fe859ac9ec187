"""What a mistyped word may have been meant to be: no proposal is further from it than the word's length allows.

What is known are lexemes, and a slip can change where a word's ending is cut off. So slips are undone in the word as it
was typed, and the words that result are looked up by their lexemes: with one slip nothing is missed. For two there are
too many such words; there the lexemes that look alike are given the typed ending and usual ones.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from rapidfuzz.distance import OSA

from consumer_query.analysis import lexeme
from consumer_query.stop_words import STOP_WORDS

RARER: Final = 20
"""A known word is taken for a slip only where another one is in so many times as many files."""
SHORTEST: Final = 3
"""Letters of a word that can be corrected at all: then only if the keyboard's layout was wrong."""
LONGEST: Final = 40
"""Letters; no word of Russian or English is longer, and each letter makes 66 words more to look up."""
_ONE_SLIP: Final = 4
_TWO_SLIPS: Final = 8
"""Letters from which on a word may have so many slips."""
_LONGEST_ENDING: Final = 6
# What stands behind most stems, for where the slip is in the ending.
_RUSSIAN_ENDINGS: Final = """
    а е и о у ы ь й я ая ия ие ый ий ой ое ые ом ем ов ев ам ям ах ях ами ями ого ому ной ный ная
"""
_ENGLISH_ENDINGS: Final = "e s es ed ing er ion al ly ment"

_CYRILLIC: Final = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
_LATIN: Final = "abcdefghijklmnopqrstuvwxyz"
# ЙЦУКЕН and QWERTY, key by key; ё is е in the index.
_RUSSIAN_KEYS: Final = "йцукенгшщзхъфывапролджэячсмитьбюё"
_ENGLISH_KEYS: Final = "qwertyuiop[]asdfghjkl;'zxcvbnm,.`"
_SHIFTED: Final = dict(zip('{}:"<>~', "хъжэбюё", strict=True))
_TO_RUSSIAN: Final = str.maketrans(dict(zip(_ENGLISH_KEYS, _RUSSIAN_KEYS, strict=True)) | _SHIFTED)
_TO_ENGLISH: Final = str.maketrans(_RUSSIAN_KEYS, _ENGLISH_KEYS)


class Correction(NamedTuple):
    """A word that may have been meant."""

    word: str
    """In lower case; as people write it where that can be told."""
    lexeme: str
    """Of that word."""
    slips: int
    """Between what was typed and this; 0 when only the keyboard's layout was wrong."""
    files: int
    """That have it."""


def slips_allowed(word: str) -> int:
    """How many slips a word in lower case may have had: 0, 1 or 2. None with digits, they are no matter of spelling."""
    if not word.isalpha() or word in STOP_WORDS or not _ONE_SLIP <= len(word) <= LONGEST:
        return 0
    return 1 if len(word) < _TWO_SLIPS else 2


def possible(word: str) -> dict[str, Correction]:
    """By lexeme, the words to look up that may have been meant by one in lower case, how many files have them unknown.

    With at most one slip (a letter too many, too few, another, or two changed about), or in the other layout; of the
    words with one lexeme the likeliest.
    """
    found: dict[str, Correction] = {}
    if SHORTEST <= len(word) <= LONGEST and word not in STOP_WORDS:
        meant = in_other_layout(word)
        if meant.isalpha():
            found[lexeme(meant)] = Correction(meant, lexeme(meant), 0, 0)
    if slips_allowed(word):
        for meant in _undone(word):
            found.setdefault(one := lexeme(meant), Correction(meant, one, 1, 0))
    found.pop(lexeme(word), None)
    return found


def alike(word: str, known: Mapping[str, int]) -> Iterator[Correction]:
    """Those of the known lexemes of which a word with at most as many slips as are allowed can be.

    Args:
        word: in lower case
        known: lexemes, and how many files have each
    """
    most = slips_allowed(word)
    endings = [word[place:] for place in range(max(0, len(word) - _LONGEST_ENDING), len(word))]
    for one, files in known.items():
        usual = (_ENGLISH_ENDINGS if one.isascii() else _RUSSIAN_ENDINGS).split()
        forms = [one, *(one + ending for ending in (*endings, *usual))]
        if one.isascii() and one.endswith("i"):
            forms.append(one[:-1] + "y")  # categor(i)
        slips = {form: OSA.distance(word, form, score_cutoff=most) for form in forms}
        near = [form for form in forms if slips[form] <= most and lexeme(form) == one]
        if near and one != lexeme(word):
            meant = min(near, key=slips.__getitem__)
            yield Correction(meant, one, slips[meant], files)


def best(typed: str, files: int, proposals: Iterable[Correction], rarer: int = RARER) -> Correction | None:
    """The proposal with the fewest slips, of those the one that most files have, if it is worth it.

    Args:
        typed: the word in lower case
        files: that have the word as typed
        proposals: with the files that they have
        rarer: a proposal has to be in at least so many times as many files
    """
    worth = (one for one in proposals if one.files >= max(1, rarer * files))
    stem, letters = lexeme(typed), sorted(typed)

    def unlikely(one: Correction) -> tuple[int, int, bool, int]:
        # A stem that is further away than the word was found by an ending that nobody wrote; letters that were only
        # changed about are hardly ever another word by chance.
        return one.slips, max(1, OSA.distance(stem, one.lexeme)), sorted(one.word) != letters, -one.files

    return min(worth, key=unlikely, default=None)


def in_other_layout(text: str) -> str:
    """What the same keys write in lower case when the keyboard is set to the other language: ghbdtn, привет."""
    text = text.lower()
    cyrillic = any("а" <= letter <= "я" or letter == "ё" for letter in text)
    return text.translate(_TO_ENGLISH if cyrillic else _TO_RUSSIAN)


def _undone(word: str) -> Iterator[str]:
    """All words that one slip makes this one of, the likeliest kinds of slips first."""
    places = range(len(word))
    letters = _letters(word)
    for place in places[1:]:
        if word[place - 1] != word[place]:
            yield word[: place - 1] + word[place] + word[place - 1] + word[place + 1 :]
        else:
            yield word[:place] + word[place + 1 :]
    for place in places:
        for letter in letters:
            yield word[:place] + letter + word[place + 1 :]
    for place in range(len(word) + 1):
        for letter in letters:
            yield word[:place] + letter + word[place:]
    for place in places:
        yield word[:place] + word[place + 1 :]


def _letters(word: str) -> str:
    """The alphabet that a word is written in; both, where a letter of the other one slipped in that looks the same."""
    cyrillic = any(letter in _CYRILLIC for letter in word)
    latin = any(letter in _LATIN for letter in word)
    return (_CYRILLIC if cyrillic else "") + (_LATIN if latin else "")
