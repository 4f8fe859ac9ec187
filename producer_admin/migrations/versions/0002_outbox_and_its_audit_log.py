"""The outbox holds only what waits; what was sent is the audit log, in a partition a day."""

from alembic import op

revision = "0002"
down_revision = "0001"

STATEMENTS = (
    """
    CREATE TABLE outbox_sent (
        outbox_id bigint NOT NULL,
        shard integer NOT NULL,
        file_id uuid NOT NULL,
        revision bigint NOT NULL,
        event_id uuid NOT NULL,
        event_type text NOT NULL,
        actor text NOT NULL,
        payload bytea NOT NULL,
        occurred_at timestamptz NOT NULL,
        sent_at timestamptz NOT NULL,
        record_offset bigint NOT NULL
    ) PARTITION BY RANGE (sent_at)
    """,
    "CREATE TABLE outbox_sent_default PARTITION OF outbox_sent DEFAULT",
    "CREATE INDEX outbox_sent_file ON outbox_sent (file_id, outbox_id)",
    """
    INSERT INTO outbox_sent
    SELECT outbox_id, shard, file_id, revision, event_id, event_type, 'anonymous', payload, occurred_at, sent_at,
           coalesce(record_offset, -1)
    FROM outbox WHERE sent_at IS NOT NULL
    """,
    "DELETE FROM outbox WHERE sent_at IS NOT NULL",
    "DROP INDEX outbox_unsent, outbox_file_revision",
    """
    ALTER TABLE outbox
        DROP COLUMN sent_at,
        DROP COLUMN record_offset,
        ADD COLUMN actor text NOT NULL DEFAULT 'anonymous',
        DROP CONSTRAINT outbox_pkey,
        ADD PRIMARY KEY (shard, outbox_id)
    """,
    "ALTER TABLE outbox ALTER COLUMN actor DROP DEFAULT",
    # Rows live for a moment. By the default share of the table, dead ones would slow each poll long before a vacuum.
    "ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Restore a backup: the audit log has no place in the shape before this one.")
