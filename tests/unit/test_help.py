"""What --help says reaches its reader."""

from collections.abc import Iterator
from typing import Any

import typer

from cli.__main__ import app


def options(command: Any, *path: str) -> Iterator[tuple[str, str]]:
    """The help of every option of every verb, by its place."""
    for option in command.params:
        yield " ".join((*path, option.name)), getattr(option, "help", None) or ""
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, *path, name)


def test_no_help_is_taken_for_markup_and_left_out() -> None:
    told = dict(options(typer.main.get_command(app)))
    assert len(told) > 100
    assert [place for place, text in told.items() if "[" in text] == []
