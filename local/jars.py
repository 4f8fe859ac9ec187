"""The broker's jars are there whole, each with the SHA-256 of `kafka.lock`, or the folder is not there at all.

They are downloaded into a folder beside the final one, verified, and the folder is renamed into place in one step.
No POM is read and no version is chosen at run time: the lock names every jar.
"""

import errno
import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import stamina

from local.errors import DownloadError

LOCK = Path(__file__).parent / "kafka.lock"
_WORKERS = 6
_ATTEMPTS = 4
_PASSING = (OSError, RuntimeError)  # every network error is an OSError; jgo says RuntimeError for a wrong status

Progress = Callable[[int, int], None]
"""Called with how many jars are there, and how many there have to be."""


@dataclass(frozen=True)
class Jar:
    """One line of the lock: Maven coordinates and the digest of the file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Its name in the folder."""
        return f"{self.artifact}-{self.version}.jar"


class Fetch(Protocol):
    """Gets one jar into a folder of its own, or raises whatever its library raises."""

    def __call__(self, jar: Jar, folder: Path) -> Path:
        """Return the path of the file."""


def read_lock(path: Path = LOCK) -> tuple[Jar, ...]:
    """All jars of a lock file."""
    jars = []
    for line in path.read_text().splitlines():
        coordinates, digest = line.split(" sha256:")
        group, artifact, version = coordinates.split(":")
        jars.append(Jar(group, artifact, version, digest))
    return tuple(jars)


def ensure_jars(cache: Path, progress: Progress | None = None, fetch: Fetch | None = None, lock: Path = LOCK) -> Path:
    """The folder of verified jars, downloaded first when it is not there. Safe to run twice at once.

    Raises:
        DownloadError: a jar cannot be had, or is not what the lock says; nothing was kept.
    """
    folder = cache / f"kafka-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _only_one(cache / "download.lock"):
            if not folder.is_dir():
                _download(read_lock(lock), folder, progress or (lambda _done, _all: None), fetch or from_maven)
    except OSError as error:
        raise DownloadError(
            f"Kafka cannot be kept in {cache}: {error.strerror or error}. Mend that and try again."
        ) from error
    return folder


def _download(jars: tuple[Jar, ...], folder: Path, progress: Progress, fetch: Fetch) -> None:
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
    part.mkdir()
    pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="jar")
    try:
        tasks = [pool.submit(_download_one, jar, part, fetch) for jar in jars]
        for done, task in enumerate(as_completed(tasks), start=1):
            task.result()
            progress(done, len(jars))
        part.rename(folder)
    finally:
        pool.shutdown(cancel_futures=True)
        shutil.rmtree(part, ignore_errors=True)


def _download_one(jar: Jar, part: Path, fetch: Fetch) -> None:
    own = part / f"{jar.artifact}.download"
    retry = stamina.retry_context(
        on=_may_pass,
        attempts=_ATTEMPTS,
        wait_initial=0.3,
        timeout=None,
    )
    try:
        for attempt in retry:
            with attempt:
                # jgo would take the half of a cut download for the whole
                shutil.rmtree(own, ignore_errors=True)
                path = fetch(jar, own)
    except _PASSING as error:
        if _is_full(error):
            raise DownloadError(f"The disk that holds {part.parent} is full. Make room and try again.") from error
        raise DownloadError(
            f"{jar.file_name} could not be downloaded ({_short(error)}). Check the network and try again."
        ) from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != jar.sha256:
        raise DownloadError(
            f"{jar.file_name} is not the file that kafka.lock names (its SHA-256 is {found}). "
            "Try again; if it stays so, ask who serves it."
        )
    path.rename(part / jar.file_name)
    shutil.rmtree(own)


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _may_pass(error: Exception) -> bool:
    return isinstance(error, _PASSING) and not _is_full(error)


def from_maven(jar: Jar, folder: Path) -> Path:
    """Download one jar through jgo, which honours the mirrors that its user has set."""
    from jgo.maven import MavenContext  # noqa: PLC0415 - takes a second, needed once

    context = MavenContext(repo_cache=folder)
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    return Path(artifact.resolve())


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _short(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
