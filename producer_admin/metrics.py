"""Every metric of the Admin processes, each told by one of them. Names of before are kept where the thing still exists.

Labels have few values, all known beforehand but for storage elements: no file, user or address is ever one.
"""

from typing import Final

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
PUBLISHING_HELD = Gauge("artstore_admin_publishing_held", "1 while EVENT_PUBLISH_ENABLED is false.")
BROKER_UP = Gauge("artstore_admin_broker_up", "1 while events of all shards of this relay can be sent, else 0.")
DATABASE_UP = Gauge("artstore_admin_database_up", "1 while the relay's claims can be renewed, else 0.")
SAGAS = Counter(
    "artstore_admin_sagas_total",
    "Sagas by how they ended: done, compensated, refused or repeated.",
    ["kind", "outcome"],
)
SAGAS_POSTPONED = Counter("artstore_admin_sagas_postponed_total", "Steps that failed and are tried again.", ["step"])
SAGAS_UNFINISHED = Gauge("artstore_admin_sagas_unfinished", "Sagas under way or stuck, of all processes.", ["state"])
SAGA_STEP_SECONDS = Histogram(
    "artstore_admin_saga_step_duration_seconds", "One step of a saga.", ["kind", "step", "outcome"]
)
FILES_EXPIRED = Counter("artstore_admin_files_expired_total", "Files deleted because their retention was over.")
ELEMENT_HEALTHY = Gauge("artstore_admin_storage_element_healthy", "1 when its last check succeeded.", ["element"])
ELEMENT_USED = Gauge(
    "artstore_admin_storage_element_used_bytes", "Bytes of the files that are recorded there.", ["element"]
)
ELEMENT_CAPACITY = Gauge(
    "artstore_admin_storage_element_capacity_bytes",
    "Above this new files go elsewhere; absent without a bound.",
    ["element"],
)

API: Final = (
    SAGAS, SAGAS_POSTPONED, SAGAS_UNFINISHED, SAGA_STEP_SECONDS, FILES_EXPIRED, ELEMENT_HEALTHY, ELEMENT_USED,
    ELEMENT_CAPACITY,
)  # fmt: skip
"""What the Admin API tells."""
RELAY: Final = (
    PUBLISHED, PUBLISH_FAILURES, PUBLISH_SECONDS, OUTBOX_UNSENT, OUTBOX_AGE, PUBLISHING_HELD, BROKER_UP, DATABASE_UP,
)  # fmt: skip
"""What the relay tells."""
