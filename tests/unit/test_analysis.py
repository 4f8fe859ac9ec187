"""Text for the index: what a person types meets what a file is called."""

import time
from hashlib import sha256
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_query import analysis
from consumer_query.analysis import (
    ANALYZER,
    Remembered,
    TooManyWordsError,
    lexeme,
    lower_words,
    name_term,
    quoted_term,
    search_vector,
    split,
)
from tests.vectors import spelt

LEXEMES = {
    "договоры": "договор",
    "договора": "договор",
    "поставщиками": "поставщик",
    "счет": "счет",
    "иванова": "иванов",
    "contracts": "contract",
    "organization": "organiz",
    "flies": "fli",
    "the": "the",
    "между": "между",
    "mp4": "mp4",
    "report2s": "report2s",
    "2026": "2026",
    "日本語": "日本語",
    "ы" * 501: sha256(("ы" * 501).encode()).hexdigest(),
}
ROOTS = [
    "договор",
    "поставк",
    "отчет",
    "квартал",
    "документ",
    "архив",
    "work",
    "relat",
    "organ",
    "univers",
    "communic",
    "happ",
]
ENDINGS = [
    "а",
    "ами",
    "ого",
    "ыми",
    "ение",
    "остью",
    "ировать",
    "ившись",
    "s",
    "ing",
    "ed",
    "ational",
    "ization",
    "ally",
    "ness",
    "ment",
    "y",
    "ies",
]
DIGESTS = {4: "6d70408a963f2e87cf09e31c8788a8c62cdd30eb0596befc5a7496640b182f4d"}
"""Of the lexemes of all roots with all endings, by the version of the analyzer."""
VECTORS = {
    ("ДоговорПоставки-2026.docx", (), None, "ann", None): (
        "'=4f252318dfe411c0' договорпоставк:1A 2026:2A docx:3A договор:9A поставк:10A ann:21D"
    ),
    ("a the.txt", ("Срочно, важно", "and"), "The list of\nсчетов", "ivan", "Пётр Сидоров"): (
        "'=20212e9cd2f00953' a:1A the:2A txt:3A срочн:9B важн:10B ivan:27D петр:28D сидор:29D list:36C счет:38C"
    ),
    ("счет.txt", ("счета",), "Счет, акт, счетами и акты", "u", None): (
        "'=c820867d662473f8' счет:1A,8B,25C,27C txt:2A u:19D акт:26C,29C"
    ),
    ("it's \\", (), "", "u", "Will And"): "'=958694fdf36f16b9' it:1A s:2A u:13D will:14D and:15D",
}


def test_what_is_stored_changes_only_with_the_version_of_the_analyzer() -> None:
    words = [root + ending for root, ending in product(ROOTS, ENDINGS)]
    assert sha256(" ".join(map(lexeme, words)).encode()).hexdigest() == DIGESTS[ANALYZER]
    assert {word: lexeme(word) for word in LEXEMES} == LEXEMES
    assert {texts: spelt(search_vector(*texts)) for texts in VECTORS} == VECTORS


@pytest.mark.parametrize(
    "forms",
    [
        "журнал журналы журналов журналами",
        "материал материалы материалов",
        "квартал кварталы кварталов",
        "экран экраны экранами",
        "список списки списков",
        "участок участки участков",
        "поставка поставок поставки",
    ],
)
def test_forms_that_snowball_takes_for_different_words_have_one_lexeme(forms: str) -> None:
    assert len({lexeme(form) for form in forms.split()}) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("report.pdf", "report pdf"),
        ("name.com_1.mp4", "name com 1 mp4"),
        ("ДоговорПоставки-2026.docx", "ДоговорПоставки 2026 docx"),
        ("Ёлка, «ёж» и й", "Елка еж и й"),
        ("Отче\u0308т и за\u0301мок", "Отчет и замок"),
        ("Café ÀÉÎ Zoë\u0301 İstanbul", "Cafe AEI Zoe Istanbul"),
        ("ﬁle №1 ½", "file No1 1 2"),
        ("soft\u00adhyphen\u200d \ufeffmark", "softhyphen mark"),
        ("हिन्दी", "हिनदी"),
        ("❤\ufe0f 1\ufe0f\u20e3", "1"),
        ("...", ""),
    ],
)
def test_a_text_is_split_where_people_see_words_and_spelt_in_one_way(text: str, expected: str) -> None:
    assert split(text) == expected.split()


def test_what_a_letter_becomes_in_lower_case_does_not_depend_on_other_words() -> None:
    assert lower_words("ℌ ΑΣ'Β ΑΣ İ") == ["h", "ας", "β", "ας", "i"]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("HTMLPage.txt", "html page"),
        ("annualReports", "annual report"),
        ("mp4", "mp 4"),
        ("2024год", "2024 год"),
        ("Report report REPORT 2024 日本語", ""),
    ],
)
def test_what_camel_case_or_digits_join_is_found_by_its_parts_too(name: str, parts: str) -> None:
    vector = spelt(search_vector(name, (), None, "", None)).removeprefix(quoted_term(name_term(name)))
    found = [place.split(":")[0] for place in vector.split()]
    assert found[len(split(name)) :] == parts.split()


def test_the_same_name_typed_in_another_way_is_the_same_term() -> None:
    assert name_term("Отчёт.PDF") == name_term("отчет.pdf") == name_term("Отче\u0308т.pdf")


@given(st.text(max_size=255))
def test_a_name_of_any_characters_makes_a_short_term(name: str) -> None:
    assert len(name_term(name).encode()) == 17


def test_a_term_is_quoted_for_a_tsquery() -> None:
    assert quoted_term("=it's\\") == "'=it''s\\\\'"


@given(st.text())
def test_words_hold_nothing_that_separates_words_or_is_syntax(text: str) -> None:
    assert not set("".join(split(text))) & set("._-/\\'\"!?:;()[]{}<>@#$%^&*+=|~`,\t\n \u2028")


@given(st.text(min_size=1))
def test_a_text_has_the_same_words_whole_or_by_what_stands_between_blanks(text: str) -> None:
    assert split(text) == [word for chunk in text.split() for word in split(chunk)]


@given(st.from_regex(r"[a-zа-я]{1,30}", fullmatch=True))
def test_no_lexeme_is_longer_than_its_word_nor_empty(word: str) -> None:
    assert 0 < len(lexeme(word).encode()) <= len(word.encode())


def test_a_text_of_too_many_words_is_refused_in_no_time() -> None:
    text = " ".join(f"word{number}" for number in range(130_000))
    begun = time.process_time()
    for _ in range(5):
        with pytest.raises(TooManyWordsError):
            search_vector("a.txt", (), text, "ann", None)
    assert time.process_time() - begun < 5 * 0.2


def test_a_text_of_the_same_words_may_be_long() -> None:
    vector = spelt(search_vector("a.txt", (), "word " * 250_000, "ann", None))
    assert vector.count("C") == 255


def test_caches_do_not_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "_MOST_CACHED", 100)
    caches = (analysis._TEXTS, analysis._NAMES, analysis._NAME_WORDS, analysis._PEOPLE)
    for cache in caches:
        cache.clear()
    for number in range(1000):
        long = "x" * 1000
        search_vector(f"a{number:x} {number} {long}.txt", (f"tag {number}",), f"t{number} {long}", f"u{number}", long)
        assert all(len(cache) <= 100 for cache in caches)
    assert max(len(text) for cache in caches for text in cache) <= 64


def test_what_is_remembered_of_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(analysis, "_LONGEST_CACHED", 3)
    monkeypatch.setattr(analysis, "_MOST_CACHED", 2)
    remembered = Remembered[None](made.append)
    for text in ("abc", "abc", "abcd", "abcd", "def", "ghi", "abc"):
        _ = remembered[text]
    assert made == ["abc", "abcd", "abcd", "def", "ghi", "abc"]
    assert len(remembered) <= 2
