"""A word is found by any of its beginnings, also by those that are longer than its stem."""

import pytest

from consumer_query.analysis import lexeme
from consumer_query.endings import stems_within

WORDS = """
договорённость договорённостями договорами поставки поставщиков отчётностью бухгалтерская технического согласования
утверждёнными подписанный исправленного регистрация регистрациями стоимостью ежеквартальные презентациях оборудованием
согласовывающийся запланировано отсканированных изменившийся окончательному контрактация задолженности
contracts contracting invoices organization organizations agreements categories category shipping quickly employment
presentations applicable performance translator readiness
"""


@pytest.mark.parametrize("word", [word.replace("ё", "е") for word in WORDS.split()])
def test_each_beginning_of_a_word_leads_to_its_lexeme(word: str) -> None:
    for length in range(3, len(word)):
        begun = word[:length]
        found = lexeme(word).startswith(begun) or lexeme(word) in (lexeme(begun), *stems_within(begun))
        assert found, (begun, lexeme(word), stems_within(begun))


@pytest.mark.parametrize(
    ("begun", "stems"), [("pdfx", []), ("", []), ("д", []), ("2024", []), ("договорю", ["договор"])]
)
def test_what_no_ending_goes_on_from_has_no_stem_within(begun: str, stems: list[str]) -> None:
    assert stems_within(begun) == stems
