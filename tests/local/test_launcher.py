"""The launcher as a person runs it, with an environment folder of its own and no registry in reach."""

import os
import subprocess
import sys
from pathlib import Path

from local.settings import CHECKOUT


def launch(venv: Path) -> "subprocess.CompletedProcess[str]":
    unreachable = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "artstore"), "status"],
        env={**os.environ, **unreachable, "ARTSTORE_VENV": str(venv)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_environment_that_cannot_be_made_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    result = launch(tmp_path / "venv")
    assert result.returncode == 1
    assert result.stderr.splitlines()[0] == "Making the environment (once, about a minute)..."
    assert result.stderr.splitlines()[-1].startswith("The environment was not made because pip failed")
    assert list(tmp_path.iterdir()) == []


def test_a_half_made_environment_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to("/bin/true")
    (tmp_path / "venv" / "artstore.stamp").write_text("unfinished\n")
    result = launch(tmp_path / "venv")
    assert result.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_somebody_else_made_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    result = launch(tmp_path)
    assert result.returncode == 1
    assert "was not made by artstore" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
