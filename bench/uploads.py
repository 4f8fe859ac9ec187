"""How many small uploads a second the Admin side sustains, bytes on disk and events on the topic included.

The Admin API and the relay run as real processes. Each client uploads 1,000 bytes, waits for its 201 and goes on (a
closed loop); a round ends when the outbox is empty again, so nothing is left to later.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from itertools import count
from typing import Final

import asyncpg
import httpx

from bench.changes import FILES, prepared, processes
from bench.report import Figure, percentile
from bench.servers import Servers, Tell, until
from local.services import admin_url

SIZE: Final = 1000
SENT_SECONDS: Final = 60.0


async def measure(servers: Servers, clients: int, uploads: int, rounds: int, tell: Tell) -> list[Figure]:
    """Run `rounds` rounds of `uploads` uploads by `clients` clients.

    Returns:
        Uploads a second until all are on the topic, and percentiles of the time to the answer, of each round.
    """
    settings = await prepared(servers)
    speeds, halves, tails = [], [], []
    tell("Starting Admin API and relay")
    with processes(servers, settings):
        database = await asyncpg.connect(servers.postgres.url("artstore_admin"))
        async with httpx.AsyncClient(base_url=admin_url(settings) + FILES, timeout=60) as admin:
            for number in range(rounds + 1):
                tell(f"Round {number} of {rounds}" if number else "Warming up")
                answers: list[float] = []
                left = iter(range(uploads))
                begin = time.perf_counter()
                await asyncio.gather(*(_client(admin, left, answers) for _ in range(clients)))

                async def sent() -> bool:
                    return not await database.fetchval("SELECT count(*) FROM outbox")

                await until(sent, SENT_SECONDS)
                if number:
                    speeds.append(uploads / (time.perf_counter() - begin))
                    halves.append(1000 * percentile(answers, 0.5))
                    tails.append(1000 * percentile(answers, 0.99))
        await database.close()
    return [
        Figure(f"uploads by {clients} clients", "uploads/s", tuple(speeds)),
        Figure("until 201, p50", "ms", tuple(halves)),
        Figure("until 201, p99", "ms", tuple(tails)),
    ]


_NAMES: Final = count()


async def _client(admin: httpx.AsyncClient, left: Iterator[int], answers: list[float]) -> None:
    for _ in left:
        begin = time.perf_counter()
        answer = await admin.post("/upload", files={"file": (f"{next(_NAMES)}.bin", os.urandom(SIZE))})
        answer.raise_for_status()
        answers.append(time.perf_counter() - begin)
