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
