"""Files, their outbox, its shards and the saga log."""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE files (
        file_id uuid PRIMARY KEY,
        revision bigint NOT NULL CHECK (revision >= 1),
        storage_element_id text NOT NULL,
        original_filename text NOT NULL,
        storage_filename text NOT NULL,
        file_size bigint NOT NULL CHECK (file_size >= 0),
        mime_type text NOT NULL,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        created_by_username text NOT NULL,
        created_by_fullname text,
        description text,
        version text,
        tags text[] NOT NULL,
        storage_path text NOT NULL,
        checksum text NOT NULL,
        retention_expires_at timestamptz,
        deleted_at timestamptz
    )
    """,
    """
    CREATE TABLE outbox (
        outbox_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        shard integer NOT NULL,
        file_id uuid NOT NULL,
        revision bigint NOT NULL,
        event_id uuid NOT NULL,
        event_type text NOT NULL,
        payload bytea NOT NULL,
        occurred_at timestamptz NOT NULL,
        sent_at timestamptz,
        record_offset bigint
    )
    """,
    "CREATE INDEX outbox_unsent ON outbox (shard, outbox_id) WHERE sent_at IS NULL",
    "CREATE UNIQUE INDEX outbox_file_revision ON outbox (file_id, revision)",
    """
    CREATE TABLE relay_shards (
        shard integer PRIMARY KEY,
        owner uuid,
        lease_until timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE sagas (
        saga_id uuid PRIMARY KEY,
        kind text NOT NULL,
        file_id uuid NOT NULL,
        state text NOT NULL CHECK (state IN ('running', 'recorded', 'done', 'compensating', 'compensated')),
        step text NOT NULL,
        detail jsonb NOT NULL,
        error text,
        started_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX sagas_unfinished ON sagas (updated_at) WHERE state NOT IN ('done', 'compensated')",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE sagas, relay_shards, outbox, files")
