"""`artstore demo`: a real folder goes in, and every file of it is found by its name, or the exit code is not 0."""

import asyncio
import contextlib
import re
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.folder import LeftOut, RegularFile, is_made, split
from cli.ingest import show_left_out
from cli.terminal import Waiting, err, interrupted_once, out, plain_table, size

if TYPE_CHECKING:
    from cli.uploading import Outcome
    from local.stack import Stack
    from local.state import Run

_PATIENCE_SECONDS = 60.0
_OWN_WORDS = ("relay", "архитектура")
_SEARCHES = 2


@dataclass(frozen=True)
class _Report:
    outcome: "Outcome"
    samples: list[float]
    not_found: dict[str, str]
    lag: int


def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", exists=True, file_okay=False, help="Default: this project's docs and sources."),
    ] = None,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the data of a stack that the demo started.")] = False,
) -> None:
    """Upload a folder (default: this project), find every file of it, and show how long it took."""
    from local.settings import CHECKOUT

    files, left_out = split(folder) if folder else split(CHECKOUT, is_made)
    if not files:
        raise typer.BadParameter("There is no regular file in this folder.", param_hint="DIR")
    try:
        with interrupted_once(), _stack(keep=keep) as run:
            report = asyncio.run(_upload_and_find(run, files))
            _search(run, [*(_OWN_WORDS if folder is None else ()), *frequent_words(files)])
            _summarise(report, left_out)
    except KeyboardInterrupt:
        err.print("Interrupted; what the demo had started was stopped.")
        raise typer.Exit(130) from None
    if report.not_found or report.outcome.failed:
        raise typer.Exit(1)


@contextlib.contextmanager
def _stack(*, keep: bool) -> Iterator["Run"]:
    """The running stack, or one of our own in a home of its own, which is gone afterwards."""
    from cli.running import running_or_none

    run = running_or_none()
    if run is not None:
        out.print(f"Using the running stack ({run.admin_url}).")
        yield run
        return
    from local.settings import StackSettings
    from local.stack import Stack

    home = Path(tempfile.mkdtemp(prefix="artstore-demo-"))
    with Waiting("Starting") as waiting:
        stack = Stack(StackSettings.on_free_ports(home), waiting.tell)
        try:
            stack.start()
        except BaseException:
            _remove(stack)
            raise
    try:
        recorded = stack.home.read()
        assert recorded is not None  # noqa: S101 - it has just been written
        yield recorded
    finally:
        with Waiting("Stopping") as waiting:
            stack.tell = waiting.tell
            stack.stop()
            if not keep:
                _remove(stack)
        if keep:
            out.print(f"Kept in {home}; bring it up again with ARTSTORE_HOME={home} ./artstore up.")


async def _upload_and_find(run: "Run", files: Sequence[RegularFile]) -> _Report:
    from cli.finding import Watchers, find_all
    from cli.uploading import upload_all
    from runtime.kafka import group_lag
    from runtime.progress import bar

    watchers = Watchers(run.query_url, _PATIENCE_SECONDS)
    with bar(err) as progress:
        task = progress.add_task("Uploading", total=len(files))
        outcome = await upload_all(run.admin_url, files, lambda: progress.advance(task), watchers.offer)
        await watchers.finish()
        task = progress.add_task("Finding each by name", total=len(outcome.uploaded))
        not_found = await find_all(
            run.query_url, outcome.uploaded, lambda found: progress.advance(task, found), _PATIENCE_SECONDS
        )
    lag = await group_lag(bootstrap_servers=run.bootstrap_servers, group=run.group, topic=run.topic)
    return _Report(outcome, watchers.seconds, not_found, lag)


def _search(run: "Run", candidates: Sequence[str]) -> None:
    """Show the first searches that find something."""
    import httpx

    from cli.access import shown
    from cli.search import find
    from cli.search_words import show_hits

    with httpx.Client(base_url=run.query_url, auth=shown(), trust_env=False, timeout=30) as client:
        answers = ((words, find(client, {"query": words, "limit": 5})) for words in candidates)
        for words, found in islice(((words, found) for words, found in answers if found["total"]), _SEARCHES):
            show_hits(words, found)
            out.print()


def frequent_words(files: Sequence[RegularFile]) -> list[str]:
    """The words that most names have."""
    counts = Counter(word.lower() for file in files for word in set(re.findall(r"[^\W\d_]{3,}", file.name)))
    return [word for word, _ in counts.most_common(_SEARCHES)]


def _summarise(report: _Report, left_out: Sequence[LeftOut]) -> None:
    outcome = report.outcome
    found = len(outcome.uploaded) - len(report.not_found)
    table = plain_table("", "")
    table.show_header = False
    rate = len(outcome.uploaded) / outcome.seconds
    rows = {
        "Uploaded": f"{len(outcome.uploaded):,} files, {size(outcome.size)}, in {outcome.seconds:.1f} s",
        "Rate": f"{rate:,.0f} files/s, {size(outcome.size / outcome.seconds)}/s",
        "Upload to searchable": _latencies(report.samples),
        "Consumer lag": f"{report.lag:,} records",
        "Found by name": f"{found:,} of {len(outcome.uploaded):,}",
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", value)
    out.print(table)
    show_left_out("Left out", [*left_out, *outcome.left_out])
    show_left_out("Failed", outcome.failed)
    show_left_out("Not found", [LeftOut(path, why) for path, why in report.not_found.items()])
    if not report.not_found and not outcome.failed:
        out.print("[bold green]Every file was found.[/]")


def _latencies(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return "too few samples" if not seconds else f"{seconds[0] * 1000:.0f} ms (1 sample)"
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return f"p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms ({len(seconds):,} samples)"


def _remove(stack: "Stack") -> None:
    stack.erase()
    shutil.rmtree(stack.home.folder, ignore_errors=True)
