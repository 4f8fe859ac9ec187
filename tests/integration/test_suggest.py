"""What is being typed goes on as names and tags that exist, over a real Postgres."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumer_query import read_model, suggest, vocabulary
from consumer_query.records import RecordReader
from consumer_query.suggest import suggestions
from schemas.codec import encode
from tests.samples import MOMENT, created

EMPTY: dict[str, Any] = {"description": None, "tags": (), "created_by_fullname": None}


async def cache(pool: asyncpg.Pool, *names: str, **details: Any) -> None:
    """Put files into the cache, each a minute newer than the one before."""
    reader = RecordReader(None)
    events = [
        created(original_filename=name, created_at=MOMENT + timedelta(minutes=number), **EMPTY | details)
        for number, name in enumerate(names)
    ]
    states = [reader.state_of(str(event.file_id).encode(), encode(event), {}) for event in events]
    async with pool.acquire() as connection, connection.transaction():
        await read_model.apply(connection, 1, [read_model.row_of(state) for state in states])


async def names(pool: asyncpg.Pool, query: str, limit: int = 10) -> Sequence[str]:
    return (await suggestions(pool, query, limit)).names


async def tags(pool: asyncpg.Pool, query: str, limit: int = 10) -> Sequence[str]:
    return (await suggestions(pool, query, limit)).tags


@pytest.fixture(params=["never counted", "counted", "common"])
async def counted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whichever way is taken, the same is suggested: call it when the files are there."""

    async def count(pool: asyncpg.Pool) -> None:
        if request.param != "never counted":
            await vocabulary.refresh(pool, 1)
        if request.param == "common":
            monkeypatch.setattr(suggest, "FEW", 0)

    return count


async def test_names_go_on_from_the_last_word_and_have_those_before_it_the_newest_first(
    query_pool: asyncpg.Pool, counted: Any
) -> None:
    await cache(query_pool, "Договор поставки 2024.pdf", "акт сверки.pdf", "договорённости.txt", "поставкиДоговоры.doc")
    await counted(query_pool)
    assert await names(query_pool, "д") == ["поставкиДоговоры.doc", "договорённости.txt", "Договор поставки 2024.pdf"]
    assert len(await names(query_pool, "договоре")) == 3
    assert await names(query_pool, "договорённос") == ["договорённости.txt"]
    assert await names(query_pool, "поставки дог") == ["поставкиДоговоры.doc", "Договор поставки 2024.pdf"]
    assert await names(query_pool, "договор 20") == ["Договор поставки 2024.pdf"]
    assert await names(query_pool, "дог", limit=1) == ["поставкиДоговоры.doc"]
    assert await names(query_pool, "договор ") == ["поставкиДоговоры.doc", "Договор поставки 2024.pdf"]
    assert await names(query_pool, "нет") == []


async def test_files_of_one_name_are_one_suggestion(query_pool: asyncpg.Pool, counted: Any) -> None:
    await cache(query_pool, "договор.txt", *["договор.pdf"] * 30)
    await counted(query_pool)
    assert await names(query_pool, "дог") == ["договор.pdf", "договор.txt"]


async def test_only_names_are_suggested_and_not_what_descriptions_say(query_pool: asyncpg.Pool, counted: Any) -> None:
    await cache(query_pool, "a.txt", description="договор", tags=("договор",), created_by_fullname="Договоров")
    await counted(query_pool)
    assert await names(query_pool, "дог") == []


async def test_tags_go_on_from_all_that_is_typed_the_most_frequent_first_as_people_write_them(
    query_pool: asyncpg.Pool, counted: Any
) -> None:
    await cache(query_pool, "a", "b", tags=("Срочно", "ГОСТ 34"))
    await cache(query_pool, "c", tags=("срочный ремонт", "не срочно"))
    await counted(query_pool)
    assert await tags(query_pool, "сроч") == ["Срочно", "срочный ремонт"]
    assert await tags(query_pool, "СРОЧНЫЙ р") == ["срочный ремонт"]
    assert await tags(query_pool, "гост") == ["ГОСТ 34"]
    assert await tags(query_pool, "с", limit=1) == ["Срочно"]
    assert await tags(query_pool, "нет") == []


async def test_a_file_that_is_too_new_to_be_counted_is_suggested(query_pool: asyncpg.Pool) -> None:
    await cache(query_pool, "акт.pdf")
    await vocabulary.refresh(query_pool, 1)
    await cache(query_pool, "договор.pdf", tags=("Срочно",))
    assert await names(query_pool, "дог") == ["договор.pdf"]
    assert await tags(query_pool, "сро") == ["Срочно"]


async def test_a_common_word_of_old_files_only_is_suggested(
    query_pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cache(query_pool, *[f"договор {number}.pdf" for number in range(5)])
    await vocabulary.refresh(query_pool, 1)
    monkeypatch.setattr(suggest, "FEW", 0)
    monkeypatch.setattr(suggest, "NEWEST_NAMES", suggest.NEWEST_NAMES.replace(f"LIMIT {suggest.WALKED}", "LIMIT 0"))
    assert len(await names(query_pool, "договор pd")) == 5


async def test_nothing_typed_suggests_nothing(query_pool: asyncpg.Pool) -> None:
    await cache(query_pool, "a", tags=("b",))
    for query in ("", "  ", "..."):
        assert await names(query_pool, query) == []
    assert await tags(query_pool, "  ") == []


async def test_what_takes_too_long_is_not_suggested(query_pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    await cache(query_pool, "договор.pdf", tags=("договор",))
    monkeypatch.setattr(suggest, "LIMIT", "SET LOCAL statement_timeout = '50ms'")
    slow = "SELECT original_filename, pg_sleep(20) FROM file_metadata_cache WHERE $1::text IS NOT NULL LIMIT $2"
    monkeypatch.setattr(suggest, "NAMES", slow)
    monkeypatch.setattr(suggest, "NEWEST_NAMES", slow)
    found = await suggestions(query_pool, "дог", 10)
    assert (found.names, found.tags) == ([], ["договор"])
    assert await query_pool.fetchval("SHOW statement_timeout") == "0"


@given(query=st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=200))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_text_can_be_typed(query_pool: asyncpg.Pool, query: str) -> None:
    await suggestions(query_pool, query, 5)
