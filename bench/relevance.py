"""Whether search finds what people mean: judged questions to the real search, among files that nobody asks for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import asyncpg

from bench.distractors import distractors
from bench.generated_questions import of_slips, of_whole_values
from bench.judgements import Question, files, questions
from bench.servers import Servers, Tell
from consumer_query import read_model, vocabulary
from consumer_query.migrations import run_migrate
from consumer_query.records import RecordReader
from consumer_query.search import Searches
from consumer_query.settings import QueryDatabaseSettings
from runtime.postgres import open_pool
from schemas.codec import encode
from schemas.events import FileEvent

FIRST: Final = 10
"""Hits that are looked at."""
WHOLE_VALUES: Final = 40
"""Files that are asked for by name, by id and by checksum."""
SLIPS: Final = 200
_GENERATION: Final = 1
_AT_ONCE: Final = 500
"""Rows in a statement."""


@dataclass(frozen=True)
class Verdict:
    """How a question was answered."""

    question: Question
    found: Sequence[str]
    """Names of the first hits, in their order."""
    corrected_to: str | None

    @property
    def recall(self) -> float:
        """Of the expected files that have room among the first ten, the share that is there (0 to 1)."""
        expected = self.question.expected
        return len(set(self.found) & set(expected)) / min(FIRST, len(expected))

    @property
    def precision(self) -> float:
        """Of the hits, the share that was expected (0 to 1)."""
        return len(set(self.found) & set(self.question.expected)) / len(self.found) if self.found else 0.0

    @property
    def reciprocal_rank(self) -> float:
        """1 when the first hit was expected, 1/2 when only the second was; 0 without any."""
        return next((1 / place for place, name in enumerate(self.found, 1) if name in self.question.expected), 0.0)


@dataclass(frozen=True)
class Score:
    """How the questions with one label were answered."""

    label: str
    questions: int
    recall: float
    """Mean recall@10, 0 to 1."""
    mrr: float
    """Mean reciprocal rank, 0 to 1."""


async def measure(servers: Servers, among: int, tell: Tell) -> list[Verdict]:
    """Answer all questions over a database of its own, with so many distractors."""
    async with servers.database() as url:
        await run_migrate(QueryDatabaseSettings(query_database_url=url))
        async with await open_pool(url, "bench-relevance", init=read_model.teach) as pool:
            tell("Filling the cache")
            judged, others = files(), list(distractors(among))
            await fill(pool, [*judged, *others])
            tell("Asking")
            return await answers(Searches(pool), all_questions(judged, others))


def all_questions(judged: Sequence[FileEvent], others: Sequence[FileEvent]) -> list[Question]:
    """The judged questions, and those made of the files."""
    events = [*judged, *others]
    return [*questions(), *of_whole_values(events, WHOLE_VALUES), *of_slips(events, judged, SLIPS)]


async def fill(pool: asyncpg.Pool, events: Iterable[FileEvent]) -> None:
    """Put files into the live generation of a new database as the projector does, and count their words.

    Args:
        pool: whose connections were taught (`read_model.teach`)
        events: one of each file
    """
    reader = RecordReader(None)
    states = [reader.state_of(str(event.file_id).encode(), encode(event), {}) for event in events]
    rows = [read_model.row_of(state) for state in states]
    async with pool.acquire() as connection, connection.transaction():
        for begin in range(0, len(rows), _AT_ONCE):
            await read_model.apply(connection, _GENERATION, rows[begin : begin + _AT_ONCE])
    await vocabulary.refresh(pool, _GENERATION)


async def answers(searches: Searches, asked: Iterable[Question]) -> list[Verdict]:
    """Ask one question after the other."""
    verdicts = []
    for question in asked:
        page = await searches.page(question.asked(FIRST).request())
        verdicts.append(Verdict(question, [hit["original_filename"] for hit in page.hits], page.corrected_to))
    return verdicts


def scores(verdicts: Sequence[Verdict]) -> list[Score]:
    """By label in their order, and of all together."""
    by_label: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_label.setdefault(verdict.question.label, []).append(verdict)
    return [score_of(label, some) for label, some in {**by_label, "all": list(verdicts)}.items()]


def score_of(label: str, verdicts: Sequence[Verdict]) -> Score:
    """Of at least one question."""
    recall = fmean(one.recall for one in verdicts)
    return Score(label, len(verdicts), recall, fmean(one.reciprocal_rank for one in verdicts))
