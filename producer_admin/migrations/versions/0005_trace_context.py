"""The trace that a change belongs to, kept with its event until it is sent, and with what was sent."""

from alembic import op

revision = "0005"
down_revision = "0004"

# Without a default, so that no row is rewritten. A row that is not traced has it null, which takes no room.
STATEMENTS = (
    "ALTER TABLE outbox ADD COLUMN traceparent text",
    "ALTER TABLE outbox_sent ADD COLUMN traceparent text",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE outbox DROP COLUMN traceparent")
    op.execute("ALTER TABLE outbox_sent DROP COLUMN traceparent")
