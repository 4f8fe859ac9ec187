"""The table of lexemes over a real Postgres: what is counted, when, and what searches make of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumer_query import generations, read_model, vocabulary
from consumer_query.analysis import lexeme, lower_words, name_term
from consumer_query.corrections import Correction
from consumer_query.generations import table_name
from consumer_query.records import RecordReader
from consumer_query.vocabulary_worker import VocabularyWorker
from schemas.codec import encode
from schemas.events import FileEvent
from tests.samples import created, deleted
from tests.waiting import eventually, settles

EMPTY: dict[str, Any] = {"description": None, "tags": (), "created_by_fullname": None}


async def apply(pool: asyncpg.Pool, *events: FileEvent, generation: int = 1) -> None:
    reader = RecordReader(None)
    states = [reader.state_of(str(event.file_id).encode(), encode(event), {}) for event in events]
    async with pool.acquire() as connection, connection.transaction():
        await read_model.apply(connection, generation, [read_model.row_of(state) for state in states])


async def cache(pool: asyncpg.Pool, *names: str, generation: int = 1, **details: Any) -> list[UUID]:
    events = [created(original_filename=name, **EMPTY | details) for name in names]
    await apply(pool, *events, generation=generation)
    return [event.file_id for event in events]


async def knows(pool: asyncpg.Pool, words: Mapping[str, int]) -> None:
    """Let these words, of which none is a stop word, be in so many files, none of which exists."""
    await pool.executemany(
        "INSERT INTO query_lexemes VALUES ($1, $2)", [(lexeme(word), files) for word, files in words.items()]
    )


async def known(pool: asyncpg.Pool) -> dict[str, int]:
    return {row["lexeme"]: row["files"] for row in await pool.fetch("SELECT lexeme, files FROM query_lexemes")}


async def corrected(pool: asyncpg.Pool, query: str) -> dict[str, str]:
    typed = {lexeme(word): word for word in lower_words(query)}
    async with pool.acquire() as connection:
        return {typed[one]: meant.word for one, meant in (await vocabulary.proposals(connection, typed)).items()}


async def test_every_word_is_counted_by_the_files_that_have_it(query_pool: asyncpg.Pool) -> None:
    await cache(query_pool, "Договор поставки.pdf", "договоры.pdf", "дом дом дом.pdf")
    await cache(query_pool, "x.txt", description="контракт и договор", tags=("срочно",), created_by_fullname="Пётр")
    counted = await vocabulary.refresh(query_pool, 1)
    found = await known(query_pool)
    words = {"договор": 3, "поставк": 1, "дом": 1, "pdf": 3, "txt": 1, "контракт": 1, "срочн": 1, "петр": 1}
    assert {one: found[one] for one in words} == words
    assert counted is not None
    assert (counted.generation, counted.files) == (1, 4)
    assert counted == await vocabulary.last_count(query_pool)


async def test_terms_of_few_values_are_counted_and_numbers_names_and_checksums_only_when_many_files_have_them(
    query_pool: asyncpg.Pool,
) -> None:
    await cache(query_pool, *[f"scan {number} of 2024.pdf" for number in range(30)], tags=("Срочно",))
    await cache(query_pool, *["scan.pdf"] * 30, mime_type="image/png")
    await cache(query_pool, *["copy 77"] * 5)
    await cache(query_pool, "другой.doc", checksum="sha256:" + "f" * 64, tags=("один раз",))
    await vocabulary.refresh(query_pool, 1)
    found = await known(query_pool)
    expected = {
        "tag:срочно": 30,
        "tag:один раз": 1,
        "type:image": 30,
        "type:image/png": 30,
        "type:application/pdf": 36,
        "at:se-01": 66,
        "by:ivanov": 66,
        "2024": 30,
        name_term("scan.pdf"): 30,
        "sum:" + "a1b2c3d4" * 8: 65,
    }
    assert {one: found[one] for one in expected} == expected
    assert name_term("scan 7 of 2024.pdf") not in found
    assert not {"7", "77", name_term("copy 77")} & found.keys()
    assert "sum:" + "f" * 64 not in found


async def test_deleted_files_are_not_counted_and_what_no_file_has_any_more_is_forgotten(
    query_pool: asyncpg.Pool,
) -> None:
    [gone, _] = await cache(query_pool, "договор.pdf", "отчёт.pdf")
    await vocabulary.refresh(query_pool, 1)
    assert (await known(query_pool))["договор"] == 1
    await apply(query_pool, deleted(gone, 2))
    counted = await vocabulary.refresh(query_pool, 1)
    found = await known(query_pool)
    assert "договор" not in found
    assert (found["отчет"], found["pdf"]) == (1, 1)
    assert counted is not None
    assert counted.files == 1


async def test_counts_that_hardly_changed_are_not_written(query_pool: asyncpg.Pool) -> None:
    await cache(query_pool, *[f"договор {number}" for number in range(40)], "отчёт")
    await vocabulary.refresh(query_pool, 1)
    row_of = "SELECT xmin::text, files FROM query_lexemes WHERE lexeme = $1"
    before = await query_pool.fetchrow(row_of, "договор")
    await cache(query_pool, "договор", "отчёт")
    await vocabulary.refresh(query_pool, 1)
    assert await query_pool.fetchrow(row_of, "договор") == before
    assert (await known(query_pool))["отчет"] == 2


async def test_a_table_of_many_stretches_is_counted_whole(
    query_pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "STRETCH", 1)
    words = [f"слово{chr(1072 + number % 32)}{chr(1072 + number // 32)}" for number in range(100)]
    await cache(query_pool, *words, *words, description="везде " * 100)
    pages = await query_pool.fetchval(vocabulary.PAGES, table_name(1))
    assert pages > 3
    counted = await vocabulary.refresh(query_pool, 1)
    found = await known(query_pool)
    expected = Counter(lexeme(word) for word in words * 2)
    assert {one: found[one] for one in expected} == expected
    assert found["везд"] == 200
    assert counted is not None
    assert counted.files == 200


async def test_one_process_counts_at_a_time(query_pool: asyncpg.Pool) -> None:
    await cache(query_pool, "договор")
    async with query_pool.acquire() as other:
        await other.execute("SELECT pg_advisory_lock($1)", vocabulary.ONE_AT_A_TIME)
        assert await vocabulary.refresh(query_pool, 1) is None
        assert await known(query_pool) == {}
    assert await vocabulary.refresh(query_pool, 1) is not None


async def test_searches_and_projectors_go_on_while_counts_are_stored(query_pool: asyncpg.Pool) -> None:
    await cache(query_pool, "договор")
    await vocabulary.refresh(query_pool, 1)
    await cache(query_pool, "договор")
    async with query_pool.acquire() as storing, query_pool.acquire() as other, storing.transaction():
        await storing.execute("CREATE TEMP TABLE counted ON COMMIT DROP AS SELECT 'договор' AS lexeme, 2 AS files")
        await storing.execute(vocabulary.STORE)
        await storing.execute(vocabulary.FORGET)
        await other.execute("SET lock_timeout = '100ms'")
        assert (await vocabulary.counts(other, ["договор"])).lexemes["договор"] == 1
        locks = "SELECT relation::regclass::text FROM pg_locks WHERE pid = pg_backend_pid() AND relation IS NOT NULL"
        held = [row["relation"] for row in await storing.fetch(locks)]
        assert not [name for name in held if name.startswith(("file_metadata_cache", "cache_generation"))]


@asynccontextmanager
async def working(pool: asyncpg.Pool, interval: timedelta | None) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    worker = asyncio.create_task(VocabularyWorker(pool, interval, look_seconds=0.05).run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(worker, 10)


async def test_lexemes_are_counted_after_much_has_changed_and_after_a_swap(query_pool: asyncpg.Pool) -> None:
    async with working(query_pool, timedelta(hours=1)):
        await cache(query_pool, *["договор"] * 20)
        await settles(lambda: _files(query_pool, "договор"), 20)
        await cache(query_pool, *["договор"] * 5)
        await settles(lambda: _files(query_pool, "договор"), 25)
        async with query_pool.acquire() as connection, connection.transaction():
            other = await generations.make(connection)
            for statement in generations.INDEXES.values():
                await connection.execute(statement.format(table=table_name(other)))
        await cache(query_pool, "отчёт", generation=other)
        async with query_pool.acquire() as connection, connection.transaction():
            await generations.swap(connection, await generations.take_over(connection), other)
        await settles(lambda: _files(query_pool, "отчет"), 1)
        assert await _files(query_pool, "договор") == 0
        last = await vocabulary.last_count(query_pool)
        assert last is not None
        assert last.generation == other


async def test_a_worker_whose_count_fails_tries_again(query_pool: asyncpg.Pool) -> None:
    await cache(query_pool, "договор")
    await query_pool.execute("ALTER TABLE query_lexemes RENAME TO away")

    async def failed() -> bool:
        return any(line["event"] == "lexemes not counted" for line in logs)

    with capture_logs() as logs:
        async with working(query_pool, timedelta(hours=1)):
            await eventually(failed)
            await query_pool.execute("ALTER TABLE away RENAME TO query_lexemes")
            await settles(lambda: _files(query_pool, "договор"), 1)


async def test_without_an_interval_nothing_is_counted(query_pool: asyncpg.Pool) -> None:
    await cache(query_pool, "договор")
    stopping = asyncio.Event()
    await asyncio.wait_for(VocabularyWorker(query_pool, None).run(stopping), 10)
    assert await known(query_pool) == {}


async def test_a_worker_that_is_stopped_leaves_its_count(query_pool: asyncpg.Pool) -> None:
    await cache(query_pool, "договор")
    async with query_pool.acquire() as holder, holder.transaction():
        # The count waits for this.
        await holder.execute("LOCK TABLE query_lexemes")
        async with working(query_pool, timedelta(hours=1)):
            await eventually(lambda: _waits(query_pool))
    assert await known(query_pool) == {}
    assert await vocabulary.refresh(query_pool, 1) is not None


async def _waits(pool: asyncpg.Pool) -> bool:
    return bool(await pool.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted AND database IS NOT NULL"))


async def _files(pool: asyncpg.Pool, one: str) -> int:
    return int(await pool.fetchval("SELECT coalesce(sum(files), 0) FROM query_lexemes WHERE lexeme = $1", one))


async def test_counts_are_of_those_asked_for_and_of_the_beginning(query_pool: asyncpg.Pool) -> None:
    async with query_pool.acquire() as connection:
        nothing = await vocabulary.counts(connection, ["договор"], "дог")
        assert (nothing.files, nothing.lexemes, nothing.prefix) == (0, {}, 0)
        await knows(query_pool, {"договор": 5, "дог": 2, "дом": 7, "до": 1})
        await query_pool.execute("INSERT INTO query_lexemes_counted VALUES (true, 1, 9, 9, now(), 1)")
        some = await vocabulary.counts(connection, ["договор", "нет", "дом"], "дог")
        assert (some.files, some.lexemes, some.prefix) == (9, {"договор": 5, "дом": 7}, 7)


async def test_completions_are_the_words_that_begin_so_those_of_most_files_first(query_pool: asyncpg.Pool) -> None:
    await knows(query_pool, {"договор": 5, "дог": 2, "дом": 7, "догма": 9, "tag": 3, "total": 4})
    await query_pool.execute("INSERT INTO query_lexemes VALUES ('tag:total', 8), ('tag:дом', 9), ('t34', 9), ('=t', 9)")
    async with query_pool.acquire() as connection:

        async def complete(prefix: str, limit: int = 10) -> Sequence[str]:
            return [one for one, _ in await vocabulary.completions(connection, prefix, limit)]

        assert await complete("дог") == ["догм", "договор", "дог"]
        assert await complete("дог", 1) == ["догм"]
        assert await complete("t") == ["total", "tag"]
        assert await complete("tag:") == ["tag:дом", "tag:total"]
        assert await complete("t3") == ["t34"]
        assert await complete("нет") == []


WORDS = {"договор": 900, "поставка": 500, "отчет": 700, "invoice": 400, "contract": 800, "архитектура": 30, "привет": 5}


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("договорр", {"договорр": "договор"}),
        ("дгоовор", {"дгоовор": "договор"}),
        ("отчот", {"отчот": "отчет"}),
        ("отчотами", {"отчотами": "отчетами"}),
        ("invoce", {"invoce": "invoice"}),
        ("contarct", {"contarct": "contract"}),
        ("даговорамии", {"даговорамии": "договорами"}),
        ("рахитектурра", {"рахитектурра": "архитектура"}),
        ("contrakkt", {"contrakkt": "contract"}),
        ("ghbdtn ljujdjh", {"ghbdtn": "привет", "ljujdjh": "договор"}),
        ("дговор отчету", {"дговор": "договор"}),
        ("договора поставки", {}),
        ("даговарр", {}),  # three slips
        ("atchot", {}),
        ("договор2024", {}),
        ("the отч", {}),
        ("", {}),
    ],
)
async def test_a_mistyped_word_is_taken_for_the_nearest_known_one(
    query_pool: asyncpg.Pool, query: str, meant: Mapping[str, str]
) -> None:
    await knows(query_pool, WORDS)
    assert await corrected(query_pool, query) == meant


async def test_of_words_that_are_as_near_the_one_of_most_files_is_meant(query_pool: asyncpg.Pool) -> None:
    await knows(query_pool, {"форма": 10, "фирма": 900, "норма": 5})
    assert await corrected(query_pool, "фрма") == {"фрма": "фирма"}


async def test_a_rare_word_is_taken_for_a_slip_only_beside_a_much_more_frequent_one(query_pool: asyncpg.Pool) -> None:
    await knows(query_pool, {"договорр": 2, "договор": 900, "форма": 100, "фирма": 900})
    assert await corrected(query_pool, "договорр форма") == {"договорр": "договор"}


async def test_known_words_are_taken_as_they_are_beside_an_unknown_one_that_can_be_corrected(
    query_pool: asyncpg.Pool,
) -> None:
    await knows(query_pool, {"форма": 1, "фирма": 900, "договор": 40})
    assert await corrected(query_pool, "форма дговор") == {"дговор": "договор"}
    assert await corrected(query_pool, "форма неизвестное") == {"форма": "фирма"}


async def test_without_counts_nothing_is_corrected(query_pool: asyncpg.Pool) -> None:
    assert await corrected(query_pool, "договорр отчот даговорамии") == {}


async def test_a_proposal_is_under_the_lexeme_that_was_asked_for_with_the_one_that_was_meant(
    query_pool: asyncpg.Pool,
) -> None:
    await knows(query_pool, WORDS)
    async with query_pool.acquire() as connection:
        typed = {lexeme("паставками"): "паставками", "отчет": "отчет"}
        meant = Correction("поставками", "поставк", 1, 500)
        assert await vocabulary.proposals(connection, typed) == {lexeme("паставками"): meant}


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("lj;lm", "дождь"),
        ("ghbdtn j,]zdktybt", "привет объявление"),
        ("ghbdtn 2024", "привет 2024"),
        ("привет", None),
        ("hello", None),
        ("lj;lm yfgbcfyj", None),  # the second word is unknown either way
        ("", None),
        (";;;", None),
    ],
)
async def test_a_query_in_the_wrong_layout_is_read_in_the_other_when_all_its_words_are_known_there(
    query_pool: asyncpg.Pool, query: str, meant: str | None
) -> None:
    await knows(query_pool, {"дождь": 3, "привет": 5, "объявление": 1, "hello": 2, "руддщ": 1})
    async with query_pool.acquire() as connection:
        assert await vocabulary.in_the_other_layout(connection, query) == meant


@given(query=st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_text_can_be_corrected_and_completed(query_pool: asyncpg.Pool, query: str) -> None:
    async with query_pool.acquire() as connection:
        await vocabulary.proposals(connection, {lexeme(word): word for word in lower_words(query)})
        await vocabulary.in_the_other_layout(connection, query)
        for word in lower_words(query):
            await vocabulary.completions(connection, word, 5)


async def test_all_sessions_sign_with_one_key_of_32_bytes(query_pool: asyncpg.Pool) -> None:
    keys = [len(row["key"]) for row in await query_pool.fetch("SELECT key FROM search_secret")]
    assert keys == [32]
    with pytest.raises(asyncpg.UniqueViolationError):
        await query_pool.execute("INSERT INTO search_secret (key) VALUES (decode(repeat('00', 32), 'hex'))")
