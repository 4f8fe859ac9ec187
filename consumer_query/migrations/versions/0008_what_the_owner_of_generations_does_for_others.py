"""What only the owner of the generations may do, and the projector and the API need: by functions of that owner."""

from alembic import op

revision = "0008"
down_revision = "0007"

STATEMENTS = (
    """
    CREATE FUNCTION empty_pending_list(index regclass) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'SELECT gin_clean_pending_list(index)'
    """,
    """
    CREATE FUNCTION drop_generation(number integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    BEGIN
        IF EXISTS (SELECT FROM cache_generation WHERE live = number) THEN
            RAISE EXCEPTION 'generation % is live', number;
        END IF;
        EXECUTE format('DROP TABLE IF EXISTS %I', 'file_metadata_cache_g' || number);
        DELETE FROM cache_doubts WHERE generation = number;
        DELETE FROM projector_positions WHERE generation = number;
        DELETE FROM generations WHERE generation = number;
    END $$
    """,
    "REVOKE ALL ON FUNCTION empty_pending_list, drop_generation FROM PUBLIC",
    # Where the roles of docs/postgres-access.md were made for this database, that owner is not who migrates.
    """
    DO $$ BEGIN
        IF EXISTS (
            SELECT FROM pg_roles WHERE rolname = 'artstore_query_maintain' AND oid IN (
                SELECT grantee FROM pg_namespace, aclexplode(nspacl)
                WHERE nspname = 'public' AND privilege_type = 'CREATE'
            )
        ) THEN
            ALTER FUNCTION empty_pending_list OWNER TO artstore_query_maintain;
            ALTER FUNCTION drop_generation OWNER TO artstore_query_maintain;
        END IF;
    END $$
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION empty_pending_list, drop_generation")
