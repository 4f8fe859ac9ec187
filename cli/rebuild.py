"""`artstore rebuild`: the cache made anew from the topic beside the live one, then swapped in; or back to the last one.

Exit codes: 0 swapped, or done as told; 1 failed, cancelled, or a fault; 2 refused by parity, or wrong usage; 130
interrupted, and the job goes on.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.errors import CliError
from cli.query_api import AsJson, Url, body_of, query_client
from cli.rebuild_words import UNATTENDED_SECONDS, WORKER_HINT, ending, generation_lines, jobs_table, line, phase
from cli.terminal import err, out, print_json

if TYPE_CHECKING:
    import httpx
    from rich.progress import Progress

PREFIX: Final = "/api/v1/admin/rebuild"
LOOK_SECONDS: Final = 0.5
AWAY_SECONDS: Final = 300.0
"""How long a Query API that does not answer is asked again while a job is watched."""
ENDS: Final = ("swapped", "refused", "cancelled", "failed")
REFUSED_EXIT: Final = 2
COME_BACK: Final = "The job goes on. `artstore rebuild --watch` shows it again, `--pause` and `--cancel` stop it."


def rebuild(
    throttle: Annotated[
        int | None,
        typer.Option(metavar="ROWS", min=0, help="Load so many rows a second at most; 0: as fast as it goes."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    url: Url = None,
    actor: Annotated[str | None, typer.Option(help="Who does it, for the record.", show_default="you")] = None,
    *,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the previous generation instead.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Swap even if parity speaks against it.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once the job is accepted.")] = False,
    as_json: AsJson = False,
    status: Annotated[bool, typer.Option("--status", help="Show the generations and the newest jobs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show the job under way until it ends.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Have the job under way stop where it is.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Have it go on, with another --throttle if that is given.")
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Have it end, and remove what it has made.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Remove the previous generation.")] = False,
) -> None:
    """Make the cache anew from the topic, beside the live one, and swap it in; search goes on meanwhile.

    Ctrl-C leaves the job running.

    Exit codes: 0 swapped, or done as told; 1 failed, cancelled, or a fault; 2 refused by parity, or wrong usage; 130
    interrupted.
    """
    verbs = {"status": status, "watch": watch, "pause": pause, "resume": resume, "cancel": cancel, "purge": purge}
    verb = _only(verbs, force=force, rollback=rollback, reason=reason, throttle=throttle)
    with query_client(url, actor) as client:
        match verb:
            case None:
                order = {"kind": "rollback" if rollback else "rebuild", "force": force, "reason": reason}
                job = body_of(client.post(PREFIX, json={**order, "rows_per_second": throttle or None}))
                _go_on(client, job, no_wait=no_wait, as_json=as_json)
            case "status":
                _show(body_of(client.get(PREFIX)), as_json=as_json)
            case "purge":
                _purge(client, as_json=as_json)
            case "watch":
                _go_on(client, _under_way(client), no_wait=False, as_json=as_json)
            case "resume":
                job = _under_way(client)
                if throttle is not None:
                    body_of(client.patch(f"{PREFIX}/{job['job_id']}", json={"rows_per_second": throttle or None}))
                _go_on(client, _tell(client, job, "resume"), no_wait=no_wait, as_json=as_json)
            case _:
                _say(_tell(client, _under_way(client), verb), as_json=as_json)


def _only(verbs: dict[str, bool], *, force: bool, rollback: bool, reason: str, throttle: int | None) -> str | None:
    """The one verb that was given, None to start a job.

    Raises:
        typer.BadParameter: more than one, or with what it does not take.
    """
    given = [name for name, wanted in verbs.items() if wanted]
    if len(given) > 1:
        raise typer.BadParameter(f"Give one of {', '.join(f'--{name}' for name in given)}.")
    if given and (force or rollback or reason):
        raise typer.BadParameter(f"--force, --rollback and --reason start a job; --{given[0]} does not.")
    if given and given != ["resume"] and throttle is not None:
        raise typer.BadParameter("--throttle goes with a new job, or with --resume.")
    return given[0] if given else None


def _under_way(client: "httpx.Client") -> dict[str, Any]:
    job: dict[str, Any] | None = body_of(client.get(PREFIX, params={"limit": 1}))["under_way"]
    if job is None:
        raise CliError("No rebuild is under way. `artstore rebuild --status` shows the last ones.")
    return job


def _tell(client: "httpx.Client", job: dict[str, Any], verb: str) -> dict[str, Any]:
    return body_of(client.post(f"{PREFIX}/{job['job_id']}/{verb}"))


def _purge(client: "httpx.Client", *, as_json: bool) -> None:
    removed = body_of(client.delete(f"{PREFIX}/previous"))
    if as_json:
        print_json(removed)
    elif removed["generations"]:
        out.print(f"Removed generation {', '.join(map(str, removed['generations']))}; there is no way back to it now.")
    else:
        out.print("There is no previous generation.")


def _show(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for text in generation_lines(found):
        out.print(text, markup=False)
    if found["jobs"]:
        out.print(jobs_table(found["jobs"]))
    if found["under_way"]:
        _say(found["under_way"], as_json=False)


def _say(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    out.print(line(job), markup=False)
    if _is_unattended(job, job["seconds_in_phase"]):
        err.print(WORKER_HINT, markup=False)


def _go_on(client: "httpx.Client", job: dict[str, Any], *, no_wait: bool, as_json: bool) -> None:
    """Watch a job to its end, or say that it was accepted, and exit as it ended."""
    if no_wait:
        if as_json:
            print_json(job)
        else:
            out.print(f"Accepted as {job['job_id']}. `artstore rebuild --watch` shows how it goes.")
        return
    try:
        with _bar(drawn=err.is_terminal and not as_json) as bar:
            job = _watch(client, job, bar)
    except KeyboardInterrupt:
        err.print(COME_BACK)
        raise
    if as_json:
        print_json(job)
    else:
        for text in ending(job):
            out.print(text, markup=False)
    if job["phase"] != "swapped":
        raise typer.Exit(REFUSED_EXIT if job["phase"] == "refused" else 1)


def _watch(client: "httpx.Client", job: dict[str, Any], bar: "Progress") -> dict[str, Any]:
    """Look at a job until it has ended, and say how it goes."""
    task = bar.add_task("", total=100, told="")
    said = ""
    hinted = False
    unattended_since: float | None = None
    while True:
        bar.update(task, completed=job["percent"] or 0, told=line(job))
        if job["phase"] in ENDS:
            return job
        if bar.disable and said != phase(job):
            err.print(line(job), markup=False)
        said = phase(job)
        if not _is_unattended(job, UNATTENDED_SECONDS):
            unattended_since = None
        else:
            unattended_since = unattended_since or time.monotonic()
            # One that was asked for long ago has waited before anyone watched.
            waited = job["seconds_in_phase"] if job["phase"] == "queued" else time.monotonic() - unattended_since
            if waited > UNATTENDED_SECONDS and not hinted:
                err.print(WORKER_HINT, markup=False)
                hinted = True
        time.sleep(LOOK_SECONDS)
        job = _look(client, job)


def _is_unattended(job: dict[str, Any], seconds: float) -> bool:
    """Whether a worker should have had it by now. One that is paused needs none."""
    waits = job["phase"] not in ENDS and not job["attended"] and job["wish"] != "pause"
    return waits and seconds >= UNATTENDED_SECONDS


def _look(client: "httpx.Client", job: dict[str, Any]) -> dict[str, Any]:
    """The job as it is now. While the Query API or its database is away, it is asked again.

    Raises:
        CliError: it was away for too long, or refused.
    """
    import httpx

    from cli.running import refusal

    deadline = time.monotonic() + AWAY_SECONDS
    said = False
    while True:
        try:
            answer = client.get(f"{PREFIX}/{job['job_id']}")
            if answer.status_code != 503:
                return body_of(answer)
            trouble: Exception = refusal(answer)
        except httpx.TransportError as error:
            trouble = error
        if time.monotonic() > deadline:
            raise CliError(f"The Query API does not answer any more: {trouble}. {COME_BACK}")
        if not said:
            err.print(f"The Query API does not answer, asking again: {trouble}", markup=False)
        said = True
        time.sleep(LOOK_SECONDS)


@contextmanager
def _bar(*, drawn: bool) -> "Iterator[Progress]":
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(
        BarColumn(bar_width=30), TextColumn("{task.fields[told]}", markup=False), console=err, disable=not drawn
    ) as bar:
        yield bar
