"""What the benchmark of search asks for is in the table as often as it says."""

import asyncio
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from bench.open_loop import asked_when_due
from bench.search_answers import WrongAnswersError, compare, compare_corrected
from bench.search_pools import (
    COMMON_SHARE,
    MIDDLING_SHARES,
    RARE_FILES,
    Kind,
    Question,
    different,
    draw,
    mistyped,
)
from bench.search_rows import Filled, Made, counted, files
from bench.search_words import lexeme_of, vocabulary
from consumer_query import analysis, read_model
from consumer_query.stop_words import STOP_WORDS

ROWS = 4_000


@pytest.fixture(scope="module")
def made() -> list[Made]:
    return list(files(0, ROWS, ROWS, seed=7))


@pytest.fixture(scope="module")
def filled(made: list[Made]) -> Filled:
    alive, known = counted(made)
    return Filled(1, ROWS, alive, known)


@pytest.fixture(scope="module")
def stored(made: list[Made]) -> Counter[str]:
    """By lexeme: how many files have it, in what the product stores of each."""
    found: Counter[str] = Counter()
    for one in made:
        if not one.state.deleted:
            found.update(lexemes_in(read_model.search_of(one.state.columns)))
    return found


def lexemes_in(vector: bytes) -> list[str]:
    """Of a tsvector in its binary form: a text that ends with a zero byte, two bytes of how many places, the places."""
    found, at = [], 4
    while at < len(vector):
        end = vector.index(b"\0", at)
        found.append(vector[at:end].decode())
        at = end + 3 + 2 * int.from_bytes(vector[end + 1 : end + 3], "big")
    return found


def test_the_same_rows_are_made_each_time_and_in_each_process(made: list[Made]) -> None:
    assert list(files(0, ROWS, ROWS, seed=7)) == made
    assert list(files(0, ROWS, ROWS, seed=8)) != made


def test_what_is_counted_of_a_lexeme_is_what_the_product_stores(filled: Filled, stored: Counter[str]) -> None:
    assert filled.known == {lexeme: stored[lexeme] for lexeme in filled.known}


def test_one_file_in_fifty_is_deleted_and_creation_rises_with_the_number_for_the_most_part(made: list[Made]) -> None:
    alive = [one.state.columns for one in made if not one.state.deleted]
    assert 0.01 < 1 - len(alive) / ROWS < 0.03
    moments = [columns["created_at"] for columns in alive]
    rising = sum(one < other for one, other in pairwise(moments))
    assert rising > 0.7 * len(moments)
    assert max(moments) - min(moments) > 4.9 * 365 * 86_400_000_000


def test_words_are_as_frequent_as_their_classes_say(filled: Filled) -> None:
    questions = draw(filled)
    for question in questions[Kind.COMMON]:
        assert hits(filled, question) > COMMON_SHARE * filled.files
    for question in questions[Kind.MIDDLING]:
        assert MIDDLING_SHARES[0] * filled.files <= hits(filled, question) <= MIDDLING_SHARES[1] * filled.files
    for question in questions[Kind.RARE]:
        assert 0 < hits(filled, question) < RARE_FILES


def hits(filled: Filled, question: Question) -> int:
    assert question.lexemes == (lexeme_of(question.asked["query"]),)
    assert question.hits == filled.known[question.lexemes[0]]
    return question.hits


def test_more_than_500_different_queries_are_asked(filled: Filled) -> None:
    questions = draw(filled)
    assert all(questions[kind] for kind in Kind)
    assert different(question for kind in Kind for question in questions[kind]) >= 500


def test_the_same_table_gives_the_same_questions(filled: Filled) -> None:
    assert draw(filled) == draw(filled)


def test_a_table_that_has_no_words_of_a_class_is_refused(filled: Filled) -> None:
    with pytest.raises(ValueError, match="take more"):
        draw(Filled(1, 10, 10, Counter(dict.fromkeys(list(filled.known)[:5], 1))))


def test_no_word_is_a_stop_word_and_each_form_is_one_word_with_its_lexeme() -> None:
    words = vocabulary()
    assert STOP_WORDS.isdisjoint(words.forms)
    for form, lexeme in random.Random(1).sample(list(zip(words.forms, words.lexemes, strict=True)), 2_000):
        assert analysis.lower_words(form) == [form]
        assert analysis.lexeme(form) == lexeme


def test_a_mistyped_word_is_one_edit_away_and_begins_rightly() -> None:
    chance = random.Random(3)
    for _ in range(500):
        word = chance.choice(("договоров", "contract", "сроки"))
        wrong = mistyped(word, chance)
        assert wrong[0] == word[0]
        assert abs(len(wrong) - len(word)) <= 1
        if len(wrong) == len(word):
            places = [place for place in range(len(word)) if word[place] != wrong[place]]
            assert len(places) <= 2
            if len(places) == 2:
                assert places[1] - places[0] == 1


def answer(total: int, total_is: str = "exact", **more: Any) -> dict[str, Any]:
    moments = ("2026-03-01T00:00:00Z", "2026-02-01T00:00:00Z")
    return {"total": total, "total_is": total_is, "results": [{"created_at": at} for at in moments], **more}


WORD = Question({"query": "договор"}, ("договор",), hits=10)


def test_a_right_answer_is_accepted() -> None:
    compare(WORD, answer(10), 10)
    compare(WORD, answer(4, "at_least"), 10)
    compare(Question({"query": "договор", "sort": "newest"}, ("договор",)), answer(10), 10)
    facets = {"counted": 10, "type": [{"value": "image/png", "count": 7}, {"value": "image/jpeg", "count": 3}]}
    compare(Question({"query": "договор", "facets": True}, ("договор",)), answer(10, facets=facets), 10)


@pytest.mark.parametrize(
    ("question", "given", "total"),
    [
        (WORD, answer(9), 10),
        (WORD, answer(11, "at_least"), 10),
        (WORD, answer(0, "at_least"), 10),
        # What was counted while the rows were made, and what is in the table, are not the same.
        (WORD, answer(11), 11),
        (
            Question({"query": "договор", "sort": "newest"}, ("договор",)),
            {**answer(2), "results": [*reversed(answer(2)["results"])]},
            2,
        ),
        (
            Question({"query": "договор", "facets": True}, ("договор",)),
            answer(10, facets={"counted": 10, "type": [{"value": "image/png", "count": 7}]}),
            10,
        ),
        (
            Question({"query": "договор", "facets": True}, ("договор",)),
            answer(10, facets={"counted": 11, "type": [{"value": "image/png", "count": 11}]}),
            10,
        ),
    ],
)
def test_a_wrong_answer_is_refused(question: Question, given: dict[str, Any], total: int) -> None:
    with pytest.raises(WrongAnswersError):
        compare(question, given, total)


def test_mistyped_words_that_are_not_understood_are_refused() -> None:
    questions = [Question({"query": "догвор"}, meant="договор")] * 10
    right = answer(3, corrected_to="договор")
    wrong = {**answer(0, corrected_to=None), "results": []}
    compare_corrected(questions, [right] * 9 + [wrong])
    with pytest.raises(WrongAnswersError, match="8 were understood"):
        compare_corrected(questions, [right] * 8 + [wrong] * 2)


async def test_questions_are_asked_when_they_are_due_though_none_is_answered() -> None:
    asked: list[int] = []
    all_asked = asyncio.Event()

    async def ask(number: int) -> None:
        asked.append(number)
        if len(asked) == 20:
            all_asked.set()
        await all_asked.wait()

    async with asyncio.timeout(10):
        delays, late = await asked_when_due(ask, 20, rate=400)
    assert asked == list(range(20))
    # The first was due 19 intervals before the last, and waited for it.
    assert max(delays) >= 19 / 400
    assert len(delays) == 20
    assert late >= 0
