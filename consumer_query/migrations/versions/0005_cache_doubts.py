"""What speaks against a generation of the cache."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE cache_doubts (
            generation integer NOT NULL,
            reason text NOT NULL,
            detail text NOT NULL,
            since timestamptz NOT NULL DEFAULT now(),
            rebuild uuid,
            PRIMARY KEY (generation, reason)
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE cache_doubts")
