"""Verdicts about the cache: what speaks against it is noticed, and the absence of evidence speaks neither way."""

from dataclasses import replace

import pytest
from aiokafka import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from consumer_query import guards
from consumer_query.analysis import ANALYZER
from consumer_query.buffers import Record
from consumer_query.generations import SHAPE
from consumer_query.guards import Log, Reason, Shape, Sighting, Standing, Witness

WITNESS = Witness(9, b"digest")
STANDING = Standing(next_offset=10, away_seconds=60.0, cluster_id="ours", witness=WITNESS)
LOG = Log(beginning=0, end=20, cluster_id="ours", sighting=Sighting.SAME)
DAY = 86_400.0


def record(offset: int, value: bytes | None = b"value", key: bytes | None = b"key", timestamp: int = 1) -> Record:
    return ConsumerRecord("topic", 0, offset, timestamp, 0, key, value, None, 0, 0, ())


@pytest.mark.parametrize(
    ("standing", "log", "reason"),
    [
        pytest.param({}, {}, None, id="an ordinary restart"),
        pytest.param({"next_offset": 20}, {}, None, id="all of the log was read"),
        pytest.param({}, {"sighting": Sighting.ABSENT}, None, id="a witness compacted away"),
        pytest.param(
            {"witness": None, "cluster_id": None}, {"sighting": Sighting.ABSENT}, None, id="nothing known yet"
        ),
        pytest.param({}, {"cluster_id": None, "sighting": Sighting.ABSENT}, None, id="a broker that tells no cluster"),
        pytest.param({}, {"cluster_id": "mirror"}, None, id="a mirror that keeps offsets"),
        pytest.param({}, {"beginning": 10}, None, id="all that was removed had been read"),
        pytest.param({"next_offset": 21}, {}, Reason.ANOTHER_LOG, id="beyond the end"),
        pytest.param({}, {"sighting": Sighting.OTHER}, Reason.ANOTHER_LOG, id="another record in its place"),
        pytest.param({}, {"began_anew": True}, Reason.ANOTHER_LOG, id="shorter than what was read"),
        pytest.param(
            {}, {"cluster_id": "theirs", "sighting": Sighting.ABSENT}, Reason.ANOTHER_LOG, id="another cluster"
        ),
        pytest.param({}, {"beginning": 11}, Reason.LOG_CUT, id="removed before it was read"),
    ],
)
def test_rows_are_of_this_log_unless_something_shows_that_they_are_not(
    standing: dict[str, object], log: dict[str, object], reason: Reason | None
) -> None:
    found = guards.mismatch_of(3, replace(STANDING, **standing), replace(LOG, **log))  # type: ignore[arg-type]
    assert (found and found.reason) == reason
    assert found is None or "partition 3" in found.detail


@pytest.mark.parametrize(
    ("away_days", "doubted"),
    [(0.001, False), (3, False), (6.29, False), (6.31, True), (7.5, True), (400, True)],
)
def test_with_tombstones_kept_a_week_six_days_away_are_no_harm_and_seven_are(
    away_days: float, *, doubted: bool
) -> None:
    standing = replace(STANDING, away_seconds=away_days * DAY)
    found = guards.absence_of(3, standing, guards.allowed_seconds(7 * DAY))
    assert (found is not None) == doubted
    assert found is None or found.reason is Reason.AWAY_TOO_LONG


@given(st.floats(0, 1e9))
def test_what_is_allowed_is_below_the_retention_and_never_within_the_time_of_a_few_renewals(retention: float) -> None:
    allowed = guards.allowed_seconds(retention)
    assert allowed < retention or allowed == guards.SHORTEST_SECONDS
    assert guards.renew_seconds(allowed) * 5 <= allowed
    assert guards.renew_seconds(allowed) <= 60


def test_a_witness_is_the_same_record_and_no_other() -> None:
    witness = guards.witness_of(record(9))
    others = [record(9, b"other"), record(9, None), record(9, key=b"yek"), record(9, key=None), record(9, timestamp=2)]
    others += [record(9, b"alue", b"keyv")]
    assert guards.sighting_of(witness, record(9)) is Sighting.SAME
    assert {guards.sighting_of(witness, one) for one in others} == {Sighting.OTHER}


@pytest.mark.parametrize("offset", [8, 10])
def test_a_record_at_another_offset_says_nothing_of_a_witness(offset: int) -> None:
    """At a greater one stands what compaction left; at a lesser one, what a client reads that was sent back."""
    assert guards.sighting_of(WITNESS, record(offset)) is Sighting.ABSENT


@pytest.mark.parametrize(
    ("shape", "analyzer", "whose"),
    [
        (SHAPE, ANALYZER, Shape.OURS),
        (SHAPE - 1, ANALYZER, Shape.OLDER),
        (SHAPE, ANALYZER - 1, Shape.OLDER),
        (SHAPE - 1, ANALYZER + 1, Shape.OLDER),
        (SHAPE + 1, ANALYZER, Shape.NEWER),
        (SHAPE, ANALYZER + 1, Shape.NEWER),
    ],
)
def test_only_a_generation_of_an_older_program_is_ours_to_replace(shape: int, analyzer: int, whose: Shape) -> None:
    """Else two versions of the program would rebuild against each other for ever."""
    assert guards.shape_of(shape, analyzer) is whose
