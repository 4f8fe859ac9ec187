"""The judged questions are about files that exist, and are as many of each kind as was promised."""

from collections import Counter

from bench.distractors import distractors
from bench.judgements import files, questions
from bench.relevance import SLIPS, WHOLE_VALUES, Verdict, all_questions
from schemas.events import FileEvent

LABELS = {
    "exact", "stemmed", "mixed", "name_part", "phrase", "excluded", "one_typo", "layout", "prefix", "uuid", "checksum",
    "exact_name", "user_name", "filter",
}  # fmt: skip


def name(event: FileEvent) -> str:
    assert event.metadata is not None
    return event.metadata.original_filename


def test_every_expected_file_exists_once() -> None:
    names = Counter(name(event) for event in files())
    assert set(names.values()) == {1}
    for question in questions():
        assert question.expected
        assert len(set(question.expected)) == len(question.expected)
        assert set(question.expected) <= names.keys(), question


def test_there_are_enough_questions_of_each_kind_and_none_twice() -> None:
    asked = questions()
    labels = Counter(question.label for question in asked)
    assert labels.keys() == LABELS
    assert len(asked) >= 220
    assert labels["one_typo"] >= 60
    assert min(labels.values()) >= 8
    assert max(Counter((question.query, str(question.parameters)) for question in asked).values()) == 1


def test_every_question_is_one_that_the_api_takes() -> None:
    for question in questions():
        assert question.asked(10).request().query == question.query


def test_distractors_are_the_same_in_each_run_and_none_is_a_judged_file() -> None:
    made = list(distractors(1_000))
    assert made == list(distractors(1_000))
    assert not {name(event) for event in made} & {name(event) for event in files()}
    assert len({event.file_id for event in made}) == len(made)


def test_generated_questions_are_the_same_in_each_run_and_ask_for_one_file_each() -> None:
    judged, others = files(), list(distractors(1_000))
    asked = all_questions(judged, others)
    made = [question for question in asked if question.label.startswith("generated")]
    assert asked == all_questions(judged, others)
    assert Counter(question.label for question in made) == {
        "generated_name": WHOLE_VALUES,
        "generated_uuid": WHOLE_VALUES,
        "generated_checksum": WHOLE_VALUES,
        "generated_typo": SLIPS,
    }
    names = Counter(name(event) for event in [*judged, *others])
    assert {(len(question.expected), names[question.expected[0]]) for question in made} == {(1, 1)}


def test_recall_counts_what_has_room_and_rank_the_first_expected_hit() -> None:
    question = questions()[0]
    many = [f"{number}.txt" for number in range(12)]
    asked = type(question)("exact", "text", {}, many)
    assert Verdict(asked, many[:10], None).recall == 1
    assert Verdict(asked, ["other", *many[:4]], None).recall == 0.4
    assert Verdict(asked, ["other", *many[:4]], None).reciprocal_rank == 0.5
    assert Verdict(asked, ["other"], None).reciprocal_rank == 0
