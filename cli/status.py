"""`artstore status`: each process asked whether it can do its work. Exit code 0: all can, 1: not all, 3: none runs."""

from typing import TYPE_CHECKING

import typer

from cli.terminal import out, plain_table

if TYPE_CHECKING:
    from local.state import Process


def status() -> None:
    """Show each process, its health and its address."""
    from concurrent.futures import ThreadPoolExecutor

    from local.settings import StackSettings
    from local.state import Home

    run = Home(StackSettings.read().artstore_home).running()
    if run is None:
        out.print("Nothing is running. Start it with ./artstore up.")
        raise typer.Exit(3)
    with ThreadPoolExecutor(8) as pool:
        problems = list(pool.map(_problem, run.processes))
    table = plain_table("PROCESS", "PID", "HEALTH", "ADDRESS")
    for process, problem in zip(run.processes, problems, strict=True):
        health = f"[red]{problem}[/]" if problem else "[green]healthy[/]"
        table.add_row(process.name, str(process.pid), health, process.url)
    out.print(table)
    if not run.healthy:
        out.print("Still starting.")
    if any(problems) or not run.healthy:
        raise typer.Exit(1)


def _problem(process: "Process") -> str | None:
    from urllib.parse import urlsplit

    from local.health import unreadiness
    from local.ports import answers

    if not process.is_alive():
        return "dead"
    if process.ready_url is not None:
        return unreadiness(process.ready_url)
    port = urlsplit(process.url if "//" in process.url else f"//{process.url}").port
    return None if port and answers(port) else "no answer"
