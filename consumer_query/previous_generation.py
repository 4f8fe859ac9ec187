"""The generation that was live before: a rollback goes back to it. It is removed only while nobody can swap it in."""

from typing import ClassVar, Final

import asyncpg

from consumer_query import generations, rebuild_jobs
from consumer_query.analysis import ANALYZER
from consumer_query.errors import QueryError
from consumer_query.generations import HOLD, SHAPE, Generation
from consumer_query.rebuild_jobs import Kind, RebuildRunsError

WAIT_FOR_SEARCHES: Final = "SET LOCAL lock_timeout = '2s'"
"""A search that began before the last swap may read it still."""


class NoPreviousGenerationError(QueryError):
    """There is nothing to go back to."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "No previous generation"


class PreviousOfAnotherShapeError(QueryError):
    """This program could not write into the previous generation."""

    status: ClassVar[int] = 409
    title: ClassVar[str] = "The previous generation has another shape"


class PreviousInUseError(QueryError):
    """The previous generation cannot be removed at this moment."""

    status: ClassVar[int] = 503
    title: ClassVar[str] = "The previous generation is in use"
    retryable: ClassVar[bool] = True


async def require(pool: asyncpg.Pool) -> Generation:
    """The generation that can be caught up and swapped in.

    Raises:
        NoPreviousGenerationError: there is none.
        PreviousOfAnotherShapeError: it is not ours to write.
    """
    found = await generations.previous(pool)
    if found is None:
        raise NoPreviousGenerationError("There is no previous generation: none was swapped out, or it was removed.")
    if not found.is_ours:
        raise PreviousOfAnotherShapeError(
            f"Generation {found.generation} has shape {found.shape} and analyzer {found.analyzer}, this program writes "
            f"{SHAPE} and {ANALYZER}. Roll back with the version of the program that made it, or rebuild."
        )
    return found


async def purge(pool: asyncpg.Pool) -> list[int]:
    """Remove all generations that were live once: their numbers.

    Raises:
        RebuildRunsError: one of them is about to be swapped in.
        PreviousInUseError: a search reads one of them.
    """
    removed: list[int] = []
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(WAIT_FOR_SEARCHES)
            # No swap can come in between, so what is the previous generation stays it.
            await connection.fetchrow(HOLD)
            job = await connection.fetchrow(rebuild_jobs.UNDER_WAY)
            while (found := await generations.previous(connection)) is not None:
                if job and job["kind"] == Kind.ROLLBACK and job["generation"] in (None, found.generation):
                    raise RebuildRunsError(
                        f"A rollback to generation {found.generation} is under way. Cancel it first."
                    )
                await generations.drop(connection, found.generation)
                removed.append(found.generation)
    except asyncpg.LockNotAvailableError as error:
        raise PreviousInUseError("A search or a swap has it now. Try again.") from error
    return removed
