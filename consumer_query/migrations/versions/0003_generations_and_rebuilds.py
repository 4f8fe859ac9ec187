"""Positions of each generation, the generations that exist, and the jobs that make new ones."""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    "ALTER TABLE projector_positions ADD COLUMN generation integer",
    "UPDATE projector_positions SET generation = coalesce((SELECT live FROM cache_generation), 1)",
    "ALTER TABLE projector_positions DROP CONSTRAINT projector_positions_pkey",
    "ALTER TABLE projector_positions ADD PRIMARY KEY (generation, topic, partition)",
    """
    ALTER TABLE projector_positions
        ADD COLUMN reached_offset bigint NOT NULL DEFAULT 0,
        ADD COLUMN caught_up_at timestamptz NOT NULL DEFAULT now(),
        ADD COLUMN cluster_id text,
        ADD COLUMN witness_offset bigint,
        ADD COLUMN witness bytea
    """,
    """
    CREATE TABLE generations (
        generation integer PRIMARY KEY,
        shape integer NOT NULL,
        analyzer integer NOT NULL,
        made_at timestamptz NOT NULL DEFAULT now(),
        retired_at timestamptz
    )
    """,
    """
    INSERT INTO generations (generation, shape, analyzer, made_at)
    SELECT live, shape, analyzer, since FROM cache_generation
    """,
    """
    CREATE TABLE rebuild_jobs (
        job_id uuid PRIMARY KEY,
        kind text NOT NULL CHECK (kind IN ('rebuild', 'rollback')),
        phase text NOT NULL,
        wish text NOT NULL DEFAULT 'run' CHECK (wish IN ('run', 'pause', 'cancel')),
        force boolean NOT NULL,
        rows_per_second integer CHECK (rows_per_second > 0),
        requested_by text NOT NULL,
        reason text NOT NULL,
        requested_at timestamptz NOT NULL DEFAULT now(),
        started_at timestamptz,
        phase_since timestamptz NOT NULL DEFAULT now(),
        finished_at timestamptz,
        generation integer,
        starts integer NOT NULL DEFAULT 0,
        trouble text,
        parity jsonb,
        owner uuid,
        leased_until timestamptz
    )
    """,
    "CREATE UNIQUE INDEX rebuild_jobs_one_at_a_time ON rebuild_jobs ((true)) WHERE finished_at IS NULL",
    "CREATE INDEX rebuild_jobs_newest ON rebuild_jobs (requested_at DESC)",
    """
    CREATE TABLE rebuild_partitions (
        job_id uuid NOT NULL REFERENCES rebuild_jobs ON DELETE CASCADE,
        partition integer NOT NULL,
        first_offset bigint NOT NULL,
        next_offset bigint NOT NULL,
        target_offset bigint NOT NULL,
        records bigint NOT NULL DEFAULT 0,
        rows bigint NOT NULL DEFAULT 0,
        refused bytea[] NOT NULL DEFAULT '{}',
        begun_at timestamptz NOT NULL DEFAULT now(),
        loaded_at timestamptz,
        PRIMARY KEY (job_id, partition)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE rebuild_partitions, rebuild_jobs, generations")
    op.execute("DELETE FROM projector_positions WHERE generation <> (SELECT live FROM cache_generation)")
    op.execute(
        "ALTER TABLE projector_positions DROP COLUMN generation, DROP COLUMN reached_offset, DROP COLUMN caught_up_at, "
        "DROP COLUMN cluster_id, DROP COLUMN witness_offset, DROP COLUMN witness"
    )
    op.execute("ALTER TABLE projector_positions ADD PRIMARY KEY (topic, partition)")
