"""A saga whose process has died is taken up by another: forward if its change was recorded, else back.

Every Admin API process does this, at its start and every few seconds. A saga is taken under a fresh token once the
lease of the last one has run out by the database's clock, and what was not recorded is given up in that statement: a
process that was only paused finds itself out of the saga when it wakes, and removes what it has written.
"""

import asyncio
import logging
from typing import Final
from uuid import uuid4

import structlog

from producer_admin import saga_log
from producer_admin.metrics import SAGAS_UNFINISHED
from producer_admin.saga import resume_saga
from producer_admin.saga_steps import Means
from runtime.engine import AWAY
from runtime.health import Condition
from runtime.retries import pause

LOOK_SECONDS: Final = 5.0
RENEW_SECONDS: Final = 5.0
"""A sixth of the lease: five renewals may fail before it runs out."""
AT_ONCE: Final = 20
_STATES: Final = ("running", "recorded", "compensating")
_log = structlog.get_logger()


async def recover(means: Means) -> int:
    """Take up all sagas that nobody works on, until none is left. Returns how many there were."""
    resumed = 0
    while True:
        owner = uuid4()
        async with means.transaction() as connection:
            abandoned = await saga_log.take_up(connection, owner, AT_ONCE, means.leases.in_hand)
        ended = await asyncio.gather(*(resume_saga(means, one, owner) for one in abandoned), return_exceptions=True)
        for one, error in zip(abandoned, ended, strict=True):
            if error is not None and not isinstance(error, Exception):
                raise error
            # A saga that nobody can resume must not keep the others from it; it comes again when its lease is over.
            _log.log(
                logging.ERROR if error else logging.INFO,
                "saga cannot be resumed" if error else "saga taken up",
                saga=one.kind,
                saga_id=str(one.saga_id),
                file_id=str(one.file_id),
                state=one.state,
                attempt=one.attempts,
                exc_info=error,
            )
        resumed += len(abandoned)
        if len(abandoned) < AT_ONCE:
            return resumed


async def recover_until(means: Means, stopping: asyncio.Event) -> None:
    """Recover at once and again every few seconds. While the database is away there is nothing to do but wait."""
    looking = Condition()
    while not stopping.is_set():
        try:
            await recover(means)
            async with means.alone() as connection:
                counts = await saga_log.unfinished(connection)
            for state in _STATES:
                SAGAS_UNFINISHED.labels(state).set(counts.get(state, 0))
            looking.met()
        except AWAY as error:
            if looking.unmet(str(error)):
                _log.warning("sagas cannot be looked through, trying again", error=str(error))
        await pause(LOOK_SECONDS, stopping)


async def renew_until(means: Means, stopping: asyncio.Event) -> None:
    """Prolong the leases of the sagas in hand, such as uploads that take hours."""
    renewing = Condition()
    while not stopping.is_set():
        await pause(RENEW_SECONDS, stopping)
        if not means.leases.in_hand:
            continue
        try:
            async with means.alone() as connection:
                await saga_log.renew(connection, dict(means.leases.in_hand))
            renewing.met()
        except AWAY as error:
            if renewing.unmet(str(error)):
                _log.warning("leases of sagas could not be prolonged, trying again", error=str(error))
