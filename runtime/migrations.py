"""A database is brought to its newest shape by one process at a time; a second one waits and finds nothing to do."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, text

from runtime.engine import AWAY, of_driver, open_engine
from runtime.postgres import check_locale, unreachable
from runtime.roles import BECOME_FOR_GOOD, Access, grant_anew

MIGRATION_LOCK = 7_291_004
"""Advisory lock: any number will do, as long as every migrating process uses the same."""


async def migrate(url: str, scripts: Path, metadata: MetaData, access: Access) -> None:
    """Upgrade the database at `url` with the scripts in the folder `scripts`, as the role that owns its tables.

    Where there is such a role; what others may do with them is granted anew then.

    Raises:
        UrlError, UnreachableError: see `postgres.connect`.
        WrongLocaleError: the database has a locale that search cannot live with.
    """
    engine = open_engine(url, "migrate", pool_size=1, patient=True)
    try:
        async with AsyncExitStack() as opened:
            try:
                connection = await opened.enter_async_context(engine.connect())
            except AWAY as error:
                raise unreachable(of_driver(error)) from error
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await check_locale(driver)
            await driver.execute(BECOME_FOR_GOOD, access.owners[0].role)
            await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
            await connection.commit()
            await connection.run_sync(_upgrade, scripts, metadata)
            await connection.commit()
            await grant_anew(driver, access)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, scripts: Path, metadata: MetaData) -> None:
    config = Config()
    config.set_main_option("script_location", str(scripts))
    directory = ScriptDirectory.from_config(config)
    with EnvironmentContext(
        config,
        directory,
        # The way that Alembic's own upgrade command goes, on a connection that is already open.
        fn=lambda revision, _: directory._upgrade_revs("head", revision),  # noqa: SLF001
        destination_rev="head",
    ) as environment:
        environment.configure(connection=connection, target_metadata=metadata)
        with environment.begin_transaction():
            environment.run_migrations()
