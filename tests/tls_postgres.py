"""Debian's `postgresql`, 17 or later, that takes nobody in without TLS and a password: by name only, as root.

The machine's own package if it is new enough; else that of Debian 13, unpacked once into the cache by debootstrap and
run in there by chroot. The embedded server has no TLS.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg

from local.ports import LOOPBACK, free_port
from local.process import Child, Command
from local.settings import CacheSettings
from tests.secure_kafka import Authority
from tests.waiting import eventually

NEEDED: Final = 17
PASSWORD: Final = "of-the-superuser"
START_SECONDS: Final = 60
_HOME: Final = "var/lib/postgresql"
_SETTINGS: Final = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    # A chroot has no /dev/shm.
    "dynamic_shared_memory_type": "mmap",
    "fsync": "off",
    "ssl": "on",
    "ssl_cert_file": "server.pem",
    "ssl_key_file": "server.pem",
}


@dataclass(frozen=True)
class TlsPostgres:
    """One that runs."""

    port: int
    authority: Authority

    def url(self, database: str, user: str = "postgres", password: str = PASSWORD, **parameters: str) -> str:
        """Where it is, by a client that makes sure of it unless `parameters` say otherwise."""
        said = {"host": LOOPBACK, "sslmode": "verify-full", "sslrootcert": str(self.authority.file)} | parameters
        host, query = said.pop("host"), "&".join(f"{name}={value}" for name, value in said.items() if value)
        return f"postgresql://{user}:{password}@{host}:{self.port}/{database}?{query}"


@asynccontextmanager
async def tls_postgres(folder: Path) -> AsyncIterator[TlsPostgres]:
    """Start one with a certificate for 127.0.0.1, and remove all of it in the end."""
    assert os.geteuid() == 0, "Run it as root: the server runs as its own user, and debootstrap needs root."
    root, binaries = await asyncio.to_thread(_installed)
    data = root / _HOME / f"artstore-{uuid4().hex[:12]}"
    inside, as_its_user = f"/{data.relative_to(root)}", ["chroot", "--userspec=postgres:postgres", str(root)]
    found = TlsPostgres(free_port(), Authority(folder))
    secret = data.with_suffix(".password")
    owner = (root / _HOME).stat()
    try:
        secret.write_text(PASSWORD)
        os.chown(secret, owner.st_uid, owner.st_gid)
        await asyncio.to_thread(
            subprocess.run,
            [
                *as_its_user, f"{binaries}/initdb", "-D", inside, "-U", "postgres", "--no-sync", "--encoding=UTF8",
                "--auth=scram-sha-256", f"--pwfile={inside}.password",
                "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            ],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        shutil.copy(found.authority.certify("server", LOOPBACK), data / "server.pem")
        os.chown(data / "server.pem", owner.st_uid, owner.st_gid)
        (data / "server.pem").chmod(0o600)
        (data / "pg_hba.conf").write_text(f"hostssl all all {LOOPBACK}/32 scram-sha-256\n")
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        argv = [*as_its_user, f"{binaries}/postgres", "-D", inside, "-p", str(found.port), *settings]
        child = Child(Command("postgres", argv, folder / "postgres.log", folder))
        try:
            await eventually(lambda: _answers(found), START_SECONDS, f"a server, see {folder}/postgres.log")
            yield found
        finally:
            child.stop(20)
    finally:
        secret.unlink(missing_ok=True)
        shutil.rmtree(data, ignore_errors=True)


async def _answers(server: TlsPostgres) -> bool:
    try:
        connection = await asyncpg.connect(server.url("postgres"))
    except (OSError, asyncpg.CannotConnectNowError):
        return False
    await connection.close()
    return True


def _installed() -> tuple[Path, str]:
    """The root folder that the programs see, and their folder in it."""
    for root in (Path("/"), CacheSettings().folder / "debian-trixie-postgresql"):
        if root != Path("/") and not root.is_dir():
            _debootstrap(root)
        versions = [int(one.name) for one in (root / "usr/lib/postgresql").glob("[0-9]*")]
        if (newest := max(versions, default=0)) >= NEEDED:
            return root, f"/usr/lib/postgresql/{newest}/bin"
    raise AssertionError(f"Debian's postgresql is older than {NEEDED}.")


def _debootstrap(root: Path) -> None:
    assert shutil.which("debootstrap"), "apt-get install debootstrap, or postgresql-17."
    part = root.with_name(f"{root.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=postgresql", "trixie", part, "http://deb.debian.org/debian"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    part.rename(root)
