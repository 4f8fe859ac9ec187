"""A whole release on a node: it becomes ready, finds what is uploaded, and changes under load without loss."""

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, NamedTuple

import pytest

from tests.cluster import load
from tests.cluster.kube import Cluster, wait_for
from tests.cluster.leftovers import kept, left_behind
from tests.cluster.release import CLIENT, NAME, Release, client_pod, image
from tests.cluster.volumes import makes_volumes, volume_for

pytestmark = pytest.mark.timeout(1800)
NAMESPACE: Final = "artstore-release"
UPLOADS_PER_SECOND: Final = 2.0
BEYOND_A_START_SECONDS: Final = 3.0
GONE_SECONDS: Final = 120.0
RESTRICTED: Final = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    """Not yet installed; in a namespace that takes restricted pods only."""
    client = json.dumps([{"podSelector": {"matchLabels": CLIENT}}])
    # What is looked at are roll-outs: where everything shares two cores, a search may take its time.
    patient = ("--set-string", "queryApi.settings.SEARCH_TIMEOUT_SECONDS=15")
    values = ("--set", "dev.enabled=true", *patient, "--set-json", f"networkPolicy.clients={client}")
    with cluster.namespace(NAMESPACE, RESTRICTED):
        if makes_volumes(cluster):
            yield Release(cluster, NAMESPACE, values)
        else:
            with volume_for(cluster, NAMESPACE, f"{NAME}-files", image()):
                yield Release(cluster, NAMESPACE, (*values, "--set", "dev.persistence=false"))


def test_an_install_brings_every_pod_to_ready(release: Release) -> None:
    seconds = release.install()
    assert release.ready(), [pod["status"] for pod in release.pods()]
    print(f"\ninstall to ready: {seconds:.0f} s; pods from made to ready: {release.start_seconds()}")


def test_an_upload_through_one_service_is_found_through_the_other(release: Release) -> None:
    with release.client("admin-api", 8010) as admin, release.client("query-api", 8030) as query:
        answer = admin.post("/api/v1/files/upload", files={"file": ("Договор_поставки.pdf", b"content")})
        assert answer.status_code == 201, answer.text

        def found() -> Any:
            told = query.get("/api/v1/files/search", params={"query": "договоры"})
            assert told.status_code == 200, told.text
            return [hit["file_id"] for hit in told.json()["results"]]

        assert wait_for(found, 30, "the upload in search") == [answer.json()["file_id"]]


def test_an_upgrade_and_a_rollback_under_load_fail_no_read_and_lose_and_double_no_file(
    release: Release, cluster: Cluster
) -> None:
    here = ("--namespace", release.namespace)
    services = (f"http://{NAME}-admin-api:8010", f"http://{NAME}-query-api:8030")
    program = Path(load.__file__).read_text()
    cluster.create(client_pod(release, program, *services, "load", str(UPLOADS_PER_SECOND)))
    cluster.kubectl("wait", "pod/load", "--for=condition=Ready", "--timeout=60s", *here)
    begin = time.time()
    changes = [_changed(release, change) for change in (release.upgrade, release.rollback)]
    cluster.kubectl("exec", "load", *here, "--", "python", "-c", "import os; os.kill(1, 15)")
    cluster.kubectl("wait", "pod/load", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s", *here)
    lines = [json.loads(line) for line in cluster.kubectl("logs", "load", *here).out.splitlines()]
    uploads = [line for line in lines if "upload" in line]
    failed = [line for line in lines if "failed" in line]
    waits = {one["at"]: one["found"] - one["at"] for one in uploads if one["found"]}

    for change in changes:
        print(f"\n{change.name}: {change.end - change.begin:.0f} s; pods from made to ready: {change.starts}")
        print(f"  change to searchable: {_spread(waits, change.begin, change.end)}")
    print(f"the whole of {time.time() - begin:.0f} s: {_spread(waits, 0, math.inf)}")
    print(f"uploads made twice: {dict(Counter(one['again'] for one in uploads if one['again']))}; {lines[-1]}")
    print(f"failed: {dict(Counter((one['failed'], one['why']) for one in failed))}")
    assert failed == []
    assert [one["upload"] for one in uploads if not one["found"]] == []
    assert lines[-1]["hits"] == len(uploads) == len({one["upload"] for one in uploads})
    slowest = max(change.starts["query-projector"] for change in changes)
    assert max(waits.values()) <= slowest + BEYOND_A_START_SECONDS


class Change(NamedTuple):
    """A roll-out that has ended."""

    name: str
    begin: float
    end: float
    starts: dict[str, float]


def _changed(release: Release, change: Callable[[], float]) -> Change:
    before, begin = release.generation(), time.time()
    change()
    assert not before & release.generation(), "a pod of ours was not made anew"
    return Change(change.__name__, begin, time.time(), release.start_seconds())


def _spread(waits: dict[float, float], begin: float, end: float) -> str:
    """Of changes that were made between two moments; the clocks of nodes are taken to be right."""
    chosen = [wait for at, wait in waits.items() if begin <= at <= end]
    p99 = quantiles(chosen, n=100)[-1]
    return f"{len(chosen)}, median {median(chosen):.1f} s, p99 {p99:.1f} s, max {max(chosen):.1f} s"


def test_an_uninstall_leaves_nothing_but_the_files(release: Release, cluster: Cluster) -> None:
    cluster.kubectl("delete", "pod", "load", "--namespace", release.namespace, "--ignore-not-found")
    release.uninstall()
    wait_for(lambda: not left_behind(cluster, NAME, release.namespace), GONE_SECONDS, "nothing left behind")
    print(f"\nkept on purpose: {kept(cluster, release.namespace) or 'nothing'}")
