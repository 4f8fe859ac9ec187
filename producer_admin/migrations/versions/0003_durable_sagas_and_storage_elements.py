"""Sagas that survive their process, answers that survive a lost connection, and a registry of storage elements."""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    """
    CREATE TABLE storage_elements (
        element_id text PRIMARY KEY CHECK (element_id ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
        url text NOT NULL,
        mode text NOT NULL DEFAULT 'online' CHECK (mode IN ('online', 'read_only', 'offline')),
        capacity_bytes bigint CHECK (capacity_bytes > 0),
        marked boolean NOT NULL DEFAULT false,
        health_error text,
        checked_at timestamptz,
        registered_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE storage_usage (
        element_id text NOT NULL,
        slot smallint NOT NULL,
        used_bytes bigint NOT NULL,
        PRIMARY KEY (element_id, slot)
    )
    """,
    """
    INSERT INTO storage_usage
    SELECT storage_element_id, 0, sum(file_size) FROM files WHERE deleted_at IS NULL GROUP BY storage_element_id
    """,
    """
    ALTER TABLE sagas
        ADD COLUMN owner uuid,
        ADD COLUMN lease_until timestamptz NOT NULL DEFAULT '-infinity',
        ADD COLUMN attempts integer NOT NULL DEFAULT 0,
        ADD COLUMN actor text NOT NULL DEFAULT 'anonymous',
        ADD COLUMN revision bigint
    """,
    # Sagas of the shape before this one do not say where their bytes are; the scrub finds those bytes.
    """
    UPDATE sagas SET state = CASE WHEN state = 'recorded' THEN 'done' ELSE 'compensated' END,
        error = coalesce(error, 'ended before sagas could be resumed; a scrub finds bytes that it may have left')
    WHERE state NOT IN ('done', 'compensated')
    """,
    "DROP INDEX sagas_unfinished",
    "CREATE INDEX sagas_unfinished ON sagas (lease_until) WHERE state NOT IN ('done', 'compensated')",
    "CREATE INDEX sagas_newest ON sagas (started_at DESC, saga_id)",
    "CREATE INDEX sagas_file ON sagas (file_id)",
    """
    CREATE TABLE idempotency_keys (
        key text PRIMARY KEY,
        saga_id uuid NOT NULL,
        fingerprint bytea,
        answer jsonb,
        created_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at)",
    "CREATE INDEX files_newest ON files (created_at DESC, file_id) WHERE deleted_at IS NULL",
    """
    CREATE INDEX files_expiring ON files (retention_expires_at)
    WHERE deleted_at IS NULL AND retention_expires_at IS NOT NULL
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("Restore a backup: unfinished sagas have no place in the shape before this one.")
