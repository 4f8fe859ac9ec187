"""The logs of several processes as one stream, each line under its process's name, never half a line."""

from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

from rich.text import Text

from cli.terminal import out

_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red")


class LogFollower:
    """Shows what is appended to `<name>.log` files from now on."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """Begin at the present end of each log."""
        self._logs = {name: folder / f"{name}.log" for name in names}
        self._offsets = {name: log.stat().st_size if log.exists() else 0 for name, log in self._logs.items()}
        width = max(map(len, names))
        self._prefixes = {
            name: Text(f"{name:<{width}} ", style=colour) for name, colour in zip(names, cycle(_COLOURS), strict=False)
        }

    def show(self) -> None:
        """Print the new lines."""
        for name in self._logs:
            for line in self._new_lines(name):
                out.print(self._prefixes[name] + Text.from_ansi(line), soft_wrap=True)

    def _new_lines(self, name: str) -> Iterator[str]:
        log = self._logs[name]
        if not log.exists():
            return
        with log.open("rb") as file:
            file.seek(self._offsets[name])
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offsets[name] += len(line)
                yield line.decode(errors="backslashreplace").rstrip()
