"""Processes: a failure that was foreseen is one line, and the exit code says how it ended."""

import asyncio
import socket
from typing import Any

import pytest
import structlog

from runtime.health import Health
from runtime.process import http_server, run_process, run_to_exit
from runtime.settings import ProcessSettings


@pytest.fixture(autouse=True)
def _quiet_logging_afterwards() -> Any:
    yield
    structlog.reset_defaults()


async def nothing(*_: Any) -> None:
    return


def test_an_address_in_use_is_one_line_and_exit_code_1(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        async def main(_: ProcessSettings) -> None:
            await run_process("tests", Health(), ("127.0.0.1", 0), http_server(nothing, "127.0.0.1", port))

        with pytest.raises(SystemExit) as exited:
            run_to_exit("tests", ProcessSettings, main)
    assert exited.value.code == 1
    said = capfd.readouterr().err
    assert f"Cannot listen on 127.0.0.1 port {port}" in said
    assert "Traceback" not in said


def test_a_failure_that_was_not_foreseen_shows_where_it_happened(capfd: pytest.CaptureFixture[str]) -> None:
    async def main(_: ProcessSettings) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("boom")

    with pytest.raises(SystemExit):
        run_to_exit("tests", ProcessSettings, main)
    assert "Traceback" in capfd.readouterr().err
