"""A process that lacks what it needs waits for it and says so, and begins by itself when it is there.

Only what waiting does not mend ends it, with a sentence. Its management port answers meanwhile: it is alive, not ready.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import asyncpg
import structlog

from runtime.errors import StartError
from runtime.health import Check, Condition, NotReadyError
from runtime.postgres import AWAY, Connection, check_locale, reason
from runtime.retries import backoff, pause

TRY_SECONDS: Final = 5.0
"""How long one try takes at most."""
LONGEST_WAIT_SECONDS: Final = 2.0
"""Between tries, so that a process begins soon after what it needs."""

VERSION: Final = "SELECT version_num FROM alembic_version"

_log = structlog.get_logger()


async def wait_for(needs: Mapping[str, Check], condition: Condition, stopping: asyncio.Event) -> bool:
    """Wait until all that is needed is there.

    Args:
        needs: by name; each raises NotReadyError as long as it is not there, and anything else when it never will be
        condition: told what is waited for, and why it is not there
        stopping: ends the waiting

    Returns:
        False when told to stop before.

    Raises:
        Exception: what a need raised, other than NotReadyError.
    """
    for name, need in needs.items():
        waits, waited = backoff(LONGEST_WAIT_SECONDS), False
        while (reason := await _missing(need, stopping)) is not None:
            if stopping.is_set():
                return False
            waited = True
            if condition.unmet(f"waiting for the {name}: {reason}"):
                _log.warning(f"waiting for the {name}", error=reason)
            await pause(next(waits), stopping)
        if waited:
            _log.info(f"the {name} is there")
    condition.met()
    return not stopping.is_set()


async def _missing(need: Check, stopping: asyncio.Event) -> str | None:
    """Why it is not there, after one try; None when it is."""
    looking = asyncio.ensure_future(_ask(need))
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait((looking, stop), return_when=asyncio.FIRST_COMPLETED)
        return looking.result() if looking.done() else "told to stop"
    finally:
        for task in (looking, stop):
            task.cancel()
        await asyncio.wait((looking, stop))


async def _ask(need: Check) -> str | None:
    try:
        async with asyncio.timeout(TRY_SECONDS):
            await need()
    except NotReadyError as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {TRY_SECONDS:g} s"
    return None


async def require_database(pool: asyncpg.Pool, migrations: Path) -> None:
    """Return when a pool's database is there and has the shape that this program needs.

    Args:
        pool: its connections
        migrations: the folder of the steps to that shape

    Raises:
        NotReadyError: it is away.
        StartError: it is there, and is not the one.
    """
    try:
        async with pool.acquire() as connection:
            await check_database(connection, migrations)
    except (*AWAY, OSError, asyncpg.PostgresError) as error:
        raise unusable(error, passes=isinstance(error, (*AWAY, OSError))) from error


def unusable(error: BaseException, *, passes: bool) -> NotReadyError | StartError:
    """What the driver's error means to a process that begins, which waits for what may pass."""
    if isinstance(error, asyncpg.exceptions.ClientConfigurationError):
        return StartError(f"The database's URL is wrong: {error}")
    return NotReadyError(reason(error)) if passes else StartError(f"The database refuses: {reason(error)}")


async def check_database(connection: Connection, migrations: Path) -> None:
    """Refuse a database that this program cannot work with.

    Raises:
        StartError: it folds no Cyrillic case, or was never migrated, or not far enough, or does not let us look.
    """
    await check_locale(connection)
    verb = f"python -m {migrations.parent.name} migrate"
    try:
        found = await connection.fetchval(VERSION)
    except asyncpg.UndefinedTableError:
        raise StartError(f"This database has never been migrated. Run: {verb}") from None
    known = versions(migrations)
    # One that is not known is of a newer program, which sees to it that older ones can go on meanwhile.
    if found in known[:-1]:
        raise StartError(f"This database is at version {found}, and this program needs {known[-1]}. Run: {verb}")


def versions(migrations: Path) -> list[str]:
    """Of a database's shape, oldest first, as the names of the files begin: cheaper than asking Alembic."""
    return sorted(path.name.partition("_")[0] for path in migrations.glob("versions/[0-9]*.py"))
