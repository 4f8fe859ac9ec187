"""Every metric of the Admin processes. Names of the system before this one are kept where the thing still exists."""

from prometheus_client import Counter, Gauge, Histogram

PUBLISHED = Counter("artstore_admin_events_published_total", "Events that the broker has committed.", ["event_type"])
PUBLISH_FAILURES = Counter(
    "artstore_admin_events_publish_failures_total",
    "Events in transactions that failed; they are sent again.",
    ["event_type"],
)
PUBLISH_SECONDS = Histogram(
    "artstore_admin_events_publish_duration_seconds", "One transaction, from begin to committed."
)
OUTBOX_UNSENT = Gauge("artstore_admin_outbox_unsent_events", "Events that wait for the topic.")
OUTBOX_AGE = Gauge("artstore_admin_outbox_oldest_unsent_seconds", "Age of the oldest event that waits; 0 when none.")
SAGAS = Counter("artstore_admin_sagas_total", "Sagas by how they ended.", ["kind", "outcome"])
