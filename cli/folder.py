"""What a folder holds: regular files to upload, and everything else with the reason why it is left out.

A symbolic link is never followed, neither while walking nor while opening. A name that is not valid UTF-8, or that
holds control characters, is written with backslash escapes, so that the file remains findable by what is shown.
"""

import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MAX_NAME = 255
MAX_DESCRIPTION = 10_000
_KINDS = (
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


@dataclass(frozen=True)
class RegularFile:
    """One file to upload."""

    path: Path
    relative: str
    """Its path below the folder, escaped."""
    size: int
    """Bytes, when it was listed."""

    @property
    def name(self) -> str:
        """Its name, escaped, as long as a name may be."""
        return clip(escaped(self.path.name), MAX_NAME)


@dataclass(frozen=True)
class LeftOut:
    """Something that is not uploaded."""

    relative: str
    reason: str


class Failed(LeftOut):
    """A readable file that was not uploaded all the same."""


Pass = Callable[[Path], bool]
"""True for a folder that is passed over without a word."""


def walk(folder: Path, pass_over: Pass = lambda _: False) -> Iterator[RegularFile | LeftOut]:
    """Everything below a folder, in the order of names."""
    yield from _walk(folder, folder, pass_over)


def is_made(folder: Path) -> bool:
    """True for what tools make inside a checkout: version control, environments, state and caches."""
    name = folder.name
    if name in (".git", ".artstore", ".hypothesis", "__pycache__") or name.endswith("_cache"):
        return True
    return (folder / "pyvenv.cfg").exists()


def split(folder: Path, pass_over: Pass = lambda _: False) -> tuple[list[RegularFile], list[LeftOut]]:
    """List a folder: regular files, and everything else."""
    files: list[RegularFile] = []
    left_out: list[LeftOut] = []
    for one in walk(folder, pass_over):
        if isinstance(one, RegularFile):
            files.append(one)
        else:
            left_out.append(one)
    return files, left_out


def _walk(root: Path, folder: Path, pass_over: Pass) -> Iterator[RegularFile | LeftOut]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        yield LeftOut(escaped(str(folder.relative_to(root))), _why(error))
        return
    for entry in found:
        path = Path(entry.path)
        relative = escaped(str(path.relative_to(root)))
        try:
            about = entry.stat(follow_symlinks=False)
        except OSError as error:
            yield LeftOut(relative, _why(error))
            continue
        if stat.S_ISDIR(about.st_mode):
            if not pass_over(path):
                yield from _walk(root, path, pass_over)
        elif stat.S_ISREG(about.st_mode):
            yield RegularFile(path, relative, about.st_size)
        else:
            yield LeftOut(relative, next((kind for test, kind in _KINDS if test(about.st_mode)), "not a regular file"))


def open_regular(file: RegularFile) -> IO[bytes] | LeftOut:
    """Open a listed file, unless it has vanished, become something else, or may not be read."""
    try:
        # Without O_NONBLOCK a pipe that took the file's place would block for ever.
        handle = os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return LeftOut(file.relative, _why(error))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return LeftOut(file.relative, "no longer a regular file")
    return os.fdopen(handle, "rb")


def escaped(name: str) -> str:
    """A name as text that every database and terminal takes, unchanged when it already is."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(f"\\x{ord(one):02x}" if unicodedata.category(one) == "Cc" else one for one in text)


def clip(text: str, longest: int) -> str:
    """At most `longest` characters; of a longer text the middle is left out, so that its extension stays."""
    return text if len(text) <= longest else text[: longest - 20] + text[-20:]


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "vanished"
    return f"unreadable: {error.strerror}"
