"""Where a cluster makes no volumes by itself: one in a folder of its node, made and removed by pods."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.cluster.kube import Cluster

DEFAULT: Final = "storageclass.kubernetes.io/is-default-class"
OWNER: Final = 65532
_PARENT: Final = "/var/tmp"
_MAKE: Final = "import os, sys; os.makedirs(sys.argv[1], exist_ok=True); os.chown(sys.argv[1], {0}, {0})"
_REMOVE: Final = "import shutil, sys; shutil.rmtree(sys.argv[1])"


def makes_volumes(cluster: Cluster) -> bool:
    """Whether a claim without a class gets a volume."""
    classes = cluster.objects("storageclasses")
    return any(one["metadata"].get("annotations", {}).get(DEFAULT) == "true" for one in classes)


@contextmanager
def volume_for(cluster: Cluster, namespace: str, claim: str, image: str) -> Iterator[None]:
    """A volume that only this claim can have."""
    folder = f"{_PARENT}/{namespace}"
    with cluster.namespace(f"{namespace}-volume") as beside:
        _run(cluster, beside, image, "make", _MAKE.format(OWNER), folder)
        cluster.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": namespace},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "capacity": {"storage": "1Ti"},
                    "claimRef": {"namespace": namespace, "name": claim},
                    "hostPath": {"path": folder},
                    "persistentVolumeReclaimPolicy": "Retain",
                },
            }
        )
        try:
            yield
        finally:
            cluster.kubectl("delete", "persistentvolume", namespace, "--wait=false")
            _run(cluster, beside, image, "remove", _REMOVE, folder)


def _run(cluster: Cluster, namespace: str, image: str, name: str, program: str, folder: str) -> None:
    """Run a line of Python as root beside the node's folders."""
    container = {
        "name": name,
        "image": image,
        "command": ["python", "-c", program, folder],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "parent", "mountPath": _PARENT}],
    }
    spec = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "parent", "hostPath": {"path": _PARENT}}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    cluster.kubectl("create", "--namespace", namespace, "-f", "-", given=json.dumps(pod))
    cluster.kubectl(
        "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s", "--namespace", namespace
    )
