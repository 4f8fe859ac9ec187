"""Every metric of the Query processes, each told by one of them. Names of before are kept where the thing still exists.

Labels have few values, all known beforehand but for partitions: no file, user or address is ever one.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from consumer_query.findings import Outcome
from consumer_query.lag import GroupLag, Status
from consumer_query.rebuild_jobs import ENDS, Job, Loaded, Phase
from consumer_query.rebuild_progress import percent_of
from consumer_query.reconcile import Class
from consumer_query.sync_reports import Report
from consumer_query.vocabulary import Counted
from runtime.metrics import BatchHistogram

RECEIVED = Counter("artstore_query_events_received_total", "Records read from the topic.", ["event_type"])
FAILURES = Counter(
    "artstore_query_events_processing_failures_total",
    "Batches that could not be applied and are tried again.",
    ["reason"],
)
SYNC_SECONDS = Histogram(
    "artstore_query_cache_sync_duration_seconds", "One batch, from folding to the end of its transaction."
)
APPLIED = Counter("artstore_query_rows_applied_total", "Rows of the cache that changed.")
PARTITIONS = Gauge("artstore_query_assigned_partitions", "Partitions that this projector applies.")
DEAD_LETTERS = Counter("artstore_query_dead_letters_total", "Records put aside, acknowledged by Kafka.", ["reason"])
RESOLUTIONS = Counter("artstore_query_dead_letter_resolutions_total", "What became of dead letters.", ["status"])
BUFFERED = Gauge("artstore_query_buffered_records", "Records fetched and not yet applied, in memory.")
HELD = Gauge("artstore_query_held_partitions", "Partitions held back; /health/ready says why.")
BROKER_UP = Gauge("artstore_query_broker_up", "1 while the broker answers, else 0.")
DOUBTS = Gauge("artstore_query_cache_doubts", "1 for what speaks against the live cache, else 0.", ["reason"])
DATABASE_UP = Gauge("artstore_query_database_up", "1 while batches can be written, else 0.")
REBUILD_PHASE = Gauge("artstore_query_rebuild_phase", "1 for the phase of the rebuild in hand, else 0.", ["phase"])
REBUILD_PROGRESS = Gauge("artstore_query_rebuild_progress_ratio", "Done of the rebuild in hand, 0 to 1.")
REBUILD_RECORDS = Gauge("artstore_query_rebuild_records", "Records read by the rebuild in hand.")
REBUILD_ROWS = Gauge("artstore_query_rebuild_rows", "Rows loaded by the rebuild in hand.")
DIFFERENCES = Gauge(
    "artstore_query_sync_differences",
    "Files that the last comparison found wrong, by what it compared.",
    ["side", "class"],
)
DIFFERENCES_LEFT = Gauge("artstore_query_sync_differences_left", "Files that it left wrong.", ["side", "class"])
UNCONFIRMED = Gauge("artstore_query_sync_unconfirmed", "Files of which it could not tell.", ["side"])
COMPARED_SECONDS = Gauge("artstore_query_sync_duration_seconds", "How long the last comparison took in all.", ["side"])
COMPARED_AT = Gauge(
    "artstore_query_sync_last_success_timestamp_seconds",
    "When a comparison last ended with nothing wrong left.",
    ["side"],
)
COMPARISONS = Counter(
    "artstore_query_syncs_total", "Comparisons with the Admin module that ended.", ["side", "outcome"]
)
REBUILDS = Counter("artstore_query_rebuilds_total", "Rebuilds and rollbacks that ended.", ["kind", "outcome"])
SEARCHABLE_SECONDS = BatchHistogram(
    "artstore_query_change_searchable_seconds",
    "From a change, by its event's own time, to the commit of its row.",
    (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 3600),
)
LAG_EVENTS = Gauge(
    "artstore_query_lag_events", "Offsets that the group has not passed, seen from outside it.", ["partition"]
)
LAG_SECONDS = Gauge(
    "artstore_query_lag_seconds",
    "Age of the oldest record that it has not passed; 0 when there is none.",
    ["partition"],
)
LAG_STATUS = Gauge("artstore_query_lag_status", "1 for the status of a partition, else 0.", ["partition", "status"])
GROUP_MEMBERS = Gauge("artstore_query_group_members", "Projectors that are in the group.")
LAG_LOOKED_AT = Gauge("artstore_query_lag_looked_timestamp_seconds", "When a broker last told of the lag.")
LEXEMES_COUNTED_AT = Gauge(
    "artstore_query_lexemes_counted_timestamp_seconds",
    "When the lexemes by which searches are planned and corrected were last counted.",
)
LEXEMES_SECONDS = Gauge("artstore_query_lexemes_count_duration_seconds", "How long that took.")
LEXEMES_FILES = Gauge("artstore_query_lexemes_files", "Of how many files.")

PROJECTOR: Final = (
    RECEIVED, FAILURES, SYNC_SECONDS, APPLIED, PARTITIONS, DEAD_LETTERS, BUFFERED, HELD, BROKER_UP, DOUBTS, DATABASE_UP,
    SEARCHABLE_SECONDS,
)  # fmt: skip
"""What the projector tells."""
API: Final = (RESOLUTIONS, LAG_EVENTS, LAG_SECONDS, LAG_STATUS, GROUP_MEMBERS, LAG_LOOKED_AT)
"""What the search API tells; each of several tells the same lag."""
MAINTENANCE: Final = (
    REBUILD_PHASE, REBUILD_PROGRESS, REBUILD_RECORDS, REBUILD_ROWS, REBUILDS, DIFFERENCES, DIFFERENCES_LEFT,
    UNCONFIRMED, COMPARED_SECONDS, COMPARED_AT, COMPARISONS, LEXEMES_COUNTED_AT, LEXEMES_SECONDS, LEXEMES_FILES,
)  # fmt: skip
"""What the maintenance process tells."""


class OwnLag(Collector):
    """How far a projector is behind in the partitions that it has, looked at only when someone asks.

    Args:
        behind: partition, offsets not applied, and age in seconds of the oldest record among them, of each
    """

    def __init__(self, behind: Callable[[], Iterable[tuple[int, int, float]]]) -> None:
        self._behind = behind
        REGISTRY.register(self)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Tell it, for the registry."""
        events = GaugeMetricFamily(
            "artstore_query_projector_lag_events", "Offsets that this projector has not applied.", labels=["partition"]
        )
        seconds = GaugeMetricFamily(
            "artstore_query_projector_lag_seconds",
            "Age of the oldest record among them; 0 when there is none.",
            labels=["partition"],
        )
        for partition, offsets, age in self._behind():
            events.add_metric([str(partition)], offsets)
            seconds.add_metric([str(partition)], age)
        return [events, seconds]


def note_rebuild(job: Job, loaded: Loaded, percent: float | None = None) -> None:
    """Tell how far the rebuild in hand has come, or, once, how it ended. One that was let go, as in a pause, is not.

    Args:
        job: as it is now
        loaded: how far its loading has come
        percent: of the whole job; None: as those two tell it, with which indexing stands still
    """
    in_hand = job.attended
    for phase in Phase:
        if phase not in ENDS:
            REBUILD_PHASE.labels(phase).set(in_hand and phase is job.phase)
    done = percent_of(job, loaded) if percent is None else percent
    REBUILD_PROGRESS.set((done or 0) / 100 if in_hand else 0)
    REBUILD_RECORDS.set(loaded.records if in_hand else 0)
    REBUILD_ROWS.set(loaded.rows if in_hand else 0)
    if job.phase in ENDS:
        REBUILDS.labels(job.kind, job.phase).inc()


def note_sync(report: Report) -> None:
    """Tell how a comparison ended."""
    assert report.outcome is not None  # noqa: S101 - it has ended
    COMPARISONS.labels(report.side, report.outcome).inc()
    if report.started_at is not None and report.finished_at is not None:
        COMPARED_SECONDS.labels(report.side).set((report.finished_at - report.started_at).total_seconds())
    if report.outcome is Outcome.FAILED or report.findings is None:
        return
    for kind in Class:
        DIFFERENCES.labels(report.side, kind).set(report.findings.found.get(kind, 0))
        DIFFERENCES_LEFT.labels(report.side, kind).set(report.findings.left.get(kind, 0))
    UNCONFIRMED.labels(report.side).set(report.findings.unconfirmed)
    if report.outcome in (Outcome.EQUAL, Outcome.REPAIRED) and report.finished_at is not None:
        COMPARED_AT.labels(report.side).set(report.finished_at.timestamp())


def note_lag(group: GroupLag, at: datetime) -> None:
    """Tell how far the group is behind, in the partitions that there are."""
    for metric in (LAG_EVENTS, LAG_SECONDS, LAG_STATUS):
        metric.clear()
    for one in group.partitions:
        LAG_EVENTS.labels(one.partition).set(one.events)
        LAG_SECONDS.labels(one.partition).set(one.seconds)
        for status in Status:
            LAG_STATUS.labels(one.partition, status).set(status is one.status)
    GROUP_MEMBERS.set(group.members)
    LAG_LOOKED_AT.set(at.timestamp())


def note_count(counted: Counted) -> None:
    """Tell how old the counts of lexemes are, whichever process made them."""
    LEXEMES_COUNTED_AT.set(counted.counted_at.timestamp())
    LEXEMES_SECONDS.set(counted.seconds)
    LEXEMES_FILES.set(counted.files)
