import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.errors import AlreadyRunningError, LocalError
from local.state import Home, Process, Run, describe


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def run(supervisor: Process, *processes: Process) -> Run:
    return Run(
        supervisor=supervisor,
        admin_url="http://127.0.0.1:8010",
        query_url="http://127.0.0.1:8030",
        bootstrap_servers="127.0.0.1:9092",
        topic="t",
        group="g",
        processes=processes,
    )


def dead() -> Process:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        return describe("artstore", process.pid)


def test_a_second_up_says_who_is_running(home: Home) -> None:
    home.acquire()
    home.write(run(describe("artstore", os.getpid())))
    with pytest.raises(AlreadyRunningError, match=rf"already running as process {os.getpid()} .*artstore down"):
        Home(home.folder).acquire()
    home.release()
    again = Home(home.folder)
    again.acquire()
    again.release()


def test_what_a_killed_supervisor_left_is_stopped_and_named(home: Home, sleeper: "subprocess.Popen[bytes]") -> None:
    home.acquire()
    left = describe("query-api", sleeper.pid)
    home.write(run(dead(), left))
    assert home.running() is None
    assert home.stop_orphans() == ["query-api"]
    assert not left.is_alive()
    assert home.read() is None
    home.release()


def test_a_process_that_merely_got_the_same_id_is_left_alone(home: Home, sleeper: "subprocess.Popen[bytes]") -> None:
    recorded = describe("query-api", sleeper.pid).model_copy(update={"started": 1.0})
    home.acquire()
    home.write(run(dead(), recorded))
    assert home.stop_orphans() == []
    assert sleeper.poll() is None
    home.release()


def test_processes_of_a_living_supervisor_are_left_alone(home: Home, sleeper: "subprocess.Popen[bytes]") -> None:
    home.acquire()
    home.write(run(describe("artstore", os.getppid()), describe("query-api", sleeper.pid)))
    assert home.stop_orphans() == []
    assert sleeper.poll() is None
    home.release()


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match=r"cannot be written .* Set ARTSTORE_HOME"):
        Home(tmp_path / "file" / "home").acquire()


def test_a_damaged_record_counts_as_none(home: Home) -> None:
    home.acquire()
    (home.folder / "run.json").write_text("{")
    assert home.running() is None
    home.release()


def test_a_run_file_that_is_rubbish_counts_as_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.acquire()
    for rubbish in (b"", b"{", b"\xff\xfe\x00", b"[]"):
        (tmp_path / "run.json").write_bytes(rubbish)
        assert home.read() is None
    home.release()
