"""Everything is up, or nothing is: a start that fails or is interrupted stops what it had started.

Each process starts as soon as what it needs is there: its database migrated, the topics made. The end goes the other
way: the services drain first, then Kafka and Postgres stop.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Self

from local.errors import LocalError, ProcessError
from local.health import unreadiness
from local.jars import ensure_jars
from local.kafka import EmbeddedKafka
from local.ports import require_free
from local.postgres import EmbeddedPostgres
from local.process import Child, Command
from local.server import Server
from local.services import admin_url, environment, ports, python, query_url, services
from local.settings import CHECKOUT, StackSettings
from local.state import Home, Process, Run, describe

MIN_FREE_BYTES = 1 << 30
READY_SECONDS = 60.0
TASK_SECONDS = 60.0
DRAIN_SECONDS = 10.0
_WATCH_SECONDS = 0.2

Tell = Callable[[str], None]
"""Called with one line on what is being waited for, from several threads."""


class Stack:
    """One stack in one home."""

    def __init__(self, settings: StackSettings, tell: Tell = lambda _: None, *, guarded: bool = False) -> None:
        """Describe a stack, with APIs that want a token or without; nothing is started yet."""
        self.settings = settings
        self.guarded = guarded
        self.home = Home(settings.artstore_home)
        self.services = {service.name: service for service in services(settings)}
        folder, logs = self.home.folder, self.home.logs
        self.kafka = EmbeddedKafka(folder / "kafka", settings.artstore_kafka_port, log=logs / "kafka.log")
        self.postgres = EmbeddedPostgres(
            folder / "postgres", settings.artstore_postgres_port, log=logs / "postgres.log"
        )
        self.orphans: list[str] = []
        """What a killed supervisor had left behind, stopped by `start`."""
        self._environment = environment(settings, self.home, self.kafka, self.postgres)
        if guarded:
            # Here, because it brings a library of signatures along.
            from local import access  # noqa: PLC0415

            self._environment |= access.environment(self.home)
        self.tell = tell
        self._awaited: list[str] = []
        self._children: dict[str, Child] = {}
        self._guard = threading.RLock()
        self._stopping = False
        self._healthy = False

    @property
    def admin_url(self) -> str:
        """The Admin API."""
        return admin_url(self.settings)

    @property
    def query_url(self) -> str:
        """The Query API."""
        return query_url(self.settings)

    def start(self, *, fresh: bool = False) -> None:
        """Start everything and wait until all of it is ready.

        Args:
            fresh: begin with no data

        Raises:
            LocalError: something is missing or did not start; what had started was stopped.
        """
        self.home.acquire()
        try:
            self.orphans = self.home.stop_orphans()
            require_free(ports(self.settings))
            self._require_space()
            if fresh:
                self.erase()
            self.home.clear_logs()
            if self.guarded:
                from local import access  # noqa: PLC0415 - as above

                access.prepare(self.home)
            ensure_jars(
                self.settings.folder, lambda done, of: self.tell(f"Downloading Kafka (once): {done} of {of} jars")
            )
            self._start_in_order()
            self._healthy = True
            self._record()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything in order. Does nothing when nothing runs."""
        self._end_processes()
        self.home.release()
        self._stopping = self._healthy = False

    def erase(self) -> None:
        """Delete all data of a stopped stack; logs stay."""
        self.kafka.erase()
        self.postgres.erase()
        shutil.rmtree(self.home.files, ignore_errors=True)
        self.home.files.mkdir(parents=True)

    def kill(self, name: str) -> None:
        """SIGKILL one process, as a crash would; it stays down until `restart`."""
        if name in self._servers:
            self._servers[name].kill()
        else:
            self._children.pop(name).kill()

    def restart(self, name: str) -> None:
        """Start a process anew and wait until it is ready; one that runs is killed first."""
        if name in self._children or name in self._servers:
            self.kill(name)
        if name in self._servers:
            self._start_server(name)
        else:
            self._start_service(name)

    def require_alive(self) -> None:
        """Return while everything runs.

        Raises:
            ProcessError: a process ended by itself.
        """
        for child in [*self._children.values(), self.kafka.child, self.postgres.child]:
            if child is not None and child.exit_code() is not None:
                raise child.died()

    def watch(self) -> None:
        """Never return.

        Raises:
            ProcessError: a process ended by itself.
        """
        while True:
            self.require_alive()
            time.sleep(_WATCH_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _servers(self) -> dict[str, Server]:
        return {"kafka": self.kafka, "postgres": self.postgres}

    def _require_space(self) -> None:
        if shutil.disk_usage(self.home.folder).free < MIN_FREE_BYTES:
            raise LocalError(f"Less than 1 GiB is free where {self.home.folder} lies. Make room, or set ARTSTORE_HOME.")

    def _start_in_order(self) -> None:
        pool = ThreadPoolExecutor(thread_name_prefix="start", max_workers=10)
        steps: dict[str, Future[None]] = {}

        def step(name: str, work: Callable[[], None], *needs: str) -> None:
            before = [steps[need] for need in needs]
            steps[name] = pool.submit(self._step, name, work, before)

        step("Kafka", lambda: self._start_server("kafka"))
        step("Postgres", lambda: self._start_server("postgres"))
        step("Admin database", lambda: self._run_task("producer_admin", "migrate"), "Postgres")
        step("Query database", lambda: self._run_task("consumer_query", "migrate"), "Postgres")
        step("topics", lambda: self._run_task("cli", "topics", "ensure"), "Kafka")
        step("Admin API", lambda: self._start_service("admin-api"), "Admin database")
        step("Query API", lambda: self._start_service("query-api"), "Query database")
        step("relay", lambda: self._start_service("admin-relay"), "Admin database", "topics")
        step("projector", lambda: self._start_service("query-projector"), "Query database", "topics")
        step("maintenance", lambda: self._start_service("query-maintenance"), "Query database", "topics")
        try:
            for one in wait(steps.values(), return_when=FIRST_EXCEPTION).done:
                one.result()
        except BaseException:
            self._end_processes()  # the other steps wait for these
            raise
        finally:
            pool.shutdown()

    def _step(self, name: str, work: Callable[[], None], before: list[Future[None]]) -> None:
        for one in before:
            one.result()
        self._await(name, begin=True)
        work()
        self._await(name, begin=False)

    def _await(self, name: str, *, begin: bool) -> None:
        with self._guard:
            (self._awaited.append if begin else self._awaited.remove)(name)
            if self._awaited:
                self.tell(f"Waiting for {', '.join(self._awaited)}")

    def _start_server(self, name: str) -> None:
        server = self._servers[name]
        with self._guard:
            self._refuse_when_stopping()
            child = server.launch()
            self._record()
        server.wait_ready(child)

    def _start_service(self, name: str) -> None:
        service = self.services[name]
        child = self._spawn(name, service.argv)
        child.wait_until(lambda: unreadiness(service.ready_url) is None, READY_SECONDS)

    def _run_task(self, *arguments: str) -> None:
        name = "-".join(arguments)
        child = self._spawn(name, python(*arguments))
        code = child.wait(TASK_SECONDS)
        with self._guard:
            self._refuse_when_stopping()
            del self._children[name]
        if code != 0:
            raise child.died()

    def _spawn(self, name: str, argv: tuple[str, ...]) -> Child:
        with self._guard:
            self._refuse_when_stopping()
            log = self.home.logs / f"{name}.log"
            child = Child(Command(name=name, argv=argv, log=log, cwd=CHECKOUT, env=self._environment))
            self._children[name] = child
            self._record()
            return child

    def _refuse_when_stopping(self) -> None:
        if self._stopping:
            raise ProcessError("The stack is being stopped.")

    def _end_processes(self) -> None:
        with self._guard:
            self._stopping = True
            children = list(self._children.values())
            self._children.clear()
        if children:
            self.tell("Stopping the services")
        for child in children:
            child.ask_to_stop()
        deadline = time.monotonic() + DRAIN_SECONDS
        for child in children:
            child.stop(max(0.0, deadline - time.monotonic()))
        if self.kafka.child or self.postgres.child:
            once = ", and keeping what lets Kafka start faster (once, about 10 s)" if self.kafka.is_learning else ""
            self.tell(f"Stopping Kafka and Postgres{once}")
        with ThreadPoolExecutor(2) as pool:
            for ended in [pool.submit(server.stop) for server in self._servers.values()]:
                ended.result()

    def _record(self) -> None:
        order = list(self.services)
        services = sorted(self._children.values(), key=lambda one: order.index(one.name) if one.name in order else -1)
        children = [self.postgres.child, self.kafka.child, *services]
        self.home.write(
            Run(
                supervisor=describe("artstore", os.getpid()),
                admin_url=self.admin_url,
                query_url=self.query_url,
                bootstrap_servers=self.kafka.bootstrap_servers,
                topic=self.settings.file_events_topic,
                group=self.settings.kafka_consumer_group,
                processes=tuple(self._describe(one) for one in children if one is not None and one.exit_code() is None),
                guarded=self.guarded,
                healthy=self._healthy,
            )
        )

    def _describe(self, child: Child) -> Process:
        service = self.services.get(child.name)
        servers = {"kafka": self.kafka.bootstrap_servers, "postgres": self.postgres.url("")}
        return describe(
            child.name,
            child.pid,
            stop_signal=child.command.stop_signal,
            url=service.url if service else servers.get(child.name, ""),
            ready_url=service.ready_url if service else None,
        )
