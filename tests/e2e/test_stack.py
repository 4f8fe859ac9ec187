"""The command line as a person uses it: every verb is a process, and so is everything that it starts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

from local.postgres import EmbeddedPostgres
from local.settings import CHECKOUT, StackSettings

START_SECONDS = 90
STOP_SECONDS = 40


@dataclass
class Machine:
    """A home and ports of its own, and the stacks that were brought up there."""

    home: Path
    environment: dict[str, str]
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-P", "-m", "cli", *arguments],
            env=self.environment | environment,
            cwd=self.home.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def up(self, *arguments: str) -> "subprocess.Popen[str]":
        """Bring a stack up and return when it says that all is healthy."""
        log = self.home.parent / f"up-{len(self.started)}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cli", "up", *arguments],
                env=self.environment,
                cwd=self.home.parent,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.started.append(process)
        deadline = time.monotonic() + START_SECONDS
        while "All healthy" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return process

    def finds(self, words: str, name: str) -> None:
        """Search until the file is found: what was uploaded a moment ago may take one."""
        deadline = time.monotonic() + 20
        while name not in (found := self.run("search", words)).stdout:
            assert found.returncode in {0, 1}, found.stderr  # nothing was found, or others
            assert time.monotonic() < deadline, found.stdout

    def output(self, process: "subprocess.Popen[str]") -> str:
        return (self.home.parent / f"up-{self.started.index(process)}.log").read_text()

    def pids(self) -> dict[str, int]:
        run = json.loads((self.home / "run.json").read_text())
        return {one["name"]: one["pid"] for one in run["processes"]}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    settings = StackSettings.on_free_ports(tmp_path / "home")
    ports = {name.upper(): str(value) for name, value in settings.model_dump().items() if name.endswith("_port")}
    made = Machine(settings.artstore_home, {**os.environ, **ports, "ARTSTORE_HOME": str(settings.artstore_home)})
    yield made
    for process in made.started:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_SECONDS)
    made.run("down")
    EmbeddedPostgres(made.home / "postgres", settings.artstore_postgres_port).erase()


def alive(pids: dict[str, int]) -> list[str]:
    return [name for name, pid in pids.items() if psutil.pid_exists(pid)]


def wants_tokens(machine: Machine, folder: Path) -> None:
    """Nobody is let in without a token; verbs, and the services among themselves, have theirs."""
    run = json.loads((machine.home / "run.json").read_text())
    search = f"{run['query_url']}/api/v1/files/search"
    assert [httpx.get(url).status_code for url in (search, f"{run['admin_url']}/api/v1/files")] == [401, 401]
    ready = [one["ready_url"] for one in run["processes"] if one["ready_url"]]
    told = [*ready, *(url.replace("/health/ready", "/metrics") for url in ready)]
    assert [httpx.get(url).status_code for url in told] == [200] * 10

    token = machine.run("token", "--scope", "files:read", "--subject", "olga", "--lifetime", "5m").stdout.strip()
    found = httpx.get(search, params={"query": "report"}, headers={"Authorization": f"Bearer {token}"})
    assert [hit["original_filename"] for hit in found.json()["results"]] == ["quarterlyReport_v2.pdf"]
    assert machine.run("lag", "--url", run["query_url"]).returncode == 1
    refused = machine.run("lag", ARTSTORE_TOKEN=token)
    assert (refused.returncode, "needs a token with the scope sync:admin" in refused.stderr) == (1, True)

    assert machine.run("ingest", str(folder)).returncode == 0
    assert machine.run("lag").returncode == 0
    # The Query API and maintenance ask the Admin API by a token of their own.
    traced = json.loads(machine.run("trace", found.json()["results"][0]["file_id"], "--json").stdout)
    assert (traced["troubles"], traced["admin"]["revision"]) == ({}, 1)
    compared = machine.run("sync", "full", "--dry-run")
    assert compared.returncode == 0, compared.stdout + compared.stderr


def test_upload_a_folder_and_find_it_also_after_a_restart_that_wants_tokens(machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "год").mkdir(parents=True)
    (folder / "год" / "Отчёт за квартал.txt").write_text("итоги")
    (folder / "empty").touch()
    (folder / "quarterlyReport_v2.pdf").write_bytes(b"%PDF")
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.txt")).write_text("latin")
    (folder / "link").symlink_to("empty")

    first = machine.up()
    status = machine.run("status")
    assert status.returncode == 0, status.stdout
    assert status.stdout.count("healthy") == 7
    second = machine.run("up")
    assert second.returncode == 1
    assert f"ArtStore is already running as process {first.pid}" in second.stderr

    ingest = machine.run("ingest", str(folder))
    assert ingest.returncode == 0, ingest.stdout + ingest.stderr
    assert "Uploaded 4 of 4 files" in ingest.stdout
    assert "link  symbolic link" in ingest.stdout
    for words, name in (
        ("отчет", "Отчёт за квартал.txt"),
        ("report", "quarterlyReport_v2.pdf"),
        ("xe9", "caf\\xe9.txt"),
    ):
        machine.finds(words, name)

    assert machine.run("dlq", "list").stdout == "There are no dead letters.\n"
    redriven = machine.run("dlq", "redrive", "--all", "--republish")
    assert (redriven.returncode, redriven.stdout) == (0, "No letter was there to act on.\n"), redriven.stderr

    rebuilt = machine.run("rebuild", "--reason", "to see it work")
    assert (rebuilt.returncode, "Generation 2 is live, 4 rows" in rebuilt.stdout) == (0, True), rebuilt.stderr
    machine.finds("report", "quarterlyReport_v2.pdf")

    pids = machine.pids()
    down = machine.run("down")
    assert down.returncode == 0, down.stderr
    assert first.wait(1) == 0
    assert alive(pids) == []
    assert machine.run("status").returncode == 3
    assert machine.run("search", "report").returncode == 2

    again = machine.up("--auth")
    machine.finds("report", "quarterlyReport_v2.pdf")
    wants_tokens(machine, folder)
    again.send_signal(signal.SIGINT)
    assert again.wait(STOP_SECONDS) == 0


def test_what_a_killed_run_left_is_stopped_and_a_child_that_dies_is_named(machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "report").touch()
    first = machine.up()
    assert machine.run("ingest", str(folder)).returncode == 0
    machine.finds("report", "report  ")
    left = machine.pids()
    first.kill()
    first.wait()
    assert sorted(alive(left)) == sorted(left)

    second = machine.up("--fresh")
    assert ": 0 found" in machine.run("search", "report").stdout
    output = machine.output(second)
    assert "Stopped what a killed run had left behind" in output
    assert alive(left) == []
    pids = machine.pids()
    os.kill(pids["query-projector"], signal.SIGKILL)
    assert second.wait(STOP_SECONDS) == 1
    output = machine.output(second)
    assert "query-projector ended by itself (killed by SIGKILL)." in output
    assert "query-projector started" in output.rpartition("ended by itself")[2]
    assert alive(pids) == []


def test_a_port_in_use_is_one_sentence_and_starts_nothing(machine: Machine) -> None:
    machine.environment["QUERY_API_PORT"] = machine.environment["ADMIN_API_PORT"]
    refused = machine.run("up")
    assert refused.returncode == 1
    assert "is meant for both Admin API and Query API" in refused.stderr
    assert not (machine.home / "run.json").exists()


def test_the_demo_finds_every_file_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(30):
        below = folder / f"chapter-{number}"
        below.mkdir()
        (below / "copyright").write_text(f"{number}")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    demo = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "demo", str(folder)],
        env={**os.environ, "ARTSTORE_HOME": str(tmp_path / "no-home"), "TMPDIR": str(temporary)},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "30 of 30" in demo.stdout
    assert "p50" in demo.stdout
    assert "Consumer lag" in demo.stdout
    assert [path.name for path in temporary.iterdir() if path.name.startswith("artstore")] == []
