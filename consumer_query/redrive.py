"""A dead letter is tried again through the same fence as any record, or its file is asked for anew; never rewritten.

    letters of a selection  →  read  →  newer in the cache?  →  apply in a transaction of its own  →  resolution

The topic of file events is not written to and no position moves. A letter is marked after its rows are committed: a
crash between the two leaves it open, and the next try finds it superseded. A passing fault stops the call and marks
nothing; whatever else is wrong is that letter's, and the next one has its turn.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import asyncpg
import httpx
import structlog
from aiokafka.errors import KafkaError

from consumer_query import generations, read_model
from consumer_query.dead_letter_log import Brief, DeadLetterLog, Listed, Selection, told
from consumer_query.dead_letters import FOREIGN, DeadLetter
from consumer_query.errors import DeadLettersAwayError, DeadLettersNotSetUpError, QueryError
from consumer_query.faults import Fault, fault_of
from consumer_query.read_model import Row
from consumer_query.records import RecordReader
from consumer_query.resolutions import Resolution, Status, resolved
from runtime.postgres import Connection
from schemas.codec import UnknownSchemaError
from schemas.registry import RegistryError

ATTEMPTS: Final = 5
"""Redrives that fail before a letter has to be asked for by force."""
CHUNK: Final = 50
"""Letters whose resolutions are written at once; what a crash may have to do again."""
LARGEST_AT_LEAST: Final = 2**62
"""Beyond it the Admin module could not count on."""

_log = structlog.get_logger()


class Outcome(NamedTuple):
    """What became of one letter, and a sentence about it."""

    status: Status
    note: str = ""


class Republisher(Protocol):
    """Who can announce a file anew."""

    async def republish(self, file_id: UUID, at_least: int, actor: str) -> bool:
        """Announce a file under a revision greater than `at_least`; False where the file is unknown.

        Raises:
            DeadLettersAwayError: there is no telling now.
        """
        ...


@dataclass(frozen=True)
class Order:
    """What an operator wants done, and how far one call may go."""

    selection: Selection
    actor: str
    begin: int = 0
    """Offset on the topic of dead letters."""
    limit: int = 100
    dry_run: bool = False
    force: bool = False
    """Also letters that failed ATTEMPTS times."""
    note: str = ""


@dataclass
class Done:
    """What one call did."""

    outcomes: Counter[Status] = field(default_factory=Counter)
    letters: list[tuple[Brief, Outcome]] = field(default_factory=list)
    left: int = 0
    """Letters of the selection that this call did not come to."""
    exhausted: int = 0
    """Letters that failed too often and were left alone."""
    next_cursor: int | None = None


class _RolledBackError(Exception):
    """Ends the transaction of a dry run."""


Act = Callable[[DeadLetter, Order], Awaitable[Outcome]]


class Redrive:
    """Acts on dead letters, one call at a time in this process: two at once would overwrite each other's history."""

    def __init__(
        self, pool: asyncpg.Pool, log: DeadLetterLog, reader: RecordReader, republisher: Republisher | None
    ) -> None:
        self._pool = pool
        self._letters = log
        self._reader = reader
        self._republisher = republisher
        self._alone = asyncio.Lock()

    async def redrive(self, order: Order) -> Done:
        """Try letters again.

        Raises:
            DeadLettersAwayError: something is away; what was done before is marked.
        """
        return await self._each(order, "redrive", self._apply, most=None if order.force else ATTEMPTS)

    async def republish(self, order: Order) -> Done:
        """Have the Admin module announce the letters' files anew. Raises as `redrive` does."""
        return await self._each(order, "republish", self._republish, most=None if order.force else ATTEMPTS)

    async def drop(self, order: Order) -> Done:
        """Mark letters as not worth another try. Raises as `redrive` does."""

        async def drop(_letter: DeadLetter, order: Order) -> Outcome:
            return Outcome(Status.DROPPED, order.note)

        return await self._each(order, "drop", drop, most=None)

    async def _each(self, order: Order, action: str, act: Act, most: int | None) -> Done:
        done = Done()
        marks: list[tuple[DeadLetter, Resolution]] = []
        async with self._alone, aclosing(self._letters.read(order.begin)) as letters:
            try:
                async for one in letters:
                    if not one.status.is_open or not order.selection.has(one):
                        continue
                    if most is not None and _attempts(one) >= most:
                        done.exhausted += done.next_cursor is None  # those behind the cursor are the next call's
                    elif len(done.letters) == order.limit:
                        done.next_cursor = one.offset if done.next_cursor is None else done.next_cursor
                        done.left += 1
                    else:
                        outcome = await act(one.letter, order)
                        done.outcomes[outcome.status] += 1
                        done.letters.append((Brief.of(one), outcome))
                        marks.append(_mark(one, outcome, order, action))
                        if len(marks) == CHUNK:
                            await self._write(marks, order)
            finally:
                await self._write(marks, order)
        return done

    async def _write(self, marks: list[tuple[DeadLetter, Resolution]], order: Order) -> None:
        if not order.dry_run:
            try:
                await self._letters.resolutions.put(marks)
            except (KafkaError, TimeoutError) as error:
                raise DeadLettersAwayError(
                    f"{len(marks)} letters could not be marked, Kafka does not answer: {type(error).__name__}: {error}"
                ) from error
        marks.clear()

    async def _apply(self, letter: DeadLetter, order: Order) -> Outcome:
        if letter.reason == FOREIGN:
            return Outcome(Status.FAILED, "Nobody put this record aside; only drop it.")
        try:
            try:
                state = await self._reader.read(letter.key, letter.value, _headers(letter))
                row = read_model.row_of(state)
            except Exception as unreadable:  # noqa: BLE001 - whatever it is, it passes or it is this letter's
                return await self._superseded(letter) or _failed(letter, unreadable)
            async with self._pool.acquire() as connection:
                known = await _known_revision(connection, state.file_id)
                if known >= state.revision:
                    return _superseded_by(known)
                changed = await _apply(connection, row, dry_run=order.dry_run)
        except DeadLettersAwayError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            return _failed(letter, error)
        return Outcome(Status.REDRIVEN) if changed else Outcome(Status.SUPERSEDED, "The cache was changed meanwhile.")

    async def _republish(self, letter: DeadLetter, order: Order) -> Outcome:
        said = told(letter)
        if letter.reason == FOREIGN or said.file_id is None:
            return Outcome(Status.FAILED, "It does not say which file it is about.")
        try:
            if (outcome := await self._superseded(letter)) is not None:
                return outcome
        except Exception as error:  # noqa: BLE001 - as above
            return _failed(letter, error)
        if self._republisher is None:
            raise DeadLettersNotSetUpError("Set ADMIN_API_URL: the Query API was not told where the Admin API is.")
        if (said.revision or 0) > LARGEST_AT_LEAST:
            return Outcome(Status.FAILED, f"Revision {said.revision} leaves no room for a greater one.")
        if order.dry_run:
            return Outcome(Status.REPUBLISHED)
        if await self._republisher.republish(said.file_id, said.revision or 0, order.actor):
            return Outcome(Status.REPUBLISHED)
        return Outcome(Status.FAILED, f"The Admin module knows no file {said.file_id}.")

    async def _superseded(self, letter: DeadLetter) -> Outcome | None:
        """Whether the cache holds the letter's revision or a newer one, told without reading its value."""
        said = told(letter)
        if said.file_id is None or said.revision is None:
            return None
        async with self._pool.acquire() as connection:
            known = await _known_revision(connection, str(said.file_id))
        return _superseded_by(known) if known >= said.revision else None


async def _known_revision(connection: Connection, file_id: str) -> int:
    """The revision that the cache holds of a file, 0 when it has none."""
    generation = await generations.live(connection)
    return (await read_model.revisions(connection, generation, [file_id])).get(file_id, 0)


async def _apply(connection: Connection, row: Row, *, dry_run: bool) -> int:
    """Apply one row in a transaction of its own, which a dry run rolls back. Rows changed."""
    await read_model.teach(connection)
    changed = 0
    try:
        async with connection.transaction():
            changed = await read_model.apply(connection, await generations.hold_live(connection), [row])
            if dry_run:
                raise _RolledBackError
    except _RolledBackError:
        return changed
    return changed


def _headers(letter: DeadLetter) -> dict[str, bytes]:
    return {name: value for name, value in letter.headers if value is not None}


def _superseded_by(revision: int) -> Outcome:
    return Outcome(Status.SUPERSEDED, f"The cache holds revision {revision}.")


def _failed(letter: DeadLetter, error: Exception) -> Outcome:
    """What an error means for its letter.

    Raises:
        DeadLettersAwayError: nothing: it passes.
    """
    if isinstance(error, RegistryError) and not _refused(error):
        raise DeadLettersAwayError(str(error)) from error
    fault = fault_of(error)
    if fault is Fault.PASSING:
        raise DeadLettersAwayError(f"The query database does not answer: {type(error).__name__}: {error}") from error
    if fault is Fault.UNKNOWN and not isinstance(error, (QueryError, UnknownSchemaError, RegistryError)):
        _log.error("unforeseen error in a redrive", exc_info=error, **letter.named)
    return Outcome(Status.FAILED, f"{type(error).__name__}: {error}")


def _refused(error: RegistryError) -> bool:
    """Whether the registry answered that it does not have the schema, which asking again will not change."""
    cause = error.__cause__
    return isinstance(cause, httpx.HTTPStatusError) and cause.response.is_client_error


def _attempts(one: Listed) -> int:
    """Redrives of this very letter that failed."""
    if one.resolution is None or one.status is not Status.FAILED:
        return 0
    return one.resolution.attempts


def _mark(one: Listed, outcome: Outcome, order: Order, action: str) -> tuple[DeadLetter, Resolution]:
    """The letter without what makes it large, and its new resolution."""
    resolution = resolved(
        one.letter,
        one.resolution,
        outcome.status,
        at=datetime.now(UTC),
        actor=order.actor,
        action=action,
        note=outcome.note,
    )
    return replace(one.letter, value=None, headers=()), resolution
