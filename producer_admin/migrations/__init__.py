"""How database `artstore_admin` came to its shape, step by step. `migrate` takes it to the newest."""

from pathlib import Path

from producer_admin.roles import ACCESS
from producer_admin.settings import AdminDatabaseSettings
from producer_admin.tables import METADATA
from runtime.migrations import migrate


async def run_migrate(settings: AdminDatabaseSettings) -> None:
    """Bring the Admin database to its newest shape."""
    await migrate(settings.admin_database_url.get_secret_value(), Path(__file__).parent, METADATA, ACCESS)
