"""A process runs its tasks until told to stop, lets each finish what it has in hand, and then exits 0.

One task that fails ends the process with exit code 1: a supervisor restarting it is better than half a process.
"""

import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import structlog
import uvicorn
import uvloop
from pydantic import ValidationError

from runtime.connections import BoundedConnection
from runtime.errors import StartError
from runtime.health import Check, Condition, Health, management_app
from runtime.logging import configure_logging
from runtime.settings import ProcessSettings, say_refused
from runtime.starting import wait_for
from runtime.tracing import tracing

Task = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Runs until the event is set, then finishes what it has in hand and returns."""

S = TypeVar("S", bound=ProcessSettings)

DRAIN_SECONDS = 10
"""How long open requests may take after the signal."""

_log = structlog.get_logger()


class ListenError(StartError):
    """The address is in use or not this machine's."""


class _Server(uvicorn.Server):
    """Leaves signals to `run_process`, which has more than one server to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def http_server(app: Any, host: str, port: int, *, max_connections: int = 100, trusted_proxies: str = "") -> Task:
    """A task that serves `app` and drains open requests at the end.

    Args:
        app: an ASGI application
        host: address to listen on
        port: likewise
        max_connections: at once; more are answered 503
        trusted_proxies: addresses and networks whose X-Forwarded-For is believed, joined by commas

    The task raises ListenError when the address cannot be had.
    """

    async def serve(stopping: asyncio.Event) -> None:
        listener = _listen(host, port)
        server = _Server(
            uvicorn.Config(
                app,
                http=BoundedConnection,
                ws="none",  # a library for it, if one came in, would take connections out of their bounds
                limit_concurrency=max_connections + 1,
                proxy_headers=bool(trusted_proxies),
                forwarded_allow_ips=trusted_proxies,
                access_log=False,
                log_config=None,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=DRAIN_SECONDS,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stop = asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait((serving, stop), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Also when another task failed: a listener that is left open would keep the event loop from closing.
            stop.cancel()
            server.should_exit = True
            await serving

    return serve


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ListenError(f"Cannot listen on {host} port {port}: {error.strerror}.") from error


async def run_process(
    name: str,
    health: Health,
    management: tuple[str, int],
    *tasks: Task,
    needs: Mapping[str, Check] = MappingProxyType({}),
) -> None:
    """Run `tasks` and the management server until SIGTERM, SIGINT or the failure of one of them.

    Args:
        name: of the process
        health: what it needs to be ready
        management: where the management server listens; it answers from the first to the last
        tasks: begun when all that they need is there
        needs: see `starting.wait_for`

    Raises:
        BaseExceptionGroup: a task failed, and the rest were cancelled; or something needed will never be there.
    """
    stopping = asyncio.Event()
    drained = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    begun = Condition()
    health.require("start", begun.check)
    async with asyncio.TaskGroup() as group:
        group.create_task(http_server(management_app(health), *management)(drained))
        if await wait_for(needs, begun, stopping):
            _log.info(f"{name} started")
            async with asyncio.TaskGroup() as workers:
                workers.create_task(stopping.wait())
                for task in tasks:
                    workers.create_task(task(stopping))
        drained.set()
    _log.info(f"{name} stopped")


def collect_seldom() -> None:
    """Look for cyclic garbage seldom: rows in hand make none, and looking took a fifth of the relay's time.

    It also holds up the answer that happens to be under way.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run_to_exit(name: str, settings_type: type[S], main: Callable[[S], Coroutine[Any, Any, None]]) -> None:
    """Read the settings once and run a process to its end.

    Exit codes: 0 after a signal, 1 after a failure (logged once), 2 when the settings are wrong.
    """
    try:
        settings = settings_type()
    except ValidationError as error:
        say_refused(error)
        sys.exit(2)
    configure_logging(name, settings.log_level, settings.log_format)
    try:
        with tracing(name, settings), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main(settings))
    except Exception as error:  # noqa: BLE001 - the top of the process
        for cause in _leaves(error):
            foreseen = isinstance(cause, StartError)
            _log.error("process failed", error=str(cause), exc_info=None if foreseen else cause)
        sys.exit(1)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
