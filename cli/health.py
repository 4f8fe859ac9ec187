"""`python -m cli.health`: in a container, whether the process that runs there can do its work. Exit code 0: yes.

Asked every few seconds beside each process, so it costs a socket, and reads no settings: which process it is, its own
command line says. A verb that ends by itself, such as `migrate`, has no health and is never unwell.
"""

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

PORTS: Final = {
    ("admin", "api"): ("ADMIN_API_MANAGEMENT_PORT", 8011),
    ("admin", "relay"): ("ADMIN_RELAY_MANAGEMENT_PORT", 8012),
    ("query", "api"): ("QUERY_API_MANAGEMENT_PORT", 8031),
    ("query", "projector"): ("QUERY_PROJECTOR_MANAGEMENT_PORT", 8032),
    ("query", "maintenance"): ("QUERY_MAINTENANCE_MANAGEMENT_PORT", 8034),
}
"""By its verb the setting of a process's management port, and that setting's default."""

_SECONDS: Final = 4.0
"""For an answer: the process gives each of its own checks 2 s."""
_EVERYWHERE: Final = {"", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound


def management_address(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, int] | None:
    """Where the process with this command line answers for its health; None when it has none."""
    for verb, (setting, default) in PORTS.items():
        if verb in itertools.pairwise(command):
            host = environment.get("MANAGEMENT_HOST", "")
            return "127.0.0.1" if host in _EVERYWHERE else host, int(environment.get(setting, default))
    return None


def unreadiness(host: str, port: int) -> str | None:
    """What the process there says it lacks; None when it is ready."""
    connection = HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        return None if answer.status == 200 else answer.read().decode()
    except (OSError, HTTPException) as error:
        return f"no answer from {host} port {port}: {error}"
    finally:
        connection.close()


def main() -> None:
    """Ask the first process of this container."""
    command = Path("/proc/1/cmdline").read_text().split("\0")
    address = management_address(command, os.environ)
    if address is not None and (reason := unreadiness(*address)) is not None:
        sys.exit(reason)


if __name__ == "__main__":
    main()
