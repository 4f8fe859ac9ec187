"""A query in the syntax of websearch_to_tsquery becomes a tsquery, whatever people type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_query.asking import understand


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("report_2024.pdf", "'report' & '2024' & 'pdf'"),
        ("Отчёты отчёт отчётами", "'отчет'"),
        ('"annual reports" -draft OR договор', "'annual' <1> 'report' & !('draft') | 'договор'"),
        ('"bank of america"', "'bank' <2> 'america'"),
        ('"of report of the day"', "'report' <3> 'day'"),
        ('"unclosed phrase', "'unclos' <1> 'phrase'"),
        ('"list.txt" b', "'list' <1> 'txt' & 'b'"),
        ("well-known", "'well' & 'known'"),
        ("-well-known", "!('well' & 'known')"),
        ('-"x y" z', "!('x' <1> 'y') & 'z'"),
        ("a -- b -", "'b'"),
        ("cats or dogs", "'cat' | 'dog'"),
        ("cats OR OR dogs", "'cat' | 'dog'"),
        ("x OR - OR y", "'x' | 'y'"),
        ("report OR the", "'report'"),
        ("OR report", "'report'"),
        ("report OR", "'report'"),
        ('cats "or" dogs', "'cat' & 'dog'"),
        ("cats -or dogs", "'cat' & 'dog'"),
        ("or the", "'or' & 'the'"),
        ("the or", "'the' & 'or'"),
        ("reports.report", "'report'"),
        ("＂annual report＂", "'annual' <1> 'report'"),
        ("the report -and", "'report'"),
        ("the", "'the'"),
        ("or", "'or'"),
        ("и -не", "'и' & !('не')"),
        ("the -draft", "'the' & !('draft')"),
        ("-draft", "!('draft')"),
        ('-"the draft"', "!('draft')"),
        ("-the", "!('the')"),
        ('""', ""),
        ("***", ""),
        ("", ""),
    ],
)
def test_a_query_keeps_its_syntax_and_loses_other_punctuation(query: str, expected: str) -> None:
    assert understand(query).words == expected


def test_a_query_is_asked_for_as_a_name_too() -> None:
    assert understand(" It's \\ OR.TXT").exact == "'=774c1b399ec12e1a'"


@given(st.text())
def test_a_query_never_asks_for_more_words_than_postgres_can_evaluate(query: str) -> None:
    assert understand(query * 3).words.count("'") <= 2 * 1_000


def test_words_behind_the_thousandth_are_not_asked_for() -> None:
    assert understand(" ".join(f"w{number}" for number in range(2_000))).words.count("'") == 2 * 1_000
    assert understand('"' + "x " * 2_000).words.count("'") == 2 * 1_000
