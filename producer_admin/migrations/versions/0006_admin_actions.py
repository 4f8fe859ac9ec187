"""What operators did, beside changes of files: those are in the outbox and its audit log."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE admin_actions (
            action_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            at timestamptz NOT NULL DEFAULT now(),
            actor text NOT NULL,
            action text NOT NULL,
            subject text NOT NULL,
            detail jsonb NOT NULL
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE admin_actions")
