"""What people ask for, by classes whose cost differs, drawn from what is really in the table.

How many files each word is held by is known from whoever wrote them, so a class is what its name says whatever the size
of the table. Only what is drawn here is asked for; the same table gives the same questions.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from bench.search_rows import ELEMENTS, Filled, tag_names, usernames
from bench.search_words import lexeme_of, vocabulary

COMMON_SHARE: Final = 0.1
MIDDLING_SHARES: Final = (0.005, 0.02)
RARE_FILES: Final = 50
_MOST: Final = 150
"""Questions of a class."""
_SHORTEST_TYPED: Final = 3
"""Characters; whoever has typed fewer has hardly asked anything."""
_SHORTEST_MISTYPED: Final = 5
_LETTERS: Final = "абвгдежзиклмнопрстуфхц"
_LATIN: Final = "abcdefghiklmnoprstuvw"


class Kind(StrEnum):
    """A class of questions."""

    COMMON = "common"
    """A word that more than a tenth of the files hold."""
    MIDDLING = "middling"
    """A word that a two-hundredth to a fiftieth of them hold."""
    RARE = "rare"
    """A word that fewer than 50 files hold, and fewer than a two-hundredth."""
    TWO_WORDS = "two_words"
    """Two common ones, two middling ones, or one of each."""
    FILTERED = "filtered"
    """A word or none, with one or two filters."""
    FACETS = "facets"
    """The first page with facets: any of the above but rare."""
    NEWEST = "newest"
    """The newest first: a common word, a middling one, or none."""
    DEEP = "deep"
    """A page far behind the first, by its cursor: by relevance and by date."""
    TYPING = "typing"
    """The last word has only begun."""
    TYPO = "typo"
    """A word with one letter wrong, missing, doubled or swapped, that no file holds."""


@dataclass(frozen=True)
class Question:
    """What is asked, and what is known of the answer."""

    asked: Mapping[str, Any]
    """Parameters of the API, by name."""
    lexemes: tuple[str, ...] = ()
    """All of them are in every hit."""
    hits: int | None = None
    """How many files match, where whoever made them has counted it."""
    condition: str = "true"
    """What else is true of every hit, in SQL: of its columns, not of what is indexed."""
    meant: str | None = None
    """The word, spelled right."""
    pages: int = field(default=0)
    """How many pages come before the one that is asked for."""


@dataclass(frozen=True)
class _Word:
    form: str
    lexeme: str
    files: int

    def question(self, **more: Any) -> Question:
        return Question({"query": self.form, **more}, (self.lexeme,), self.files)


def draw(filled: Filled, seed: int = 11) -> dict[Kind, list[Question]]:
    """The questions of each class.

    Raises:
        ValueError: the table is too small to have words of each.
    """
    chance = random.Random(seed)  # noqa: S311 - the same questions in each run
    common, middling, rare = _words(filled, chance)
    if not (common and middling and rare):
        raise ValueError(f"{filled.rows} rows have no words for some of the classes; take more.")
    of_each = {
        Kind.COMMON: [word.question() for word in common],
        Kind.MIDDLING: [word.question() for word in middling],
        Kind.RARE: [word.question() for word in rare],
        Kind.TWO_WORDS: list(_two_words(common, middling, chance)),
        Kind.FILTERED: list(_filtered(common, middling, chance)),
        Kind.NEWEST: [
            *(word.question(sort="newest") for word in chance.sample(common, min(50, len(common)))),
            *(word.question(sort="newest") for word in middling[:50]),
            Question({"query": ""}, (), filled.files),
        ],
        Kind.DEEP: list(_deep(common, middling, chance)),
        Kind.TYPING: list(_typing(common, middling, chance)),
        Kind.TYPO: list(_typos(filled, [*common, *middling], chance)),
    }
    some = (chance.sample(of_each[kind], min(30, len(of_each[kind]))) for kind in list(of_each)[:5] if kind != "rare")
    of_each[Kind.FACETS] = [_with(question, facets=True) for questions in some for question in questions]
    for questions in of_each.values():
        chance.shuffle(questions)
    return {kind: of_each[kind] for kind in Kind}


def different(questions: Iterable[Question]) -> int:
    """How many different queries there are, whatever else is asked with them."""
    return len({question.asked["query"] for question in questions})


def _with(question: Question, **more: Any) -> Question:
    return Question({**question.asked, **more}, question.lexemes, question.hits, question.condition)


def _words(filled: Filled, chance: random.Random) -> tuple[list[_Word], list[_Word], list[_Word]]:
    """Common ones in all their forms; of the others one form of each lexeme."""
    words, forms = vocabulary(), defaultdict[str, list[str]](list)
    for form, lexeme in zip(words.forms, words.lexemes, strict=True):
        if lexeme in filled.known:
            forms[lexeme].append(form)
    files = filled.files
    least, most = (share * files for share in MIDDLING_SHARES)
    found: tuple[list[_Word], list[_Word], list[_Word]] = ([], [], [])
    for lexeme, known in sorted(filled.known.items()):
        if known > COMMON_SHARE * files:
            found[0].extend(_Word(form, lexeme, known) for form in forms[lexeme])
        elif least <= known <= most:
            found[1].append(_Word(chance.choice(forms[lexeme]), lexeme, known))
        elif known < min(RARE_FILES, least):
            found[2].append(_Word(chance.choice(forms[lexeme]), lexeme, known))
    common, middling, rare = (chance.sample(some, min(_MOST, len(some))) for some in found)
    return common, middling, rare


def _two_words(common: Sequence[_Word], middling: Sequence[_Word], chance: random.Random) -> Iterator[Question]:
    for pools in ((common, common), (common, middling), (middling, middling)):
        for _ in range(_MOST // 3):
            one, other = (chance.choice(pool) for pool in pools)
            if one.lexeme != other.lexeme:
                yield Question({"query": f"{one.form} {other.form}"}, (one.lexeme, other.lexeme))


def _filtered(common: Sequence[_Word], middling: Sequence[_Word], chance: random.Random) -> Iterator[Question]:
    for number in range(_MOST):
        word = None if number % 5 == 0 else chance.choice(common if number % 2 else middling)
        asked: dict[str, Any] = {"query": word.form if word else ""}
        conditions = []
        for name, value, condition in chance.sample(list(_filters(chance)), 1 + number % 2):
            asked[name] = value
            conditions.append(condition)
        yield Question(asked, (word.lexeme,) if word else (), None, " AND ".join(conditions))


def _filters(chance: random.Random) -> Iterator[tuple[str, Any, str]]:
    """One of each kind: parameter, value, and what it says of the row."""
    kind = chance.choice(("application/pdf", "image/png", "text/csv"))
    yield chance.choice((("type", [kind], f"mime_type = '{kind}'"), ("type", ["image/*"], "mime_type LIKE 'image/%'")))
    tag = chance.choice(tag_names())
    yield "tag", [tag], f"'{tag}' = ANY(tags)"
    who = chance.choice(usernames())
    yield "uploader", [who], f"created_by_username = '{who}'"
    where = chance.choice(ELEMENTS)
    yield "storage_element", [where], f"storage_element_id = '{where}'"
    size = chance.choice((10_000, 1_000_000, 50_000_000))
    yield "min_size", size, f"file_size >= {size}"
    day = f"{chance.randrange(2022, 2027)}-{chance.randrange(1, 11):02}-01"
    yield "created_from", day, f"created_at >= '{day}T00:00:00Z'"
    yield "updated_from", day, f"updated_at >= '{day}T00:00:00Z'"
    yield "retention", "none", "retention_expires_at IS NULL"


def _deep(common: Sequence[_Word], middling: Sequence[_Word], chance: random.Random) -> Iterator[Question]:
    """Behind the hits that are ranked, and among them; by date."""
    for number in range(40):
        word = chance.choice(common if number % 2 else middling)
        question = word.question(limit=200, sort=("relevance", "newest")[number // 2 % 2])
        yield Question(question.asked, question.lexemes, question.hits, pages=(2, 5, 8)[number % 3])


def _typing(common: Sequence[_Word], middling: Sequence[_Word], chance: random.Random) -> Iterator[Question]:
    seen = set[str]()
    for number in range(4 * _MOST):
        word = chance.choice(common if number % 3 else middling)
        begun = word.form[: chance.randrange(_SHORTEST_TYPED, max(_SHORTEST_TYPED + 1, len(word.form)))]
        before = f"{chance.choice(common).form} " if number % 2 else ""
        if (query := before + begun) not in seen and len(seen) < _MOST:
            seen.add(query)
            yield Question({"query": query, "typing": True})


def _typos(filled: Filled, words: Sequence[_Word], chance: random.Random) -> Iterator[Question]:
    seen = set[str]()
    for _ in range(4 * _MOST):
        word = chance.choice(words)
        if len(word.form) >= _SHORTEST_MISTYPED and len(seen) < _MOST:
            wrong = mistyped(word.form, chance)
            if lexeme_of(wrong) not in filled.known and wrong not in seen:
                seen.add(wrong)
                yield Question({"query": wrong}, meant=word.form)


def mistyped(word: str, chance: random.Random) -> str:
    """A word with one letter wrong, missing, too many, or swapped with its neighbour; the first letter is right."""
    place = chance.randrange(1, len(word) - 1)
    before, letter, behind = word[:place], word[place], word[place + 1 :]
    another = chance.choice([one for one in (_LATIN if word.isascii() else _LETTERS) if one != letter])
    return chance.choice(
        (before + another + behind, before + behind, before + letter + another + behind, _swapped(word, place))
    )


def _swapped(word: str, place: int) -> str:
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
