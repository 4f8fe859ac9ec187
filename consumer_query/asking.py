"""A query becomes a tsquery of the lexemes that `analysis` stores, whatever people type.

The syntax is that of Postgres' websearch_to_tsquery: words are all asked for, "phrases" in their order, OR between
alternatives, - before what must not be there; nothing is a syntax error. Stop words are left out, unless there is
nothing else to find.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final

from consumer_query.analysis import lexeme, lower_words, name_term, quoted_term
from consumer_query.stop_words import STOP_WORDS

# A phrase without an end reaches to the end of the query.
_PIECE: Final = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')
_MOST_WORDS: Final = 1_000
"""Words behind that many are not asked for: Postgres evaluates a query recursively, and limits its bytes to 1 MiB."""


@dataclass(frozen=True)
class _Term:
    """What stands between blanks, or a phrase."""

    words: Sequence[str]
    phrase: bool
    excluded: bool

    def text(self, *, stop_words: bool) -> str:
        """As a tsquery; empty when it has stop words only and they are not wanted."""
        places = [place for place, word in enumerate(self.words) if word not in STOP_WORDS]
        if not places and stop_words:
            places = list(range(len(self.words)))
        asked = [quoted_term(lexeme(self.words[place])) for place in places]
        if self.phrase:
            steps = ("", *(f" <{place - before}> " for before, place in pairwise(places)))
            text = "".join(step + word for step, word in zip(steps, asked, strict=False))
        else:
            text = " & ".join(dict.fromkeys(asked))
        return f"!({text})" if text and self.excluded else text


def ask(query: str) -> str:
    """The words of a query as the text of a tsquery; empty when there are none. Must not hold NUL."""
    groups = list(_alternatives(query))
    finds = any(
        word not in STOP_WORDS for group in groups for term in group if not term.excluded for word in term.words
    )
    texts = (dict.fromkeys(term.text(stop_words=not finds) for term in group) for group in groups)
    return " | ".join(filter(None, (" & ".join(filter(None, group)) for group in texts)))


def ask_name(query: str) -> str:
    """A query as the name of a file, as the text of a tsquery. Must not hold NUL."""
    return quoted_term(name_term(query))


def _alternatives(query: str) -> Iterator[list[_Term]]:
    """The terms between ORs. An OR with nothing before or behind it is a word."""
    terms = list(_terms(query))
    group: list[_Term] = []
    for number, term in enumerate(terms, 1):
        is_or = not term.phrase and not term.excluded and list(term.words) == ["or"]
        if is_or and group and number < len(terms):
            yield group
            group = []
        else:
            group.append(term)
    yield group


def _terms(query: str) -> Iterator[_Term]:
    left = _MOST_WORDS
    for excluded, phrase, chunk in _PIECE.findall(unicodedata.normalize("NFKC", query)):
        words = list(islice(lower_words(phrase or chunk), left))
        left -= len(words)
        if words:
            yield _Term(words, phrase=not chunk, excluded=bool(excluded))
