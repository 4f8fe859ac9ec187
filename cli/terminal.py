"""What is asked for goes to standard output, everything else to standard error."""

import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

import typer
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook
from rich.segment import Segment
from rich.status import Status
from rich.table import Table
from rich.text import Text

from runtime.escapes import escaped

# In a file or a pipe, lines are not folded to the width of a terminal that is not there.
_WIDE = 240
out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
err = Console(highlight=False, width=None if sys.stderr.isatty() else _WIDE, stderr=True)


class _Escaped:
    """What is printed, and tells a terminal nothing but how to show it."""

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for one in console.render(self._shown, options):
            yield one if one.control else one._replace(text=escaped(one.text, kept="\n"))


class _EscapeAll(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Escaped(one) for one in renderables]


for console in (out, err):
    console.push_render_hook(_EscapeAll())

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Waiting:
    """One line that says what is being waited for: it changes in place on a terminal, and is repeated elsewhere."""

    def __init__(self, first: str) -> None:
        self._status: Status | None = err.status(first) if err.is_terminal else None
        self._said = ""

    def tell(self, text: str) -> None:
        """Say what is being waited for now."""
        if self._status is not None:
            self._status.update(text)
        elif text.partition(":")[0] != self._said.partition(":")[0]:  # a count that goes up is not news in a file
            # A closed terminal must not keep the stack from being stopped.
            with contextlib.suppress(OSError):
                err.print(text)
        self._said = text

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            with contextlib.suppress(OSError):
                self._status.stop()


@contextlib.contextmanager
def interrupted_once() -> Iterator[None]:
    """Turn the first signal to end into KeyboardInterrupt; ignore the next, so that stopping is not cut short."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def plain_table(*columns: str) -> Table:
    """A table without a frame."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def since(begin: float) -> str:
    """Time since a moment of the monotonic clock."""
    return f"{time.monotonic() - begin:.1f} s"


def when(moment: str) -> str:
    """A moment of an API's answer, for people."""
    return moment[:19].replace("T", " ")


def plain(value: object) -> Text:
    """What others wrote, as text: neither markup nor a terminal's control sequences."""
    if value is None:
        return Text("-")
    return Text(escaped(str(value), kept="\n"))


def print_json(value: Any) -> None:
    """An answer for programs."""
    typer.echo(escaped(json.dumps(value, ensure_ascii=False, indent=1), kept="\n"))
