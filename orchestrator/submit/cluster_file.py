"""A cluster file, in any of its three shapes, is read as an address and a job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.inputs.user_file import did_you_mean
from aclcmp.orchestrator.inputs.yaml_file import read_yaml
from aclcmp.orchestrator.submit.job_section import Section, read_section

_OWN_KEYS = ("address", "aclcmp")
_KUBERAY_KEYS = ("apiVersion", "kind", "metadata", "spec", "aclcmp")
_PORT = re.compile(r"--dashboard-port[= ](\d+)")


class ClusterFileKind(str, Enum):
    """Shape of a cluster file."""

    OWN = "own"
    """`address:` of a cluster that runs, and `aclcmp:`."""
    LAUNCHER = "launcher"
    """For `ray up`, the job in `metadata.aclcmp`."""
    KUBERAY = "kuberay"
    """A RayCluster or RayJob of KubeRay, with `aclcmp:` beside its `spec`."""


@dataclass(frozen=True, slots=True)
class ClusterFile:
    """A cluster file that was read and checked."""

    path: Path
    kind: ClusterFileKind
    address: str | None
    """URL of the job server; None where it is not in the file."""
    section: Section
    body: Mapping[str, Any]
    """The other keys, for Ray or KubeRay."""


def read_cluster_file(path: Path, override: Mapping[str, object] | None = None) -> ClusterFile:
    """Read a cluster file; keys of `override` (from the command line) count instead of the job's own.

    Raises UsageError with the file and the place in it.
    """
    typed, written = read_yaml(path)
    kind = _kind_of(path, typed)
    if kind is ClusterFileKind.LAUNCHER:
        metadata = written.get("metadata") or {}
        job, where = metadata.get("aclcmp") if isinstance(metadata, Mapping) else None, f"{path}: metadata.aclcmp"
    else:
        job, where = written.get("aclcmp"), f"{path}: aclcmp"
    if job is None:
        raise UsageError(f"{where} is missing; it holds the job, e.g. `exec: python run.py`, `ranks: 8`")
    if override and isinstance(job, Mapping):
        job = {**job, **_merge_override(job, override)}
    section = read_section(job, where)
    body = {key: value for key, value in typed.items() if key not in _OWN_KEYS}
    return ClusterFile(path, kind, _address(path, kind, typed), section, body)


def _merge_override(job: Mapping[str, object], override: Mapping[str, object]) -> dict[str, object]:
    """Return the options of the command line, which count instead of the file's; variables are added to those there."""
    merged = dict(override)
    if isinstance(env := job.get("env"), Mapping) and isinstance(more := override.get("env"), Mapping):
        merged["env"] = {**env, **more}
    return merged


def _kind_of(path: Path, found: Mapping[str, Any]) -> ClusterFileKind:
    if str(found.get("apiVersion", "")).startswith("ray.io/"):
        _check_keys(path, found, _KUBERAY_KEYS)
        if found.get("kind") not in ("RayCluster", "RayJob"):
            raise UsageError(f"{path}: kind {found.get('kind')!r} holds no job; give a RayCluster or a RayJob")
        return ClusterFileKind.KUBERAY
    if "cluster_name" in found and "provider" in found:
        if "aclcmp" in found:
            raise UsageError(f"{path}: `ray up` refuses an `aclcmp` key; put it below `metadata:`")
        return ClusterFileKind.LAUNCHER
    if "apiVersion" in found:
        raise UsageError(f"{path}: apiVersion {found['apiVersion']!r} is not KubeRay's (ray.io/v1)")
    if "aclcmp" in found or "address" in found:
        _check_keys(path, found, _OWN_KEYS)
        return ClusterFileKind.OWN
    wrong = next((key for key in found if did_you_mean(key, list(_OWN_KEYS)).startswith("; did")), None)
    if wrong is not None:
        _check_keys(path, found, _OWN_KEYS)
    raise UsageError(
        f"{path} is none of: `address:` and `aclcmp:`; a Ray cluster-launcher file (`cluster_name:`, `provider:`); "
        "a KubeRay manifest (`apiVersion: ray.io/v1`). See cluster_configs/README.md"
    )


def _check_keys(path: Path, found: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in found:
        if key not in known:
            raise UsageError(f"{path}: {key} is not known{did_you_mean(key, list(known))}")


def _address(path: Path, kind: ClusterFileKind, found: Mapping[str, Any]) -> str | None:
    if kind is ClusterFileKind.OWN:
        address = found.get("address")
        if address is not None and not isinstance(address, str):
            raise UsageError(f"{path}: address: give the URL of the head's dashboard, e.g. http://10.0.0.1:8265")
        return address
    if kind is ClusterFileKind.LAUNCHER and isinstance(provider := found["provider"], Mapping):
        head = provider.get("head_ip")
        if isinstance(head, str) and head:
            commands = " ".join(map(str, found.get("head_start_ray_commands") or ()))
            port = _PORT.search(commands)
            return f"http://{f'[{head}]' if ':' in head else head}:{port[1] if port else 8265}"
    return None
