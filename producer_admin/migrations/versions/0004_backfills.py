"""How far a take-over of an older database has come, and what it had to leave out."""

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    """
    CREATE TABLE backfills (
        source text PRIMARY KEY,
        key_column text NOT NULL,
        last_key text,
        taken bigint NOT NULL DEFAULT 0,
        present bigint NOT NULL DEFAULT 0,
        refused bigint NOT NULL DEFAULT 0,
        started_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz
    )
    """,
    """
    CREATE TABLE backfill_refusals (
        source text NOT NULL REFERENCES backfills ON DELETE CASCADE,
        key text NOT NULL,
        reason text NOT NULL,
        PRIMARY KEY (source, key)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE backfill_refusals, backfills")
