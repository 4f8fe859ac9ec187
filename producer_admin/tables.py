"""The shape of database `artstore_admin`. Each column and index says why it is there; `migrations/` makes them."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

METADATA = MetaData()
_MOMENT = DateTime(timezone=True)

FILES = Table(
    "files",
    METADATA,
    Column("file_id", Uuid, primary_key=True),
    Column("revision", BigInteger, nullable=False, comment="Raised by one under the row's lock at each change."),
    Column("storage_element_id", Text, nullable=False),
    Column("original_filename", Text, nullable=False),
    Column("storage_filename", Text, nullable=False),
    Column("file_size", BigInteger, nullable=False, comment="Bytes."),
    Column("mime_type", Text, nullable=False),
    Column("created_at", _MOMENT, nullable=False),
    Column("updated_at", _MOMENT, nullable=False),
    Column("created_by_username", Text, nullable=False),
    Column("created_by_fullname", Text),
    Column("description", Text),
    Column("version", Text, comment="The uploader's label, not the revision."),
    Column("tags", ARRAY(Text), nullable=False),
    Column("storage_path", Text, nullable=False),
    Column("checksum", Text, nullable=False, comment="sha256: and 64 hex digits."),
    Column("retention_expires_at", _MOMENT),
    Column(
        "deleted_at",
        _MOMENT,
        comment="Set at deletion. The row stays: its id and revision are never used again.",
    ),
)

# Newest first, page by page, without the deleted.
Index("files_newest", FILES.c.created_at.desc(), FILES.c.file_id, postgresql_where=text("deleted_at IS NULL"))
# What the retention sweeper asks for: the few files that have an end.
Index(
    "files_expiring",
    FILES.c.retention_expires_at,
    postgresql_where=text("deleted_at IS NULL AND retention_expires_at IS NOT NULL"),
)

OUTBOX = Table(
    "outbox",
    METADATA,
    # The key serves the relay's only question: what waits on my shard, in order.
    Column("shard", Integer, primary_key=True, comment="Kafka partition of the file's key."),
    Column("outbox_id", BigInteger, Identity(always=True), primary_key=True, comment="Order of a file's changes."),
    Column("file_id", Uuid, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("actor", Text, nullable=False, comment="Who made the change."),
    Column("payload", LargeBinary, nullable=False, comment="The event in Avro single-object encoding."),
    Column("occurred_at", _MOMENT, nullable=False),
    # Text of 55 characters: as the record's header has it, and as people paste it. Null, of no size, if not traced.
    Column(
        "traceparent", Text, comment="W3C trace context, by which the event's way goes on with the request's trace."
    ),
    comment="What waits for the topic. A row leaves for outbox_sent once the broker has committed its record.",
)

OUTBOX_SENT = Table(
    "outbox_sent",
    METADATA,
    Column("outbox_id", BigInteger, nullable=False),
    Column("shard", Integer, nullable=False, comment="Kafka partition."),
    Column("file_id", Uuid, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("occurred_at", _MOMENT, nullable=False),
    Column("sent_at", _MOMENT, nullable=False, comment="When the relay knew it committed; decides the partition."),
    Column("record_offset", BigInteger, nullable=False, comment="Kafka offset on partition `shard`; -1 if unknown."),
    Column("traceparent", Text, comment="As in the outbox, so that what is sent again stays in its trace."),
    postgresql_partition_by="RANGE (sent_at)",
    comment="The audit log. A partition a day, dropped whole when its time is over.",
)
# A file's history.
Index("outbox_sent_file", OUTBOX_SENT.c.file_id, OUTBOX_SENT.c.outbox_id)

RELAY_SHARDS = Table(
    "relay_shards",
    METADATA,
    Column("shard", Integer, primary_key=True),
    Column("owner", Uuid, comment="Token of one claim, never reused; null when free."),
    Column("lease_until", _MOMENT, nullable=False, comment="By this database's clock."),
)

SAGAS = Table(
    "sagas",
    METADATA,
    Column("saga_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False, comment="A kind of the step table in saga.py."),
    Column("file_id", Uuid, nullable=False),
    Column("state", Text, nullable=False, comment="running, recorded, done, compensating or compensated."),
    Column("step", Text, nullable=False, comment="The last step that was begun."),
    Column("detail", JSONB, nullable=False, comment="Objects that it made or made garbage, for whoever resumes it."),
    Column("error", Text, comment="Why it was compensated or is not done yet."),
    Column("owner", Uuid, comment="Token of who works on it; fresh for each saga and each resumption."),
    Column(
        "lease_until", _MOMENT, nullable=False, comment="From here on anybody may resume it, by this database's clock."
    ),
    Column("attempts", Integer, nullable=False, comment="Resumptions; they wait longer each time."),
    Column("actor", Text, nullable=False, comment="Who asked for the change."),
    Column("revision", BigInteger, comment="Of the file, once the change is recorded."),
    Column("started_at", _MOMENT, nullable=False, server_default=text("now()")),
    Column("updated_at", _MOMENT, nullable=False, server_default=text("now()")),
)
# The few sagas that are under way or stuck, among the many that ended: what can be resumed now.
Index("sagas_unfinished", SAGAS.c.lease_until, postgresql_where=text("state NOT IN ('done', 'compensated')"))
# The list, newest first; the sweeper walks it from the other end.
Index("sagas_newest", SAGAS.c.started_at.desc(), SAGAS.c.saga_id)
# What happened to one file.
Index("sagas_file", SAGAS.c.file_id)

IDEMPOTENCY_KEYS = Table(
    "idempotency_keys",
    METADATA,
    Column("key", Text, primary_key=True, comment="As the client chose it."),
    Column("saga_id", Uuid, nullable=False, comment="The saga that holds the key."),
    Column("fingerprint", LargeBinary, comment="SHA-256 of what was asked; null while it is under way."),
    Column("answer", JSONB, comment="The file as it was answered; null while it is under way."),
    Column("created_at", _MOMENT, nullable=False, server_default=text("now()")),
)
# The sweeper forgets the oldest.
Index("idempotency_keys_age", IDEMPOTENCY_KEYS.c.created_at)

STORAGE_ELEMENTS = Table(
    "storage_elements",
    METADATA,
    Column("element_id", Text, primary_key=True),
    Column("url", Text, nullable=False, comment="Where it is, without secrets; those are in the environment."),
    Column("mode", Text, nullable=False, comment="online, read_only or offline, as an operator decides."),
    Column("capacity_bytes", BigInteger, comment="New files go elsewhere above this; null when it has no bound."),
    Column("marked", Boolean, nullable=False, server_default=text("false"), comment="Its place carries its mark."),
    Column("health_error", Text, comment="Why the last check failed; null when it succeeded."),
    Column("checked_at", _MOMENT),
    Column("registered_at", _MOMENT, nullable=False, server_default=text("now()")),
)

STORAGE_USAGE = Table(
    "storage_usage",
    METADATA,
    Column("element_id", Text, primary_key=True, comment="May be unknown to the registry: no foreign key."),
    # One counter a row, by connection: one row an element would make all uploads wait for each other's commits.
    Column("slot", SmallInteger, primary_key=True),
    Column("used_bytes", BigInteger, nullable=False, comment="A share of the sum; may be negative by itself."),
)

ADMIN_ACTIONS = Table(
    "admin_actions",
    METADATA,
    Column("action_id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", _MOMENT, nullable=False, server_default=text("now()")),
    Column("actor", Text, nullable=False, comment="As X-Actor said, or the user who ran the verb."),
    Column("action", Text, nullable=False, comment="A word of actions.Did."),
    Column("subject", Text, nullable=False, comment="The storage element, the source, or what files."),
    Column("detail", JSONB, nullable=False, comment="With what settings; what it was before."),
)

BACKFILLS = Table(
    "backfills",
    METADATA,
    Column("source", Text, primary_key=True, comment="Host, port, database and table, without a password."),
    Column("key_column", Text, nullable=False, comment="Of the source's table. By another one last_key means nothing."),
    Column("last_key", Text, comment="The last key of the source that was looked at; the next run goes on behind it."),
    Column("taken", BigInteger, nullable=False),
    Column("present", BigInteger, nullable=False, comment="Already in the Admin database, also as deleted."),
    Column("refused", BigInteger, nullable=False),
    Column("started_at", _MOMENT, nullable=False, server_default=text("now()")),
    Column("updated_at", _MOMENT, nullable=False, server_default=text("now()")),
    Column("finished_at", _MOMENT),
)

BACKFILL_REFUSALS = Table(
    "backfill_refusals",
    METADATA,
    Column("source", Text, primary_key=True),
    Column("key", Text, primary_key=True, comment="Of the source's row."),
    Column("reason", Text, nullable=False),
)
