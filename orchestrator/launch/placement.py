"""Placement of ranks: pure functions from a job and a cluster's nodes to hosts, order and local ranks."""

from __future__ import annotations

import importlib.metadata
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aclcmp.orchestrator.cluster.cluster import Node
from aclcmp.orchestrator.core.job import Device, Job, Launcher, Placement, Visibility
from aclcmp.orchestrator.errors import UsageError

RESOURCE = {Device.NPU: "NPU", Device.CUDA: "GPU"}
"""Ray's resource name of a device."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Distribution of the job's ranks over hosts."""

    ranks: tuple[int, ...]
    """Number of ranks on each host; with devices also the number of devices."""
    nodes: tuple[Node, ...] = ()
    """Node of every host on CPU. With devices empty: Ray finds nodes where so many are free."""
    divisible: bool = False
    """True if Ray may divide the ranks in other ways, by where devices are free."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Node and devices that Ray gave to one host actor, and the number of its ranks."""

    ranks: int
    node_id: str
    ip: str
    host: str
    devices: tuple[str, ...]
    """Ids of the devices granted to it; empty on CPU."""
    interface: str | None = None
    """The network interface that owns `ip`."""


def resolve_device(job: Job, nodes: Sequence[Node]) -> Device:
    """Return the job's device; `auto` becomes npu if any node has one, else cuda, else cpu."""
    if job.device is not Device.AUTO:
        return job.device
    for device, resource in RESOURCE.items():
        if any(node.resources.get(resource, 0) >= 1 for node in nodes):
            return device
    return Device.CPU


def spread(job: Job, nodes: Sequence[Node]) -> Spread:
    """Return how the job's commands are spread over `nodes` (the driver's first).

    Raises UsageError, which says what the cluster has, when devices or nodes are too few.
    """
    device = resolve_device(job, nodes)
    if device is Device.CPU:
        return _spread_cpu(job, nodes)
    resource = RESOURCE[device]
    device_counts = [int(node.resources.get(resource, 0)) for node in nodes]
    words = ", ".join(f"{node.ip}: {count}" for node, count in zip(nodes, device_counts, strict=True) if count)
    has = f"the cluster has {sum(device_counts)} ({words})" if words else _has_none(device)
    if sum(device_counts) < job.ranks:
        raise UsageError(f"asked for {job.ranks} {resource}, {has}")
    count = job.nodes
    if count is None and job.launcher is Launcher.SCRIPT:
        count = _fewest_nodes(job.ranks, device_counts)
        if count is None:
            raise UsageError(f"{job.ranks} ranks cannot be spread evenly over nodes with enough {resource}; {has}")
    if count is None:
        return Spread((job.ranks,), divisible=sum(devices > 0 for devices in device_counts) > 1)
    each = job.ranks // count
    if sum(devices >= each for devices in device_counts) < count:
        raise UsageError(f"asked for {count} nodes with {each} {resource} each, {has}")
    return Spread((each,) * count)


def _has_none(device: Device) -> str:
    why = f" ({npu_software()})" if device is Device.NPU else ""
    return f"the cluster has none{why}; --device cpu needs none"


def _spread_cpu(job: Job, nodes: Sequence[Node]) -> Spread:
    nodes = [node for node in nodes if node.cpus] or nodes  # a head node without CPUs is not meant to compute
    count = job.nodes or (1 if job.launcher is Launcher.SCRIPT else min(len(nodes), job.ranks))
    if count > len(nodes):
        raise UsageError(
            f"asked for {count} nodes, the cluster has {len(nodes)} ({', '.join(node.ip for node in nodes)})"
        )
    chosen = sorted(nodes[:count], key=lambda node: _node_order(node.ip, nodes[0].ip))
    return Spread(tuple((job.ranks + count - 1 - index) // count for index in range(count)), tuple(chosen))


def _fewest_nodes(ranks: int, device_counts: Sequence[int]) -> int | None:
    for count in range(1, len(device_counts) + 1):
        if ranks % count == 0 and sum(devices >= ranks // count for devices in device_counts) >= count:
            return count
    return None


def place(job: Job, grants: Sequence[Grant], driver_ip: str) -> tuple[tuple[Placement, ...], ...]:
    """Number the ranks: the driver's node first, then by address and node; on a node by device.

    `grants[i]` is where host actor i is. Returns one tuple of ranks per host, in rank order.
    """
    order = sorted(
        range(len(grants)), key=lambda actor: (_node_order(grants[actor].ip, driver_ip), grants[actor].node_id)
    )
    placements: list[tuple[Placement, ...]] = []
    for group_rank, actor in enumerate(order):
        first = sum(map(len, placements))
        placements.append(_place_on_host(job, grants[actor], actor, group_rank, first))
    return tuple(placements)


def _place_on_host(job: Job, grant: Grant, actor: int, group_rank: int, first: int) -> tuple[Placement, ...]:
    """Number the ranks of one host from `first` on."""
    granted = tuple(sorted(grant.devices, key=_device_order))
    alone = job.visibility is Visibility.OWN and job.launcher is not Launcher.SCRIPT
    return tuple(
        Placement(
            actor=actor,
            rank=first + local_rank,
            local_rank=local_rank,
            local_world_size=grant.ranks,
            group_rank=group_rank,
            node_id=grant.node_id,
            ip=grant.ip,
            host=grant.host,
            devices=granted[local_rank : local_rank + 1],
            visible=granted[local_rank : local_rank + 1] if alone else granted,
        )
        for local_rank in range(grant.ranks)
    )


def _node_order(ip: str, driver_ip: str) -> tuple[bool, int, int]:
    address = ipaddress.ip_address(ip)  # as text, 10.0.0.10 would come before 10.0.0.9
    return ip != driver_ip, address.version, int(address)


def _device_order(device: str) -> tuple[int, int, str]:
    """Return a sort key: by number, since CANN accepts ascending lists only; names such as CUDA's UUIDs come last."""
    return (0, int(device), "") if device.isdecimal() else (1, 0, device)


def npu_software(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> str:
    """Say in one line which of an NPU's device files (below `root`), torch-npu and CANN this host has."""
    devices = sorted((root / "dev").glob("davinci[0-9]*"))
    found = f"this host has {len(devices)} of /dev/davinci*" if devices else "this host has no /dev/davinci*"
    return f"{found}; {_torch_npu()}; {_cann(environ)}"


def _torch_npu() -> str:
    try:
        return f"torch-npu {importlib.metadata.version('torch-npu')} is installed"
    except importlib.metadata.PackageNotFoundError:
        return "torch-npu is not installed"


def _cann(environ: Mapping[str, str]) -> str:
    home = environ.get("ASCEND_TOOLKIT_HOME") or environ.get("ASCEND_HOME_PATH")
    if not home:
        return "ASCEND_TOOLKIT_HOME is not set: source CANN's set_env.sh"
    folders = [Path(home) / "lib64", *map(Path, filter(None, environ.get("LD_LIBRARY_PATH", "").split(":")))]
    library = next((folder / "libascendcl.so" for folder in folders if (folder / "libascendcl.so").exists()), None)
    return f"CANN is at {home}" if library else f"{home} has no lib64/libascendcl.so: is CANN installed whole?"
