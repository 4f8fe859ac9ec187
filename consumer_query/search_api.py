"""Search over REST: a page of hits with what matched marked, how fresh it is, and how much of the work was done.

A search holds the database for a bounded time; what is slower is stopped, and says so.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from consumer_query import export, freshness
from consumer_query.errors import SearchTooSlowError
from consumer_query.search import Facets, Page, Searches, SearchRequest
from consumer_query.search_parameters import ExportAsked, Fresh, LongSearchAsked, SearchAsked, SuggestAsked
from consumer_query.snippets import Marker
from consumer_query.suggest import suggestions
from runtime.auth import Guarded, Scope, needs
from runtime.http import PROBLEM_RESPONSE
from schemas.file_view import FileView

PREFIX: Final = "/api/v1/files"
CONTENT_PATH: Final = "/api/v1/files/{file_id}/content"
"""Of the Admin API."""
NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    422: PROBLEM_RESPONSE,
    503: PROBLEM_RESPONSE,
    504: PROBLEM_RESPONSE,
}


@dataclass(frozen=True)
class SearchDesk:
    """What the routes work with."""

    pool: asyncpg.Pool
    """For all but searches."""
    searching: asyncpg.Pool
    """For searches alone: read-only sessions with a time limit."""
    seconds: float
    """That a search may take."""
    content_base: str
    """Where clients reach the Admin API; empty makes links relative."""

    def content_url(self, file_id: UUID) -> str:
        """Where the content of a file is."""
        return self.content_base + CONTENT_PATH.format(file_id=file_id)


class HighlightsView(BaseModel):
    """Texts of a hit as HTML: escaped, and the words that matched in <mark>."""

    original_filename: str
    description: str | None = Field(description="The piece of it that matches best, … where it was cut.")
    tags: list[str]


class Hit(FileView):
    """A file that was found."""

    rank: float = Field(description="How well the words match; comparable within one answer. 0 where it is not ranked.")
    exact: bool = Field(description="Its name, checksum or id is exactly what was asked for.")
    highlights: HighlightsView
    content_url: str = Field(description="Where its bytes are: a path of the Admin API, or a URL.")


class ValueCount(BaseModel):
    """How many hits have a value."""

    value: str
    count: int


class FacetsView(BaseModel):
    """Hits by what they have in common, the most frequent values first."""

    counted: int = Field(description="How many hits were counted: all, or the newest so many.")
    counted_all: bool
    type: list[ValueCount]
    tag: list[ValueCount]
    uploader: list[ValueCount]
    month: list[ValueCount] = Field(description="Of creation, in UTC.")
    size: list[ValueCount]

    @classmethod
    def of(cls, facets: Facets) -> Self:
        """As the answer has them."""
        named = {
            name: [ValueCount(value=value, count=count) for value, count in facets.values.get(name, ())]
            for name in ("type", "tag", "uploader", "month", "size")
        }
        return cls(counted=facets.counted, counted_all=facets.counted_all, **named)


class SearchAnswer(BaseModel):
    """One page of hits."""

    query: str
    results: list[Hit]
    total: int = Field(description="Hits of all pages, or how many there are at least; total_is says which.")
    total_is: Literal["exact", "at_least"]
    ranked: int = Field(description="Hits ordered by how well they match. Behind them the others follow by date.")
    ranked_all: bool
    next_cursor: str | None = Field(description="Hand it back as cursor for the next page; null behind the last hit.")
    corrected_to: str | None = Field(description="The query that was searched for, where it was not the one asked for.")
    did_you_mean: str | None = Field(description="A query with known words that finds more.")
    facets: FacetsView | None
    lag_seconds: float | None = Field(description="How far the index is behind at most; null when it is not known.")
    took_ms: float = Field(description="The search alone, without waiting for at_least.")


class SuggestAnswer(BaseModel):
    """How what was typed may go on, the most frequent first."""

    names: list[str]
    tags: list[str]


def search_router(desk: SearchDesk) -> APIRouter:
    """Routes /search, /search/export and /suggest under /api/v1/files. They go before /{file_id}."""
    router = APIRouter(prefix=PREFIX, tags=["search"], route_class=Guarded)
    searches = Searches(desk.searching)

    async def page_of(request: SearchRequest) -> Page:
        async with _in_time(desk.seconds):
            return await searches.page(request)

    async def answer(asked: SearchAsked) -> Response:
        await _visible(desk, asked)
        begun = time.perf_counter()
        page = await page_of(asked.request())
        searched = _milliseconds_since(begun)
        marker = Marker(page.lexemes, page.prefixes)
        made = SearchAnswer(
            query=asked.query,
            results=[_hit(hit, marker, desk) for hit in page.hits],
            total=page.total,
            total_is="exact" if page.total_is_exact else "at_least",
            ranked=page.ranked,
            ranked_all=page.ranked_all,
            next_cursor=page.next_cursor,
            corrected_to=page.corrected_to,
            did_you_mean=page.did_you_mean,
            facets=None if page.facets is None else FacetsView.of(page.facets),
            lag_seconds=page.lag_seconds,
            took_ms=_milliseconds_since(begun),
        )
        return _as_json(made, {"Server-Timing": f"search;dur={searched}"})

    @router.get("/search", response_model=SearchAnswer, responses=_PROBLEMS)
    @needs(Scope.READ)
    async def find(asked: Annotated[SearchAsked, Query()]) -> Response:
        """Find files by name, tags, description or uploader, in Russian and English.

        Files of exactly that name, checksum or id come first, then better matches, then newer files. Words match by
        their stems, е as ё, without accents; names by any of their parts. Without a query: all files that the filters
        leave, the newest first. The header Server-Timing tells how long the database was at work.
        """
        return await answer(asked)

    @router.post("/search", response_model=SearchAnswer, responses=_PROBLEMS)
    @needs(Scope.READ)
    async def find_long(asked: LongSearchAsked) -> Response:
        """The same for queries that are too long for a URL."""
        return await answer(asked)

    @router.get(
        "/search/export",
        response_class=StreamingResponse,
        responses=_PROBLEMS | {200: {"content": {NDJSON: {}, CSV: {}}, "description": "The files, one a line."}},
    )
    @needs(Scope.READ)
    async def save(asked: Annotated[ExportAsked, Query()]) -> StreamingResponse:
        """All hits as a stream, the newest first, however many.

        When something goes wrong on the way, the connection breaks off: only an answer that ends in order is whole.
        In CSV an apostrophe stands before what a spreadsheet would take for a formula.
        """
        await _visible(desk, asked)
        request = asked.request()
        first = await page_of(request)
        as_csv = asked.format == "csv"

        def row_of(hit: Mapping[str, Any]) -> export.Row:
            view = FileView.model_validate(hit)
            return view.model_dump(mode="json") | {"content_url": desk.content_url(view.file_id)}

        async def next_page(cursor: str) -> Page:
            return await page_of(replace(request, cursor=cursor, max_lag=None))

        return StreamingResponse(
            export.exported(export.pages(first, next_page), row_of, as_csv=as_csv),
            media_type=CSV if as_csv else NDJSON,
            headers={"Content-Disposition": f'attachment; filename="files.{asked.format}"'},
        )

    @router.get("/suggest", responses=_PROBLEMS)
    @needs(Scope.READ)
    async def suggest(asked: Annotated[SuggestAsked, Query()]) -> SuggestAnswer:
        """How what has been typed so far may go on: names of files, and tags."""
        async with _in_time(desk.seconds):
            found = await suggestions(desk.searching, asked.query, asked.limit)
        return SuggestAnswer(names=list(found.names), tags=list(found.tags))

    return router


def _as_json(answer: SearchAnswer, headers: Mapping[str, str]) -> Response:
    """An answer as it is: the framework would check it once more, which takes as long as to make it."""
    return Response(answer.model_dump_json(), media_type="application/json", headers=dict(headers))


def _milliseconds_since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 2)


@asynccontextmanager
async def _in_time(seconds: float) -> AsyncIterator[None]:
    """Stop what takes longer. The database stops a statement by itself; waiting for a connection takes time too."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (asyncpg.QueryCanceledError, TimeoutError) as error:
        message = f"The search took longer than {seconds:g} s and was stopped; narrow it by a filter or a rarer word."
        raise SearchTooSlowError(message) from error


def _hit(hit: Mapping[str, Any], marker: Marker, desk: SearchDesk) -> Hit:
    marked = marker.highlighted(hit)
    return Hit.model_validate({**hit, "highlights": marked._asdict(), "content_url": desk.content_url(hit["file_id"])})


async def _visible(desk: SearchDesk, asked: Fresh) -> None:
    """Wait for the changes that were named, as long as was asked for."""
    if tokens := asked.tokens():
        await freshness.wait_for(desk.pool, tokens, asked.wait_seconds())
