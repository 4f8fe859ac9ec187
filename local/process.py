"""One child process: it writes to its own log file, and it is always reaped.

A child leads its own session, so a Ctrl-C in the terminal reaches only the supervisor, which stops its children in
the right order.
"""

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from local.errors import ProcessError

POLL_SECONDS = 0.05
TAIL_LINES = 15
_TAIL_BYTES = 16 * 1024


@dataclass(frozen=True)
class Command:
    """How to start a child, and how to ask it to end."""

    name: str
    argv: Sequence[str]
    log: Path
    cwd: Path
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None
    """Another user and its group to run as; needs root."""


class Child:
    """A started command."""

    def __init__(self, command: Command) -> None:
        """Start it.

        Raises:
            ProcessError: the program cannot be executed.
        """
        self.command = command
        user = command.user
        try:
            with command.log.open("ab") as log:
                self._popen = subprocess.Popen(
                    command.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=command.cwd,
                    env=dict(command.env),
                    start_new_session=True,
                    user=user,
                    group=_group(user) if user else None,
                    extra_groups=[] if user else None,
                )
        except OSError as error:
            raise ProcessError(f"{command.name} cannot be started: {error}.") from error

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.command.name

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._popen.poll()

    def died(self) -> ProcessError:
        """The error that says it ended by itself, with the end of its log."""
        return ProcessError(f"{self.name} ended by itself ({exit_reason(self.exit_code())}).\n{tail(self.command.log)}")

    def wait(self, seconds: float) -> int:
        """Wait for its own end.

        Raises:
            ProcessError: it has not ended in time; it is killed.
        """
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise ProcessError(f"{self.name} has not ended within {seconds:g} s.\n{tail(self.command.log)}") from error

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Return when `ready()` is true.

        Raises:
            ProcessError: it ended, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if self.exit_code() is not None:
                raise self.died()
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} is not ready after {seconds:g} s.\n{tail(self.command.log)}")
            time.sleep(POLL_SECONDS)

    def ask_to_stop(self) -> None:
        """Send the stop signal, without waiting."""
        if self.exit_code() is None:
            self._popen.send_signal(self.command.stop_signal)

    def stop(self, seconds: float) -> bool:
        """Ask it to end; after `seconds` kill it.

        Returns:
            True when it ended when asked.
        """
        self.ask_to_stop()
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """SIGKILL it and all below it, and wait until they are gone."""
        if self.exit_code() is not None:
            return
        family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        for one in family:
            if one.is_running():
                one.kill()
        self._popen.wait()
        psutil.wait_procs(family, timeout=10)


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented; says so when there are none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            found = file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        found = []
    return "\n".join(f"  {line}" for line in found) or "  (its log is empty)"


def exit_reason(code: int | None) -> str:
    """An exit code in words."""
    if code is None:
        return "still running"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid
