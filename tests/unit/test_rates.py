"""How often a client may ask: a burst at once, then the rate; nobody else's asking counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import rates
from runtime.rates import Rates, address_of


def test_a_burst_is_let_through_and_then_the_rate() -> None:
    limit = Rates(per_second=2, burst=3)
    assert [limit.wait("one", 100.0) for _ in range(5)] == [0, 0, 0, 1, 1]
    assert [limit.wait("one", 100.5) for _ in range(2)] == [0, 1]
    assert limit.wait("another", 100.5) == 0


def test_a_slow_rate_says_how_long_to_wait() -> None:
    limit = Rates(per_second=0.1, burst=1)
    assert [limit.wait("one", 0.0), limit.wait("one", 0.0), limit.wait("one", 8.5), limit.wait("one", 10.0)] == [
        0,
        10,
        2,
        0,
    ]


@given(
    st.floats(0.01, 1000),
    st.integers(1, 50),
    st.lists(st.floats(0, 5), max_size=200),
)
def test_in_no_stretch_of_time_more_are_let_through_than_burst_and_rate_allow(
    per_second: float, burst: int, pauses: list[float]
) -> None:
    limit = Rates(per_second, burst)
    now, passed = 1000.0, []
    for pause in pauses:
        now += pause
        if not (wait := limit.wait("one", now)):
            passed.append(now)
        else:
            # Who waits as long as it was told is let through.
            assert Rates.wait(_copy(limit), "one", now + wait) == 0
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + (passed[last] - begin) * per_second + 1e-3


def _copy(limit: Rates) -> Rates:
    copied = Rates.__new__(Rates)
    copied.__dict__.update(limit.__dict__ | {"_full_at": limit._full_at.copy()})
    return copied


def test_only_so_many_clients_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MOST_CLIENTS", 10)
    limit = Rates(per_second=1, burst=1)
    assert limit.wait("seen all the time", 0.0) == 0
    for number in range(1000):
        limit.wait(str(number), 0.0)
        assert limit.wait("seen all the time", 0.0) == 1
    assert len(limit._full_at) == 10


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"client": ("10.0.0.1", 1)}, {"client": ("10.0.0.1", 2)}, True),
        ({"client": ("10.0.0.1", 1)}, {"client": ("10.0.0.2", 1)}, False),
        # One client has all of a /64.
        ({"client": ("2001:db8::1", 1)}, {"client": ("2001:db8::ffff:2", 1)}, True),
        ({"client": ("2001:db8::1", 1)}, {"client": ("2001:db8:0:1::1", 1)}, False),
        ({"client": None}, {"client": ("not an address", 0)}, False),
    ],
)
def test_a_client_is_its_address(one: dict[str, object], other: dict[str, object], same: bool) -> None:  # noqa: FBT001
    assert (address_of(one) == address_of(other)) is same
