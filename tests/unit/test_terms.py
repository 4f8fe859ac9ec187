"""Values as lexemes, and filters as queries of them: what is asked for meets what is stored."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer_query.asking import reworded, understand
from consumer_query.filters import Filters, Retention
from consumer_query.terms import Beginning, Kind, month_of, since, terms_of

NOW = datetime(2026, 11, 24, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)


def columns(**details: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "mime_type": "image/png",
        "tags": ["Срочно", "ёлка"],
        "created_by_username": "Ivan.Petrov",
        "storage_element_id": "se-01",
        "checksum": "sha256:" + "ab" * 32,
        "file_size": 1000,
        "created_at": datetime(2020, 2, 29, tzinfo=UTC),
        "updated_at": NOW,
        "retention_expires_at": None,
    } | details
    for name in ("created_at", "updated_at", "retention_expires_at"):
        if given[name] is not None:
            given[name] = (given[name] - EPOCH) // timedelta(microseconds=1)
    return given


def stored(**details: Any) -> set[str]:
    return {one.removesuffix(b"\0").decode() for one in terms_of(columns(**details))}


def candidate(filters: Filters, **details: Any) -> bool:
    """Whether the terms of a filter let such a file through."""
    return all(is_asked(choice, stored(**details)) for choice in filters.values() + filters.classes(NOW))


def is_asked(choice: Iterable[str], terms: set[str]) -> bool:
    return any(
        any(one.startswith(asked) for one in terms) if isinstance(asked, Beginning) else asked in terms
        for asked in choice
    )


def test_a_file_is_found_by_each_of_its_values() -> None:
    assert stored() == {
        "type:image/png", "type:image", "tag:срочно", "tag:елка", "by:ivan.petrov", "at:se-01", "sum:" + "ab" * 32,
        "size:10", "new:2020-02", "upd:2026-11", "keep:none",
    }  # fmt: skip


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_no_size_within_a_range_is_left_out_by_its_class(size: int, least: int, most: int) -> None:
    if least <= size <= most:
        assert candidate(Filters(min_size=least, max_size=most), file_size=size)
    if least <= size:
        assert candidate(Filters(min_size=least), file_size=size)
    if size <= most:
        assert candidate(Filters(max_size=most), file_size=size)


@given(moments, moments, moments)
def test_no_change_within_a_range_is_left_out_by_its_month(moment: datetime, first: datetime, last: datetime) -> None:
    if first <= moment < last:
        assert candidate(Filters(updated_from=first, updated_before=last), updated_at=moment)
        assert candidate(Filters(created_from=first, created_before=last), created_at=moment)
    if first <= moment:
        assert candidate(Filters(updated_from=first, created_from=first), updated_at=moment, created_at=moment)


@given(moments, moments)
def test_the_terms_since_a_month_are_those_of_files_created_then_or_later(moment: datetime, begin: datetime) -> None:
    month = month_of(begin)
    assert is_asked(since(Kind.CREATED, month, NOW), stored(created_at=moment)) == (month_of(moment) >= month)


@given(moments)
def test_no_time_of_retention_is_left_out_by_its_year(moment: datetime) -> None:
    state = Retention.EXPIRED if moment <= NOW else Retention.ACTIVE
    assert candidate(Filters(retention=state), retention_expires_at=moment)
    assert not candidate(Filters(retention=Retention.NONE), retention_expires_at=moment)


@given(texts)
def test_any_value_that_is_stored_is_found_as_it_was_typed(text: str) -> None:
    assert candidate(Filters(tags=(text,)), tags=[text])
    assert candidate(Filters(types=(text,)), mime_type=text)
    assert candidate(Filters(uploaders=(text.upper(),)), created_by_username=text.upper())
    assert candidate(Filters(types=(f"{text.partition('/')[0]}/*",)), mime_type=text)


@pytest.mark.parametrize("checksum", ["sha256:" + "AB" * 32, "ab" * 32])
def test_a_checksum_is_found_with_and_without_its_algorithm(checksum: str) -> None:
    assert candidate(Filters(checksum=checksum))
    assert candidate(Filters(checksum=checksum), checksum=checksum)
    assert f"'sum:{'ab' * 32}'" in understand(checksum).exact


def test_a_word_in_typing_asks_for_its_beginnings_and_for_the_word_itself() -> None:
    assert understand("счёт догово", typing=True).words == "'счет' & ('догов' | 'догово':*)"
    assert understand("догово ", typing=True).prefix is None
    assert understand('"догово', typing=True).prefix is None
    assert understand("-догово", typing=True).prefix is None
    assert understand("д", typing=True).prefix is None
    assert understand("фото скан фото", typing=True).words == "'фот' & 'скан' & ('фот' | 'фото':*)"
    assert understand("IMG_2024 фото", typing=True).words == "'img' & '2024' & ('фот' | 'фото':*)"


def test_a_mistyped_word_is_replaced_and_nothing_else_of_the_query() -> None:
    query = reworded('"Дгоовор  аренды" -дгоовор_2 OR дгоовор', {"дгоовор": "договор"})
    assert query == '"договор  аренды" -дгоовор_2 OR договор'
