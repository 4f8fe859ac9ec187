"""A query becomes a tsquery of the lexemes that `analysis` stores, whatever people type.

The syntax is that of Postgres' websearch_to_tsquery: words are all asked for, "phrases" in their order, OR between
alternatives, - before what must not be there; nothing is a syntax error. Stop words are left out, unless there is
nothing else to find.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import Final
from uuid import UUID

from consumer_query.analysis import lexeme, lower_words, name_term, quoted_term
from consumer_query.endings import stems_within
from consumer_query.stop_words import STOP_WORDS
from consumer_query.terms import Kind, checksum_term
from consumer_query.terms import term as term_of

# A phrase without an end reaches to the end of the query.
_PIECE: Final = re.compile(r'(-?)(?:"([^"]*)"?|([^\s"]+))')
_MOST_WORDS: Final = 1_000
"""Words behind that many are not asked for: Postgres evaluates a query recursively, and limits its bytes to 1 MiB."""
_SHORTEST_PREFIX: Final = 2
_WORD: Final = re.compile(r"\w+")
_is_digest: Final = re.compile(r"(?:sha256:)?[0-9a-f]{64}", re.IGNORECASE).fullmatch
_is_uuid: Final = re.compile(
    r"(?:urn:uuid:)?(?:(\{)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?(1)\})|[0-9a-f]{32})", re.IGNORECASE
).fullmatch


@dataclass(frozen=True)
class Asked:
    """What a query asks for."""

    words: str
    """The words as the text of a tsquery; empty when there are none."""
    exact: str
    """The whole of it, as a name of a file or a checksum, as the text of a tsquery; never empty."""
    uploader: str
    """The whole of it as a user name, as the text of a tsquery."""
    file_id: UUID | None
    """The whole of it, where it is one."""
    alternatives: Sequence[Sequence[str]]
    """Lexemes that are asked for together; the words of phrases too, what is excluded not."""
    typed: Mapping[str, str]
    """The same lexemes, and the word in lower case that each was typed as."""
    prefix: str | None
    """The last word, when it is only the beginning of one."""
    begun: Sequence[str]
    """Lexemes that stand for it besides those that begin so: of what was typed, and of what its ending may become."""

    @property
    def lexemes(self) -> tuple[str, ...]:
        """All that are asked for."""
        return tuple(self.typed)

    @property
    def ranking(self) -> str:
        """Its words for ts_rank: one by one, so that only the field that holds each of them counts.

        Of words that are asked for together, ts_rank takes those far apart in a name for a worse match than two that
        stand side by side in a description.
        """
        words = [quoted_term(one) for one in self.typed]
        return " | ".join([*words, f"{quoted_term(self.prefix)}:*"] if self.prefix is not None else words)

    @property
    def match(self) -> str:
        """All ways to match, as the text of a tsquery."""
        return " | ".join(filter(None, (self.words and f"({self.words})", self.exact, self.uploader)))


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


def understand(query: str, *, typing: bool = False) -> Asked:
    """What a query asks for. Must not hold NUL.

    Args:
        query: as typed
        typing: its last word may be only the beginning of one
    """
    groups = list(_alternatives(query))
    finds = any(word not in STOP_WORDS for group in groups for one in group if not one.excluded for word in one.words)
    prefix = _prefix(query, groups[-1]) if typing else None
    found = [_lexemes(group, stop_words=not finds) for group in groups]
    ending, begun = "", list[str]()
    if prefix is not None:
        last = groups[-1].pop()
        groups[-1].append(replace(last, words=last.words[:-1]))
        # An ending that is half typed may reach beyond the stem.
        begun = list(dict.fromkeys((lexeme(prefix), *stems_within(prefix))))
        ending = f"({' | '.join(map(quoted_term, [*begun, prefix]))}:*)"
    texts = [list(dict.fromkeys(one.text(stop_words=not finds) for one in group)) for group in groups]
    texts[-1].append(ending)
    whole = query.strip()
    return Asked(
        words=" | ".join(filter(None, (" & ".join(filter(None, group)) for group in texts))),
        exact=quoted_term(name_term(query)) + (f" | {quoted_term(checksum_term(whole))}" if _is_digest(whole) else ""),
        uploader=quoted_term(term_of(Kind.UPLOADER, whole)),
        file_id=UUID(whole.lower()) if _is_uuid(whole) else None,
        alternatives=[list(group) for group in found],
        typed=dict(chain.from_iterable(group.items() for group in found)),
        prefix=prefix,
        begun=begun,
    )


def reworded(query: str, meant: Mapping[str, str]) -> str:
    """A query with other words in the place of some, which are given in lower case."""
    return _WORD.sub(lambda found: meant.get("".join(lower_words(found[0])), found[0]), query)


def _prefix(query: str, group: Sequence[_Term]) -> str | None:
    """The last word of a query, when more of it may come."""
    if not group or group[-1].phrase or group[-1].excluded or not query[-1:].isalnum():
        return None
    word = group[-1].words[-1]
    return word if len(word) >= _SHORTEST_PREFIX else None


def _lexemes(group: Sequence[_Term], *, stop_words: bool) -> dict[str, str]:
    """What a group asks for, and the word that each lexeme was typed as."""
    words = (word for one in group if not one.excluded for word in one.words)
    return {lexeme(word): word for word in words if stop_words or word not in STOP_WORDS}


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
