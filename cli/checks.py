"""`artstore test`: all checks run, also after one has failed; the exit code is 0 only if every one passed."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import typer

from cli.terminal import out, plain_table

_CHECKS: Final = (
    ("format", ("ruff", "format", "--check", ".")),
    ("lint", ("ruff", "check", ".")),
    ("types", ("mypy",)),
    ("layers", ("lint-imports", "--no-logo")),
)
_TWO_AT_ONCE: Final = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
"""Most tests wait for something most of the time. A file stays in one process, with servers of its own; the files come
in the order of the folders, so that the long ones of `e2e` are not begun last."""


def test(context: typer.Context) -> None:
    """Run all checks and tests; what follows is passed to pytest, for example -k name or --backend=containers.

    Without arguments to pytest all tests run, in two processes.
    """
    from local.settings import CHECKOUT

    table = plain_table("CHECK", "TIME", "RESULT")
    failed = False
    for name, arguments in (*_CHECKS, ("tests", ("pytest", *(context.args or _TWO_AT_ONCE)))):
        out.print(f"[bold cyan]{name}[/]: {' '.join(arguments)}")
        begin = time.monotonic()
        tool = Path(sys.executable).with_name(arguments[0])
        code = subprocess.run([tool, *arguments[1:]], cwd=CHECKOUT, check=False).returncode
        seconds = time.monotonic() - begin
        failed = failed or code != 0
        result = "[green]passed[/]" if code == 0 else f"[bold red]failed ({code})[/]"
        table.add_row(name, f"{seconds:.1f} s", result)
    out.print()
    out.print(table)
    if failed:
        raise typer.Exit(1)
