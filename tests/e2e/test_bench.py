"""The benchmark of the projector runs on what is there, and programs can read what it found."""

import json
import subprocess
import sys

from local.settings import CHECKOUT


def test_the_last_line_of_the_projectors_benchmark_is_one_object_with_its_ratios() -> None:
    """Small, and without the peers that are set up on demand."""
    verb = ("bench", "projector", "--rows", "2000", "--rounds", "1", "--peers", "none", "--json")
    run = subprocess.run(
        [sys.executable, "-P", "-m", "cli", *verb],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["ratio_floor"] > 0
    assert found["events_per_s"] > 0
    assert found["stale_events_per_s"] > 0
