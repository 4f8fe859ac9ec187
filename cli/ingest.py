"""`artstore ingest DIR`: every regular readable file is uploaded, and everything else is listed with its reason."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli.folder import LeftOut, split
from cli.terminal import err, out, plain_table, size

MOST_SHOWN = 20


def ingest(
    folder: Annotated[Path, typer.Argument(metavar="DIR", exists=True, file_okay=False, help="What to upload.")],
) -> None:
    """Upload a folder to the running stack."""
    from cli.running import running
    from cli.uploading import upload_all
    from runtime.progress import bar

    admin_url = running().admin_url
    files, left_out = split(folder)
    with bar(err) as progress:
        task = progress.add_task("Uploading", total=len(files))
        outcome = asyncio.run(upload_all(admin_url, files, lambda: progress.advance(task)))
    rate = len(outcome.uploaded) / outcome.seconds if outcome.seconds else 0
    out.print(
        f"Uploaded {len(outcome.uploaded):,} of {len(files):,} files, {size(outcome.size)}, "
        f"in {outcome.seconds:.1f} s ({rate:,.0f} files/s)."
    )
    show_left_out("Left out", [*left_out, *outcome.left_out])
    show_left_out("Failed", outcome.failed)
    if outcome.failed:
        raise typer.Exit(1)


def show_left_out(title: str, items: Sequence[LeftOut]) -> None:
    """Print what was left out and why, at most `MOST_SHOWN` of it."""
    from rich.text import Text

    if not items:
        return
    out.print(f"[bold]{title}: {len(items):,}[/]")
    table = plain_table("", "")
    table.show_header = False
    for one in items[:MOST_SHOWN]:
        table.add_row(Text(f"  {one.relative}"), Text(one.reason, style="dim"))
    out.print(table)
    if len(items) > MOST_SHOWN:
        out.print(f"  and {len(items) - MOST_SHOWN:,} more")
