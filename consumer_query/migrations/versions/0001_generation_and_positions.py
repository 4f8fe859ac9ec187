"""The live generation's number, and the positions up to which partitions are applied."""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE cache_generation (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        live integer NOT NULL,
        shape integer NOT NULL,
        since timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE projector_positions (
        topic text,
        partition integer,
        next_offset bigint NOT NULL CHECK (next_offset >= 0),
        moved_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (topic, partition)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE projector_positions, cache_generation")
