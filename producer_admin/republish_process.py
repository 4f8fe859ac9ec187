"""Where the republish verb is put together, and what it prints."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from uuid import UUID

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import actions
from producer_admin import republish as station
from producer_admin.actions import Did
from producer_admin.long_verb import Tell, run_long_verb
from producer_admin.republish import Options, Progress
from producer_admin.settings import RepairSettings

MOST_SHOWN = 20


def read_ids(text: str) -> frozenset[UUID]:
    """File ids, separated by commas or white space.

    Raises:
        ValueError: one is no UUID; names it.
    """
    found = set()
    for one in text.replace(",", " ").split():
        try:
            found.add(UUID(one))
        except ValueError as error:
            raise ValueError(f"{one} is no file id.") from error
    if not found:
        raise ValueError("There is no file id.")
    return frozenset(found)


def read_ids_of(path: Path) -> frozenset[UUID]:
    """File ids in a text file.

    Raises:
        ValueError: it cannot be read, or one is no UUID.
    """
    try:
        return read_ids(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error


def read_moment(text: str) -> datetime:
    """A moment in ISO 8601, UTC where it says no offset.

    Raises:
        ValueError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text} is no moment in ISO 8601.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def run_republish(
    wanted: frozenset[UUID] | datetime | None, after: UUID | None, options: Options, *, as_json: bool
) -> int:
    """Announce files again, print what was done, and return the exit code.

    Args:
        wanted: these files, or those recorded at a moment or later, or None for all
        after: only files behind this id
        options: see there
        as_json: totals as one JSON object on standard output
    """
    progress = Progress()
    code = run_long_verb("admin-republish", "files", partial(_run, wanted, after, options, progress))
    finished = code == 0
    if code != 2:  # nothing was begun then
        (_print_json if as_json else _show)(progress, options, finished=finished)
    return 1 if finished and progress.unknown else code


async def _run(
    wanted: frozenset[UUID] | datetime | None,
    after: UUID | None,
    options: Options,
    progress: Progress,
    engine: AsyncEngine,
    settings: RepairSettings,
    tell: Tell,
) -> int:
    if not settings.event_publish_enabled:
        # Held on purpose. A relay that holds says so in the database as well; here it may not even run.
        options = replace(options, outbox_limit=0)
    if not options.dry_run:
        await actions.note_begun(engine, Did.REPUBLISH, _files(wanted), after=after, at_least=options.at_least)
    if isinstance(wanted, frozenset):
        behind = [one for one in wanted if after is None or one > after]
        await station.republish(engine, station.named(behind, options.batch), len(behind), options, progress, tell)
    else:
        pages = station.stored(engine, wanted, after, options.batch)
        await station.republish(engine, pages, await station.estimate(engine), options, progress, tell)
    return 0


def _files(wanted: frozenset[UUID] | datetime | None) -> str:
    if isinstance(wanted, frozenset):
        return f"{len(wanted)} files"
    return "all files" if wanted is None else f"files changed since {wanted.isoformat()}"


def _print_json(progress: Progress, options: Options, *, finished: bool) -> None:
    found = {
        "announced": progress.announced,
        "looked_at": progress.looked_at,
        "unknown": [str(one) for one in progress.unknown],
        "last": progress.last and str(progress.last),
        "finished": finished,
        "dry_run": options.dry_run,
    }
    typer.echo(json.dumps(found))


def _show(progress: Progress, options: Options, *, finished: bool) -> None:
    out = typer.echo
    done = "would be announced" if options.dry_run else "announced under a raised revision"
    out(f"{progress.announced:,} files {done}, of {progress.looked_at:,} looked at.")
    if progress.unknown:
        out(f"{len(progress.unknown):,} ids are no file's:")
        for one in progress.unknown[:MOST_SHOWN]:
            out(f"  {one}")
        if len(progress.unknown) > MOST_SHOWN:
            out(f"  and {len(progress.unknown) - MOST_SHOWN:,} more; --json lists all")
    if not finished and progress.last:
        out(f"It stopped behind {progress.last}; go on with --after {progress.last}.")
