"""Search finds what people mean: judged questions, and which of two hits comes first."""

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from statistics import fmean
from typing import Any

import asyncpg
import pytest

from bench.distractors import distractors
from bench.judgements import files
from bench.relevance import Verdict, all_questions, answers, fill, score_of
from consumer_query.read_model import teach
from consumer_query.search import Searches, SearchRequest
from runtime.postgres import open_pool
from tests.conftest import Templates, execute
from tests.samples import MOMENT, created

AMONG = 4_000


@pytest.fixture(scope="module")
async def verdicts(templates: Templates) -> AsyncIterator[list[Verdict]]:
    """All judged questions, answered."""
    name = await templates.copy("query")
    async with await open_pool(templates.backend.url(name), "tests", init=teach) as pool:
        judged, others = files(), list(distractors(AMONG))
        await fill(pool, [*judged, *others])
        yield await answers(Searches(pool), all_questions(judged, others))
    await execute(templates.backend.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


def of(verdicts: Iterable[Verdict], *labels: str) -> list[Verdict]:
    return [one for one in verdicts if one.question.label in labels]


def failed(verdicts: Iterable[Verdict]) -> str:
    return "\n".join(
        f"{one.question.query!r} {dict(one.question.parameters)}: not "
        f"{[name for name in one.question.expected if name not in one.found]} but {list(one.found[:3])}"
        for one in verdicts
        if one.recall < 1
    )


@pytest.mark.parametrize(
    ("labels", "least"),
    [
        (("exact", "stemmed"), 0.95),
        (("one_typo",), 0.85),
        (("generated_typo",), 0.85),
        (("mixed",), 0.95),
        (("name_part",), 0.95),
        (("phrase", "excluded"), 0.95),
        (("prefix",), 0.95),
        (("filter",), 0.95),
        (("user_name",), 0.95),
        (("layout",), 0.85),
    ],
)
async def test_what_people_expect_is_among_the_first_ten_hits(
    verdicts: list[Verdict], labels: tuple[str, ...], least: float
) -> None:
    these = of(verdicts, *labels)
    assert score_of("", these).recall >= least, failed(these)


@pytest.mark.parametrize("label", ["phrase", "excluded", "filter"])
async def test_what_was_ruled_out_is_not_among_the_hits(verdicts: list[Verdict], label: str) -> None:
    """A few hits are right by a field that nobody thought of, such as the name of who uploaded them."""
    these = of(verdicts, label)
    assert fmean(one.precision for one in these) >= 0.95, [list(one.found) for one in these if one.precision < 1]


@pytest.mark.parametrize(
    "label", ["uuid", "checksum", "exact_name", "generated_uuid", "generated_checksum", "generated_name"]
)
async def test_what_is_named_exactly_comes_first(verdicts: list[Verdict], label: str) -> None:
    first = {one.question.query: list(one.found[:1]) for one in of(verdicts, label)}
    assert first == {one.question.query: list(one.question.expected) for one in of(verdicts, label)}


async def found(pool: asyncpg.Pool, query: str) -> list[str]:
    page = await Searches(pool).page(SearchRequest(query=query))
    return [hit["original_filename"] for hit in page.hits]


async def cache(pool: asyncpg.Pool, *named: dict[str, Any]) -> None:
    """Put files into the cache, each a minute older than the one before unless it says when it was made."""
    nothing: dict[str, Any] = {"description": None, "tags": (), "created_by_fullname": None}
    await fill(
        pool,
        [
            created(**nothing | {"created_at": MOMENT - timedelta(minutes=number)} | details)
            for number, details in enumerate(named)
        ],
    )


async def test_a_name_comes_before_a_tag_a_tag_before_a_description_and_that_before_an_uploader(
    query_pool: asyncpg.Pool,
) -> None:
    await cache(
        query_pool,
        {"original_filename": "uploader.txt", "created_by_fullname": "Анна Смета"},
        {"original_filename": "description.txt", "description": "Смета на ремонт"},
        {"original_filename": "tag.txt", "tags": ("смета",)},
        {"original_filename": "смета 2020.txt"},
    )
    assert await found(query_pool, "смета") == ["смета 2020.txt", "tag.txt", "description.txt", "uploader.txt"]


async def test_a_word_that_a_description_repeats_does_not_outweigh_a_tag_or_a_name(query_pool: asyncpg.Pool) -> None:
    await cache(
        query_pool,
        {"original_filename": "description.txt", "description": "invoice, invoices and invoice: " * 10},
        {"original_filename": "tag.txt", "tags": ("invoice",)},
        {"original_filename": "old invoice 2019.txt"},
    )
    assert await found(query_pool, "invoice") == ["old invoice 2019.txt", "tag.txt", "description.txt"]


async def test_two_words_in_the_name_come_before_one_there_and_one_in_the_description(query_pool: asyncpg.Pool) -> None:
    await cache(
        query_pool,
        {"original_filename": "description.txt", "description": "Договор поставки мебели"},
        {"original_filename": "договор.txt", "description": "Поставка мебели"},
        {"original_filename": "ДоговорПоставки.txt"},
    )
    assert await found(query_pool, "договор поставки") == ["ДоговорПоставки.txt", "договор.txt", "description.txt"]


async def test_words_that_stand_far_apart_in_a_name_come_before_the_same_side_by_side_in_a_description(
    query_pool: asyncpg.Pool,
) -> None:
    name = "Договор на оказание услуг по уборке и ремонту помещений склада в городе Подольск на время поставки.pdf"
    await cache(
        query_pool,
        {"original_filename": "new.txt", "description": "Договор поставки"},
        {"original_filename": "newer.txt", "description": "Поставка: договор поставки, договор"},
        {"original_filename": name},
    )
    assert (await found(query_pool, "договор поставки"))[0] == name


async def test_of_equals_the_newer_comes_first(query_pool: asyncpg.Pool) -> None:
    await cache(
        query_pool,
        {"original_filename": "report a.pdf", "created_at": MOMENT},
        {"original_filename": "report b.pdf", "created_at": MOMENT + timedelta(seconds=2)},
        {"original_filename": "report c.pdf", "created_at": MOMENT + timedelta(seconds=1)},
    )
    assert await found(query_pool, "report") == ["report b.pdf", "report c.pdf", "report a.pdf"]


async def test_the_exact_name_comes_before_more_newer_files_than_a_page_holds(query_pool: asyncpg.Pool) -> None:
    rest = {"description": "report.pdf", "tags": ("report.pdf",)}
    await cache(
        query_pool,
        *[{"original_filename": f"copy {number} of report.pdf", **rest} for number in range(30)],
        {"original_filename": "report.pdf", "created_at": MOMENT - timedelta(days=900)},
    )
    assert (await found(query_pool, "Report.PDF"))[0] == "report.pdf"
