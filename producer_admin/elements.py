"""Which storage elements there are and how they are, the same on every instance: the registry in Postgres is the truth.

Each process keeps a snapshot of it, renewed every two seconds, so that an operator's change of mode holds everywhere
soon and no request waits for the registry. What this process has learnt of a sick element itself counts here at once.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from producer_admin import marks, storage
from producer_admin.element_registry import Element, Mode, account, ensure, load, note_health, register
from producer_admin.errors import ElementOfflineError, OwnElementUnknownError, StorageError, UnknownElementError
from producer_admin.metrics import ELEMENT_CAPACITY, ELEMENT_HEALTHY, ELEMENT_USED
from producer_admin.placement import choose
from producer_admin.storage import StorageElement
from runtime.engine import AWAY, is_away
from runtime.health import Condition
from runtime.retries import pause

__all__ = ["Element", "Elements", "Mode", "account", "ensure", "register"]

REFRESH_SECONDS: Final = 2.0
"""How old the snapshot may be."""
CHECK_LIMIT_SECONDS: Final = 5.0
"""An element that does not prove itself within this is sick."""

_log = structlog.get_logger()


def open_known(url: str) -> StorageElement:
    """Open an element that is in the registry: a folder that is gone is a disk that is not mounted, not a new one."""
    return storage.open_storage(url, make=False)


class Elements:
    """The storage elements as this process sees them."""

    def __init__(
        self,
        engine: AsyncEngine,
        open_storage: Callable[[str], StorageElement] = open_known,
        *,
        check_seconds: float = 10,
        check_limit_seconds: float = CHECK_LIMIT_SECONDS,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._engine = engine
        self._open_storage = open_storage
        self._check_seconds = check_seconds
        self._check_limit = check_limit_seconds
        self._draw = draw
        self._snapshot: dict[str, Element] = {}
        self._drivers: dict[str, _Driver] = {}
        self._faults: dict[str, _Fault] = {}
        self._suspicion = asyncio.Event()
        self._registry = Condition()

    async def refresh(self) -> None:
        """Read the registry, and open the drivers of elements that are new to this process."""
        async with self._alone() as connection:
            found = await load(connection)
        self._snapshot = {one.element_id: one for one in found}
        for element_id in [one for one in self._drivers if self._is_stale(one)]:
            self._drivers.pop(element_id).close()
            self._faults.pop(element_id, None)
        fresh = [one for one in found if one.mode is not Mode.OFFLINE and one.element_id not in self._drivers]
        for one in fresh:
            self._drivers[one.element_id] = _Driver(one, partial(self._open_storage, one.url))
        opening = [self._drivers[one.element_id] for one in fresh]
        await asyncio.gather(*(one.look(self._check_limit, check=False) for one in opening))
        _show(self.all())

    def all(self) -> list[Element]:
        """Every element, by name, as of the last refresh. What this process knows to be sick is shown so."""
        return [self._seen(one) for one in self._snapshot.values()]

    def get(self, element_id: str) -> Element:
        """One element as of the last refresh.

        Raises:
            UnknownElementError: there is none of this name.
        """
        if element_id not in self._snapshot:
            raise UnknownElementError(f"There is no storage element {element_id}.")
        return self._seen(self._snapshot[element_id])

    def storage(self, element_id: str) -> StorageElement:
        """The driver of an element that a file or a saga names, in any mode but offline.

        Raises:
            OwnElementUnknownError: the registry does not have it.
            ElementOfflineError: an operator took it offline.
            StorageError: it cannot be opened.
        """
        if element_id not in self._snapshot:
            raise OwnElementUnknownError(f"Storage element {element_id} is not in the registry.")
        if self._snapshot[element_id].mode is Mode.OFFLINE:
            raise ElementOfflineError(f"Storage element {element_id} is offline. Try again later.")
        driver = self._drivers[element_id]
        if driver.storage is None:
            raise StorageError(f"Storage element {element_id} cannot be used: {driver.error}")
        if driver.misplaced:
            raise StorageError(f"Storage element {element_id} cannot be used: {driver.misplaced}")
        return driver.storage

    def source(self, element_id: str) -> StorageElement:
        """The driver to read a file from, also from one that is read-only or was found sick.

        Raises:
            AdminError: as `storage`.
        """
        return self.storage(element_id)

    def place(self, size: int | None) -> str:
        """Where `size` new bytes go (None: not known yet).

        Raises:
            NoElementError: no element is online and healthy.
            NoRoomError: all that are, are full.
        """
        return choose(self.all(), size, self._draw())

    async def report_fault(self, element_id: str) -> None:
        """A write failed there: avoid it until a check that begins from now on has succeeded, and check at once."""
        self._faults[element_id] = _Fault("A write failed here; it is being checked.")
        self._suspicion.set()

    async def watch(self, stopping: asyncio.Event) -> None:
        """Keep the snapshot and the elements' health up to date until `stopping`."""
        await self._unless_away(self.refresh)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._refresh_at_times(stopping))
            checking = group.create_task(self._check_at_times())
            await stopping.wait()
            checking.cancel()
        for driver in self._drivers.values():
            driver.close()

    async def check(self) -> None:
        """Check every element that is not offline, all at once, and note in the registry what was found."""
        self._suspicion.clear()
        looked_at = [one for one in self._snapshot.values() if one.element_id in self._drivers]
        await asyncio.gather(*map(self._check_one, looked_at))

    async def _check_one(self, element: Element) -> None:
        element_id, driver, begun = element.element_id, self._drivers[element.element_id], time.monotonic()
        error = await driver.look(self._check_limit, check=True, write=element.mode is Mode.ONLINE)
        fault = self._faults.get(element_id)
        if error is not None:
            self._faults[element_id] = _Fault(error)
        elif fault is not None and fault.since < begun:
            del self._faults[element_id]
        if error != element.health_error:
            _log.warning("storage element's health changed", element=element_id, healthy=error is None, error=error)
        async with self._alone() as connection:
            await note_health(connection, element_id, driver.url, error)
        current = self._snapshot.get(element_id)
        if current is not None and current.url == driver.url:
            self._snapshot[element_id] = replace(current, health_error=error)

    async def _check_at_times(self) -> None:
        while True:
            await self._unless_away(self.check)
            try:
                async with asyncio.timeout(self._check_seconds):
                    await self._suspicion.wait()
            except TimeoutError:
                continue

    async def _refresh_at_times(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await self._unless_away(self.refresh)
            await pause(REFRESH_SECONDS, stopping)

    async def _unless_away(self, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
            self._registry.met()
        except AWAY as error:
            if not is_away(error):
                raise
            # The last snapshot goes on to serve; requests find out about the database by themselves.
            reason = f"{type(error).__name__}: {error}"
            if self._registry.unmet(reason):
                _log.warning("registry of storage elements is away", error=reason)

    def _is_stale(self, element_id: str) -> bool:
        known = self._snapshot.get(element_id)
        driver = self._drivers[element_id]
        return known is None or known.mode is Mode.OFFLINE or (known.url, known.marked) != (driver.url, driver.marked)

    def _seen(self, element: Element) -> Element:
        fault = self._faults.get(element.element_id)
        if fault is None or element.health_error is not None:
            return element
        return replace(element, health_error=fault.reason)

    def _alone(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._engine.execution_options(isolation_level="AUTOCOMMIT").connect()


class _Fault:
    """What this process has seen go wrong on an element, and when."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.since = time.monotonic()


class _Driver:
    """One element's driver. It is checked one check at a time: a disk that hangs holds one thread, not ever more."""

    def __init__(self, element: Element, opened: Callable[[], StorageElement]) -> None:
        self.url = element.url
        self.marked = element.marked
        self.misplaced: str | None = None
        """Why its place was found to be another one; then nothing is written there, and nothing removed."""
        self._element_id = element.element_id
        self.storage: StorageElement | None = None
        self.error = "it has not been opened yet"
        self._open = opened
        self._running: asyncio.Task[str | None] | None = None

    async def look(self, seconds: float, *, check: bool, write: bool = True) -> str | None:
        """Open it where that is still to be done, and check it.

        Returns:
            Why it is not well; None when it is.
        """
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._look(check=check, write=write))
        running = self._running
        await asyncio.wait({running}, timeout=seconds)
        if not running.done():
            return f"No answer within {seconds:g} s."
        return "It was given up." if running.cancelled() else running.result()

    async def _look(self, *, check: bool, write: bool) -> str | None:
        try:
            if self.storage is None:
                self.storage = await asyncio.to_thread(self._open)
            if check:
                await self.storage.check(write=write)
                if self.marked:
                    await self._verify(self.storage)
        except (StorageError, ValueError) as error:
            self.error = str(error)
            return self.error
        return None

    async def _verify(self, storage: StorageElement) -> None:
        self.misplaced = None
        try:
            await marks.verify(storage, self._element_id)
        except StorageError as error:
            self.misplaced = str(error)
            raise

    def close(self) -> None:
        """Wait no longer for a check that hangs."""
        if self._running is not None:
            self._running.cancel()


def _show(elements: Iterable[Element]) -> None:
    for gauge in (ELEMENT_HEALTHY, ELEMENT_USED, ELEMENT_CAPACITY):
        gauge.clear()
    for one in elements:
        ELEMENT_HEALTHY.labels(one.element_id).set(one.health_error is None)
        ELEMENT_USED.labels(one.element_id).set(one.used_bytes)
        if one.capacity_bytes is not None:
            ELEMENT_CAPACITY.labels(one.element_id).set(one.capacity_bytes)
