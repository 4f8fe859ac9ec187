"""`artstore bench`: measurements with servers of their own; no running stack is needed or touched."""

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.terminal import Waiting, interrupted_once, out, plain_table

if TYPE_CHECKING:
    from bench.report import Figure
    from bench.servers import Servers, Tell

Value = TypeVar("Value")
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]

bench = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure on this machine, with a Kafka and a Postgres of its own. A few minutes each.",
)


@bench.command()
def relay(
    *,
    rows: Annotated[int, typer.Option(min=1000, help="Events in the backlog.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    as_json: AsJson = False,
) -> None:
    """Drain a backlog, beside a bare idempotent producer that sends the same records."""
    from bench.relay import measure

    _show(lambda servers, tell: measure(servers, rows, rounds, tell), as_json=as_json)


@bench.command()
def changes(
    *,
    clients: Annotated[int, typer.Option(min=1, help="Each waits for its answer before it goes on.")] = 16,
    seconds: Annotated[float, typer.Option(min=1, help="Of one round.")] = 10,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    as_json: AsJson = False,
) -> None:
    """Change metadata through API, outbox and topic: how many a second, and how soon each is on the topic."""
    from bench.changes import measure

    _show(lambda servers, tell: measure(servers, clients, seconds, rounds, tell), as_json=as_json)


@bench.command()
def uploads(
    *,
    clients: Annotated[int, typer.Option(min=1, help="Each waits for its 201 before it goes on.")] = 8,
    count: Annotated[int, typer.Option(min=10, help="Uploads in one round.")] = 800,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    as_json: AsJson = False,
) -> None:
    """Upload small files: how many a second until all are on the topic."""
    from bench.uploads import measure

    _show(lambda servers, tell: measure(servers, clients, count, rounds, tell), as_json=as_json)


@bench.command()
def latency(
    *,
    rows: Annotated[int, typer.Option(min=20_000, help="Events of the backlog beside which it is measured.")] = 300_000,
    seconds: Annotated[float, typer.Option(min=1, help="Of each scene in one round.")] = 15,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    as_json: AsJson = False,
) -> None:
    """Append events and upload files at fixed rates: how soon a SELECT sees each."""
    from bench.latency import measure

    _show(lambda servers, tell: measure(servers, rows, seconds, rounds, tell), as_json=as_json)


@bench.command()
def projector(
    *,
    rows: Annotated[int, typer.Option(min=2000, help="Events on the topic.")] = 200_000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    peers: Annotated[str, typer.Option(help="Besides the floor: redis, debezium, both with a comma, or none.")] = (
        "redis,debezium"
    ),
    table_rows: Annotated[
        str | None, typer.Option(help="Instead: the projector alone, into tables of 100000,1000000,3000000 files.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Apply a topic to the full table, beside a floor, Redis Streams and Kafka Connect. Some 3 minutes a round."""
    from bench.projector import Peer, measure, sizes

    if table_rows is not None:
        tables = _parsed("--table-rows", table_rows, lambda word: max(1, int(word)))
        _show(lambda servers, tell: sizes(servers, rows, rounds, tables, tell), as_json=as_json)
        return
    wanted = [] if peers == "none" else _parsed("--peers", peers, Peer)
    _show(lambda servers, tell: measure(servers, rows, rounds, wanted, tell), as_json=as_json)


@bench.command()
def monitoring(
    *,
    rows: Annotated[int, typer.Option(min=2000, help="Events on the topic.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1)] = 8,
    as_json: AsJson = False,
) -> None:
    """Apply a topic alone, and with all that watches the lag: what being watched costs. Some 30 s a round."""
    from bench.monitoring import measure

    _show(lambda servers, tell: measure(servers, rows, rounds, tell), as_json=as_json)


@bench.command()
def rolling(
    *,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    as_json: AsJson = False,
) -> None:
    """Replace or kill projectors under load: how long changes wait meanwhile. Some 4 minutes a round."""
    from bench.rolling import measure

    _show(lambda servers, tell: measure(servers, rounds, tell), as_json=as_json)


@bench.command()
def rebuild(
    *,
    rows: Annotated[int, typer.Option(min=2000, help="Files; the topic holds two records of each.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    readers: Annotated[int, typer.Option(min=1, help="Processes that load at once.")] = 2,
    sizes: Annotated[
        str | None, typer.Option(help="Instead: the rebuild alone, of 100000,1000000,3000000 files.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rebuild the cache, beside bare COPY and CREATE INDEX, and beside replaying the topic into the live table."""
    from bench.rebuild import growth, measure

    if sizes is not None:
        counts = _parsed("--sizes", sizes, lambda word: max(2000, int(word)))
        _show(lambda servers, tell: growth(servers, counts, readers, tell), as_json=as_json)
        return
    _show(lambda servers, tell: measure(servers, rows, rounds, readers, tell), as_json=as_json)


@bench.command()
def reconcile(
    *,
    rows: Annotated[int, typer.Option(min=1000, help="Files on each side.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    as_json: AsJson = False,
) -> None:
    """Compare cache and truth: equal sides, then sides with 100 differences. Filling a million takes some minutes."""
    from bench.reconcile import measure

    _show(lambda servers, tell: measure(servers, rows, rounds, tell), as_json=as_json)


@bench.command()
def search(
    *,
    rows: Annotated[int, typer.Option(min=2000, help="Of the table.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each class and each way of asking, in one round.")] = 5,
    explain: Annotated[bool, typer.Option("--explain", help="Instead: plans of one question of each class.")] = False,
    indexes: Annotated[
        bool, typer.Option("--indexes", help="Instead: how many rows a second are applied without each index.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Search in ten ways, alone and eight at once, and over HTTP. Filling a million rows takes some minutes."""
    if explain:
        from bench.search_explained import explained

        typer.echo(_run(lambda servers, tell: explained(servers, rows, tell)))
        return
    if indexes:
        from bench.search_indexes import measure as measure_indexes

        _show(lambda servers, tell: measure_indexes(servers, rows, rounds, tell), as_json=as_json)
        return
    from bench.search import measure

    _show(lambda servers, tell: measure(servers, rows, seconds, rounds, tell), as_json=as_json)


@bench.command()
def relevance(
    *,
    among: Annotated[int, typer.Option(min=0, help="Files that no question asks for.")] = 4_000,
    as_json: AsJson = False,
) -> None:
    """Ask judged questions in Russian and English: how much of what people expect is among the first ten hits."""
    from bench.relevance import measure, scores
    from cli.relevance_words import relevance_json, show_relevance

    verdicts = _run(lambda servers, tell: measure(servers, among, tell))
    if as_json:
        typer.echo(relevance_json(scores(verdicts), verdicts))
    else:
        show_relevance(scores(verdicts), verdicts)


def _parsed(option: str, text: str, parse: "Callable[[str], Value]") -> "list[Value]":
    try:
        return [parse(word.strip()) for word in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from error


def _run(measure: "Callable[[Servers, Tell], Awaitable[Value]]") -> "Value":
    import uvloop

    from bench.servers import servers

    async def run(with_servers: "Servers", tell: "Tell") -> "Value":
        return await measure(with_servers, tell)

    with interrupted_once(), Waiting("Starting") as waiting, servers(waiting.tell) as started:
        # The event loop of the real processes.
        return uvloop.run(run(started, waiting.tell))


def _show(
    measure: "Callable[[Servers, Tell], Awaitable[list[Figure]]]",
    *,
    as_json: bool,
) -> None:
    from bench.report import machine, versions

    where = machine()
    figures = _run(measure)
    if as_json:
        found = [
            {"name": one.name, "unit": one.unit, "median": one.median, "spread": one.spread, "rounds": one.rounds}
            for one in figures
        ]
        medians = {one.key: one.median for one in figures if one.key}
        typer.echo(json.dumps({**medians, **where, "versions": versions(), "figures": found}))
        return
    table = plain_table("WHAT", "MEDIAN", "SPREAD", "ROUNDS")
    for one in figures:
        rounds = " ".join(_number(value) for value in one.rounds)
        table.add_row(one.name, f"{_number(one.median)} {one.unit}", f"{one.spread:.0%}", rounds)
    out.print(table)
    out.print(
        f"{where['cpus']} processors ({where['cpu']}), {where['memory_gib']} GiB, shared by clients and servers; "
        f"load before: {where['load_before']:.1f}; {where['at']}."
    )
    out.print(", ".join(f"{name} {number}" for name, number in versions().items()) + ".")


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
