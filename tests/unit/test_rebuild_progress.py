"""How far a rebuild has come: within its bounds, never back, and told only where it can be."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from consumer_query.generations import INDEXES
from consumer_query.metrics import note_rebuild
from consumer_query.rebuild_jobs import ENDS, Job, Kind, Loaded, Phase, Wish
from consumer_query.rebuild_progress import SPANS, Progress, Seen, indexing_share, loading_share, progress_of

BEGIN = datetime(2026, 1, 13, 10, tzinfo=UTC)
JOB = Job(
    job_id=UUID(int=1),
    kind=Kind.REBUILD,
    phase=Phase.LOADING,
    wish=Wish.RUN,
    force=False,
    rows_per_second=None,
    requested_by="tests",
    reason="",
    requested_at=BEGIN,
    started_at=BEGIN,
    phase_since=BEGIN,
    finished_at=None,
    generation=2,
    starts=1,
    trouble=None,
    parity=None,
    attended=True,
)
LOADED = Loaded(
    partitions=12,
    partitions_loaded=0,
    offsets=4_000_000,
    offsets_done=1_000_000,
    records=300_000,
    rows=200_000,
    refused=0,
    seconds=10.0,
)
COUNT = st.integers(0, 2**62)
SHARE = st.floats(allow_nan=False, allow_infinity=True)
ORDER = {kind: list(spans) for kind, spans in SPANS.items()}


def now(seconds: float) -> Seen:
    return Seen(BEGIN + timedelta(seconds=seconds))


def come(job: Job = JOB, loaded: Loaded = LOADED, seen: Seen = now(10)) -> Progress:  # noqa: B008 - frozen
    return progress_of(job, loaded, seen)


jobs = st.builds(
    lambda kind, phase, wish, attended, rate, since, started: replace(
        JOB,
        kind=kind,
        phase=phase,
        wish=wish,
        attended=attended and phase not in ENDS,
        rows_per_second=rate,
        phase_since=BEGIN + timedelta(seconds=since),
        started_at=BEGIN if started else None,
        finished_at=BEGIN if phase in ENDS else None,
    ),
    st.sampled_from(Kind),
    st.sampled_from(Phase),
    st.sampled_from(Wish),
    st.booleans(),
    st.none() | st.integers(1, 2**31 - 1),
    st.floats(-1e6, 1e6),
    st.booleans(),
)
loadeds = st.builds(
    Loaded,
    partitions=st.integers(0, 12),
    partitions_loaded=st.integers(0, 12),
    offsets=COUNT,
    offsets_done=st.integers(-10, 2**62),
    records=COUNT,
    rows=COUNT,
    refused=COUNT,
    seconds=st.floats(0, 1e7),
)
seens = st.builds(
    Seen,
    now=st.floats(-1e6, 1e6).map(lambda seconds: BEGIN + timedelta(seconds=seconds)),
    indexes_made=st.integers(0, 5),
    index_share=SHARE,
    caught=st.none() | st.integers(-(2**62), 2**62),
    behind=st.none() | COUNT,
)


@settings(deadline=None)
@given(jobs, loadeds, seens)
def test_whatever_is_seen_figures_stay_within_their_bounds(job: Job, loaded: Loaded, seen: Seen) -> None:
    found = progress_of(job, loaded, seen)
    assert found.percent is None or 0 <= found.percent <= 100
    assert (found.percent == 100) == (job.phase is Phase.SWAPPED)
    for one in (found.eta_seconds, found.records_per_second, found.seconds, found.seconds_in_phase):
        assert one is None or (one >= 0 and math.isfinite(one))


@settings(deadline=None)
@given(st.sampled_from(Kind), st.data())
def test_the_per_cent_of_a_job_never_goes_back_on_its_way_to_the_swap(kind: Kind, data: st.DataObject) -> None:
    seen: list[float] = []
    for phase in ORDER[kind]:
        job = replace(JOB, kind=kind, phase=phase)
        steps = data.draw(st.lists(st.integers(0, 4_000_000), max_size=5).map(sorted))
        shares = data.draw(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1)), max_size=5).map(sorted))
        distances = data.draw(st.lists(COUNT, max_size=5))
        views: list[tuple[Loaded, Seen]] = [(LOADED, now(10))]
        if phase is Phase.LOADING:
            views = [(replace(LOADED, offsets_done=done), now(10)) for done in steps]
        elif phase is Phase.INDEXING:
            views = [(LOADED, replace(now(10), indexes_made=made, index_share=share)) for made, share in shares]
        elif phase is Phase.CATCHING_UP:
            views = [(LOADED, replace(now(10), caught=1, behind=behind)) for behind in distances]
        seen += [percent for view in views if (percent := progress_of(job, *view).percent) is not None]
    assert all(before <= after for before, after in pairwise(seen))
    assert seen[-1] == 100


@settings(deadline=None)
@given(loadeds, seens)
def test_shares_are_between_nothing_and_all(loaded: Loaded, seen: Seen) -> None:
    assert 0 <= loading_share(loaded) <= 1
    assert 0 <= indexing_share(seen) <= 1


def test_every_phase_of_a_job_but_an_end_without_a_swap_has_its_span() -> None:
    without_swap = {Phase.REFUSED, Phase.CANCELLED, Phase.FAILED}
    assert set(SPANS[Kind.REBUILD]) == set(Phase) - without_swap
    assert set(SPANS[Kind.ROLLBACK]) == set(Phase) - without_swap - {Phase.LOADING, Phase.INDEXING}
    for phase in without_swap:
        assert come(replace(JOB, phase=phase, finished_at=BEGIN)).percent is None


def test_loading_is_a_share_of_offsets_since_records_have_gaps_between_them() -> None:
    quarter, all_of_it = come(), come(loaded=replace(LOADED, offsets_done=4_000_000))
    assert quarter.percent is not None
    assert all_of_it.percent is not None
    assert quarter.percent == pytest.approx(all_of_it.percent / 4, abs=0.1)
    assert quarter.records_per_second == 30_000


def test_a_topic_without_records_is_loaded_once_its_partitions_are() -> None:
    empty = replace(LOADED, offsets=0, offsets_done=0, records=0, rows=0)
    assert come(loaded=empty).percent == 0
    loaded = come(loaded=replace(empty, partitions_loaded=12))
    assert loaded.percent == come(replace(JOB, phase=Phase.INDEXING)).percent
    assert come(loaded=replace(empty, partitions=0)).percent == 0


def test_what_is_left_of_loading_takes_as_long_as_what_is_done_did_and_indexes_follow() -> None:
    eta = come().eta_seconds
    assert eta is not None
    assert 30 < eta < 45


def test_a_throttle_that_was_tightened_counts_more_than_the_average_so_far() -> None:
    assert come(replace(JOB, rows_per_second=1_000)).eta_seconds == 600
    assert come(replace(JOB, rows_per_second=1_000_000)).eta_seconds == 30


def test_indexes_count_as_they_are_made() -> None:
    job = replace(JOB, phase=Phase.INDEXING)
    first, one = (come(job, seen=replace(now(10), indexes_made=made)) for made in (0, 1))
    building = come(job, seen=replace(now(10), index_share=0.5))
    assert first.percent is not None
    assert building.percent is not None
    assert one.percent is not None
    assert first.percent < building.percent < one.percent
    assert (first.eta_seconds, one.eta_seconds) == (None, 10 * (len(INDEXES) - 1))


def test_catching_up_tells_its_distance_and_how_long_that_takes_at_its_pace() -> None:
    job = replace(JOB, phase=Phase.CATCHING_UP)
    found = come(job, seen=replace(now(10), caught=500, behind=200))
    assert (found.behind, found.eta_seconds) == (200, 4)
    for caught in (None, 0):
        assert come(job, seen=replace(now(10), caught=caught, behind=200)).eta_seconds is None
    assert come(seen=replace(now(10), caught=500, behind=200)).behind is None


def test_nobody_at_work_means_no_estimate() -> None:
    assert come().eta_seconds is not None
    assert come(replace(JOB, attended=False)).eta_seconds is None
    assert come(replace(JOB, wish=Wish.PAUSE)).eta_seconds is None


def test_what_was_divided_by_next_to_nothing_is_not_told() -> None:
    assert come(loaded=replace(LOADED, seconds=5e-324)).records_per_second is None
    indexing = replace(JOB, phase=Phase.INDEXING)
    assert come(indexing, seen=replace(now(10), index_share=1e-320)).eta_seconds is None


def test_the_clock_of_a_job_stops_when_it_ends() -> None:
    ended = replace(JOB, phase=Phase.FAILED, finished_at=BEGIN + timedelta(seconds=7), attended=False)
    found = come(ended, seen=now(1_000))
    assert (found.seconds, found.seconds_in_phase) == (7, 0)
    assert (come(seen=now(9)).seconds, come(seen=now(9)).seconds_in_phase) == (9, 9)
    assert come(replace(JOB, started_at=None)).seconds == 0


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"artstore_query_rebuild{name}", labels) or 0


def test_metrics_follow_the_job_in_hand_and_count_it_once_it_has_ended() -> None:
    before = sample("s_total", kind="rebuild", outcome="refused")
    note_rebuild(JOB, LOADED)
    assert (sample("_phase", phase="loading"), sample("_phase", phase="indexing")) == (1, 0)
    assert (sample("_records"), sample("_rows")) == (300_000, 200_000)
    assert sample("_progress_ratio") == pytest.approx((come().percent or 0) / 100)
    note_rebuild(replace(JOB, phase=Phase.INDEXING), LOADED, 81.5)
    assert (sample("_phase", phase="loading"), sample("_phase", phase="indexing")) == (0, 1)
    assert sample("_progress_ratio") == 0.815
    assert sample("s_total", kind="rebuild", outcome="refused") == before
    note_rebuild(replace(JOB, attended=False), LOADED)
    assert (sample("_phase", phase="loading"), sample("_progress_ratio"), sample("_rows")) == (0, 0, 0)
    note_rebuild(JOB, LOADED)
    note_rebuild(replace(JOB, phase=Phase.REFUSED, finished_at=BEGIN, attended=False), LOADED)
    assert sample("s_total", kind="rebuild", outcome="refused") == before + 1
    assert [sample("_phase", phase=phase) for phase in Phase if phase not in ENDS] == [0] * 6
    assert (sample("_progress_ratio"), sample("_records"), sample("_rows")) == (0, 0, 0)
