"""What may be asked of search, and what is refused by its name."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from consumer_query.filters import Filters, Retention
from consumer_query.search_parameters import ExportAsked, LongSearchAsked, SearchAsked
from consumer_query.search_plan import Sort

FILE = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
DIGEST = "a1b2c3d4" * 8


def refused(asked: dict[str, Any], model: type[SearchAsked | ExportAsked] = SearchAsked) -> list[str]:
    """The parameters that are refused."""
    try:
        model.model_validate(asked)
    except ValidationError as error:
        return sorted({str(one["loc"][0]) for one in error.errors()})
    return []


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31t12:00:00.25z", datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-01-31 12:00:00+03:00", datetime(2026, 1, 31, 9, tzinfo=UTC)),
        ("2026-01-31T00:30:00-01:00", datetime(2026, 1, 31, 1, 30, tzinfo=UTC)),
    ],
)
def test_moments_are_those_of_rfc_3339_or_days_in_utc(text: str, moment: datetime) -> None:
    assert SearchAsked.model_validate({"created_from": text}).created_from == moment


@pytest.mark.parametrize(
    "text",
    [
        "",
        "today",
        "1769860800",
        1769860800,
        "2026-01-31T12:00:00",
        "2026-01-31T12:00:00 03:00",
        "2026-02-30",
        "2026-01-31T24:00:01Z",
        "2026-01-31T12:00:00+25:00",
        "99999-01-01",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "२०२६-०१-३१",
        "2026-01-31\n",
    ],
)
@pytest.mark.parametrize("name", ["created_from", "created_before", "updated_from", "updated_before"])
def test_what_is_no_moment_is_refused(name: str, text: object) -> None:
    assert refused({name: text}) == [name]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"query": "x" * 1_001}, ["query"]),
        ({"query": "a\x00b"}, ["query"]),
        ({"query": "\ud800"}, ["query"]),
        ({"query": None}, ["query"]),
        ({"limit": 0}, ["limit"]),
        ({"limit": 201}, ["limit"]),
        ({"limit": "9" * 5_000}, ["limit"]),
        ({"cursor": "x" * 8_001}, ["cursor"]),
        ({"sort": "best"}, ["sort"]),
        ({"typing": "perhaps"}, ["typing"]),
        ({"type": ["png"]}, ["type"]),
        ({"type": ["*/*"]}, ["type"]),
        ({"type": ["image/png", "image/"]}, ["type"]),
        ({"type": ["image/png"] * 51}, ["type"]),
        ({"type": "image/png"}, ["type"]),
        ({"tag": [" "]}, ["tag"]),
        ({"tag": ["a\x00"]}, ["tag"]),
        ({"tag": ["x" * 1_001]}, ["tag"]),
        ({"any_tag": ["a"] * 10_000}, ["any_tag"]),
        ({"uploader": [""]}, ["uploader"]),
        ({"storage_element": ["\ud800"]}, ["storage_element"]),
        ({"min_size": -1}, ["min_size"]),
        ({"min_size": 2**63}, ["min_size"]),
        ({"max_size": 10**400}, ["max_size"]),
        ({"max_size": "1e3"}, ["max_size"]),
        ({"min_size": 2, "max_size": 1}, ["max_size"]),
        ({"created_from": "2026-01-02", "created_before": "2026-01-02"}, ["created_before"]),
        ({"updated_from": "2026-01-02", "updated_before": "2026-01-01"}, ["updated_before"]),
        ({"retention": "soon"}, ["retention"]),
        ({"checksum": "abc"}, ["checksum"]),
        ({"checksum": "md5:" + DIGEST}, ["checksum"]),
        ({"at_least": [FILE]}, ["at_least"]),
        ({"at_least": [f"{FILE}@0"]}, ["at_least"]),
        ({"at_least": [f"{FILE}@1"] * 21}, ["at_least"]),
        ({"wait": "2"}, ["wait"]),
        ({"max_lag": "-1s"}, ["max_lag"]),
        ({"tags": ["a"]}, ["tags"]),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(asked: dict[str, Any], names: list[str]) -> None:
    assert refused(asked) == names


def test_a_body_takes_longer_queries() -> None:
    assert refused({"query": "x" * 10_000}, LongSearchAsked) == []
    assert refused({"query": "x" * 10_001}, LongSearchAsked) == ["query"]
    assert refused({"query": "a\x00b"}, LongSearchAsked) == ["query"]


def test_every_filter_arrives_where_the_search_looks_for_it() -> None:
    asked = SearchAsked.model_validate(
        {
            "query": "a",
            "type": ["Image/*", " image/png"],
            "tag": ["x "],
            "any_tag": ["y", "z"],
            "min_size": "1",
            "max_size": 1,
            "created_from": "2026-01-01",
            "created_before": "2026-01-02",
            "updated_from": "2026-01-03",
            "updated_before": "2026-01-04",
            "uploader": ["u"],
            "storage_element": ["se-01"],
            "retention": "active",
            "checksum": f"SHA256:{DIGEST.upper()}",
            "limit": "7",
            "sort": "largest",
            "typing": "true",
            "facets": True,
            "correct": "false",
            "cursor": "c",
        }
    )
    request = asked.request()
    assert request.filters == Filters(
        types=("image/*", "image/png"),
        tags=("x",),
        any_tags=("y", "z"),
        min_size=1,
        max_size=1,
        created_from=datetime(2026, 1, 1, tzinfo=UTC),
        created_before=datetime(2026, 1, 2, tzinfo=UTC),
        updated_from=datetime(2026, 1, 3, tzinfo=UTC),
        updated_before=datetime(2026, 1, 4, tzinfo=UTC),
        uploaders=("u",),
        storage_elements=("se-01",),
        retention=Retention.ACTIVE,
        checksum=f"sha256:{DIGEST}",
    )
    assert (request.query, request.limit, request.sort, request.cursor) == ("a", 7, Sort.LARGEST, "c")
    assert (request.typing, request.facets, request.correct) == (True, True, False)


def test_without_parameters_everything_is_asked_for() -> None:
    request = SearchAsked().request()
    assert (request.query, request.filters, request.limit) == ("", Filters(), 20)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(asked=st.dictionaries(st.sampled_from(sorted(SearchAsked.model_fields)) | st.text(max_size=5), anything))
def test_anything_is_either_understood_or_refused(asked: dict[str, Any]) -> None:
    refused(asked, LongSearchAsked)


@given(begin=st.datetimes(timezones=st.just(UTC)))
def test_any_moment_of_the_calendar_is_understood(begin: datetime) -> None:
    assert SearchAsked.model_validate({"updated_from": begin.isoformat()}).updated_from == begin
