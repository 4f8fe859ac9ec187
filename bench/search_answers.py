"""Answers are right when they are what a reading of the whole table says; then their speed means something.

The table is read without any index and by its columns, so that neither the plan nor the terms that filters go by can
make both sides wrong in the same way. Words were counted by whoever wrote them.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx

from bench.search_pools import Kind, Question
from consumer_query.analysis import quoted_term

VIEW: Final = "file_metadata_cache"
SEARCH: Final = "/api/v1/files/search"
SOME: Final = 12
"""Questions of each class that are compared."""
CORRECTED: Final = 0.85
"""Of mistyped words at least so many are understood; the judged set measures it better."""
NEWEST: Final = f"""
SELECT file_id FROM {VIEW} WHERE {{condition}} ORDER BY created_at DESC, file_id DESC LIMIT 20
"""  # noqa: S608 - constants
_READ_SECONDS: Final = 600.0
_WHOLE_TABLE: Final = {
    "enable_indexscan": "off",
    "enable_indexonlyscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}


class WrongAnswersError(Exception):
    """Search has answered what is not so; its speed means nothing."""


async def check(http: httpx.AsyncClient, database: str, questions: Mapping[Kind, Sequence[Question]]) -> None:
    """Compare answers to some questions of each class with the table.

    Raises:
        WrongAnswersError: the first that is wrong.
    """
    connection = await asyncpg.connect(database, server_settings=_WHOLE_TABLE)
    try:
        for kind, some in ((kind, questions[kind][:SOME]) for kind in Kind):
            answers = [await ask(http, question, correct=kind is Kind.TYPO) for question in some]
            if kind is Kind.TYPO:
                compare_corrected(some, answers)
            elif kind is not Kind.TYPING:
                totals = await _totals(connection, some)
                for question, answer, total in zip(some, answers, totals, strict=True):
                    compare(question, answer, total)
                await _only_hits(connection, some, answers)
            if not all(answer["results"] for answer in answers) and kind in _ALWAYS_SOME:
                raise WrongAnswersError(f"{kind}: nothing was found for one of {[one.asked for one in some]}")
        await _newest(connection, http, questions[Kind.NEWEST][:4])
    finally:
        await connection.close()


_ALWAYS_SOME: Final = (Kind.COMMON, Kind.MIDDLING, Kind.RARE, Kind.NEWEST, Kind.DEEP)
"""Without filters, which may leave nothing of a small table."""


async def ask(http: httpx.AsyncClient, question: Question, **more: Any) -> dict[str, Any]:
    """One question, over HTTP.

    Raises:
        WrongAnswersError: it was refused.
    """
    answer = await http.get(SEARCH, params={**question.asked, **more})
    if not answer.is_success:
        raise WrongAnswersError(f"{question.asked}: {answer.status_code} {answer.text}")
    found: dict[str, Any] = answer.json()
    return found


def compare(question: Question, answer: Mapping[str, Any], total: int) -> None:
    """Hold totals, order and facets of an answer against how many files match.

    Raises:
        WrongAnswersError: they cannot both be right.
    """
    said, is_exact = answer["total"], answer["total_is"] == "exact"
    if question.hits is not None and question.hits != total and question.condition == "true":
        raise WrongAnswersError(f"{question.asked}: {question.hits} were written, {total} are in the table")
    if (said != total) if is_exact else not 0 < said <= total:
        raise WrongAnswersError(f"{question.asked}: {said} ({answer['total_is']}) of {total}")
    moments = [one["created_at"] for one in answer["results"]]
    if question.asked.get("sort") == "newest" and moments != sorted(moments, reverse=True):
        raise WrongAnswersError(f"{question.asked}: not the newest first")
    if question.asked.get("facets"):
        facets = answer["facets"]
        if sum(one["count"] for one in facets["type"]) != facets["counted"] or facets["counted"] > total:
            raise WrongAnswersError(f"{question.asked}: the types of {facets['counted']} hits do not add up")


def compare_corrected(questions: Sequence[Question], answers: Sequence[Mapping[str, Any]]) -> None:
    """Hold answers to mistyped words against what a reader would expect.

    Raises:
        WrongAnswersError: too few were understood.
    """
    understood = sum(bool(answer["corrected_to"] and answer["results"]) for answer in answers)
    if understood < CORRECTED * len(questions):
        missed = [one.asked["query"] for one, answer in zip(questions, answers, strict=True) if not answer["results"]]
        raise WrongAnswersError(f"Of {len(questions)} mistyped words {understood} were understood; not {missed}")


async def _totals(connection: asyncpg.Connection, questions: Sequence[Question]) -> Sequence[int]:
    counts = ", ".join(f"count(*) FILTER (WHERE {_condition(one)})" for one in questions)
    row = await connection.fetchrow(f"SELECT {counts} FROM {VIEW}", timeout=_READ_SECONDS)  # noqa: S608 - ours
    assert row is not None  # noqa: S101 - an aggregate
    return list(row.values())


async def _only_hits(
    connection: asyncpg.Connection, questions: Iterable[Question], answers: Iterable[Mapping[str, Any]]
) -> None:
    """Whether every result matches; by primary key."""
    await connection.execute("SET enable_indexscan = on")
    for question, answer in zip(questions, answers, strict=True):
        ids = [UUID(one["file_id"]) for one in answer["results"]]
        statement = f"SELECT count(*) FROM {VIEW} WHERE file_id = ANY($1::uuid[]) AND {_condition(question)}"  # noqa: S608
        if len(set(ids)) != len(ids) or await connection.fetchval(statement, ids) != len(ids):
            raise WrongAnswersError(f"{question.asked}: a result that does not match, or one twice")
    await connection.execute("SET enable_indexscan = off")


async def _newest(connection: asyncpg.Connection, http: httpx.AsyncClient, questions: Iterable[Question]) -> None:
    for question in questions:
        answer = await ask(http, question)
        statement = NEWEST.format(condition=_condition(question))
        newest = await connection.fetch(statement, timeout=_READ_SECONDS)
        if [one["file_id"] for one in answer["results"]] != [str(row["file_id"]) for row in newest]:
            raise WrongAnswersError(f"{question.asked}: these are not the newest")


def _condition(question: Question) -> str:
    words = " & ".join(map(quoted_term, question.lexemes)).replace("'", "''")
    return f"(search @@ '{words}'::tsquery AND {question.condition})" if words else f"({question.condition})"
