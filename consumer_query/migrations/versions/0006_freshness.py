"""When the rows held all of the log, told about once a second."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # Unknown until a projector has told it; no index, so that telling it stays an update in place.
    op.execute("ALTER TABLE projector_positions ADD COLUMN fresh_at timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE projector_positions DROP COLUMN fresh_at")
