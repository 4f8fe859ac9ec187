"""A search can change nothing, a projector no table, and the generations belong to who makes and swaps them.

artstore_query_migrate    owns all tables but those of the cache; the verb migrate
artstore_query_maintain   owns the generations and the view; maintenance
artstore_query_write      projector; api, for all but searches
artstore_query_read       searches of the api (QUERY_SEARCH_DATABASE_URL)
"""

from typing import Final

from runtime.roles import Access, Owner

MAINTAIN: Final = "artstore_query_maintain"

STATEMENTS: Final = (
    "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
    """
    GRANT CONNECT ON DATABASE {database}
    TO artstore_query_migrate, artstore_query_maintain, artstore_query_write, artstore_query_read
    """,
    # Counting lexemes and reading the topic for a comparison.
    "GRANT TEMPORARY ON DATABASE {database} TO artstore_query_maintain",
    "REVOKE ALL ON SCHEMA public FROM PUBLIC",
    """
    GRANT USAGE ON SCHEMA public
    TO artstore_query_migrate, artstore_query_maintain, artstore_query_write, artstore_query_read
    """,
    "GRANT CREATE ON SCHEMA public TO artstore_query_migrate, artstore_query_maintain",
    # Here, so that migrate need not be allowed to make extensions.
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    # It makes the first generation, and only on purpose is it who may drop one.
    "GRANT artstore_query_maintain TO artstore_query_migrate WITH INHERIT FALSE, SET TRUE",
    """
    ALTER DEFAULT PRIVILEGES FOR ROLE artstore_query_migrate, artstore_query_maintain
    REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC
    """,
    # Of the generations that rebuilds will make; whoever reads goes through the view.
    """
    ALTER DEFAULT PRIVILEGES FOR ROLE artstore_query_maintain IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE ON TABLES TO artstore_query_write
    """,
)

OF_MIGRATE: Final = {
    "alembic_version": "GRANT SELECT ON {name} TO artstore_query_maintain, artstore_query_write, artstore_query_read",
    # A share lock asks for the right to update something; `single` can have one value only.
    "cache_generation": """
        GRANT SELECT, INSERT, UPDATE ON {name} TO artstore_query_maintain;
        GRANT SELECT, UPDATE (single) ON {name} TO artstore_query_write;
        GRANT SELECT ON {name} TO artstore_query_read
    """,
    "projector_positions": """
        GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO artstore_query_maintain;
        GRANT SELECT, INSERT, UPDATE ON {name} TO artstore_query_write;
        GRANT SELECT ON {name} TO artstore_query_read
    """,
    "generations": """
        GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO artstore_query_maintain;
        GRANT SELECT ON {name} TO artstore_query_write
    """,
    "rebuild_jobs": """
        GRANT SELECT, UPDATE ON {name} TO artstore_query_maintain;
        GRANT SELECT, INSERT, UPDATE ON {name} TO artstore_query_write
    """,
    "rebuild_partitions": """
        GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO artstore_query_maintain;
        GRANT SELECT ON {name} TO artstore_query_write
    """,
    "cache_doubts": """
        GRANT SELECT, DELETE ON {name} TO artstore_query_maintain;
        GRANT SELECT, INSERT, UPDATE ON {name} TO artstore_query_write
    """,
    "sync_reports": """
        GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO artstore_query_maintain;
        GRANT SELECT, INSERT ON {name} TO artstore_query_write
    """,
    "query_lexemes": """
        GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO artstore_query_maintain;
        GRANT SELECT ON {name} TO artstore_query_write, artstore_query_read
    """,
    "query_lexemes_counted": """
        GRANT SELECT, INSERT, UPDATE ON {name} TO artstore_query_maintain;
        GRANT SELECT ON {name} TO artstore_query_write, artstore_query_read
    """,
    # Searches sign and read cursors.
    "search_secret": "GRANT SELECT ON {name} TO artstore_query_write, artstore_query_read",  # pragma: allowlist secret
    "cache_rows?": "GRANT USAGE ON TYPE {name} TO artstore_query_maintain, artstore_query_write",
}

OF_MAINTAIN: Final = {
    "file_metadata_cache": "GRANT SELECT ON {name} TO artstore_query_write, artstore_query_read",
    # Deletions are rows too.
    "file_metadata_cache_g[0-9]+": "GRANT SELECT, INSERT, UPDATE ON {name} TO artstore_query_write",
    "empty_pending_list": "GRANT EXECUTE ON FUNCTION {name} TO artstore_query_write",
    # Refuses the live one.
    "drop_generation": "GRANT EXECUTE ON FUNCTION {name} TO artstore_query_write",
}

ACCESS: Final = Access(
    roles={
        "migrate": "artstore_query_migrate",
        "maintain": MAINTAIN,
        "write": "artstore_query_write",
        "read": "artstore_query_read",
    },
    owners=(Owner("artstore_query_migrate", OF_MIGRATE), Owner(MAINTAIN, OF_MAINTAIN)),
    statements=STATEMENTS,
)
