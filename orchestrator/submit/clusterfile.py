"""A cluster file in any of its three shapes goes in, where to submit and the job come out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.inputs.user_file import meant
from aclcmp.orchestrator.inputs.yaml_file import read_yaml
from aclcmp.orchestrator.submit.job_section import Section, read_section

_OWN_KEYS = ("address", "aclcmp")
_KUBERAY_KEYS = ("apiVersion", "kind", "metadata", "spec", "aclcmp")
_PORT = re.compile(r"--dashboard-port[= ](\d+)")


class Shape(str, Enum):
    """What kind of file it is."""

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
    shape: Shape
    address: str | None
    """URL of the job server; None where it is not in the file."""
    section: Section
    body: Mapping[str, Any]
    """The rest, for Ray or KubeRay."""


def read_cluster_file(path: Path, override: Mapping[str, object] | None = None) -> ClusterFile:
    """Read a cluster file; keys of `override` (from the command line) count instead of the job's own.

    Raises UsageError with the file and the place in it.
    """
    typed, written = read_yaml(path)
    shape = _shape(path, typed)
    if shape is Shape.LAUNCHER:
        metadata = written.get("metadata") or {}
        job, where = metadata.get("aclcmp") if isinstance(metadata, Mapping) else None, f"{path}: metadata.aclcmp"
    else:
        job, where = written.get("aclcmp"), f"{path}: aclcmp"
    if job is None:
        raise UsageError(f"{where} is missing; it holds the job, e.g. `exec: python run.py`, `ranks: 8`")
    if override and isinstance(job, Mapping):
        job = {**job, **_merged(job, override)}
    section = read_section(job, where)
    body = {key: value for key, value in typed.items() if key not in _OWN_KEYS}
    return ClusterFile(path, shape, _address(path, shape, typed), section, body)


def _merged(job: Mapping[str, object], override: Mapping[str, object]) -> dict[str, object]:
    """What of the command line counts: all of it; variables are added to those of the file."""
    merged = dict(override)
    if isinstance(env := job.get("env"), Mapping) and isinstance(more := override.get("env"), Mapping):
        merged["env"] = {**env, **more}
    return merged


def _shape(path: Path, found: Mapping[str, Any]) -> Shape:
    if str(found.get("apiVersion", "")).startswith("ray.io/"):
        _check_keys(path, found, _KUBERAY_KEYS)
        if found.get("kind") not in ("RayCluster", "RayJob"):
            raise UsageError(f"{path}: kind {found.get('kind')!r} holds no job; give a RayCluster or a RayJob")
        return Shape.KUBERAY
    if "cluster_name" in found and "provider" in found:
        if "aclcmp" in found:
            raise UsageError(f"{path}: `ray up` refuses an `aclcmp` key; put it below `metadata:`")
        return Shape.LAUNCHER
    if "apiVersion" in found:
        raise UsageError(f"{path}: apiVersion {found['apiVersion']!r} is not KubeRay's (ray.io/v1)")
    if "aclcmp" in found or "address" in found:
        _check_keys(path, found, _OWN_KEYS)
        return Shape.OWN
    wrong = next((key for key in found if meant(key, list(_OWN_KEYS)).startswith("; did")), None)
    if wrong is not None:
        _check_keys(path, found, _OWN_KEYS)
    raise UsageError(
        f"{path} is none of: `address:` and `aclcmp:`; a Ray cluster-launcher file (`cluster_name:`, `provider:`); "
        "a KubeRay manifest (`apiVersion: ray.io/v1`). See cluster_configs/README.md"
    )


def _check_keys(path: Path, found: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in found:
        if key not in known:
            raise UsageError(f"{path}: {key} is not known{meant(key, list(known))}")


def _address(path: Path, shape: Shape, found: Mapping[str, Any]) -> str | None:
    if shape is Shape.OWN:
        address = found.get("address")
        if address is not None and not isinstance(address, str):
            raise UsageError(f"{path}: address: give the URL of the head's dashboard, e.g. http://10.0.0.1:8265")
        return address
    if shape is Shape.LAUNCHER and isinstance(provider := found["provider"], Mapping):
        head = provider.get("head_ip")
        if isinstance(head, str) and head:
            commands = " ".join(map(str, found.get("head_start_ray_commands") or ()))
            port = _PORT.search(commands)
            return f"http://{f'[{head}]' if ':' in head else head}:{port[1] if port else 8265}"
    return None
