"""The embedded servers themselves, each test with servers of its own."""

from pathlib import Path

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from local.errors import ProcessError
from local.kafka import EmbeddedKafka
from local.ports import free_port
from local.postgres import EmbeddedPostgres


async def query(postgres: EmbeddedPostgres, statement: str) -> object:
    connection = await asyncpg.connect(postgres.url("artstore_query"))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_postgres_keeps_its_data_through_a_stop_and_a_crash(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path, free_port())
    folder = postgres.folder
    try:
        postgres.start()
        await query(postgres, "CREATE TABLE t AS SELECT 41 AS n")
        postgres.stop()
        postgres.start()
        await query(postgres, "UPDATE t SET n = n + 1")
        postgres.kill()
        postgres.start()
        assert await query(postgres, "SELECT n FROM t") == 42
    finally:
        postgres.stop()
        postgres.erase()
    assert not (folder / "data").exists()


async def test_postgres_folds_cyrillic(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, free_port(), fsync=False) as postgres:
        assert await query(postgres, "SELECT lower('ЖЁ')") == "жё"
        assert await query(postgres, "SHOW fsync") == "off"
    postgres.erase()


async def test_a_data_folder_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path, free_port(), fsync=False)
    (postgres.folder / "data.new").mkdir(parents=True)
    (postgres.folder / "data.new" / "PG_VERSION").write_text("18")
    with postgres:
        assert await query(postgres, "SELECT 1") == 1
    postgres.erase()


def test_postgres_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path, free_port(), settings={"shared_buffers": "nonsense"})
    with pytest.raises(ProcessError, match=r"(?s)^postgres ended by itself.*shared_buffers"):
        postgres.start()
    postgres.erase()


async def test_kafka_keeps_its_data_through_a_stop_and_a_crash_on_another_port(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path, free_port(), properties={"log.cleaner.backoff.ms": "500"})
    with kafka:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        await admin.create_topics([NewTopic("t", 1, 1)])
        await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all") as producer:
            await producer.send_and_wait("t", b"first")
    kafka.port = free_port()
    kafka.start()
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, acks="all") as producer:
        await producer.send_and_wait("t", b"second")
    kafka.kill()
    with kafka:
        async with AIOKafkaConsumer(
            "t", bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest"
        ) as consumer:
            assert [(await consumer.getone()).value for _ in range(2)] == [b"first", b"second"]
    kafka.erase()
    assert not kafka.data.exists()
