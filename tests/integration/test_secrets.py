"""Processes that are given passwords and cannot use them say so without the passwords, in logs and in readiness."""

import asyncio
import os
import signal
import sys

import httpx
import pytest

from local.ports import free_port
from tests.waiting import eventually

SECRET = "hidden-password-of-"
NOBODY = "127.0.0.1:9"
ENVIRONMENT = {
    "ADMIN_DATABASE_URL": f"postgresql://artstore:{SECRET}admin@{NOBODY}/artstore_admin",
    "QUERY_DATABASE_URL": f"postgresql://artstore:{SECRET}query@{NOBODY}/artstore_query",
    "QUERY_SEARCH_DATABASE_URL": f"postgresql://reader:{SECRET}search@{NOBODY}/artstore_query",
    "KAFKA_BOOTSTRAP_SERVERS": NOBODY,
    "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "KAFKA_SASL_MECHANISM": "PLAIN",
    "KAFKA_SASL_USERNAME": "artstore",
    "KAFKA_SASL_PASSWORD": f"{SECRET}kafka",
    "SCHEMA_REGISTRY_URL": f"http://registry:{SECRET}registry@{NOBODY}",
    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://collector:{SECRET}collector@{NOBODY}",
    "AUTH_TOKEN_URL": f"http://{NOBODY}/token",
    "AUTH_CLIENT_ID": "artstore-query",
    "AUTH_CLIENT_SECRET": f"{SECRET}client",
    "ADMIN_API_URL": f"http://{NOBODY}",
    "STORAGE_ELEMENT_URL": "file:///nowhere",
    "AWS_SECRET_ACCESS_KEY": f"{SECRET}bucket",
    "LOG_LEVEL": "DEBUG",
}
PROCESSES = {
    ("producer_admin", "api"): "ADMIN_API_MANAGEMENT_PORT",
    ("producer_admin", "relay"): "ADMIN_RELAY_MANAGEMENT_PORT",
    ("producer_admin", "migrate"): None,
    ("consumer_query", "api"): "QUERY_API_MANAGEMENT_PORT",
    ("consumer_query", "projector"): "QUERY_PROJECTOR_MANAGEMENT_PORT",
    ("consumer_query", "maintenance"): "QUERY_MAINTENANCE_MANAGEMENT_PORT",
    ("cli", "topics", "ensure"): None,
}


@pytest.mark.parametrize("command", PROCESSES, ids=" ".join)
@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_no_secret_is_told_by_a_process_that_finds_no_server(command: tuple[str, ...], log_format: str) -> None:
    setting = PROCESSES[command]
    port = free_port()
    ports = {} if setting is None else {setting: str(port)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", *command),
        env=os.environ | ENVIRONMENT | {"LOG_FORMAT": log_format} | ports,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told = ""
    try:
        if setting is not None:
            told = await eventually(lambda: _readiness(port), seconds=120)
            process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    told += output.decode()
    assert told
    assert SECRET not in told


async def _readiness(port: int) -> str:
    """Why a process is not ready, once it has tried."""
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            answer = (await client.get(f"http://127.0.0.1:{port}/health/ready")).text
        except httpx.TransportError:
            return ""
    return answer if "waiting for" in answer else ""


@pytest.mark.parametrize(
    "password", ["with/slash", "with#hash", "with?mark", "with[bracket", "with%zz", "with:colon@at"]
)
@pytest.mark.parametrize("command", [("producer_admin", "api"), ("consumer_query", "migrate")], ids=" ".join)
async def test_nor_by_one_whose_url_cannot_be_read(command: tuple[str, ...], password: str) -> None:
    url = f"postgresql://artstore:{SECRET}{password}{SECRET}@{NOBODY}/x"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", *command),
        env=os.environ | ENVIRONMENT | {"ADMIN_DATABASE_URL": url, "QUERY_DATABASE_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 10)
    except TimeoutError:
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.wait_for(process.communicate(), 120)
    assert SECRET.encode() not in output, output.decode()
