"""The trace of a file as an operator meets it: whichever process is frozen, the verb names the hold-up in time."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import psutil
import pytest

from local.settings import StackSettings
from local.stack import Stack
from tests.running import run_verb
from tests.waiting import eventually

ANSWER_SECONDS = 15.0
"""A part is given up after 2 s, and where the Admin module is silent the topic is looked through after that; the rest
is the start of the verb on a busy machine."""
WELL_SECONDS = 90.0
"""Leases of 15 s, transactions that time out, a session that ends: until what was frozen is at work again."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(StackSettings.on_free_ports(tmp_path_factory.mktemp("stack")))
    with stack:
        yield stack
    stack.erase()


@pytest.fixture
async def admin(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{stack.admin_url}/api/v1/files", timeout=60) as client:
        yield client


@contextmanager
def frozen(stack: Stack, name: str) -> Iterator[None]:
    """The process and all that it has started do nothing meanwhile."""
    run = stack.home.running()
    assert run is not None
    [parent] = [psutil.Process(one.pid) for one in run.processes if one.name == name]
    stopped = [parent, *parent.children(recursive=True)]
    for one in stopped:
        one.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for one in stopped:
            one.send_signal(signal.SIGCONT)


async def uploaded(admin: httpx.AsyncClient) -> str:
    answer = await admin.post("/upload", files={"file": ("a.txt", b"x")})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["file_id"])


async def trace(stack: Stack, file_id: str) -> dict[str, Any]:
    """What the verb tells, in time; its exit code says the same."""
    begin = time.monotonic()
    verb = (sys.executable, "-P", "-m", "cli", "trace", file_id, "--json", "--url", stack.query_url)
    code, told, complaint = await run_verb(verb)
    assert time.monotonic() - begin < ANSWER_SECONDS
    assert told, complaint
    found: dict[str, Any] = json.loads(told)
    assert code == (found["held_up_by"] != "nothing")
    return found


async def visible(stack: Stack, file_id: str) -> None:
    async def look() -> bool:
        async with httpx.AsyncClient(base_url=stack.query_url, timeout=30) as query:
            answer = await query.get(f"/api/v1/files/{file_id}/trace")
            return answer.status_code == 200 and answer.json()["held_up_by"] == "nothing"

    await eventually(look, WELL_SECONDS, f"{file_id} visible")


@pytest.mark.parametrize(
    ("victim", "held_up_by", "silent"),
    [
        ("admin-relay", "outbox", set()),
        ("query-projector", "topic", set()),
        ("kafka", "outbox", {"dead_letters"}),
    ],
)
async def test_whoever_does_not_pass_it_on_is_named(
    stack: Stack, admin: httpx.AsyncClient, victim: str, held_up_by: str, silent: set[str]
) -> None:
    await visible(stack, await uploaded(admin))
    with frozen(stack, victim):
        file_id = await uploaded(admin)

        async def look() -> dict[str, Any]:
            found = await trace(stack, file_id)
            assert found["held_up_by"] in {"outbox", held_up_by}
            return found if found["held_up_by"] == held_up_by else {}

        found = await eventually(look)
        assert silent <= found["troubles"].keys()
    await visible(stack, file_id)
    assert (await trace(stack, file_id))["held_up_by"] == "nothing"


@pytest.mark.parametrize(("victim", "silent"), [("admin-api", {"admin"}), ("postgres", {"admin", "database"})])
async def test_whoever_cannot_tell_is_named_in_time_and_nothing_is_claimed_in_its_place(
    stack: Stack, admin: httpx.AsyncClient, victim: str, silent: set[str]
) -> None:
    file_id = await uploaded(admin)
    await visible(stack, file_id)
    with frozen(stack, victim):
        for _ in range(3):
            found = await trace(stack, file_id)
            assert found["held_up_by"] == "unclear"
            assert silent == found["troubles"].keys()
        traces = [asyncio.create_task(trace(stack, file_id)) for _ in range(2)]
        assert {found["held_up_by"] for found in await asyncio.gather(*traces)} == {"unclear"}
    await visible(stack, file_id)
