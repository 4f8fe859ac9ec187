"""Known vulnerabilities of what we depend on, secrets in the checkout: neither is called fine that was not looked at.

pip-audit ends well also when its service knew none of the packages, as behind a mirror that has no advisories. What it
says is read here, and not its exit code.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

INSIST: Final = "ARTSTORE_AUDIT"
"""`required`: a package that nobody was asked about fails the run."""
_SECONDS: Final = 180
"""For the whole audit."""
_LOCKS: Final = ("run", "dev", "image", "native")
_NAMED: Final = 3
_PLACEHOLDERS: Final = r"^(?:[a-z$. _/-]|\{[^}]*\})+$"
"""Values of words or of fields to fill in alone, such as `password`, or the name of a secret of Kubernetes."""
_PLAIN: Final = (
    f"--exclude-secrets={_PLACEHOLDERS}",
    # The letters of the index of names (consumer_query/tables.py).
    "--exclude-lines=abwgdeqziyklmnop",
    # Digests, and ids of traces, are everywhere here.
    "--disable-plugin=HexHighEntropyString",
)

Outcome = Literal["passed", "not asked", "failed"]


@dataclass(frozen=True)
class Verdict:
    """How a check came out, and a sentence on it."""

    outcome: Outcome
    sentence: str


def verdict(report: Mapping[str, Any] | None) -> Verdict:
    """What pip-audit's JSON comes to; None is an audit that came to nothing."""
    packages: Sequence[Mapping[str, Any]] = () if report is None else report.get("dependencies", ())
    if not packages:
        return Verdict("not asked", "pip-audit gave no answer.")
    found = [
        f"{one['name']} {one['version']} has {each['id']} (mended in {', '.join(each['fix_versions']) or 'no version'})"
        for one in packages
        for each in one.get("vulns", ())
    ]
    if found:
        return Verdict("failed", "; ".join(found) + ".")
    unknown = [str(one["name"]) for one in packages if "skip_reason" in one]
    if not unknown:
        return Verdict("passed", f"{len(packages)} packages, no advisory.")
    names = ", ".join(unknown[:_NAMED]) + (", …" if len(unknown) > _NAMED else "")
    return Verdict("not asked", f"The service knows nothing of {len(unknown)} of {len(packages)} packages ({names}).")


def insisted(found: Verdict, required: bool) -> Verdict:  # noqa: FBT001 - a pure function of what INSIST says
    """The verdict where an audit that nobody answered is a failure, if it is required."""
    return Verdict("failed", found.sentence) if required and found.outcome == "not asked" else found


def audit(checkout: Path) -> Verdict:
    """Ask for advisories on every package of the locks."""
    locks = [f"--requirement=requirements/{name}.lock" for name in _LOCKS]
    # The locks are complete and have hashes: nothing is resolved, downloaded or installed.
    how = ("--require-hashes", "--disable-pip", "--format=json", "--progress-spinner=off", "--timeout=10")
    try:
        said = subprocess.run(
            [_tool("pip-audit"), *locks, *how], cwd=checkout, check=False, capture_output=True, timeout=_SECONDS
        ).stdout
        report = json.loads(said)
    except (subprocess.TimeoutExpired, ValueError):
        report = None
    return insisted(verdict(report), os.environ.get(INSIST) == "required")


def scan(checkout: Path) -> Verdict:
    """Look for secrets in what git tracks, or would."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ":!*.lock"],  # noqa: S607
        cwd=checkout,
        check=False,
        capture_output=True,
        text=True,
    )
    files = [name for name in tracked.stdout.split("\0") if (checkout / name).is_file()]
    if tracked.returncode or not files:
        return Verdict("not asked", "This is no checkout of git.")
    done = subprocess.run([_tool("detect-secrets-hook"), *_PLAIN, *files], cwd=checkout, check=False)
    if done.returncode:
        return Verdict("failed", "See above; a line that is none gets `pragma: allowlist secret`.")
    return Verdict("passed", f"{len(files)} files.")


def _tool(name: str) -> Path:
    return Path(sys.executable).with_name(name)
