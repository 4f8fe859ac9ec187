import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from local.errors import ProcessError
from local.process import Child, Command


def child(folder: Path, code: str) -> Child:
    return Child(Command(name="worker", argv=[sys.executable, "-c", code], log=folder / "worker.log", cwd=folder))


def wait_for(folder: Path, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in (folder / "worker.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_that_died_is_named_with_its_last_15_lines(tmp_path: Path) -> None:
    worker = child(tmp_path, "for n in range(40): print(f'line {n}')\nraise SystemExit(3)")
    with pytest.raises(ProcessError) as died:
        worker.wait_until(lambda: False, 10)
    sentence, *log = str(died.value).splitlines()
    assert sentence == "worker ended by itself (exit code 3)."
    assert log == [f"  line {n}" for n in range(25, 40)]


def test_a_child_that_is_never_ready_is_named(tmp_path: Path) -> None:
    worker = child(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(ProcessError, match=r"worker is not ready after 0\.1 s"):
        worker.wait_until(lambda: False, 0.1)
    worker.kill()
    assert worker.exit_code() == -signal.SIGKILL


def test_a_stubborn_child_is_killed_after_its_time(tmp_path: Path) -> None:
    worker = child(
        tmp_path, "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    wait_for(tmp_path, "deaf")
    assert not worker.stop(0.1)
    assert worker.exit_code() == -signal.SIGKILL


def test_killing_a_child_takes_its_children_too(tmp_path: Path) -> None:
    worker = child(
        tmp_path,
        "import subprocess, sys, time\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "print('inner', inner.pid, 'started', flush=True); time.sleep(60)",
    )
    wait_for(tmp_path, "started")
    inner = psutil.Process(int((tmp_path / "worker.log").read_text().split()[1]))
    worker.kill()
    assert not inner.is_running() or inner.status() == psutil.STATUS_ZOMBIE


def test_a_program_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"worker cannot be started: .*No such file"):
        Child(Command(name="worker", argv=["/nowhere/program"], log=tmp_path / "log", cwd=tmp_path))
