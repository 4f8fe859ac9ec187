"""What a release that was uninstalled has left behind."""

from typing import Final

from tests.cluster.kube import INSTANCE, Cluster, Object

KEEP: Final = "helm.sh/resource-policy"
_OF_ANY_NAMESPACE: Final = frozenset(
    {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default"), ("ResourceQuota", "no-pods")}
)


def left_behind(cluster: Cluster, release: str, namespace: str) -> list[str]:
    """Objects that are there and were not to be kept, as Kind/name: in the namespace, and the release's elsewhere."""
    here = cluster.objects(cluster.kinds(namespaced=True), "--namespace", namespace)
    everywhere = cluster.objects(cluster.kinds(namespaced=False), "--selector", f"{INSTANCE}={release}")
    return sorted(_name(one) for one in (*here, *everywhere) if not _is_expected(one) and not _is_kept(one))


def kept(cluster: Cluster, namespace: str) -> list[str]:
    """Objects that the chart says to keep, since data hang on them, as Kind/name."""
    here = cluster.objects(cluster.kinds(namespaced=True), "--namespace", namespace)
    return sorted(_name(one) for one in here if _is_kept(one))


def _name(one: Object) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


def _is_expected(one: Object) -> bool:
    return (one["kind"], one["metadata"]["name"]) in _OF_ANY_NAMESPACE


def _is_kept(one: Object) -> bool:
    return bool(one["metadata"].get("annotations", {}).get(KEEP) == "keep")
