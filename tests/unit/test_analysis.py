"""Text for the index: what a person types meets what a file is called."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_query.analysis import asked_words, name_term, name_words, quoted_term, words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("report.pdf", "report pdf"),
        ("name.com_1.mp4", "name com 1 mp4 mp 4"),
        ("ДоговорПоставки-2026.docx", "ДоговорПоставки 2026 docx Договор Поставки"),
        ("HTMLPage.html", "HTMLPage html HTML Page"),
        ("Ёлка2024год.txt", "Елка2024год txt Елка 2024 год"),
        ("...", ""),
    ],
)
def test_a_file_name_is_split_where_people_see_words(name: str, expected: str) -> None:
    assert name_words(name) == expected


def test_the_same_name_typed_in_another_way_is_the_same_term() -> None:
    assert name_term("Отчёт.PDF") == name_term("отчет.pdf") == name_term("Отче\u0308т.pdf")


@given(st.text(max_size=255))
def test_a_name_of_any_characters_makes_a_term_that_postgres_can_hold(name: str) -> None:
    assert len(name_term(name).encode(errors="surrogatepass")) <= 1000


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("report_2024.pdf", "report 2024 pdf"),
        ('"annual report" -draft OR договор', '"annual report" -draft OR договор'),
        ("well-known", "well known"),
        ("a -- b", "a b"),
        ("отчёт", "отчет"),
        ("***", ""),
    ],
)
def test_a_query_keeps_its_syntax_and_loses_other_punctuation(query: str, expected: str) -> None:
    assert asked_words(query) == expected


def test_a_term_is_quoted_for_a_tsquery() -> None:
    assert quoted_term("=it's\\") == "'=it''s\\\\'"


@given(st.text())
def test_words_hold_no_punctuation(text: str) -> None:
    assert not set(words(text)) & set("._-/\\'\"!?:;()[]{}<>@#$%^&*+=|~`,\t\n")
