"""Every metric of the Query processes. Names of the system before this one are kept where the thing still exists."""

from prometheus_client import Counter, Gauge, Histogram

from consumer_query.findings import Outcome
from consumer_query.rebuild_jobs import ENDS, Job, Loaded, Phase
from consumer_query.rebuild_progress import percent_of
from consumer_query.reconcile import Class
from consumer_query.sync_reports import Report
from consumer_query.vocabulary import Counted

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
LEXEMES_COUNTED_AT = Gauge(
    "artstore_query_lexemes_counted_timestamp_seconds",
    "When the lexemes by which searches are planned and corrected were last counted.",
)
LEXEMES_SECONDS = Gauge("artstore_query_lexemes_count_duration_seconds", "How long that took.")
LEXEMES_FILES = Gauge("artstore_query_lexemes_files", "Of how many files.")


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


def note_count(counted: Counted) -> None:
    """Tell how old the counts of lexemes are, whichever process made them."""
    LEXEMES_COUNTED_AT.set(counted.counted_at.timestamp())
    LEXEMES_SECONDS.set(counted.seconds)
    LEXEMES_FILES.set(counted.files)
