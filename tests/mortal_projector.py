"""A projector in a process of its own that kills or stops itself when a named point is reached for the n-th time.

    python -P -m tests.mortal_projector '{"point": "APPLIED", "after": 3, "notes": "/…/notes", "signal": "SIGKILL"}'

It reads the same environment and is put together by the same function as the one in service.
"""

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from consumer_query.projector_process import run_projector
from consumer_query.settings import ProjectorSettings
from runtime.process import run_to_exit


@dataclass(frozen=True)
class Orders:
    """Where and when to die, or to stop."""

    point: str
    """A name of `Point`, or of another process' points."""
    after: int
    """At this visit, counted from 1."""
    notes: str
    """A file; one line is appended just before."""
    signal: str = "SIGKILL"

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Death:
    """Counts visits to one point."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._left = orders.after

    def __call__(self, point: StrEnum) -> None:
        if point.name != self._orders.point:
            return
        self._left -= 1
        if self._left == 0:
            with Path(self._orders.notes).open("a") as notes:
                notes.write(f"{point.name}\n")
            os.kill(os.getpid(), signal.Signals[self._orders.signal])


if __name__ == "__main__":
    death = Death(Orders(**json.loads(sys.argv[1])))
    run_to_exit("query-projector", ProjectorSettings, partial(run_projector, watch=death))
