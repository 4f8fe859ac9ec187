"""How database `artstore_query` came to its shape, step by step. `migrate` takes it to the newest."""

from pathlib import Path

from consumer_query import generations
from consumer_query.roles import ACCESS
from consumer_query.settings import QueryDatabaseSettings
from consumer_query.tables import METADATA
from runtime.migrations import migrate
from runtime.postgres import connect
from runtime.roles import grant_anew


async def run_migrate(settings: QueryDatabaseSettings) -> None:
    """Bring the Query database to its newest shape and make the first generation of the cache."""
    url = settings.query_database_url.get_secret_value()
    await migrate(url, Path(__file__).parent, METADATA, ACCESS)
    connection = await connect(url, "migrate")
    try:
        await generations.ensure_first(connection)
        await grant_anew(connection, ACCESS)
    finally:
        await connection.close()
