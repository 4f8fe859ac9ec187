"""Pages joined are the whole list in its order, whichever way each was found and whatever happens meanwhile."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from consumer_query.errors import BadSearchError
from consumer_query.filters import Filters, Retention
from consumer_query.search import Page, Searches, SearchRequest
from consumer_query.search_plan import Bounds, Sort
from schemas.events import FileEvent, FileMetadata
from tests.integration.test_search import apply
from tests.samples import MOMENT, created, deleted, updated

FILES = 80
COMMON = "договор"
TINY = Bounds(few=30, always_few=20, ranked=15, exact=10, least_walked=20, most_walked=60, spare=2)
"""So that all ways are taken with few files."""
RECENT = replace(TINY, few=70, collecting=0.001, merging=0.0)
"""So that recent months are asked for first, once anything is counted."""
NOTHING_LEFT = Bounds(few=5, always_few=2, ranked=4, exact=3, least_walked=4, most_walked=8, spare=1)
COUNT_LEXEMES = """
INSERT INTO query_lexemes (lexeme, files) SELECT word, ndoc FROM ts_stat('SELECT search FROM file_metadata_cache')
"""
COUNTED = """
INSERT INTO query_lexemes_counted (generation, files, changes, counted_at, seconds)
SELECT 1, count(*), 0, now(), 0 FROM file_metadata_cache
"""


def files(seed: int = 1, count: int = FILES) -> list[FileEvent]:
    """Files of which many match, some of the same age, size or name."""
    chance = random.Random(seed)
    return [
        created(
            UUID(int=chance.getrandbits(128), version=4),
            original_filename=chance.choice(("договор.pdf", "Отчёт.docx", f"скан {number % 7}.png")),
            description=f"{COMMON if number % 4 else 'акт'} {'редкое' if number % 40 == 0 else 'частое'}",
            tags=tuple(chance.sample(("срочно", "архив", COMMON), k=chance.randrange(3))),
            mime_type=chance.choice(("application/pdf", "image/png", "image/jpeg")),
            file_size=chance.choice((0, 10, 1000, 10**6, 10**9)),
            created_at=MOMENT + timedelta(minutes=chance.randrange(FILES // 2), days=31 * chance.randrange(4)),
            retention_expires_at=chance.choice((None, MOMENT, datetime(2090, 1, 1, tzinfo=UTC))),
            created_by_username=chance.choice(("ivanov", "petrova")),
        )
        for number in range(count)
    ]


async def all_pages(searches: Searches, request: SearchRequest) -> tuple[list[dict[str, Any]], list[Page]]:
    hits: list[dict[str, Any]] = []
    pages: list[Page] = []
    while True:
        page = await searches.page(request)
        pages.append(page)
        hits += map(dict, page.hits)
        assert len(pages) <= FILES, "pages have no end"
        if page.next_cursor is None:
            return hits, pages
        assert page.hits, "an empty page leads on"
        request = replace(request, cursor=page.next_cursor)


def keys_of(sort: Sort, hit: dict[str, Any]) -> Any:
    file_id = hit["file_id"]
    return {
        Sort.NEWEST: (-hit["created_at"].timestamp(), -file_id.int),
        Sort.OLDEST: (hit["created_at"].timestamp(), file_id.int),
        Sort.LARGEST: (-hit["file_size"], -file_id.int),
        Sort.SMALLEST: (hit["file_size"], file_id.int),
        Sort.NAME: (hit["original_filename"].lower(), file_id.int),
    }[sort]


def matching(events: Sequence[FileEvent], word: str) -> set[UUID]:
    return {
        event.file_id
        for event in events
        if event.metadata is not None
        and word.lower()
        in f"{event.metadata.original_filename} {event.metadata.description} {event.metadata.tags}".lower()
    }


@pytest.mark.parametrize("counted", [False, True], ids=["nothing counted", "counted"])
@pytest.mark.parametrize("bounds", [Bounds(), TINY, RECENT, NOTHING_LEFT], ids=["usual", "tiny", "recent", "least"])
async def test_pages_joined_are_all_hits_once_in_their_order(
    query_pool: asyncpg.Pool, bounds: Bounds, *, counted: bool
) -> None:
    events = files()
    await apply(query_pool, *events)
    if counted:
        await query_pool.execute(COUNT_LEXEMES)
        await query_pool.execute(COUNTED)
    searches = Searches(query_pool, bounds)
    for sort, word, limit in product(Sort, (COMMON, "редкое", "pdf", ""), (3, 200)):
        expected = matching(events, word)
        hits, pages = await all_pages(searches, SearchRequest(word, sort=sort, limit=limit))
        case = (sort, word, limit)
        assert len(hits) == len(expected), case
        assert {hit["file_id"] for hit in hits} == expected, case
        assert pages[-1].total == len(expected), case
        assert all(page.total == len(expected) for page in pages if page.total_is_exact), case
        assert all(page.total <= len(expected) for page in pages), case
        assert all(len(page.hits) == limit for page in pages[:-1]), case
        if sort is not Sort.RELEVANCE:
            assert hits == sorted(hits, key=lambda hit: keys_of(sort, hit)), case
        elif word:
            ranked = hits[: pages[0].ranked]
            assert ranked == sorted(
                ranked,
                key=lambda hit: (-hit["exact"], -hit["rank"], -hit["created_at"].timestamp(), -hit["file_id"].int),
            ), case
            behind = hits[pages[0].ranked :]
            assert behind == sorted(behind, key=lambda hit: keys_of(Sort.NEWEST, hit)), case


@pytest.mark.parametrize("sort", Sort)
@pytest.mark.parametrize("bounds", [Bounds(), TINY, RECENT], ids=["usual", "tiny", "recent"])
async def test_what_did_not_change_is_neither_missed_nor_repeated_while_other_files_come_and_go(
    query_pool: asyncpg.Pool, sort: Sort, bounds: Bounds
) -> None:
    events = files()
    await apply(query_pool, *events)
    await query_pool.execute(COUNT_LEXEMES)
    await query_pool.execute(COUNTED)
    searches, chance = Searches(query_pool, bounds), random.Random(3)
    request = SearchRequest(COMMON, sort=sort, limit=9)
    touched: set[UUID] = set()
    seen: list[UUID] = []
    for round_ in range(FILES):
        page = await searches.page(request)
        seen += [hit["file_id"] for hit in page.hits]
        if page.next_cursor is None:
            break
        request = replace(request, cursor=page.next_cursor)
        gone, changed = chance.sample(events, k=2)
        await apply(query_pool, deleted(gone.file_id, revision=100 + round_))
        await apply(query_pool, updated(changed.file_id, revision=100 + round_, original_filename="другое.txt"))
        await apply(query_pool, *files(seed=100 + round_, count=3))
        touched |= {gone.file_id, changed.file_id}
    unchanged = matching(events, COMMON) - touched
    assert unchanged
    assert unchanged <= set(seen)
    assert len([one for one in seen if one in unchanged]) == len(unchanged)


async def test_a_file_of_exactly_the_asked_name_comes_first_however_old_it_is(query_pool: asyncpg.Pool) -> None:
    old = created(original_filename=f"{COMMON}.pdf", description=None, created_at=MOMENT - timedelta(days=900))
    others = [
        created(original_filename=f"{COMMON} {number} {COMMON}.pdf", created_at=MOMENT + timedelta(minutes=number))
        for number in range(50)
    ]
    await apply(query_pool, old, *others)
    for bounds in (Bounds(), TINY, RECENT, NOTHING_LEFT):
        hits, _ = await all_pages(Searches(query_pool, bounds), SearchRequest(f"{COMMON}.pdf", limit=11))
        assert hits[0]["file_id"] == old.file_id
        assert hits[0]["exact"]
        assert len(hits) == len({hit["file_id"] for hit in hits}) == 51


@pytest.mark.parametrize("bounds", [Bounds(), TINY, RECENT, NOTHING_LEFT], ids=["usual", "tiny", "recent", "least"])
async def test_filters_are_kept_however_hits_are_found(query_pool: asyncpg.Pool, bounds: Bounds) -> None:
    events = files()
    await apply(query_pool, *events)
    await query_pool.execute(COUNT_LEXEMES)
    await query_pool.execute(COUNTED)
    searches = Searches(query_pool, bounds)
    now = datetime.now(UTC)
    known = {event.file_id: event.metadata for event in events if event.metadata is not None}
    checksum = known[events[0].file_id].checksum
    later_than_all = now + timedelta(days=1)
    later = MOMENT + timedelta(minutes=9)
    cases: list[tuple[Filters, Callable[[FileMetadata], Any]]] = [
        (Filters(types=("image/*",)), lambda one: one.mime_type.startswith("image/")),
        (Filters(types=("image/png", "application/pdf")), lambda one: one.mime_type != "image/jpeg"),
        (Filters(tags=("срочно", "АРХИВ")), lambda one: {"срочно", "архив"} <= set(one.tags)),
        (Filters(any_tags=("срочно", "архив")), lambda one: bool({"срочно", "архив"} & set(one.tags))),
        (Filters(min_size=10, max_size=1000), lambda one: 10 <= one.file_size <= 1000),
        (Filters(min_size=11), lambda one: one.file_size >= 11),
        (Filters(max_size=0), lambda one: one.file_size == 0),
        (Filters(created_from=later), lambda one: one.created_at >= later),
        (Filters(created_before=later), lambda one: one.created_at < later),
        (Filters(uploaders=("Ivanov",)), lambda one: one.created_by_username == "ivanov"),
        (Filters(storage_elements=("nowhere",)), lambda one: one is None),
        (Filters(retention=Retention.NONE), lambda one: one.retention_expires_at is None),
        (Filters(retention=Retention.ACTIVE), lambda one: (one.retention_expires_at or MOMENT) > now),
        (Filters(retention=Retention.EXPIRED), lambda one: (one.retention_expires_at or later_than_all) <= now),
        (Filters(checksum=checksum), lambda one: one.checksum == checksum),
        (
            Filters(types=("image/*",), uploaders=("ivanov",), min_size=1),
            lambda one: one.mime_type[:5] == "image" and one.created_by_username == "ivanov" and one.file_size >= 1,
        ),
    ]
    for (filters, keeps), sort, word in product(cases, (Sort.RELEVANCE, Sort.SMALLEST), ("", COMMON)):
        hits, pages = await all_pages(searches, SearchRequest(word, filters, sort, limit=13))
        expected = {
            one for one in matching(events, word) if keeps(next(e.metadata for e in events if e.file_id == one))
        }
        assert {hit["file_id"] for hit in hits} == expected, (filters, sort, word)
        assert len(hits) == len(expected)
        assert pages[-1].total == len(expected)


async def test_facets_count_all_hits_or_say_of_how_many(query_pool: asyncpg.Pool) -> None:
    events = files()
    await apply(query_pool, *events)
    page = await Searches(query_pool).page(SearchRequest(COMMON, facets=True))
    assert page.facets is not None
    expected = matching(events, COMMON)
    assert (page.facets.counted, page.facets.counted_all) == (len(expected), True)
    assert sum(count for _, count in page.facets.values["uploader"]) == len(expected)
    some = await Searches(query_pool, TINY).page(SearchRequest(COMMON, facets=True))
    assert some.facets is not None
    assert (some.facets.counted, some.facets.counted_all) == (TINY.ranked, False)
    assert sum(count for _, count in some.facets.values["type"]) == TINY.ranked
    nothing = await Searches(query_pool).page(SearchRequest("ничего", facets=True, correct=False))
    assert nothing.facets is not None
    assert (nothing.facets.counted, nothing.facets.values) == (0, {})


@pytest.mark.parametrize(
    "other",
    [
        {"query": "акт"},
        {"sort": Sort.NEWEST},
        {"filters": Filters(types=("image/*",))},
        {"typing": True},
        {"cursor": "bm90IG91cnM"},
        {"cursor": "é"},
    ],
    ids=str,
)
async def test_a_cursor_of_another_question_is_refused(query_pool: asyncpg.Pool, other: dict[str, Any]) -> None:
    await apply(query_pool, *files())
    searches = Searches(query_pool)
    request = SearchRequest(COMMON, limit=5)
    page = await searches.page(request)
    with pytest.raises(BadSearchError):
        await searches.page(replace(request, **{"cursor": page.next_cursor} | other))
