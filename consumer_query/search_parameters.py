"""What may be asked of search: every parameter is checked, bounded and explained here.

Whatever comes in is either understood or refused by the name of the parameter; behind this nothing is left that a
database could refuse. GET takes these names as query parameters, POST as members of a JSON object.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationInfo, field_validator

from consumer_query.filters import Filters, Retention
from consumer_query.freshness import Token, parse_max_lag, parse_wait
from consumer_query.search import SearchRequest
from consumer_query.search_plan import Sort
from consumer_query.search_values import Bytes, Checksum, MaxLag, MediaType, Moment, TokenText, Value, Wait, storable

MAX_QUERY: Final = 1_000
"""Characters in a URL: proxies cut off longer ones."""
MAX_LONG_QUERY: Final = 10_000
"""Characters in a body."""
MAX_LIMIT: Final = 200
EXPORT_PAGE: Final = 1_000
"""Hits read at once for an export: its memory."""
MAX_VALUES: Final = 50
"""Of one filter: each is a term of the question to the index."""
MAX_TOKENS: Final = 20
MAX_CURSOR: Final = 8_000
"""Characters; it may hold a corrected query, at four bytes a character in base64."""
MAX_LONG_CURSOR: Final = 80_000


class Fresh(BaseModel):
    """How fresh an answer has to be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_least: list[TokenText] = Field(
        [],
        max_length=MAX_TOKENS,
        description="FILE_ID@REVISION, as an upload answers them: search only once this change, or a later one of the "
        "same file, can be found. May be repeated.",
        examples=[["7c9e6679-7425-40de-944b-e07fc1f90ae7@3"]],
    )
    wait: Wait | None = Field(
        None,
        description="How long to wait for at_least, such as 2s or 500ms, 30s at most; then 504. Without: one look.",
        examples=["2s"],
    )
    max_lag: MaxLag | None = Field(
        None, description="Refuse (503) rather than answer from an index that is further behind.", examples=["5s"]
    )

    def tokens(self) -> list[Token]:
        """What `at_least` names."""
        return [Token.parse(one) for one in self.at_least]

    def wait_seconds(self) -> float:
        """How long to wait for them; 0 when it was not said."""
        return 0.0 if self.wait is None else parse_wait(self.wait)

    def max_lag_seconds(self) -> float | None:
        """How far behind the index may be; None when it was not said."""
        return None if self.max_lag is None else parse_max_lag(self.max_lag)


class Selected(BaseModel):
    """Which files: the words and all of the filters have to match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: Annotated[str, StringConstraints(max_length=MAX_QUERY)] = Field(
        "",
        description='Words, "phrases", -excluded, OR; the name of a file, or a part of it; an id, a checksum or a user '
        "name. Empty: all files that the filters leave.",
        examples=["договор поставки", "invoice -draft", '"annual report" OR отчёт'],
    )
    type: list[MediaType] = Field(
        [],
        max_length=MAX_VALUES,
        description="MIME type, or all of a kind as image/*. Repeated: any of them.",
        examples=[["image/*", "application/pdf"]],
    )
    tag: list[Value] = Field(
        [], max_length=MAX_VALUES, description="Repeated: files with all of these tags.", examples=[["urgent"]]
    )
    any_tag: list[Value] = Field(
        [], max_length=MAX_VALUES, description="Repeated: files with any of these tags.", examples=[["2025", "2026"]]
    )
    min_size: Bytes | None = Field(None, description="In bytes, itself included.", examples=[1024])
    max_size: Bytes | None = Field(None, description="In bytes, itself included.", examples=[10485760])
    created_from: Moment | None = Field(
        None, description="RFC 3339, or a day in UTC; itself included.", examples=["2026-01-01"]
    )
    created_before: Moment | None = Field(
        None, description="RFC 3339, or a day in UTC; itself not included.", examples=["2026-02-01T00:00:00+03:00"]
    )
    updated_from: Moment | None = Field(None, description="As created_from.", examples=["2026-01-31T12:00:00Z"])
    updated_before: Moment | None = Field(None, description="As created_before.", examples=["2026-02-01"])
    uploader: list[Value] = Field(
        [], max_length=MAX_VALUES, description="User name. Repeated: any of them.", examples=[["ivanov"]]
    )
    storage_element: list[Value] = Field(
        [], max_length=MAX_VALUES, description="Where the bytes are. Repeated: any of them.", examples=[["se-01"]]
    )
    retention: Retention | None = Field(
        None, description="none: kept without end; active: until a time to come; expired: that time is past."
    )
    checksum: Checksum | None = Field(
        None,
        description="SHA-256 of the content in hex, with or without sha256:.",
        examples=["sha256:" + "a1b2c3d4" * 8],
    )

    _storable_query = field_validator("query")(storable)

    @field_validator("max_size", "created_before", "updated_before")
    @classmethod
    def _not_before_its_begin(cls, end: Any, info: ValidationInfo) -> Any:
        begin_name, may_be_equal = _BEGINS[str(info.field_name)]
        begin = info.data.get(begin_name)
        if end is not None and begin is not None and (end < begin or (end == begin and not may_be_equal)):
            raise ValueError(f"is {'less than' if may_be_equal else 'not after'} {begin_name}")
        return end

    def filters(self) -> Filters:
        """The filters alone."""
        return Filters(
            types=tuple(self.type),
            tags=tuple(self.tag),
            any_tags=tuple(self.any_tag),
            min_size=self.min_size,
            max_size=self.max_size,
            created_from=self.created_from,
            created_before=self.created_before,
            updated_from=self.updated_from,
            updated_before=self.updated_before,
            uploaders=tuple(self.uploader),
            storage_elements=tuple(self.storage_element),
            retention=self.retention,
            checksum=self.checksum,
        )


_BEGINS: Final = {
    "max_size": ("min_size", True),
    "created_before": ("created_from", False),
    "updated_before": ("updated_from", False),
}
"""For the end of each range: its begin, and whether both may be equal."""


class Paged(BaseModel):
    """Which part of the hits, in what order, and what is to be told of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(20, ge=1, le=MAX_LIMIT, description="Hits on a page at most.")
    cursor: str | None = Field(
        None,
        max_length=MAX_CURSOR,
        description="next_cursor of the page before; everything else but limit and freshness has to be the same.",
    )
    sort: Sort = Field(
        Sort.RELEVANCE, description="Which come first. Without words there is no relevance, and the newest come first."
    )
    typing: bool = Field(default=False, description="The last word is still being typed: it is the beginning of one.")
    facets: bool = Field(default=False, description="Count the hits by type, tag, uploader, month and size.")
    correct: bool = Field(default=True, description="Where hardly anything is found, look for words spelled alike.")


class SearchAsked(Fresh, Paged, Selected):
    """A search by GET. The page of the API shows the last of these first."""

    def request(self) -> SearchRequest:
        """What is to be searched for."""
        return SearchRequest(
            query=self.query,
            filters=self.filters(),
            sort=self.sort,
            limit=self.limit,
            cursor=self.cursor,
            typing=self.typing,
            facets=self.facets,
            correct=self.correct,
            max_lag=self.max_lag_seconds(),
        )


class LongSearchAsked(SearchAsked):
    """A search by POST: the same, and the query may be longer."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "договор -черновик",
                    "type": ["application/pdf"],
                    "any_tag": ["2025", "2026"],
                    "created_from": "2026-01-01",
                    "sort": "newest",
                    "facets": True,
                }
            ]
        }
    )

    query: Annotated[str, StringConstraints(max_length=MAX_LONG_QUERY)] = Field(
        "", description="As by GET.", examples=["договор поставки"]
    )
    cursor: str | None = Field(None, max_length=MAX_LONG_CURSOR, description="As by GET.")


class ExportAsked(Fresh, Selected):
    """An export: all hits, the newest first, spelled as asked."""

    format: Literal["ndjson", "csv"] = Field(
        "ndjson", description="JSON objects, one a line; or a table with a header."
    )

    def request(self) -> SearchRequest:
        """The first page of it."""
        return SearchRequest(
            query=self.query,
            filters=self.filters(),
            sort=Sort.NEWEST,
            limit=EXPORT_PAGE,
            correct=False,
            max_lag=self.max_lag_seconds(),
        )


class SuggestAsked(BaseModel):
    """What has been typed so far."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: Annotated[str, StringConstraints(max_length=200), AfterValidator(storable)] = Field(
        description="The beginning of a name or a tag, or of a word of one.", examples=["дого"]
    )
    limit: int = Field(8, ge=1, le=20, description="Names and tags at most, each.")
