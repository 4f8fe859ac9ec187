"""By which analyzer the words of the live generation were made."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Generations made before this column had Postgres' own analysis, which is version 1.
    op.execute("ALTER TABLE cache_generation ADD COLUMN analyzer integer NOT NULL DEFAULT 1")
    op.execute("ALTER TABLE cache_generation ALTER COLUMN analyzer DROP DEFAULT")


def downgrade() -> None:
    op.execute("ALTER TABLE cache_generation DROP COLUMN analyzer")
