"""An audit that asked nobody is not called passed, and one that found something fails."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.audits import Verdict, audit, insisted, scan, verdict

SAFE: dict[str, Any] = {"name": "safe", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI and could not be audited: unknown (1.0)"}
BAD = {
    "name": "bad",
    "version": "1.0",
    "vulns": [
        {"id": "PYSEC-2026-1", "fix_versions": ["1.1", "2.0"], "aliases": [], "description": "…"},
        {"id": "GHSA-x", "fix_versions": [], "aliases": [], "description": "…"},
    ],
}


@pytest.mark.parametrize(
    ("packages", "expected"),
    [
        ([SAFE, SAFE], Verdict("passed", "2 packages, no advisory.")),
        ([UNKNOWN], Verdict("not asked", "The service knows nothing of 1 of 1 packages (unknown).")),
        ([SAFE, UNKNOWN], Verdict("not asked", "The service knows nothing of 1 of 2 packages (unknown).")),
        (
            [UNKNOWN, BAD, SAFE],
            Verdict(
                "failed", "bad 1.0 has PYSEC-2026-1 (mended in 1.1, 2.0); bad 1.0 has GHSA-x (mended in no version)."
            ),
        ),
        ([], Verdict("not asked", "pip-audit gave no answer.")),
    ],
    ids=["all known", "none known", "some known", "a vulnerability", "nothing"],
)
def test_what_an_audit_comes_to(packages: list[dict[str, Any]], expected: Verdict) -> None:
    assert verdict({"dependencies": packages, "fixes": []}) == expected


def test_an_audit_that_was_not_answered_fails_where_it_is_required() -> None:
    asked_nobody, fine = Verdict("not asked", "why"), Verdict("passed", "fine")
    assert insisted(asked_nobody, required=True) == Verdict("failed", "why")
    assert insisted(asked_nobody, required=False) == asked_nobody
    assert insisted(fine, required=True) == fine


@pytest.mark.parametrize(
    ("said", "insist", "outcome"),
    [
        (json.dumps({"dependencies": [SAFE]}), "required", "passed"),
        (json.dumps({"dependencies": [UNKNOWN]}), "", "not asked"),
        (json.dumps({"dependencies": [UNKNOWN]}), "required", "failed"),
        (json.dumps({"dependencies": [BAD]}), "", "failed"),
        ("no network", "", "not asked"),
        ("no network", "required", "failed"),
    ],
)
def test_the_environment_says_whether_an_answer_is_required(
    monkeypatch: pytest.MonkeyPatch, said: str, insist: str, outcome: str
) -> None:
    def answered(command: list[Any], **_: Any) -> subprocess.CompletedProcess[bytes]:
        assert {"--require-hashes", "--disable-pip", "--format=json"} <= set(command)
        return subprocess.CompletedProcess(command, 0, said.encode())

    monkeypatch.setattr(subprocess, "run", answered)
    monkeypatch.setenv("ARTSTORE_AUDIT", insist)
    assert audit(Path()).outcome == outcome


def checkout(folder: Path, *lines: str) -> Path:
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    (folder / "settings.py").write_text("\n".join(lines))
    return folder


SECRETS = (
    "key = 'AKIA" + "IOSFODNN7EXAMPLX'",
    "-----BEGIN " + "PRIVATE KEY-----",
    "url = 'postgresql://admin:k3" + "fJ9x@db/artstore'",
)


def test_a_secret_in_the_checkout_fails_and_its_line_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert scan(checkout(tmp_path, *SECRETS)).outcome == "failed"
    assert {int(line.rpartition(":")[2]) for line in capfd.readouterr().out.split() if "settings.py:" in line} == {
        1,
        2,
        3,
    }


def test_an_example_and_a_line_that_is_allowed_do_not(tmp_path: Path) -> None:
    lines = [f"{line}  # pragma: allowlist secret" for line in SECRETS]
    assert scan(checkout(tmp_path, *lines, "url = 'postgresql://user:password@db/artstore'")).outcome == "passed"


def test_what_is_no_checkout_is_not_called_clean(tmp_path: Path) -> None:
    assert scan(tmp_path).outcome == "not asked"
