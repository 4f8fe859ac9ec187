import errno
import os
import socket
from pathlib import Path

import pytest

from cli.folder import LeftOut, RegularFile, clip, escaped, is_made, open_regular, split


def test_only_regular_files_are_listed_and_the_rest_has_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "Отчёт.txt").write_text("x")
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        files, left_out = split(tmp_path)
    assert [(one.relative, one.size) for one in files] == [("below/Отчёт.txt", 1), ("empty", 0)]
    assert {one.relative: one.reason for one in left_out} == {
        "link": "symbolic link",
        "loop": "symbolic link",
        "pipe": "named pipe",
        "socket": "socket",
    }


def test_a_name_that_is_not_text_stays_findable() -> None:
    assert escaped(os.fsdecode(b"caf\xe9\n.txt")) == "caf\\xe9\\x0a.txt"
    assert escaped("Отчёт за год.txt") == "Отчёт за год.txt"


def test_a_name_that_grew_too_long_keeps_its_extension() -> None:
    assert clip("a" * 300 + ".tar.gz", 255).endswith("a.tar.gz")
    assert len(clip("a" * 300, 255)) == 255


def test_a_file_that_vanished_or_became_a_link_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    [one, two], _ = split(tmp_path)
    one.path.unlink()
    two.path.unlink()
    two.path.symlink_to("/etc/hostname")
    assert open_regular(one) == LeftOut("one", "vanished")
    refused = open_regular(two)
    assert isinstance(refused, LeftOut)
    assert refused.reason.startswith("unreadable")


def test_what_may_not_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "secret").touch()
    scandir = os.scandir

    def refuse(path: Path, *_: object) -> object:
        # Root may read everything, so modes alone would prove nothing here.
        if path.name in ("closed", "secret"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(os, "open", refuse)
    [secret], [closed] = split(tmp_path)
    assert closed == LeftOut("closed", "unreadable: Permission denied")
    assert open_regular(secret) == LeftOut("secret", "unreadable: Permission denied")


def test_what_tools_make_in_a_checkout_is_passed_over(tmp_path: Path) -> None:
    for name in (".git", ".mypy_cache", "__pycache__", "env", "docs"):
        (tmp_path / name).mkdir()
    (tmp_path / "env" / "pyvenv.cfg").touch()
    assert sorted(path.name for path in tmp_path.iterdir() if not is_made(path)) == ["docs"]


def test_a_listed_file_opens(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"content")
    content = open_regular(RegularFile(tmp_path / "one", "one", 7))
    assert not isinstance(content, LeftOut)
    with content:
        assert content.read() == b"content"
