"""Proof, from the outside, that what was uploaded can be found: how soon, and by name without exception."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import httpx

from cli.access import shown
from cli.running import reason
from cli.uploading import Uploaded

_PAGE = 200
_POLL_SECONDS = 0.005
_POLL_SHARE = 0.05
"""Of the time waited so far: a sample is at most this much too long, and a slow one costs few requests."""
_ROUND_SECONDS = 0.2
_SEARCHES = 6
_WATCHERS = 6


class Watchers:
    """Measures upload to searchable on as many files as keep up; the others are not sampled.

    A sample begins when the 201 arrives and ends when the Query API answers 200 for that file.
    """

    def __init__(self, query_url: str, give_up_seconds: float) -> None:
        self.seconds: list[float] = []
        self._client = httpx.AsyncClient(base_url=query_url, auth=shown(), trust_env=False, timeout=30)
        self._give_up = give_up_seconds
        self._busy: set[asyncio.Task[None]] = set()

    def offer(self, uploaded: Uploaded) -> None:
        """Watch this file if somebody is free."""
        if len(self._busy) < _WATCHERS:
            task = asyncio.create_task(self._watch(uploaded))
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)

    async def finish(self) -> None:
        """Wait for the last samples."""
        await asyncio.gather(*self._busy)
        await self._client.aclose()

    async def _watch(self, uploaded: Uploaded) -> None:
        while (waited := time.monotonic() - uploaded.at) < self._give_up:
            answer = await self._client.get(f"/api/v1/files/{uploaded.file_id}")
            if answer.status_code == 200:
                self.seconds.append(time.monotonic() - uploaded.at)
                return
            await asyncio.sleep(max(_POLL_SECONDS, waited * _POLL_SHARE))


async def find_all(
    query_url: str, uploaded: Sequence[Uploaded], advance: Callable[[int], None], patience_seconds: float
) -> dict[str, str]:
    """Search each distinct name and follow the pages until every file of that name has been seen.

    Args:
        query_url: of the Query API
        uploaded: what must be found
        advance: called with how many more were found
        patience_seconds: give up when for so long nothing more was found

    Returns:
        What was not found: path of the file, and why.
    """
    wanted: dict[str, dict[str, str]] = defaultdict(dict)
    for one in uploaded:
        wanted[one.file.name][one.file_id] = one.file.relative
    why: dict[str, str] = {}
    last_found = time.monotonic()

    async def search_names(client: httpx.AsyncClient, names: Iterator[str]) -> None:
        nonlocal last_found
        for name in names:
            before = len(wanted[name])
            why[name] = await _find(client, name, wanted[name])
            if found := before - len(wanted[name]):
                last_found = time.monotonic()
                advance(found)
            if not wanted[name]:
                del wanted[name]

    async with httpx.AsyncClient(base_url=query_url, auth=shown(), trust_env=False, timeout=60) as client:
        while wanted and time.monotonic() - last_found < patience_seconds:
            names = iter(list(wanted))
            async with asyncio.TaskGroup() as group:
                for _ in range(_SEARCHES):
                    group.create_task(search_names(client, names))
            if wanted:
                await asyncio.sleep(_ROUND_SECONDS)
    return {path: why[name] for name, missing in wanted.items() for path in missing.values()}


async def _find(client: httpx.AsyncClient, name: str, missing: dict[str, str]) -> str:
    """Take from `missing` what a search for the name returns; say why the rest was not there."""
    cursor: str | None = None
    while missing:
        page = {"cursor": cursor} if cursor else {}
        answer = await client.get("/api/v1/files/search", params={"query": name, "limit": _PAGE, **page})
        if answer.status_code != 200:
            return f"search answered {answer.status_code}: {reason(answer)}"
        found = answer.json()
        for hit in found["results"]:
            missing.pop(hit["file_id"], None)
        cursor = found.get("next_cursor")
        if not cursor:
            break
    return "not among the hits for its name"
