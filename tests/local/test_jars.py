import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import stamina

from local.errors import DownloadError
from local.jars import Jar, ensure_jars, read_lock

NAMES = ("one", "two", "three")


def content(name: str) -> bytes:
    return f"classes of {name}".encode()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "kafka.lock"
    path.write_text("".join(f"org.x:{n}:1.0 sha256:{hashlib.sha256(content(n)).hexdigest()}\n" for n in NAMES))
    return path


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=2)
    yield
    stamina.set_testing(False)


def fetched(jar: Jar, folder: Path) -> Path:
    folder.mkdir()
    path = folder / jar.file_name
    path.write_bytes(content(jar.artifact))
    return path


def kept(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {"download.lock"}


def test_all_jars_are_there_after_a_download(tmp_path: Path, lock: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = ensure_jars(tmp_path / "cache", lambda done, of: seen.append((done, of)), fetched, lock)
    assert {path.name for path in folder.iterdir()} == {f"{name}-1.0.jar" for name in NAMES}
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_download_that_fails_half_way_leaves_nothing_and_is_one_sentence(tmp_path: Path, lock: Path) -> None:
    def cut(jar: Jar, folder: Path) -> Path:
        if jar.artifact == "two":
            folder.mkdir()
            (folder / jar.file_name).write_bytes(content("two")[:4])
            raise ConnectionResetError("connection reset")
        return fetched(jar, folder)

    with pytest.raises(DownloadError, match=r"^two-1.0.jar could not be downloaded \(connection reset\)\. Check"):
        ensure_jars(tmp_path / "cache", fetch=cut, lock=lock)
    assert kept(tmp_path / "cache") == set()


def test_a_cut_download_is_tried_again_from_its_beginning(tmp_path: Path, lock: Path) -> None:
    tried: list[str] = []

    def cut_once(jar: Jar, folder: Path) -> Path:
        tried.append(jar.artifact)
        if tried.count(jar.artifact) == 1:
            folder.mkdir()
            raise ConnectionResetError
        return fetched(jar, folder)  # its mkdir fails if the half-made folder is still there

    ensure_jars(tmp_path / "cache", fetch=cut_once, lock=lock)
    assert sorted(tried) == sorted(NAMES * 2)


def test_a_jar_that_is_not_the_locked_one_is_refused(tmp_path: Path, lock: Path) -> None:
    def other(jar: Jar, folder: Path) -> Path:
        path = fetched(jar, folder)
        path.write_bytes(b"something else")
        return path

    with pytest.raises(DownloadError, match=r"is not the file that kafka\.lock names"):
        ensure_jars(tmp_path / "cache", fetch=other, lock=lock)
    assert kept(tmp_path / "cache") == set()


def test_what_a_killed_download_left_is_not_used(tmp_path: Path, lock: Path) -> None:
    folder = ensure_jars(tmp_path / "cache", fetch=fetched, lock=lock)
    folder.rename(folder.with_suffix(".part"))
    (folder.with_suffix(".part") / "half.jar").write_bytes(b"half")
    again = ensure_jars(tmp_path / "cache", fetch=fetched, lock=lock)
    assert not (again / "half.jar").exists()
    assert kept(tmp_path / "cache") == {folder.name}


def test_two_at_once_download_once(tmp_path: Path, lock: Path) -> None:
    calls: list[str] = []
    barrier = threading.Barrier(2)

    def counted(jar: Jar, folder: Path) -> Path:
        calls.append(jar.artifact)
        return fetched(jar, folder)

    def start() -> Path:
        barrier.wait()
        return ensure_jars(tmp_path / "cache", fetch=counted, lock=lock)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(start), pool.submit(start)
        assert first.result() == second.result()
    assert sorted(calls) == sorted(NAMES)


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path: Path, lock: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot be kept in"):
        ensure_jars(tmp_path / "file" / "cache", fetch=fetched, lock=lock)


def test_the_committed_lock_names_each_jar_once() -> None:
    jars = read_lock()
    assert len({jar.file_name for jar in jars}) == len(jars)
    assert all(len(jar.sha256) == 64 for jar in jars)
