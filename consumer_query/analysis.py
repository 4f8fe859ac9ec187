"""Text is made ready for the index in one place, for what is stored and for what is asked, so that both meet.

Postgres' own parser takes `name.com_1.mp4` for a host and `a/b.txt` for a path, each one token. So words are split
here; Postgres then stems them with the configuration `russian`, which stems Latin words as English.
"""

import hashlib
import re
import unicodedata
from typing import Final

_SEPARATORS: Final = re.compile(r"[\W_]+")
_NOT_SYNTAX: Final = re.compile(r'[^\w"\-]+|_+')
_INNER_HYPHEN: Final = re.compile(r"(?<=\w)-+|-+(?!\w)")
# Where a name changes gear: fileName, HTMLPage, report2024, 2024год.
_GEAR: Final = re.compile(
    r"(?<=[a-zа-я0-9])(?=[A-ZА-Я])|(?<=[A-ZА-Я])(?=[A-ZА-Я][a-zа-я])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])"
)
_LONGEST_TERM_BYTES: Final = 1000
"""A lexeme of a tsvector is limited to 2,046 bytes; longer names are found by their digest."""


def fold(text: str) -> str:
    """One spelling for what people type as the same: compatibility forms (NFKC) and ё as е."""
    return unicodedata.normalize("NFKC", text).replace("ё", "е").replace("Ё", "Е")


def words(text: str) -> str:
    """The words of a free text, separated by blanks."""
    return _SEPARATORS.sub(" ", fold(text)).strip()


def name_words(name: str) -> str:
    """The words of a file name: each whole, and the parts of those that camel case or digits join."""
    whole = words(name).split()
    parts = [part for word in whole for part in _GEAR.split(word) if part != word]
    return " ".join(whole + parts)


def name_term(name: str) -> str:
    """One term for the whole name as typed, whatever its case."""
    term = "=" + fold(name).strip().lower()
    if len(term.encode()) > _LONGEST_TERM_BYTES:
        return "=" + hashlib.sha256(term.encode()).hexdigest()
    return term


def asked_words(query: str) -> str:
    """A query in the syntax of websearch_to_tsquery: "phrases", OR and -word stay, other punctuation separates."""
    return " ".join(_INNER_HYPHEN.sub(" ", _NOT_SYNTAX.sub(" ", fold(query))).split())


def quoted_term(term: str) -> str:
    """A term as the text form of a tsquery."""
    escaped = term.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
