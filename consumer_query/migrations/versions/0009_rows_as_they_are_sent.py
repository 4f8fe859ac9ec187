"""The type in which rows of the cache are sent. The driver takes bytes for a domain, but for no array."""

from alembic import op

revision = "0009"
down_revision = "0008"

STATEMENTS = (
    """
    CREATE TYPE cache_row AS (
        file_id uuid, revision bigint, deleted boolean, storage_element_id text, original_filename text,
        storage_filename text, file_size bigint, mime_type text, created_at timestamptz, updated_at timestamptz,
        created_by_username text, created_by_fullname text, description text, version text, tags text[],
        storage_path text, checksum text, retention_expires_at timestamptz, search tsvector
    )
    """,
    "CREATE DOMAIN cache_rows AS cache_row[]",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP DOMAIN cache_rows")
    op.execute("DROP TYPE cache_row")
