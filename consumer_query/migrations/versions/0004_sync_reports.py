"""Comparisons with the Admin module: those asked for, and what they found."""

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    """
    CREATE TABLE sync_reports (
        report_id uuid PRIMARY KEY,
        side text NOT NULL CHECK (side IN ('cache', 'topic')),
        dry_run boolean NOT NULL,
        force boolean NOT NULL,
        requested_by text NOT NULL,
        requested_at timestamptz NOT NULL DEFAULT now(),
        started_at timestamptz,
        finished_at timestamptz,
        starts integer NOT NULL DEFAULT 0,
        stage text NOT NULL DEFAULT 'queued',
        outcome text,
        trouble text,
        findings jsonb,
        owner uuid,
        leased_until timestamptz
    )
    """,
    "CREATE UNIQUE INDEX sync_reports_one_at_a_time ON sync_reports ((true)) WHERE finished_at IS NULL",
    "CREATE INDEX sync_reports_newest ON sync_reports (requested_at DESC)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE sync_reports")
