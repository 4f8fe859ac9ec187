"""One stack a home, known to everyone: who supervises it, which processes belong to it, where they answer.

The lock is held as long as the supervisor lives, however it ends. What a killed supervisor left running is recognised
by process id *and* start time, so a process that merely got a reused id is never touched.
"""

import fcntl
import os
import signal
import time
from pathlib import Path
from typing import IO

import psutil
from pydantic import BaseModel, ConfigDict, ValidationError

from local.errors import AlreadyRunningError, LocalError

SERVERS = ("kafka", "postgres")
_SAME_START_SECONDS = 2.0
_ORPHAN_STOP_SECONDS = 12.0


class Process(BaseModel):
    """A process of a stack."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    started: float
    """Seconds since the epoch, as the operating system says."""
    stop_signal: int = signal.SIGTERM
    url: str = ""
    ready_url: str | None = None
    """Answers 200 when ready; None for the servers, whose port is asked."""

    def is_alive(self) -> bool:
        """True when this very process still runs."""
        return self.find() is not None

    def find(self) -> psutil.Process | None:
        """The process, unless it is gone or its id belongs to another."""
        try:
            found = psutil.Process(self.pid)
            same = abs(found.create_time() - self.started) < _SAME_START_SECONDS
            return found if same and found.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class Run(BaseModel):
    """What `run.json` says."""

    model_config = ConfigDict(frozen=True)

    supervisor: Process
    admin_url: str
    query_url: str
    bootstrap_servers: str
    topic: str
    group: str
    processes: tuple[Process, ...] = ()
    guarded: bool = False
    """Its APIs want a token."""
    healthy: bool = False
    """Everything has been ready once."""


def describe(name: str, pid: int, **fields: object) -> Process:
    """A process that runs now, as it is recorded."""
    return Process(name=name, pid=pid, started=psutil.Process(pid).create_time(), **fields)


class Home:
    """The folder of one stack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: IO[str] | None = None

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.folder / "logs"

    @property
    def files(self) -> Path:
        """The storage element."""
        return self.folder / "files"

    @property
    def _run_file(self) -> Path:
        return self.folder / "run.json"

    def clear_logs(self) -> None:
        """Forget the logs of an earlier run."""
        for log in self.logs.glob("*.log"):
            log.unlink()

    def acquire(self) -> None:
        """Become the supervisor of this home.

        Raises:
            AlreadyRunningError: another one is; the message says which.
            LocalError: the folder cannot be written.
        """
        try:
            for folder in (self.folder, self.logs, self.files):
                folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / "lock").open("a")
        except OSError as error:
            raise LocalError(f"{self.folder} cannot be written ({error.strerror}). Set ARTSTORE_HOME.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise AlreadyRunningError(self._who_runs()) from None
        self._lock = lock

    def release(self) -> None:
        """Give the home back; nothing runs in it."""
        if self._lock is not None:
            self._run_file.unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def write(self, run: Run) -> None:
        """Record the run, in one step."""
        fresh = self._run_file.with_suffix(".new")
        fresh.write_text(run.model_dump_json(indent=1))
        fresh.replace(self._run_file)

    def read(self) -> Run | None:
        """The last recorded run, whether or not it still lives; None when there is none."""
        try:
            return Run.model_validate_json(self._run_file.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def running(self) -> Run | None:
        """The run whose supervisor lives."""
        run = self.read()
        return run if run is not None and run.supervisor.is_alive() else None

    def stop_orphans(self) -> list[str]:
        """End what a killed supervisor left behind, services before servers.

        Returns:
            The names of what still ran.
        """
        run = self.read()
        if run is None or (run.supervisor.is_alive() and run.supervisor.pid != os.getpid()):
            return []
        orphans = [one for one in run.processes if one.is_alive()]
        _end([one for one in orphans if one.name not in SERVERS])
        _end([one for one in orphans if one.name in SERVERS])
        self._run_file.unlink(missing_ok=True)
        return [one.name for one in orphans]

    def _who_runs(self) -> str:
        run = self.read()
        who = "another process"
        if run is not None:
            since = time.strftime("%H:%M:%S", time.localtime(run.supervisor.started))
            who = f"process {run.supervisor.pid} (since {since}; {run.admin_url})"
        return f"ArtStore is already running as {who}. Use it, or stop it with ./artstore down."


def _end(processes: list[Process]) -> None:
    found = [(one, handle) for one in processes if (handle := one.find())]
    for one, handle in found:
        handle.send_signal(one.stop_signal)
    _, stubborn = psutil.wait_procs([handle for _, handle in found], timeout=_ORPHAN_STOP_SECONDS)
    for handle in stubborn:
        handle.kill()
    psutil.wait_procs(stubborn, timeout=5)


def ask_to_stop(run: Run, seconds: float) -> None:
    """Ask the supervisor of a run to stop everything, and wait until it has.

    Raises:
        LocalError: it has not ended in time.
    """
    found = run.supervisor.find()
    if found is None:
        return
    found.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while run.supervisor.is_alive():
        if time.monotonic() > deadline:
            raise LocalError(f"Process {run.supervisor.pid} has not ended within {seconds:g} s; its logs may say why.")
        time.sleep(0.1)
