"""How long a search takes: as a call of the product over a pool, alone and eight at once, and over HTTP.

- sql: `Searches.page` in this process, as the API calls it: understanding the query, all statements of the answer, and
  their rows. One client, or eight, each of which asks again as soon as it is answered
- http: a real Query API, asked at a fixed rate that leaves it idle for most of the time; timed from when a question was
  due until its body has arrived here. What HTTP adds is the time from asking to then, less what the same answer tells
  of its search (Server-Timing): a search that is asked for now and then finds the machine colder than one in a loop

No question is asked twice before all others of its class were. Before anything is timed, answers are compared with what
was written into the table, by reading all of it; wrong ones have no speed.
"""

import asyncio
import gc
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import cycle
from typing import Final, NamedTuple

import asyncpg
import httpx

from bench import projecting, search_rows
from bench.open_loop import asked_when_due
from bench.plain_http import PlainClient
from bench.report import Figure, percentile, turned
from bench.search_answers import SEARCH, WrongAnswersError, ask, check
from bench.search_pools import Kind, Question, different, draw
from bench.search_rows import FILL_SECONDS, Filled
from bench.servers import Servers, Tell
from consumer_query import vocabulary
from consumer_query.api_process import search_pool
from consumer_query.generations import table_name
from consumer_query.search import Searches
from consumer_query.search_parameters import SearchAsked
from local.health import unreadiness
from local.ports import LOOPBACK, free_ports
from runtime.postgres import open_pool

READY_SECONDS: Final = 60.0
LIMIT_SECONDS: Final = 60.0
"""Of a search: what is slow is to be measured, not refused."""
AT_ONCE: Final = 8
WARM_SECONDS: Final = 1.0
IDLE_SHARE: Final = 0.3
"""Of the rate that one client reaches by itself; so much is asked a second over HTTP."""
RATES: Final = (2.0, 60.0)
"""The least and the most, a second. Above, the generator itself would be what is measured."""
LEAST_ASKED: Final = 20
"""Over HTTP in one run, however slow."""
PAGE: Final = 20
SIZE: Final = "SELECT pg_total_relation_size($1::text::regclass)"


class Timed(NamedTuple):
    """Of one class in one round, milliseconds."""

    sql_p50: float
    sql_p99: float
    c8_p50: float
    c8_p99: float
    http_p50: float
    http_p99: float
    http_adds_p50: float
    http_late_p99: float
    """How late the generator was; part of the delays."""


@dataclass
class Asking:
    """All that answers from a filled database, and what it is asked."""

    pool: asyncpg.Pool
    searches: Searches
    http: PlainClient
    questions: Mapping[Kind, Sequence[Question]]

    def __post_init__(self) -> None:
        """Begin each class with its first question."""
        self._next = {kind: cycle(questions) for kind, questions in self.questions.items()}

    def next(self, kind: Kind) -> Question:
        """The question that has not been asked for the longest time."""
        return next(self._next[kind])

    async def call(self, kind: Kind) -> None:
        """Ask one question without HTTP."""
        await self.searches.page(SearchAsked(**self.next(kind).asked).request())

    async def get(self, kind: Kind) -> float:
        """Ask one question over HTTP; how many seconds it took besides the search.

        Raises:
            WrongAnswersError: it was refused.
        """
        asked = self.next(kind).asked
        begin = time.perf_counter()
        answer = await self.http.get(SEARCH, asked)
        took = time.perf_counter() - begin
        if answer.status != HTTPStatus.OK:
            raise WrongAnswersError(f"{asked} was answered with {answer.status}: {answer.body!r}")
        return took - float(answer.headers["server-timing"].partition("dur=")[2]) / 1000


async def measure(servers: Servers, rows: int, seconds: float, rounds: int, tell: Tell) -> list[Figure]:
    """Time all classes in all rounds, over one table.

    Args:
        servers: where to run
        rows: of the table
        seconds: of each class and each way of asking, in one round
        rounds: how many are reported
        tell: told what is being done

    Raises:
        WrongAnswersError: what search answered is not what is in the table.
    """
    begun = time.perf_counter()
    async with filled(servers, rows, tell) as (database, table):
        filled_in = time.perf_counter() - begun
        async with asking(servers, database, table, tell) as ready:
            found = await timed(ready, seconds, rounds, tell)
            size = await ready.pool.fetchval(SIZE, table_name(table.generation))
    queries = different(one for some in ready.questions.values() for one in some)
    return [
        *figures(found),
        Figure("rows", "", (rows,), "rows"),
        Figure("different queries", "", (queries,), "queries"),
        Figure("table and indexes", "MiB", (size / 2**20,), "size_mib"),
        Figure("filled in", "s", (filled_in,), "filled_s"),
    ]


@asynccontextmanager
async def filled(servers: Servers, rows: int, tell: Tell) -> AsyncIterator[tuple[str, Filled]]:
    """A Query database that holds so many rows, its lexemes counted as maintenance does: its URL, and what is in it."""
    async with servers.database() as database:
        await projecting.prepare(database)
        table = await search_rows.fill(database, rows, tell)
        tell("Counting lexemes")
        async with await open_pool(database, "bench", command_timeout=FILL_SECONDS) as maintaining:
            await vocabulary.refresh(maintaining, table.generation)
        await servers.checkpoint()
        yield database, table


@asynccontextmanager
async def asking(servers: Servers, database: str, table: Filled, tell: Tell) -> AsyncIterator[Asking]:
    """Start an API over a filled database, draw the questions and check answers to some of each class.

    Raises:
        WrongAnswersError: see `measure`.
    """
    port, management = free_ports(2)
    variables = {
        "QUERY_API_PORT": str(port),
        "QUERY_API_MANAGEMENT_PORT": str(management),
        "SEARCH_TIMEOUT_SECONDS": str(LIMIT_SECONDS),
    }
    async with servers.topic() as topic, await search_pool(database, LIMIT_SECONDS) as pool:
        with projecting.process(servers, "api", database, topic, **variables) as child:
            health = f"http://{LOOPBACK}:{management}/health/ready"
            await asyncio.to_thread(child.wait_until, lambda: unreadiness(health) is None, READY_SECONDS)
            async with httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{port}", trust_env=False, timeout=60) as http:
                questions = draw(table)
                tell("Walking to pages far behind")
                questions[Kind.DEEP] = await _walked(http, questions[Kind.DEEP])
                tell("Comparing answers with the table")
                await check(http, database, questions)
                plain = PlainClient(LOOPBACK, port)
                try:
                    yield Asking(pool, Searches(pool), plain, questions)
                finally:
                    plain.close()


async def timed(ready: Asking, seconds: float, rounds: int, tell: Tell) -> Mapping[Kind, Sequence[Timed]]:
    """Time all classes in all rounds, in an order that turns; see `measure`."""
    gc.collect()
    gc.freeze()
    found = defaultdict[Kind, list[Timed]](list)
    for kind in Kind:
        tell(f"Warming up: {kind}")
        await _closed(ready, kind, AT_ONCE, min(seconds, WARM_SECONDS))
    for number, order in enumerate(turned(list(Kind), rounds), 1):
        for kind in order:
            found[kind].append(await _timed(ready, kind, seconds, f"Round {number} of {rounds}", tell))
    return found


async def _walked(http: httpx.AsyncClient, questions: Sequence[Question]) -> list[Question]:
    """The same questions from a page far behind the first; those that have but one page are left out."""
    found = []
    for question in questions:
        at, cursor = question, None
        for _ in range(question.pages):
            answer = await ask(http, at)
            if answer["next_cursor"] is None:
                break
            cursor = answer["next_cursor"]
            at = replace(question, asked={**question.asked, "cursor": cursor})
        if cursor is not None:
            found.append(replace(question, asked={**question.asked, "cursor": cursor, "limit": PAGE}))
    return found


async def _timed(ready: Asking, kind: Kind, seconds: float, turn: str, tell: Tell) -> Timed:
    tell(f"{turn}: {kind}, one client")
    alone = await _closed(ready, kind, 1, seconds)
    tell(f"{turn}: {kind}, {AT_ONCE} clients")
    together = await _closed(ready, kind, AT_ONCE, seconds)
    slowest, fastest = RATES
    rate = min(fastest, max(slowest, IDLE_SHARE * len(alone) / sum(alone)))
    tell(f"{turn}: {kind}, over HTTP at {rate:.0f}/s")
    added: list[float] = []

    async def ask(_: int) -> None:
        added.append(await ready.get(kind))

    over_http, late = await asked_when_due(ask, max(LEAST_ASKED, int(rate * seconds)), rate)
    shares = (percentile(delays, share) for delays in (alone, together, over_http) for share in (0.5, 0.99))
    return Timed(*(1000 * one for one in (*shares, percentile(added, 0.5), late)))


async def _closed(ready: Asking, kind: Kind, clients: int, seconds: float) -> list[float]:
    """Each client asks again as soon as it is answered: the seconds of each call."""
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def ask_on() -> None:
        while (begin := time.perf_counter()) < end:
            await ready.call(kind)
            took.append(time.perf_counter() - begin)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(ask_on())
    return took


def figures(found: Mapping[Kind, Sequence[Timed]]) -> Iterator[Figure]:
    """Of each class, its times and what HTTP adds."""
    for kind in Kind:
        for name, field, key in _TIMES:
            rounds = tuple(getattr(one, field) for one in found[kind])
            yield Figure(f"{kind.replace('_', ' ')}, {name}", "ms", rounds, f"{kind}_{key}_ms")


_TIMES: Final = (
    ("SQL, p50", "sql_p50", "sql_p50"),
    ("SQL, p99", "sql_p99", "sql_p99"),
    (f"SQL of {AT_ONCE} at once, p50", "c8_p50", "sql_c8_p50"),
    (f"SQL of {AT_ONCE} at once, p99", "c8_p99", "sql_c8_p99"),
    ("HTTP, p50", "http_p50", "http_p50"),
    ("HTTP, p99", "http_p99", "http_p99"),
    ("  HTTP adds, p50", "http_adds_p50", "http_adds_p50"),
    ("  asked late, p99", "http_late_p99", "http_late_p99"),
)
