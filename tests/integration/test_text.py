"""The analyzer's texts before a real Postgres: it takes them all, and what is asked meets what is stored."""

import re
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from consumer_query import analysis
from consumer_query.analysis import TooManyWordsError, name_term, quoted_term, search_vector, split
from consumer_query.asking import understand
from consumer_query.stop_words import STOP_WORDS
from runtime.postgres import open_pool
from tests.vectors import spelt

FOUND = "SELECT $1::tsvector @@ $2::tsquery"
PLAIN = st.characters(exclude_characters="\x00", exclude_categories=["Cs"])
LIKELY = st.sampled_from("aBcXyZтёЁЙжÉß1٣_-. '\"\\:*&|!<>()«»\u0301\u00ad\u200d日ﷺी\n")
TEXT = st.text(PLAIN | LIKELY, max_size=80)
WORDS = st.lists(
    st.sampled_from(["договоры", "поставка", "ёлка", "the", "и", "or", "annual", "Reports", "fileName", "mp4", "Café"])
)
FILLED = "filler " * 16_382
NUMBERS = " ".join(map(str, range(3_000)))
many = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
async def query_pool(query_database: str) -> AsyncIterator[asyncpg.Pool]:
    async with await open_pool(query_database, "tests", init=send_vectors) as pool:
        yield pool


async def send_vectors(connection: asyncpg.Connection) -> None:
    """As they are, which a row does too."""
    await connection.set_builtin_type_codec("tsvector", schema="pg_catalog", codec_name="bytea", format="binary")


def named(name: str) -> bytes:
    return search_vector(name, (), None, "", None)


@given(name=TEXT, tags=st.lists(TEXT, max_size=3), text=TEXT, user=TEXT, query=TEXT)
@example(name="x" * 3000, tags=["ж" * 3000], text="ﷺ" * 300, user="=", query="-" + "ж" * 3000)
@example(name="'", tags=["\\"], text="a:1A", user=":*", query='"ﷺ -a OR "the" OR ' + "ﷺ" * 1000)
@example(name=NUMBERS, tags=[NUMBERS], text=NUMBERS, user=NUMBERS, query=NUMBERS)
@example(name="", tags=[], text="", user="", query=f'"{NUMBERS}')
@example(name="", tags=[], text="", user="", query='-"a" OR ' * 2_000)
@many
async def test_postgres_takes_any_text_and_any_query(
    query_pool: asyncpg.Pool, name: str, tags: list[str], text: str, user: str, query: str
) -> None:
    vector = search_vector(name, tags, text, user, user)
    for word in filter(None, (understand(query).words, quoted_term(name_term(query)))):
        assert await query_pool.fetchval(FOUND, vector, word) in {True, False}
    assert await query_pool.fetchval(FOUND, vector, quoted_term(name_term(name))) is True


@given(name=TEXT, tag=TEXT, text=TEXT, user=TEXT)
@example(name="ΑΣ'Β", tag="ℌ", text="İstanbul ΑΣ'Β ℌ", user="ẞ")
@many
async def test_a_file_is_found_by_each_of_its_words(
    query_pool: asyncpg.Pool, name: str, tag: str, text: str, user: str
) -> None:
    vector = search_vector(name, (tag,), text, "", user)
    words = set(split(f"{name} {user}"))
    words |= {part for word in split(name) for part in analysis.GEAR.split(word)}
    words |= {word for word in split(f"{tag} {text}") if word.lower() not in STOP_WORDS}
    for word in words:
        for asked in (word, word.lower(), word.upper() if word.upper().lower() == word.lower() else word):
            assert await query_pool.fetchval(FOUND, vector, understand(asked).words), asked


@given(words=WORDS)
@many
async def test_neighbours_are_found_as_a_phrase_whatever_stands_before_and_between(
    query_pool: asyncpg.Pool, words: list[str]
) -> None:
    text = " ".join(words)
    for vector in (named(text), search_vector("x", ("y",), text, "", None)):
        said = [number for number, word in enumerate(words) if word not in STOP_WORDS]
        for first, second in pairwise(said):
            phrase = " ".join(words[first : second + 1])
            assert await query_pool.fetchval(FOUND, vector, understand(f'"{phrase}"').words), phrase


async def test_a_phrase_does_not_reach_across_fields_tags_or_the_parts_of_a_name(query_pool: asyncpg.Pool) -> None:
    vector = search_vector("one twoThree", ("four", "five"), "eight", "six", "seven")
    for phrase in ("twoThree two", "three four", "four five", "five six", "seven eight", "one three"):
        assert not await query_pool.fetchval(FOUND, vector, understand(f'"{phrase}"').words), phrase
    for phrase in ("one twothree", "two three", "six seven"):
        assert await query_pool.fetchval(FOUND, vector, understand(f'"{phrase}"').words), phrase


@given(name=WORDS, tags=WORDS, text=WORDS)
@many
async def test_long_texts_make_the_same_vector_as_short_ones(
    query_pool: asyncpg.Pool, name: list[str], tags: list[str], text: list[str]
) -> None:
    texts: Any = (" ".join(name), tags, " ".join(text), "user", "The User")
    short = search_vector(*texts)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(analysis, "_FEW", 0)
        patched.setattr(analysis, "_LONG_TEXT", 0)
        long = search_vector(*texts)
    assert await query_pool.fetchval("SELECT $1::tsvector = $2::tsvector", short, long)


async def test_lexemes_are_those_of_postgres_own_configuration(query_pool: asyncpg.Pool) -> None:
    corpus = (
        "Договоры поставки товара, акты сверки взаимных расчётов и счета-фактуры за четвёртый квартал; "
        "между сторонами не было разногласий, отчёты переданы в архив. Согласованные сканированные копии "
        "The suppliers' contracts were signed and scanned; annual reports, invoices, drafts and relations of "
        "generalized happiness are copied into archives 2026 01 mp4"
    )
    text = " ".join(split(corpus))
    stored = await query_pool.fetchval("SELECT tsvector_to_array($1::tsvector)", search_vector("", (), text, "", ""))
    of_postgres = await query_pool.fetchval("SELECT tsvector_to_array(to_tsvector('russian', $1))", text)
    assert set(stored) - {name_term("")} == set(of_postgres)


@pytest.mark.parametrize(
    ("word", "ours", "of_postgres"),
    [
        # Forms that it leaves apart are one.
        ("оборудования", ["оборудова"], ["оборудован"]),
        # Its Snowball is older.
        ("university", ["universiti"], ["univers"]),
        ("organization", ["organiz"], ["organ"]),
        # It reads digits with an e as a number.
        ("0555e4af58", ["0555e4af58"], ["0555e4", "af58"]),
        # It keeps accents, and stems words that have any as Russian.
        ("cafés", ["cafe"], ["cafés"]),
    ],
)
async def test_lexemes_differ_from_postgres_own_where_that_is_known(
    query_pool: asyncpg.Pool, word: str, ours: list[str], of_postgres: list[str]
) -> None:
    assert [analysis.lexeme(one) for one in split(word)] == ours
    assert await query_pool.fetchval("SELECT tsvector_to_array(to_tsvector('russian', $1))", word) == of_postgres


async def test_the_most_words_that_postgres_can_hold_are_stored_and_no_more(query_pool: asyncpg.Pool) -> None:
    def text(words: int) -> str:
        # 5 bytes, one for alignment, 4 for the position; 2 for another position.
        return " ".join(["00000"] * 5 + [f"{number:05x}" for number in range(words)])

    # The name takes 17 bytes, u:11 takes 6.
    name = "=" * 20
    most = (2**20 - 1 - 17 - 6 - 10) // 10
    fitting = search_vector(name, (), text(most), "u", "")
    assert await query_pool.fetchval("SELECT length($1::tsvector)", fitting) == most + 2
    with pytest.raises(TooManyWordsError):
        search_vector(name, (), text(most + 1), "u", "")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(analysis, "_MOST_BYTES", 2**21)
        beyond = search_vector(name, (), text(most + 1), "u", "")
    with pytest.raises(asyncpg.PostgresError, match="maximum total lexeme length exceeded"):
        await query_pool.fetchval("SELECT length($1::tsvector)", beyond)


async def test_the_longest_words_fit_as_long_as_the_short_way_is_taken(query_pool: asyncpg.Pool) -> None:
    words = [f"{number:03}" + "x" * 997 for number in range(analysis._FEW - 4 * analysis.GAP - 1)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(analysis, "_LONG_TEXT", 2**21)
        vector = search_vector("=" * 5000, (), " ".join(words), "u", None)
    assert await query_pool.fetchval("SELECT length($1::tsvector)", vector) == len(words) + 2


@pytest.mark.parametrize(
    ("name", "tags", "text", "user"),
    [
        (f"{FILLED} needle needle", (), "", ""),
        (f"{FILLED} needle", ("needle",), "", ""),
        (f"{FILLED} needle", (), "needle", ""),
        (f"{FILLED} needle", (), "", "needle"),
        ("", (f"{FILLED[: -analysis.GAP * 7]} needle",), "needle", "needle"),
        ("", (), f"{FILLED} needle needle", ""),
    ],
    ids=["name", "name and tag", "name and text", "name and user", "tag", "text"],
)
async def test_a_word_at_the_last_position_is_there_once_wherever_it_comes_again(
    query_pool: asyncpg.Pool, name: str, tags: tuple[str, ...], text: str, user: str
) -> None:
    vector = search_vector(name, tags, text, "", user)
    places = await query_pool.fetchval("SELECT positions FROM unnest($1::tsvector) WHERE lexeme = 'needl'", vector)
    assert places == [16383]


async def test_positions_end_where_postgres_ends_them_and_words_behind_are_found(query_pool: asyncpg.Pool) -> None:
    vector = search_vector("a", (), "filler " * 20_000 + "needle thing needle", "u", None)
    assert await query_pool.fetchval(FOUND, vector, understand("needle thing filler").words)
    assert re.search(r"\bneedl:16383C(?!,)", spelt(vector))
    assert len((re.search(r"filler:(\S+)", spelt(vector)) or [""])[1].split(",")) == 255
