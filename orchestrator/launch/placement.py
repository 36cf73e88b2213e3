"""Placement of ranks: pure functions from a job and a cluster's nodes to bundles, order and local ranks."""

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
    """Distribution of the job's commands: `hosts` actors of `devices` devices each."""

    hosts: int
    devices: int
    """Per actor; 0 on CPU."""
    bundles: tuple[int, ...]
    """Devices per bundle of the placement group; empty on CPU, where no group is needed."""
    one_per_node: bool
    """True to place every bundle on a node of its own (Ray's STRICT_SPREAD), else they are packed."""
    nodes: tuple[Node, ...]
    """Node of every actor on CPU; else empty."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Node and devices that Ray gave to one actor."""

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
        return Spread(job.ranks, 1, (1,) * job.ranks, False, ())
    each = job.ranks // count
    if sum(devices >= each for devices in device_counts) < count:
        raise UsageError(f"asked for {count} nodes with {each} {resource} each, {has}")
    if job.launcher is Launcher.SCRIPT:
        return Spread(count, each, (each,) * count, True, ())
    return Spread(job.ranks, 1, (each,) * count, True, ())


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
    hosts = count if job.launcher is Launcher.SCRIPT else job.ranks
    return Spread(hosts, 0, (), False, tuple(chosen[index * count // hosts] for index in range(hosts)))


def _fewest_nodes(ranks: int, device_counts: Sequence[int]) -> int | None:
    for count in range(1, len(device_counts) + 1):
        if ranks % count == 0 and sum(devices >= ranks // count for devices in device_counts) >= count:
            return count
    return None


def place(job: Job, grants: Sequence[Grant], driver_ip: str) -> tuple[tuple[Placement, ...], ...]:
    """Number the ranks: the driver's node first, then by address, node, device, actor.

    `grants[i]` is where actor i is. Returns one tuple of ranks per actor, in rank order: an actor of launcher `script`
    holds all ranks of its node, any other holds one.
    """
    order = sorted(
        range(len(grants)),
        key=lambda actor: (
            _node_order(grants[actor].ip, driver_ip),
            grants[actor].node_id,
            min(map(_device_order, grants[actor].devices), default=(0, 0, "")),
            actor,
        ),
    )
    by_node: dict[str, list[int]] = {}
    for actor in order:
        by_node.setdefault(grants[actor].node_id, []).append(actor)
    placements: list[tuple[Placement, ...]] = []
    for group_rank, actors in enumerate(by_node.values()):
        placements += _place_node(job, grants, actors, group_rank, first=sum(map(len, placements)))
    return tuple(placements)


def _place_node(
    job: Job, grants: Sequence[Grant], actors: Sequence[int], group_rank: int, first: int
) -> list[tuple[Placement, ...]]:
    """Number the ranks of one node's actors from `first` on; return one tuple of ranks per actor."""
    each = job.ranks // len(grants)
    granted = tuple(sorted({device for actor in actors for device in grants[actor].devices}, key=_device_order))
    placements = []
    for position, actor in enumerate(actors):
        grant = grants[actor]
        devices = sorted(grant.devices, key=_device_order)
        ranks = []
        for part in range(each):
            own = tuple(devices[part : part + 1])
            local_rank = position * each + part
            ranks.append(
                Placement(
                    actor=actor,
                    rank=first + local_rank,
                    local_rank=local_rank,
                    local_world_size=len(actors) * each,
                    group_rank=group_rank,
                    node_id=grant.node_id,
                    ip=grant.ip,
                    host=grant.host,
                    devices=own,
                    visible=own if job.visibility is Visibility.OWN and each == 1 else granted,
                )
            )
        placements.append(tuple(ranks))
    return placements


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
