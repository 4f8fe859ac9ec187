"""A port is tried before anything starts, so that a conflict is one sentence and not a log to read."""

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from local.errors import PortInUseError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class PortUse:
    """A port somebody is going to listen on, and the variable that moves it."""

    port: int
    what: str
    variable: str


def free_port() -> int:
    """A TCP port on the loopback that nobody listens on at this moment."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Several different ones."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]


def is_free(port: int) -> bool:
    """True when this process could listen on the port of the loopback now."""
    with socket.socket() as probe:
        # A port whose last connections still wait to expire can be listened on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def answers(port: int) -> bool:
    """True when something accepts connections on the port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def require_free(uses: Iterable[PortUse]) -> None:
    """Return when every port is free.

    Raises:
        PortInUseError: two uses share a port, or another process has one of them.
    """
    taken: dict[int, PortUse] = {}
    for use in uses:
        if use.port in taken:
            other = taken[use.port]
            raise PortInUseError(
                f"Port {use.port} is meant for both {other.what} and {use.what}. "
                f"Set {other.variable} or {use.variable} to another port."
            )
        if not is_free(use.port):
            raise PortInUseError(f"Port {use.port} ({use.what}) is in use. Stop what uses it or set {use.variable}.")
        taken[use.port] = use
