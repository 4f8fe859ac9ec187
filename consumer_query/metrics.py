"""Every metric of the Query processes. Names of the system before this one are kept where the thing still exists."""

from prometheus_client import Counter, Gauge, Histogram

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
DATABASE_UP = Gauge("artstore_query_database_up", "1 while batches can be written, else 0.")
