"""The shape of database `artstore_admin`. Each column and index says why it is there; `migrations/` makes them."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
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

OUTBOX = Table(
    "outbox",
    METADATA,
    Column("outbox_id", BigInteger, Identity(always=True), primary_key=True, comment="Order of a file's changes."),
    Column("shard", Integer, nullable=False, comment="Kafka partition of the file's key."),
    Column("file_id", Uuid, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False, comment="The event in Avro single-object encoding."),
    Column("occurred_at", _MOMENT, nullable=False),
    Column("sent_at", _MOMENT, comment="Null until the broker has committed the record."),
    Column("record_offset", BigInteger, comment="Where it is on partition `shard`, for the audit."),
)
# The relay's only question: what is unsent on my shard, in order. Sent rows leave the index.
Index("outbox_unsent", OUTBOX.c.shard, OUTBOX.c.outbox_id, postgresql_where=text("sent_at IS NULL"))
# A file's history, and a second guard that no revision is announced twice.
Index("outbox_file_revision", OUTBOX.c.file_id, OUTBOX.c.revision, unique=True)

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
    Column("kind", Text, nullable=False, comment="upload, update or delete."),
    Column("file_id", Uuid, nullable=False),
    Column("state", Text, nullable=False, comment="running, recorded, done, compensating or compensated."),
    Column("step", Text, nullable=False, comment="The last step that was begun."),
    Column("detail", JSONB, nullable=False, comment="What a resumed step needs, such as the object's path."),
    Column("error", Text, comment="Why it was compensated or is stuck."),
    Column("started_at", _MOMENT, nullable=False, server_default=text("now()")),
    Column("updated_at", _MOMENT, nullable=False, server_default=text("now()")),
)
# The few sagas that are under way or stuck, among the many that ended.
Index("sagas_unfinished", SAGAS.c.updated_at, postgresql_where=text("state NOT IN ('done', 'compensated')"))
