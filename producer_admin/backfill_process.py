"""Where the backfill verb is put together, and what it prints."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from producer_admin.backfill import Options, Totals, backfill
from producer_admin.backfill_mapping import Mapping, read_mapping
from producer_admin.backfill_source import open_source
from producer_admin.errors import MappingError
from producer_admin.long_verb import Tell, run_long_verb
from producer_admin.settings import RepairSettings


def run_backfill(
    url: str, mapping_file: Path | None, table: str | None, element_id: str | None, options: Options, *, as_json: bool
) -> int:
    """Take over an older system's files, print what became of them, and return the exit code.

    Args:
        url: of the older system's database
        mapping_file: TOML; None is the fields' own names
        table: instead of the mapping's
        element_id: the storage element of all files, instead of the mapping's
        options: see there
        as_json: totals as one JSON object on standard output
    """
    mapped = partial(_mapping, mapping_file, table, element_id)
    found: list[Totals] = []
    code = run_long_verb("admin-backfill", "rows", partial(_run, url, mapped, options, found))
    for totals in found:
        # The bar is gone by now: nothing is printed into it.
        if as_json:
            typer.echo(json.dumps(_as_json(totals, options), ensure_ascii=False))
        else:
            _show(totals, options)
    return code


async def _run(
    url: str,
    mapped: Callable[[], Mapping],
    options: Options,
    found: list[Totals],
    engine: AsyncEngine,
    settings: RepairSettings,
    tell: Tell,
) -> int:
    mapping = mapped()
    if not settings.event_publish_enabled:
        # Held on purpose. A relay that holds says so in the database as well; here it may not even run.
        options = replace(options, outbox_limit=0)
    async with open_source(url) as source:
        totals = await backfill(source, engine, mapping, options, tell)
    found.append(totals)
    return 1 if totals.refused else 0


def _mapping(mapping_file: Path | None, table: str | None, element_id: str | None) -> Mapping:
    try:
        mapping = read_mapping(mapping_file.read_text(encoding="utf-8")) if mapping_file else Mapping()
    except (OSError, UnicodeDecodeError) as error:
        raise MappingError(f"The mapping file cannot be read: {error}.") from error
    if element_id is not None:
        columns = {name: column for name, column in mapping.columns.items() if name != "storage_element_id"}
        constants = {**mapping.constants, "storage_element_id": element_id}
        mapping = replace(mapping, columns=columns, constants=constants)
    return replace(mapping, table=table) if table else mapping


def _as_json(totals: Totals, options: Options) -> dict[str, object]:
    found = asdict(totals)
    found["first_refusals"] = [one._asdict() for one in totals.first_refusals]
    return {**found, "dry_run": options.dry_run, "rows_per_second": round(_rate(totals), 1)}


def _rate(totals: Totals) -> float:
    return totals.looked_at / totals.seconds if totals.seconds else 0.0


def _show(totals: Totals, options: Options) -> None:
    out = typer.echo
    would = "would be " if options.dry_run else ""
    out(f"{totals.source}: {totals.rows:,} rows")
    out(f"  {totals.taken:>12,} {would}taken over and announced")
    out(f"  {totals.present:>12,} already present")
    out(f"  {totals.refused:>12,} refused")
    for one in totals.first_refusals:
        # A text key may hold what a terminal would obey.
        out(f"      {one.key if one.key.isprintable() else repr(one.key)}  {one.reason}")
    if totals.refused > len(totals.first_refusals):
        where = "only these are shown" if options.dry_run else "all are in table backfill_refusals"
        out(f"      and {totals.refused - len(totals.first_refusals):,} more; {where}")
    for remark in totals.remarks:
        out(remark)
    out(f"This run read {totals.looked_at:,} rows in {totals.seconds:.1f} s ({_rate(totals):,.0f}/s).")
    if options.dry_run:
        out("Nothing was written. Run it without --dry-run to take the files over.")
        return
    out("The bytes were not looked at: `artstore admin scrub` checks that each file's are there and right.")
    if totals.refused:
        out("Rows mended at the source, and rows added there since, are taken over with --restart.")
    else:
        out("Rows added at the source since are taken over with --restart.")
