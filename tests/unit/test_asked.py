"""Sizes and moments as people type them."""

from datetime import UTC, datetime, timedelta

import pytest
import typer

from cli.asked import byte_count, moment


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("500", 500),
        ("500b", 500),
        ("10k", 10 * 1024),
        ("10KiB", 10 * 1024),
        ("10kB", 10_000),
        ("1.5GiB", 3 * 2**29),
        (" 1,5 m ", 3 * 2**19),
        ("2 TB", 2 * 10**12),
    ],
)
def test_a_size_is_understood(text: str, count: int) -> None:
    assert byte_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "-1", "1e3", "10 apples", "1.5.1", "१०", "9999999999 TiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        byte_count(text)


def test_a_day_begins_at_midnight_here() -> None:
    assert datetime.fromisoformat(moment("2026-01-31")) == datetime(2026, 1, 31).astimezone()
    assert datetime.fromisoformat(moment("2026-01-31T12:00+03:00")) == datetime(2026, 1, 31, 9, tzinfo=UTC)


@pytest.mark.parametrize(("text", "ago"), [("12h", timedelta(hours=12)), ("7d", timedelta(7)), ("2 W", timedelta(14))])
def test_a_time_ago_is_before_now(text: str, ago: timedelta) -> None:
    then = datetime.fromisoformat(moment(text))
    assert abs(datetime.now(UTC) - ago - then) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30", "99999w", "0001-01-01T00:00+14:00", "-1d"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        moment(text)
