"""A verb that runs long says on standard error how far it is, and ends in one sentence, never in a traceback.

Exit codes: 0 all done, 1 something was left out or is away, 2 wrong usage or settings, 130 interrupted.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Self

from pydantic import ValidationError
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin.errors import AdminError, MappingError
from producer_admin.settings import RepairSettings
from runtime.engine import AWAY, of_driver, open_engine
from runtime.errors import StartError
from runtime.progress import bar
from runtime.settings import say_refused

SAY_AGAIN_SECONDS: Final = 5.0
"""How often a line is written where there is no terminal to redraw one on."""

Tell = Callable[[int, int | None, str], None]


class Display:
    """One bar on a terminal; a line now and then elsewhere."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._console = Console(stderr=True, highlight=False)
        self._bar = bar(self._console, drawn=self._console.is_terminal)
        self._task = self._bar.add_task("Starting", total=None)
        self._said = ("", 0.0)

    def tell(self, done: int, total: int | None, text: str) -> None:
        """Show how many of about how many are done, and what is being done."""
        whole = None if total is None else max(total, done)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=done, total=whole, description=text)
            return
        kind, said_at = text.partition(":")[0], self._said[1]
        now = time.monotonic()
        if kind != self._said[0] or now - said_at >= SAY_AGAIN_SECONDS:
            self._console.print(
                f"{text} ({done:,}{f' of about {whole:,}' if whole else ''} {self._unit})", soft_wrap=True, markup=False
            )
            self._said = (kind, now)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def run_long_verb(
    name: str, unit: str, main: Callable[[AsyncEngine, RepairSettings, Tell], Coroutine[Any, Any, int]]
) -> int:
    """Run `main` on the Admin database to its end.

    Args:
        name: of the process, shown in pg_stat_activity
        unit: what is counted, such as "rows"
        main: gets the engine, the settings and who to tell; returns the exit code

    Returns:
        The exit code.
    """
    try:
        settings = RepairSettings()
    except ValidationError as error:
        say_refused(error)
        return 2

    async def run(tell: Tell) -> int:
        engine = open_engine(settings.admin_database_url.get_secret_value(), name, pool_size=2)
        try:
            return await main(engine, settings, tell)
        finally:
            await engine.dispose()

    try:
        with Display(unit) as display:
            return asyncio.run(run(display.tell))
    except MappingError as error:
        return _fail(str(error), 2)
    except AdminError as error:
        return _fail(str(error), 1)
    except StartError as error:
        return _fail(str(error), 2)
    except AWAY as error:
        return _fail(f"The Admin database cannot be used: {_reason(error)}", 1)
    except KeyboardInterrupt:
        return _fail("Interrupted. What was done stays done.", 130)


def _reason(error: BaseException) -> str:
    error = of_driver(error)
    return str(error) or type(error).__name__


def _fail(sentence: str, code: int) -> int:
    Console(stderr=True, highlight=False).print(sentence, style="bold red", markup=False, soft_wrap=True)
    return code
