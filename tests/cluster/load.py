"""Steady uploads and searches inside the cluster, through the Services as any client's, until SIGTERM; then the record.

Runs alone in the project's image, its token in ARTSTORE_TOKEN: load.py ADMIN_URL QUERY_URL RUN UPLOADS_PER_SECOND
A request whose connection is refused or cut before an answer is made once more, under the same Idempotency-Key where it
changes something, as clients are told to; all that was made again is on record, and so is all that failed then.

Standard output has a JSON object a line: {"upload": name, "at": seconds since 1970 when its 201 came, "found": when a
search showed it, or null, "again": why it was made twice, or null}; {"failed": what, "at": when, "why": text}; and last
{"searches": number, "searches_again": number, "hits": number}.
"""

import asyncio
import json
import os
import signal
import sys
import time
from typing import Any

import httpx

SEARCH_EVERY_SECONDS = 0.2
NEWEST = 200
DRAIN_SECONDS = 60.0
ANSWER_SECONDS = 30.0
AGAIN_AFTER_SECONDS = 0.1


class Load:
    """Its record."""

    def __init__(self, client: httpx.AsyncClient, admin: str, query: str, run: str) -> None:
        self._client = client
        self._admin, self._query = f"{admin}/api/v1/files", f"{query}/api/v1/files"
        self._run = run
        self.uploads: dict[str, dict[str, Any]] = {}
        self.failures: list[dict[str, Any]] = []
        self.searches = self.searches_again = self.hits = 0

    async def upload(self, number: int) -> None:
        """One file, of a name of its own."""
        name = f"{self._run} {number:06d}.txt"
        answer, again = await self._ask(
            "POST",
            f"{self._admin}/upload",
            data={"description": self._run},
            files={"file": (name, b"content of " + name.encode())},
            headers={"Idempotency-Key": name},
        )
        if answer is not None and answer.status_code == 201:
            file_id = answer.json()["file_id"]
            self.uploads[file_id] = {"upload": name, "at": time.time(), "found": None, "again": again}
        else:
            self._fail("upload", answer, again)

    async def search(self) -> None:
        """The newest files of this run; those that are seen for the first time are found."""
        asked = {"query": f'"{self._run}"', "sort": "newest", "limit": str(NEWEST)}
        answer, again = await self._ask("GET", f"{self._query}/search", params=asked)
        self.searches += 1
        self.searches_again += again is not None
        if answer is None or answer.status_code != 200:
            self._fail("search", answer, again)
            return
        told = answer.json()
        self.hits, now = told["total"], time.time()
        for hit in told["results"]:
            upload = self.uploads.get(hit["file_id"])
            if upload is not None and upload["found"] is None:
                upload["found"] = now

    def all_found(self) -> bool:
        """Whether nothing is on its way."""
        return all(one["found"] for one in self.uploads.values())

    async def _ask(self, method: str, url: str, **what: Any) -> tuple[httpx.Response | None, str | None]:
        """An answer, or None; and why it was asked for twice."""
        try:
            return await self._client.request(method, url, **what), None
        except httpx.TransportError as error:
            again = f"{type(error).__name__}: {error}"
        await asyncio.sleep(AGAIN_AFTER_SECONDS)
        try:
            return await self._client.request(method, url, **what), again
        except httpx.TransportError as error:
            return None, f"{again}; then {type(error).__name__}: {error}"

    def _fail(self, what: str, answer: httpx.Response | None, again: str | None) -> None:
        why = again if answer is None else f"{answer.status_code} {answer.text[:300]}"
        self.failures.append({"failed": what, "at": time.time(), "why": why})


async def steadily(load: Load, rate: float, stopping: asyncio.Event) -> None:
    """Upload at a rate, whether answers come or not, and search."""
    async with asyncio.TaskGroup() as group:

        async def uploads() -> None:
            number, begin = 0, time.monotonic()
            while not stopping.is_set():
                group.create_task(load.upload(number))
                number += 1
                await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))

        async def searches() -> None:
            while not stopping.is_set():
                await load.search()
                await asyncio.sleep(SEARCH_EVERY_SECONDS)

        group.create_task(uploads())
        group.create_task(searches())
    end = time.monotonic() + DRAIN_SECONDS
    while not load.all_found() and time.monotonic() < end:
        await load.search()
        await asyncio.sleep(SEARCH_EVERY_SECONDS)


async def main(admin: str, query: str, run: str, rate: float) -> None:
    """Load until told to stop."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    token = {"Authorization": f"Bearer {os.environ['ARTSTORE_TOKEN']}"}
    # A connection of its own for each request meets every change of the Service's endpoints.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS, limits=limits, headers=token, trust_env=False) as client:
        load = Load(client, admin, query, run)
        await steadily(load, rate, stopping)
    for line in (*load.uploads.values(), *load.failures):
        sys.stdout.write(json.dumps(line) + "\n")
    last = {"searches": load.searches, "searches_again": load.searches_again, "hits": load.hits}
    sys.stdout.write(json.dumps(last) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
