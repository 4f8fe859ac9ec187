"""What is marked is what the index matched; what is shown is what was uploaded, letter for letter.

Words are found where they stand in the text as it was written: an accent, `ё` or a soft hyphen decides whether a word
matches, never how it looks. Without its marks, and unescaped, an answer is the text itself; of a description it is one
piece, with … where it was cut. Everything but the marks is escaped, so that no upload brings HTML of its own.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any, Final, NamedTuple

from consumer_query.analysis import GEAR, Remembered, lexeme, split
from consumer_query.stop_words import STOP_WORDS

FRAGMENT_WORDS: Final = 30
"""Of a description: about three lines."""
FRAGMENT_CHARACTERS: Final = 400
"""At most, whatever its words are like; a language without blanks has long ones."""
LOOKED_AT: Final = 20_000
"""Characters of a description, from its beginning; matches behind them are not shown. About a millisecond."""
OPEN: Final = "<mark>"
CLOSE: Final = "</mark>"
CUT: Final = "…"
BEGIN: Final = 0
END: Final = 1

# What nearly all texts are written in. `_Mask` sees the same words, five times as slowly.
_is_plain: Final = re.compile("[\0-\x7fА-яЁё«»–—…]*").fullmatch
_plain_words: Final = re.compile("[A-Za-z0-9А-яЁё]+").finditer
_masked_words: Final = re.compile("[^ ]+").finditer


class Highlights(NamedTuple):
    """A hit's texts as HTML, matched words in <mark>."""

    original_filename: str
    description: str | None
    """A fragment; None when the file has no description."""
    tags: list[str]


class _Span(NamedTuple):
    """From `begin` up to, but not including, `end`."""

    begin: int
    end: int


class _Form(NamedTuple):
    """A word as people type it, and as it is in the index."""

    word: str
    lexeme: str


class _Part(NamedTuple):
    """A part of a word that camel case or digits join, and where it stands in it."""

    span: _Span
    form: _Form


class Marker:
    """Marks in the hits of one answer what was asked for."""

    def __init__(self, lexemes: Collection[str], prefixes: Collection[str]) -> None:
        """Begin an answer.

        Args:
            lexemes: of the words that were asked for, as `analysis.lexeme` makes them
            prefixes: in lower case, as `analysis.lower_words` spells them; words that begin so are marked whole
        """
        self._asked = _Asked(frozenset(lexemes), tuple(filter(None, prefixes)))

    def highlighted(self, columns: Mapping[str, Any]) -> Highlights:
        """Mark the texts of a hit: its `original_filename`, `description` and `tags`."""
        name, description, tags = columns["original_filename"], columns["description"], columns["tags"]
        return Highlights(
            _marked(name, self._spans_in_name(name)),
            None if description is None else self._fragment(description),
            [_marked(tag, self._spans_in_tag(tag)) for tag in tags],
        )

    def _spans_in_name(self, name: str) -> Iterator[_Span]:
        return (
            _Span(begin + span.begin, begin + span.end)
            for begin, end in self._candidates(name, _words(name), _IN_NAMES).values()
            for span in self._asked.spans_in_name(name[begin:end])
        )

    def _spans_in_tag(self, tag: str) -> Iterator[_Span]:
        return (
            _Span(begin, end)
            for begin, end in self._candidates(tag, _words(tag), _IN_TEXTS).values()
            if self._asked.lexeme_in_text(tag[begin:end]) is not None
        )

    def _fragment(self, text: str) -> str:
        looked_at = text[:LOOKED_AT]
        words = _words(looked_at)
        matches = (
            (place, self._asked.lexeme_in_text(looked_at[begin:end]))
            for place, (begin, end) in self._candidates(looked_at, words, _IN_TEXTS).items()
        )
        found = {place: match for place, match in matches if match is not None}
        begin, end = _cut(text, words, *_densest(found))
        return (
            (CUT if begin else "")
            + _marked(text, (_Span(*words[place]) for place in found), begin, end)
            + (CUT if end < len(text) else "")
        )

    def _candidates(
        self, text: str, words: Sequence[tuple[int, int]], found_by: Remembered[tuple[str, ...]]
    ) -> Mapping[int, tuple[int, int]]:
        """Words that may match, by their places: few of an answer's hundreds have to be looked at more closely."""
        asked = self._asked.lexemes
        if self._asked.prefixes:
            return dict(enumerate(words))
        if not asked:
            return {}
        return {
            place: word
            for place, word in enumerate(words)
            if not asked.isdisjoint(found_by[text[word[BEGIN] : word[END]]])
        }


class _Asked(NamedTuple):
    """What is looked for."""

    lexemes: frozenset[str]
    prefixes: tuple[str, ...]

    def finds(self, form: _Form) -> bool:
        return form.lexeme in self.lexemes or (bool(self.prefixes) and self.begins(form))

    def begins(self, form: _Form) -> bool:
        # The index completes lexemes, and a stem can end otherwise than its word.
        return form.word.startswith(self.prefixes) or form.lexeme.startswith(self.prefixes)

    def lexeme_in_text(self, chunk: str) -> str | None:
        """By which a word of a tag or a description matches. Of these, stop words are not in the index."""
        for form in _FORMS[chunk]:
            if self.finds(form) and form.word not in STOP_WORDS:
                return form.lexeme
        return None

    def spans_in_name(self, chunk: str) -> tuple[_Span, ...]:
        """What matches of a word of a name, counted from the word's beginning."""
        forms = _FORMS[chunk]
        if any(form.lexeme in self.lexemes for form in forms):
            return (_Span(0, len(chunk)),)
        if parts := tuple(part.span for part in _PARTS[chunk] if self.finds(part.form)):
            return parts
        return (_Span(0, len(chunk)),) if any(map(self.begins, forms)) else ()


def _densest(found: Mapping[int, str]) -> tuple[int, int]:
    """The first and last match of the fragment with most different ones, then most; the first of equals.

    Args:
        found: lexemes by the places of the words that match, in their order
    """
    best, chosen = (0, 0), (0, 0)
    places = list(found)
    inside: Counter[str] = Counter()
    first = 0
    for last, place in enumerate(places):
        inside[found[place]] += 1
        while place - places[first] >= FRAGMENT_WORDS:
            left = found[places[first]]
            inside[left] -= 1
            if not inside[left]:
                del inside[left]
            first += 1
        worth = (len(inside), last - first + 1)
        if worth > best:
            best, chosen = worth, (places[first], place)
    return chosen


def _cut(text: str, words: Sequence[tuple[int, int]], first: int, last: int) -> _Span:
    """A piece of the text around the words from `first` to `last`, whole words if they are not too long."""
    if not words:
        return _Span(0, min(len(text), FRAGMENT_CHARACTERS))
    start = max(0, min(first - (FRAGMENT_WORDS - (last - first + 1)) // 2, len(words) - FRAGMENT_WORDS))
    stop = min(len(words), start + FRAGMENT_WORDS)
    if words[stop - 1][END] - words[start][BEGIN] > FRAGMENT_CHARACTERS:
        nearest = words[first][BEGIN] - FRAGMENT_CHARACTERS // 2
        start = next(place for place in range(start, first + 1) if words[place][BEGIN] >= nearest)
    begin = words[start][BEGIN] if start or words[0][BEGIN] > FRAGMENT_CHARACTERS // 2 else 0
    while stop > first + 1 and words[stop - 1][END] - begin > FRAGMENT_CHARACTERS:
        stop -= 1
    end = len(text) if stop == len(words) and len(text) <= LOOKED_AT else words[stop - 1][END]
    return _Span(begin, min(end, begin + FRAGMENT_CHARACTERS))


def _marked(text: str, marks: Iterable[_Span], begin: int = 0, end: int | None = None) -> str:
    """A piece of a text as HTML. Marks come in their order; those that touch become one."""
    end = len(text) if end is None else end
    pieces: list[str] = []
    at = begin
    for mark in _joined(marks):
        opened, closed = max(mark.begin, begin), min(mark.end, end)
        if opened < closed:
            pieces += (escape(text[at:opened]), OPEN, escape(text[opened:closed]), CLOSE)
            at = closed
    pieces.append(escape(text[at:end]))
    return "".join(pieces)


def _joined(marks: Iterable[_Span]) -> Iterator[_Span]:
    before: _Span | None = None
    for mark in marks:
        if before is not None and mark.begin <= before.end:
            before = _Span(before.begin, max(before.end, mark.end))
            continue
        if before is not None:
            yield before
        before = mark
    if before is not None:
        yield before


class _Mask(dict[int, str]):
    """For str.translate: a blank for what separates words, a letter for the rest. The length stays."""

    def __missing__(self, code: int) -> str:
        # As `split` sees it. What becomes more than one word, such as ½, belongs to its neighbours.
        self[code] = mask = " " if split(f"x{chr(code)}x") == ["x", "x"] else "x"
        return mask


_MASK: Final = _Mask()


def _words(text: str) -> list[tuple[int, int]]:
    """Where words stand in a text as it was written: BEGIN and END of each. Plain tuples: there are many."""
    found = _plain_words(text) if _is_plain(text) else _masked_words(text.translate(_MASK))
    return [one.span() for one in found]


def _form(word: str) -> _Form:
    lower = word.lower()
    return _Form(lower, lexeme(lower))


def _parts(chunk: str) -> tuple[_Part, ...]:
    """The parts of a name's word; all of it stands for a part of which it cannot be told where it is."""
    words = split(chunk)
    if all(GEAR.search(word) is None for word in words):
        return ()
    if len(words) == 1 and (places := _places(chunk, words[0])) is not None:
        edges = [0, *(gear.start() for gear in GEAR.finditer(words[0])), len(words[0])]
        return tuple(
            _Part(_Span(places[begin].begin, places[end - 1].end), _form(words[0][begin:end]))
            for begin, end in pairwise(edges)
        )
    whole = _Span(0, len(chunk))
    return tuple(_Part(whole, _form(part)) for word in words for part in GEAR.split(word))


_FORMS: Final = Remembered(lambda chunk: tuple(map(_form, split(chunk))))
_PARTS: Final = Remembered(_parts)
# The lexemes by which a word is found. Stop words are lexemes in names only.
_IN_TEXTS: Final = Remembered(lambda chunk: tuple(one.lexeme for one in _FORMS[chunk] if one.word not in STOP_WORDS))
_IN_NAMES: Final = Remembered(
    lambda chunk: tuple(one.lexeme for one in (*_FORMS[chunk], *(part.form for part in _PARTS[chunk])))
)


def _places(chunk: str, word: str) -> list[_Span] | None:
    """Where each letter of a word stands in what was written; None when its letters depend on each other."""
    begins = [at for at, letter in enumerate(chunk) if not at or not unicodedata.combining(letter)]
    clusters = [_Span(*edges) for edges in zip(begins, [*begins[1:], len(chunk)], strict=True)]
    letters = ["".join(split(chunk[one.begin : one.end])) for one in clusters]
    if "".join(letters) != word:
        return None
    return [cluster for cluster, of_it in zip(clusters, letters, strict=True) for _ in of_it]
