"""A mistyped word leads back to the word that was meant, and a right one is left alone."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import OSA

from consumer_query.analysis import lexeme
from consumer_query.corrections import (
    LONGEST,
    RARER,
    Correction,
    alike,
    best,
    in_other_layout,
    possible,
    slips_allowed,
)
from consumer_query.stop_words import STOP_WORDS

CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
words = st.text(CYRILLIC, min_size=4, max_size=20) | st.text(string.ascii_lowercase, min_size=4, max_size=20)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("договорр", "договор"),
        ("дгоовор", "договор"),
        ("догвор", "договор"),
        ("дагавор", None),
        ("договороф", "договоров"),
        ("дговорами", "договорами"),
        ("отчот", "отчет"),
        ("отчетт", "отчет"),
        ("сщет", "счет"),
        ("cчет", "счет"),  # the first letter is Latin
        ("invoce", "invoice"),
        ("invocie", "invoice"),
        ("contarct", "contract"),
        ("contracts", None),
        ("contractts", "contracts"),
        ("ghbdtn", "привет"),
        ("ljujdjhs", "договоры"),
        ("сщтекфсе", "contract"),
        ("frn", "акт"),
        ("актт", "акт"),
        ("ак", None),
        ("аки", None),
        ("h264", None),
        ("2024", None),
        ("the", None),
        ("нее", None),
    ],
)
def test_one_slip_leads_to_the_word_that_was_meant(typed: str, meant: str | None) -> None:
    known = {lexeme(word): word for word in ("договор", "отчет", "счет", "invoice", "contract", "привет", "акт")}
    found = [one for known_lexeme, one in possible(typed).items() if known_lexeme in known]
    assert [one.word for one in found] == ([] if meant is None else [meant])


@given(word=words, data=st.data())
def test_whatever_the_slip_the_lexeme_of_the_word_that_was_meant_is_looked_up(word: str, data: st.DataObject) -> None:
    letter = st.sampled_from(CYRILLIC if word[0] in CYRILLIC else string.ascii_lowercase)
    place = data.draw(st.integers(0, len(word) - 1))
    typed = data.draw(
        st.sampled_from(
            [
                word[:place] + word[place + 1 :],
                word[:place] + data.draw(letter) + word[place:],
                word[:place] + data.draw(letter) + word[place + 1 :],
                word[:place] + word[place : place + 2][::-1] + word[place + 2 :],
            ]
        )
    )
    if slips_allowed(typed) and lexeme(typed) != lexeme(word):
        assert lexeme(word) in possible(typed)


@given(word=st.text(min_size=1, max_size=50) | words)
def test_what_is_looked_up_is_one_slip_away_and_is_found_by_the_lexeme_it_stands_under(word: str) -> None:
    for known, one in possible(word).items():
        assert one.lexeme == known == lexeme(one.word) != lexeme(word)
        assert one.word == in_other_layout(word) if one.slips == 0 else OSA.distance(word, one.word) == 1
        assert word not in STOP_WORDS


@pytest.mark.parametrize(
    ("word", "slips"),
    [
        ("акт", 0),
        ("файл", 1),
        ("договор", 1),
        ("договоры", 2),
        ("contract", 2),
        ("file2024", 0),
        ("потому", 0),
        ("x" * LONGEST, 2),
        ("x" * (LONGEST + 1), 0),
    ],
)
def test_a_longer_word_may_have_more_slips(word: str, slips: int) -> None:
    assert slips_allowed(word) == slips


@pytest.mark.parametrize(
    ("typed", "known", "meant"),
    [
        ("даговорр", "договор", "договор"),
        ("даговорамии", "договор", "договорами"),
        ("пасстаффка", "поставк", None),  # three
        ("пасставка", "поставк", "поставка"),
        ("invvoicee", "invoic", "invoice"),
        ("catteggory", "categori", "category"),
        ("рахитектурра", "архитектур", "архитектура"),
    ],
)
def test_two_slips_lead_to_a_known_lexeme_with_the_typed_ending(typed: str, known: str, meant: str | None) -> None:
    assert [one.word for one in alike(typed, {known: 3})] == ([] if meant is None else [meant])


def test_a_word_is_not_taken_for_another_form_of_itself() -> None:
    assert list(alike("договоры", {"договор": 3})) == []
    assert "договор" not in possible("договоры")


@given(typed=words, known=st.lists(words.map(lexeme), max_size=5))
def test_what_looks_alike_is_within_the_slips_and_found_by_its_lexeme(typed: str, known: list[str]) -> None:
    for one in alike(typed, dict.fromkeys(known, 1)):
        assert lexeme(one.word) == one.lexeme
        assert OSA.distance(typed, one.word) == one.slips <= slips_allowed(typed)


def correction(word: str, slips: int, files: int) -> Correction:
    return Correction(word, word, slips, files)


def test_fewer_slips_win_and_then_more_files() -> None:
    near, common, far = correction("a", 1, 3), correction("b", 1, 4), correction("c", 2, 500)
    assert best("q", 0, [far, near, common]) == common
    assert best("q", 0, [far, near]) == near
    assert best("q", 0, [correction("c", 0, 1), common]) == correction("c", 0, 1)


def test_letters_changed_about_are_likelier_than_another_word_and_a_near_stem_than_an_ending_nobody_wrote() -> None:
    swapped, frequent = Correction("contract", "contract", 1, 2), Correction("contact", "contact", 1, 90)
    assert best("contarct", 0, [frequent, swapped]) == swapped
    meant, cut = Correction("протокол", "протокол", 1, 2), Correction("потокил", "поток", 1, 90)
    assert best("потокол", 0, [cut, meant]) == meant


def test_what_no_file_has_is_not_proposed() -> None:
    assert best("q", 0, [correction("a", 1, 0)]) is None
    assert best("q", 0, []) is None


def test_a_known_word_gives_way_only_to_one_that_is_much_more_frequent() -> None:
    assert best("q", 2, [correction("a", 1, 2 * RARER)]) == correction("a", 1, 2 * RARER)
    assert best("q", 2, [correction("a", 1, 2 * RARER - 1)]) is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ghbdtn", "привет"),
        ("Ghbdtn", "привет"),
        ("cx`n", "счёт"),
        ("lj;lm", "дождь"),
        ("j,]zdktybt", "объявление"),
        ("<nrz", "бткя"),
        ("руддщ", "hello"),
        ("ljujdjh gjcnfdrb", "договор поставки"),
    ],
)
def test_the_same_keys_write_in_the_other_language(typed: str, meant: str) -> None:
    assert in_other_layout(typed) == meant
