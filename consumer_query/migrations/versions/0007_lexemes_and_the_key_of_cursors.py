"""How many files have each lexeme, and the key by which cursors are signed."""

import secrets

import sqlalchemy
from alembic import op

revision = "0007"
down_revision = "0006"

STATEMENTS = (
    # Trusted: the owner of a database may create it (PostgreSQL, F.35.2).
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    """
    CREATE TABLE query_lexemes (
        lexeme text COLLATE "C" PRIMARY KEY,
        files integer NOT NULL
    ) WITH (fillfactor = 80)
    """,
    """
    CREATE INDEX query_lexemes_alike ON query_lexemes
    USING gin (
        translate(lexeme, 'абвгдежзийклмнопрстуфхцчшщъыьэюя', 'abwgdeqziyklmnoprstufhc123456789') gin_trgm_ops
    ) WHERE lexeme !~ '[0-9:=]'
    """,
    """
    CREATE TABLE query_lexemes_counted (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        generation integer NOT NULL,
        files bigint NOT NULL,
        changes bigint NOT NULL,
        counted_at timestamptz NOT NULL,
        seconds double precision NOT NULL
    )
    """,
    """
    CREATE TABLE search_secret (
        single boolean PRIMARY KEY DEFAULT true CHECK (single),
        key bytea NOT NULL CHECK (length(key) = 32)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)
    key = sqlalchemy.text("INSERT INTO search_secret (key) VALUES (:key)")
    op.execute(key.bindparams(key=secrets.token_bytes(32)))


def downgrade() -> None:
    # The extension stays: others may use it by now.
    op.execute("DROP TABLE query_lexemes, query_lexemes_counted, search_secret")
