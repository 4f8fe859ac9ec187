"""What a rebuild's figures are in words. Values in, text out."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from cli.terminal import plain, plain_table, when

if TYPE_CHECKING:
    from rich.table import Table

UNATTENDED_SECONDS: Final = 10.0
WORKER_HINT: Final = (
    "No worker has taken it up. Start one: python -m consumer_query maintenance (`artstore up` runs one). "
    "The job waits for it."
)
MOST_EXAMPLES: Final = 3
MEANINGS: Final = {
    "ghost_in_live": "deleted, and search still finds them: the swap removes them",
    "missing_in_live": "search does not find them yet: the swap brings them",
    "stale_in_live": "search finds an older revision: the swap brings the newer",
    "wrong_in_live": "search finds another content: the swap mends it",
    "ghost_in_new": "deleted, and the new generation has them",
    "missing_in_new": "search finds them, and the new generation lacks them",
    "stale_in_new": "the new generation has an older revision",
    "wrong_in_new": "the new generation has another content",
    "undecided": "content differs at equal revision, and nobody can tell which is right",
}


def duration(seconds: float) -> str:
    """Seconds for people: 7 s, 1:05, 2:00:00."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return str(timedelta(seconds=round(seconds))).removeprefix("0:")


def line(job: dict[str, Any]) -> str:
    """How far a job has come, in one line."""
    told = [phase(job)]
    if job["percent"] is not None:
        told.append(f"{job['percent']:.1f} %")
    if job["records"]:
        told.append(f"{job['records']:,} records, {job['rows']:,} rows")
    if job["phase"] == "loading" and job["records_per_second"]:
        told.append(f"{job['records_per_second']:,.0f}/s")
    if job["phase"] == "loading" and job["rows_per_second"]:
        told.append(f"at most {job['rows_per_second']:,} rows/s")
    if job["behind"] is not None:
        told.append(f"{job['behind']:,} behind")
    if job["eta_seconds"] is not None:
        told.append(f"about {duration(job['eta_seconds'])} left")
    if job["finished_at"] is None and job["trouble"]:
        told.append(f"trouble: {job['trouble']}")
    return plain("  ".join(told)).plain


def ending(job: dict[str, Any]) -> list[str]:
    """How a job ended, in lines."""
    took, number = duration(job["seconds"]), job["generation"]
    is_rebuild = job["kind"] == "rebuild"
    match job["phase"]:
        case "swapped":
            came = f", {job['rows']:,} rows of {job['records']:,} records," if job["records"] else ""
            first = f"Generation {number} is live{came} after {took}."
            second = "The one before is kept a while: `artstore rebuild --rollback` goes back to it."
        case "refused":
            left = f"generation {number} was removed" if is_rebuild else f"generation {number} is kept"
            first = f"Refused by parity after {took}. Search goes on as before, {left}."
            second = "--force swaps all the same."
        case "cancelled":
            first = f"Cancelled after {took}. Search goes on as before."
            second = "What it had made was removed." if is_rebuild else "The previous generation is kept."
        case _:
            first, second = f"Failed after {took}: {job['trouble']}", ""
    lines = (f"{first} {second}".rstrip(), *parity_lines(job["parity"]))
    return [plain(one).plain for one in lines]


def parity_lines(parity: dict[str, Any] | None) -> list[str]:
    """What a comparison of two generations found, by class."""
    if parity is None:
        return []
    lines = [f"Files in the new generation {parity['new_rows']:,}, in the live one {parity['live_rows']:,}."]
    for name, count in sorted(parity["classes"].items()):
        examples = parity["examples"].get(name, [])[:MOST_EXAMPLES]
        lines.append(f"  {count:,} {name}: {MEANINGS.get(name, 'see docs/rebuild.md')} ({', '.join(examples)})")
    if not parity["classes"]:
        lines.append("  No difference.")
    if not parity["content_compared"]:
        lines.append("  Revisions alone were compared: the live generation has another shape.")
    if parity["classes"] and not parity["asked_admin"]:
        lines.append("  The Admin module was not asked which is right (ADMIN_API_URL of the maintenance process).")
    return lines


def generation_lines(found: dict[str, Any]) -> list[str]:
    """The generations that there are."""
    live, previous = found["live"], found["previous"]
    lines = []
    if live is None:
        lines.append("There is no cache yet: run `artstore query migrate`.")
    else:
        due = "" if live["is_current"] else "  another shape than this program writes: a rebuild is due"
        lines.append(f"Live: generation {live['generation']}, for {duration(live['live_seconds'])}.{due}")
    if previous is None:
        lines.append("Previous: none.")
    else:
        other = "" if previous["is_current"] else "  another shape: no rollback by this program"
        ago = duration(previous["retired_seconds"])
        lines.append(f"Previous: generation {previous['generation']}, retired {ago} ago.{other}")
    return lines


def jobs_table(jobs: list[dict[str, Any]]) -> "Table":
    """The newest jobs."""
    table = plain_table("REQUESTED", "KIND", "PHASE", "GENERATION", "ROWS", "TOOK", "BY", "REASON", "NOTE")
    for job in jobs:
        table.add_row(
            when(job["requested_at"]),
            *(plain(one) for one in (job["kind"], phase(job), job["generation"], f"{job['rows']:,}")),
            duration(job["seconds"]),
            *(plain(job[name] or None) for name in ("requested_by", "reason", "trouble")),
        )
    return table


def phase(job: dict[str, Any]) -> str:
    """Where a job is, and what was asked of it."""
    at: str = job["phase"].replace("_", " ")
    if job["finished_at"] is not None or job["wish"] == "run":
        return at
    return f"{at} ({'paused' if job['wish'] == 'pause' else 'being cancelled'})"
