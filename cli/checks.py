"""`artstore test`: all checks run, also after one has failed; the exit code is 0 only if every one passed."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import typer
from rich.text import Text

from cli.audits import audit, scan
from cli.terminal import out, plain_table

_CHECKS: Final = (
    ("format", ("ruff", "format", "--check", ".")),
    ("lint", ("ruff", "check", ".")),
    ("types", ("mypy",)),
    ("layers", ("lint-imports", "--no-logo")),
)
_AUDITS: Final = (("dependencies", audit), ("secrets", scan))
_STYLES: Final = {"passed": "green", "not asked": "yellow", "failed": "bold red"}
_TWO_AT_ONCE: Final = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
"""Most tests wait for something most of the time. A file stays in one process, with servers of its own; the files come
in the order of the folders, so that the long ones of `e2e` are not begun last."""

_SUITES: Final = ("chart", "cluster", "compose")
"""Folders of tests/ that need what not every machine has: `--compose` runs that one and no checks."""


def test(context: typer.Context) -> None:
    """Run all checks and tests; what follows is passed to pytest, for example -k name or --backend=containers.

    Without arguments to pytest all tests run, in two processes. --compose, --chart and --cluster each run a suite that
    is run by name only.
    """
    from local.settings import CHECKOUT

    suites = [name for name in _SUITES if f"--{name}" in context.args]
    more = [word for word in context.args if word.removeprefix("--") not in suites]
    steps = [(name, ("pytest", "-s", f"tests/{name}", *more)) for name in suites]
    table = plain_table("CHECK", "TIME", "RESULT")
    failed = False
    for name, arguments in steps or (*_CHECKS, ("tests", ("pytest", *(more or _TWO_AT_ONCE)))):
        out.print(f"[bold cyan]{name}[/]: {' '.join(arguments)}")
        begin = time.monotonic()
        tool = Path(sys.executable).with_name(arguments[0])
        code = subprocess.run([tool, *arguments[1:]], cwd=CHECKOUT, check=False).returncode
        seconds = time.monotonic() - begin
        failed = failed or code != 0
        result = "[green]passed[/]" if code == 0 else f"[bold red]failed ({code})[/]"
        table.add_row(name, f"{seconds:.1f} s", result)
    for name, look in () if steps else _AUDITS:
        out.print(f"[bold cyan]{name}[/]")
        begin = time.monotonic()
        found = look(CHECKOUT)
        failed = failed or found.outcome == "failed"
        said = Text.assemble((found.outcome, _STYLES[found.outcome]), f": {found.sentence}")
        table.add_row(name, f"{time.monotonic() - begin:.1f} s", said)
    out.print()
    out.print(table)
    if failed:
        raise typer.Exit(1)
