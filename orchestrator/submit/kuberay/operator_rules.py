"""Rules of KubeRay's operator: how many pods it makes of a RayJob, and which it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SELECTOR = "ray.io/cluster"
"""The label by which a RayJob selects a cluster; the operator reads no other."""

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
# The operator takes 47, adds 6 for the cluster's name, and cuts the name of the token's Secret at 50.
_NAME_LENGTH, _NAMESPACE_LENGTH = 44, 63
_VERSION = re.compile(r"\s*v?(\d+)\.(\d+)")
_TOKEN_SINCE = (2, 52)


def wrong_name(key: str, value: object) -> str | None:
    """Return what is wrong with the manifest's `name` or `namespace`, None where nothing is."""
    pattern, length = (_NAME, _NAME_LENGTH) if key == "name" else (_NAMESPACE, _NAMESPACE_LENGTH)
    if isinstance(value, str) and pattern.match(value) and len(value) <= length:
        return None
    letter = ", a letter first" if key == "name" else ""
    return f"Kubernetes takes a-z, 0-9 and - within{letter}, at most {length} characters"


def operator_refusal(spec: Mapping[str, Any], rays: Mapping[str, Any] | None) -> str | None:
    """Return why the operator would fail the job before it starts a pod, None where it would not.

    `spec` is the RayJob's without its cluster, `rays` the cluster's, complete.
    """
    ends = spec.get("shutdownAfterJobFinishes")
    if spec.get("ttlSecondsAfterFinished") and not ends:
        return "ttlSecondsAfterFinished needs shutdownAfterJobFinishes: true; leave it out to keep the cluster"
    if spec.get("suspend") and not ends:
        return "suspend needs shutdownAfterJobFinishes: true"
    return _selection_refusal(spec) if rays is None else _cluster_refusal(rays)


def _selection_refusal(spec: Mapping[str, Any]) -> str | None:
    selector = spec.get("clusterSelector")
    if not (isinstance(selector, Mapping) and selector.get(SELECTOR)):
        return f"clusterSelector names no cluster: give `{SELECTOR}: NAME`"
    return next(
        (f"{key} does not go with clusterSelector" for key in ("suspend", "backoffLimit") if spec.get(key)), None
    )


def _cluster_refusal(rays: Mapping[str, Any]) -> str | None:
    auth = rays["authOptions"]
    if auth.get("enableK8sTokenAuth"):
        return "authOptions.enableK8sTokenAuth is for RayClusters without a job; leave it out"
    if rays.get("upgradeStrategy"):
        return "upgradeStrategy is for RayClusters without a job; leave it out"
    if auth["mode"] == "token":
        found = rays["rayVersion"]
        match = _VERSION.match(found) if isinstance(found, str) else None
        if match is None or (int(match[1]), int(match[2])) < _TOKEN_SINCE:
            return f'rayVersion: {found}: a token needs "2.52.0" or newer, in quotes; leave it out for the one here'
    return None


def count_pods(group: Mapping[str, Any], *, grows: bool) -> int:
    """Return the number of pods that the operator makes of a worker group; the most, where the cluster grows."""
    least, most = int(group.get("minReplicas") or 0), group.get("maxReplicas")
    replicas = max(int(group.get("replicas") or 0), least)
    if most is not None:
        replicas = int(most) if grows else min(replicas, int(most))
    hosts = group.get("numOfHosts")
    return replicas * (1 if hosts is None else int(hosts))


def give_resource(group: dict[str, Any], name: str, count: int) -> bool:
    """Add a resource to a group's own `resources`; return False where it has none.

    The operator refuses a group that has both these and resources in rayStartParams.
    """
    resources = group.get("resources")
    if not resources:
        return False
    if name.lower() not in map(str.lower, resources):
        resources[name] = str(count)
    return True
