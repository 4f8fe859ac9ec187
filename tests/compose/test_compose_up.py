"""docker-compose.kafka.yml for real: `./artstore test --compose`, with Docker and its compose plugin.

It takes the images that are there under the tags of the file; what is missing is built or pulled. The project and its
volumes have a name of their own, so a running one keeps its data; but it has the ports, and must be stopped before.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import httpx
import pytest

PROJECT = "artstore-test"
ADMIN, QUERY = "http://127.0.0.1:8010", "http://127.0.0.1:8030"
OURS = ("admin-api", "admin-relay", "query-api", "query-projector", "query-maintenance")
UP_SECONDS = 600
FOUND_SECONDS = 60


def compose(*arguments: str, seconds: float = UP_SECONDS) -> str:
    """Standard output of a command of compose, which has to succeed."""
    command = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    all_of_it = [*command, "-p", PROJECT, "-f", "docker-compose.kafka.yml", *arguments]
    result = subprocess.run(all_of_it, capture_output=True, text=True, timeout=seconds, check=False)
    assert result.returncode == 0, f"{' '.join(all_of_it)}:\n{result.stdout[-2000:]}{result.stderr[-4000:]}"
    return result.stdout


def up() -> None:
    """Start what does not run, and wait until all of it is healthy."""
    compose("up", "--detach", "--wait", "--wait-timeout", str(UP_SECONDS), seconds=2 * UP_SECONDS)


@pytest.fixture(scope="module")
def system() -> Iterator[None]:
    try:
        up()
        yield
    finally:
        compose("--profile", "*", "down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="module")
def clients(system: None) -> Iterator[tuple[httpx.Client, httpx.Client]]:  # noqa: ARG001
    bearer = {"Authorization": f"Bearer {compose('run', '--rm', '-T', 'token').strip()}"}
    with (
        httpx.Client(base_url=ADMIN, headers=bearer, timeout=30) as admin,
        httpx.Client(base_url=QUERY, headers=bearer, timeout=30) as query,
    ):
        yield admin, query


def upload(admin: httpx.Client, name: str) -> str:
    answer = admin.post("/api/v1/files/upload", files={"file": (f"{name}.txt", name.encode(), "text/plain")})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["file_id"])


def wait_for(look: Callable[[], set[str]], expected: set[str]) -> None:
    deadline = time.monotonic() + FOUND_SECONDS
    while (seen := look()) != expected:
        assert time.monotonic() < deadline, f"{len(expected - seen)} of {len(expected)} were not found"
        time.sleep(0.2)


def found(query: httpx.Client, word: str) -> set[str]:
    answer = query.get("/api/v1/files/search", params={"query": word, "limit": 200})
    assert answer.status_code == 200, answer.text
    return {str(one["file_id"]) for one in answer.json()["results"]}


@pytest.mark.parametrize("profiles", [(), ("--profile", "monitoring", "--profile", "token")])
def test_compose_takes_the_file(profiles: tuple[str, ...]) -> None:
    compose(*profiles, "config", "--quiet")


@pytest.mark.timeout(2400)
def test_a_file_that_was_uploaded_with_a_token_is_found(clients: tuple[httpx.Client, httpx.Client]) -> None:
    admin, query = clients
    word = f"k{uuid4().hex}"
    file_id = upload(admin, word)
    wait_for(lambda: found(query, word), {file_id})
    assert httpx.get(f"{QUERY}/api/v1/files/search", params={"query": word}).status_code == 401
    assert httpx.post(f"{ADMIN}/api/v1/files/upload", files={"file": ("a.txt", b"a")}).status_code == 401


@pytest.mark.timeout(2400)
def test_the_query_side_may_ask_the_admin_side(clients: tuple[httpx.Client, httpx.Client]) -> None:
    admin, query = clients
    word = f"k{uuid4().hex}"
    file_id = upload(admin, word)
    wait_for(lambda: found(query, word), {file_id})
    trace = query.get(f"/api/v1/files/{file_id}/trace").json()
    assert trace["admin"] is not None
    assert trace["troubles"] == {}


@pytest.mark.timeout(2400)
def test_a_rebuild_has_its_processes_where_nothing_can_be_written(clients: tuple[httpx.Client, httpx.Client]) -> None:
    admin, query = clients
    word = f"k{uuid4().hex}"
    file_id = upload(admin, word)
    wait_for(lambda: found(query, word), {file_id})
    token = admin.headers["Authorization"].removeprefix("Bearer ")
    verb = ("artstore", "rebuild", "--url", QUERY)
    compose("exec", "-T", "-e", f"ARTSTORE_TOKEN={token}", "query-api", *verb)
    assert found(query, word) == {file_id}


@pytest.mark.timeout(2400)
def test_processes_end_well_when_told_to_stop_and_nothing_is_lost(clients: tuple[httpx.Client, httpx.Client]) -> None:
    admin, query = clients
    word = f"k{uuid4().hex}"
    uploaded = {upload(admin, f"{word} {number}") for number in range(100)}
    compose("stop")
    listed = compose("ps", "--all", "--format", "json").splitlines()
    ended = {one["Service"]: one["ExitCode"] for one in map(json.loads, listed)}
    assert {name: ended[name] for name in OURS} == dict.fromkeys(OURS, 0)
    up()
    wait_for(lambda: found(query, word), uploaded)
