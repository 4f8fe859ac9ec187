"""Where the scrub verb is put together, and what it prints."""

import json
from dataclasses import asdict
from functools import partial

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin import actions, marks
from producer_admin.actions import Did
from producer_admin.element_registry import Element, Mode, load
from producer_admin.errors import ElementOfflineError, StorageError, UnknownElementError
from producer_admin.long_verb import Tell, run_long_verb
from producer_admin.scrub import Finding, Options, Scrub, Totals
from producer_admin.settings import RepairSettings
from producer_admin.storage import StorageElement, open_storage


def run_scrub(element_id: str | None, options: Options, *, as_json: bool) -> int:
    """Compare the database with its storage elements, print each difference as it is found, and return the exit code.

    Args:
        element_id: this element alone; None for all that are not offline
        options: see there
        as_json: a JSON object a line: one for each difference, then one for each element's totals

    Returns:
        0 no difference, 1 differences were found (also when all have been reclaimed) or something is away, 2 wrong
        usage or settings, 130 interrupted.
    """
    return run_long_verb("admin-scrub", "objects", partial(_run, element_id, options, as_json=as_json))


async def _run(
    element_id: str | None, options: Options, engine: AsyncEngine, _: RepairSettings, tell: Tell, *, as_json: bool
) -> int:
    clean = True
    for element in await _wanted(engine, element_id):
        report = partial(_print_finding, as_json=as_json)
        storage = _opened(element)
        if element.marked:
            await marks.verify(storage, element.element_id)
        if options.reclaim:
            await actions.note_begun(engine, Did.RECLAIM, element.element_id, grace=options.grace)
        scrub = Scrub(engine, element.element_id, storage, options, report, tell)
        totals = await scrub.run()
        _print_totals(totals, options, as_json=as_json)
        clean = clean and totals.clean
    return 0 if clean else 1


async def _wanted(engine: AsyncEngine, element_id: str | None) -> list[Element]:
    async with engine.connect() as connection:
        known = await load(connection)
    if element_id is None:
        return [one for one in known if one.mode is not Mode.OFFLINE]
    for one in known:
        if one.element_id == element_id:
            if one.mode is Mode.OFFLINE:
                raise ElementOfflineError(f"Storage element {element_id} is offline.")
            return [one]
    raise UnknownElementError(f"There is no storage element {element_id}.")


def _opened(element: Element) -> StorageElement:
    if element.url.startswith("memory:"):
        raise StorageError(f"Storage element {element.element_id} is in the memory of another process.")
    try:
        return open_storage(element.url, make=False)
    except ValueError as error:
        raise StorageError(f"Storage element {element.element_id}: {error}") from error


def _print_finding(finding: Finding, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(finding), default=str))
        return
    detail = f" ({finding.detail})" if finding.detail else ""
    done = ", removed" if finding.reclaimed else ""
    whose = f" of file {finding.file_id}" if finding.file_id else ""
    typer.echo(
        f"{finding.element_id}: {finding.difference}: {finding.key}{whose}, {finding.size:,} bytes{detail}{done}"
    )


def _print_totals(totals: Totals, options: Options, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"totals": asdict(totals) | {"clean": totals.clean}}))
        return
    out = typer.echo
    out(
        f"{totals.element_id}: {totals.files:,} files, {totals.objects:,} objects of {totals.object_bytes:,} bytes"
        + (f", {totals.verified_bytes:,} bytes read and compared" if options.verify else "")
    )
    if totals.foreign:
        out(f"  {totals.foreign:,} objects are not of our naming, {totals.foreign_files:,} of them files' taken over")
    if totals.too_young:
        out(f"  {totals.too_young:,} objects that nothing refers to are younger than the grace")
    for difference, count in sorted(totals.found.items()):
        out(f"  {difference}: {count:,}")
    if options.reclaim:
        out(f"  {totals.reclaimed:,} objects of {totals.reclaimed_bytes:,} bytes removed")
    if totals.clean:
        out("  no difference")
