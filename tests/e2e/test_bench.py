"""Benchmarks run on what is there, and programs can read what they found."""

import json
import subprocess
import sys
from typing import Any

import pytest

from bench.search_pools import Kind
from local.settings import CHECKOUT


def figures(*verb: str) -> dict[str, Any]:
    """The last line that a benchmark prints."""
    run = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "bench", *verb, "--json"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def test_the_last_line_of_the_projectors_benchmark_is_one_object_with_its_ratios() -> None:
    """Small, and without the peers that are set up on demand."""
    found = figures("projector", "--rows", "2000", "--rounds", "1", "--peers", "none")
    assert found["ratio_floor"] > 0
    assert found["events_per_s"] > 0
    assert found["stale_events_per_s"] > 0


def test_the_benchmark_of_comparing_finds_what_it_planted_and_counts_requests() -> None:
    found = figures("reconcile", "--rows", "2000", "--rounds", "1")
    assert found["equal_requests"] == 1
    assert found["different_requests"] <= 20
    assert 0 < found["equal_s"] < found["different_s"]


@pytest.mark.soak
def test_the_benchmark_of_search_compares_answers_with_the_table_and_gives_every_figure() -> None:
    found = figures("search", "--rows", "2000", "--rounds", "1", "--seconds", "0.2")
    times = {f"{way}_{share}" for way in ("sql", "sql_c8", "http") for share in ("p50_ms", "p99_ms")}
    assert {f"{kind}_{time}" for kind in Kind for time in times if not found[f"{kind}_{time}"] > 0} == set()
    assert found["queries"] >= 500


@pytest.mark.soak
def test_the_benchmark_of_search_says_what_each_index_costs() -> None:
    found = figures("search", "--rows", "2000", "--rounds", "1", "--indexes")
    for left_out in ("without_created", "without_size", "without_name", "without_search", "primary_key_alone"):
        assert found[f"ratio_{left_out}"] > 0
    assert found["all_indexes_rows_per_s"] > 0
