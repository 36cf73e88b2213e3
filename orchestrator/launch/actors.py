"""The rank hosts as Ray actors: how they are placed, reached, and removed at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

from aclcmp.orchestrator.cluster.head_watch import HeadWatch
from aclcmp.orchestrator.core.job import Device
from aclcmp.orchestrator.errors import LaunchError
from aclcmp.orchestrator.launch.placement import RESOURCE, Spread
from aclcmp.orchestrator.launch.rank_host import RankHost
from aclcmp.orchestrator.launch.signals import Interrupts

GROUP_SECONDS = 60.0
"""How long to wait for devices that another job holds."""
ACTOR_SECONDS = 120.0
TICK = 0.2
"""Seconds between two looks at signals and clocks."""


class SignalError(Exception):
    """SIGINT or SIGTERM came before the ranks ran."""


@contextlib.contextmanager
def rank_hosts(how: Spread, device: Device, interrupts: Interrupts, head: HeadWatch) -> Iterator[list[Any]]:
    """Start one actor per command, placed as `how` says; remove all of them when the context is left.

    Raises LaunchError when the devices are taken by others for too long or the head is lost, SignalError on a signal.
    """
    import ray
    from ray.util import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

    group = None
    hosts: list[Any] = []
    # max_restarts 0: a user's script is never run again silently. num_cpus 0: any number of ranks runs on few cores.
    options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 4, "max_restarts": 0}
    try:
        if how.bundles:
            resource = RESOURCE[device]
            bundles = [{resource: float(devices)} for devices in how.bundles]
            group = placement_group(bundles, strategy="STRICT_SPREAD" if how.one_per_node else "PACK")
            free = ray.available_resources().get(resource, 0)
            words = (
                f"{sum(how.bundles)} {resource} were not free within {GROUP_SECONDS:g} s ({free:g} free at the start)"
            )
            gather([group.ready()], interrupts, head, GROUP_SECONDS, words)
            options |= {"num_gpus": how.devices} if resource == "GPU" else {"resources": {resource: how.devices}}
        for index in range(how.hosts):
            place: Any
            if group is not None:
                place = PlacementGroupSchedulingStrategy(group, index * len(how.bundles) // how.hosts)
            else:
                place = NodeAffinitySchedulingStrategy(how.nodes[index].node_id, soft=False)
            hosts.append(ray.remote(RankHost).options(scheduling_strategy=place, **options).remote())
        yield hosts
    finally:
        if not head.lost:  # else these calls would wait for the head until Ray ends this process
            for host in hosts:
                ray.kill(host)
            if group is not None:
                remove_placement_group(group)


def gather(refs: Sequence[Any], interrupts: Interrupts, head: HeadWatch, patience: float, late: str) -> list[Any]:
    """Return the values of `refs`.

    Raises LaunchError(`late`) after `patience` seconds or when the head is lost, and SignalError on a signal.
    """
    import ray

    end = time.monotonic() + patience
    while True:
        _, waiting = ray.wait(list(refs), num_returns=len(refs), timeout=TICK)
        if interrupts.caught is not None:
            raise SignalError
        if not waiting:
            break
        if head.lost:
            raise LaunchError(f"{head.words}; no rank had started")
        if time.monotonic() > end:
            raise LaunchError(late)
    try:
        return list(ray.get(list(refs)))
    except ray.exceptions.RayTaskError as error:
        cause = error.as_instanceof_cause()
        raise LaunchError(str(getattr(cause, "cause", cause))) from error
    except ray.exceptions.RayError as error:
        words = " ".join(str(error).split())
        raise LaunchError(f"a rank's actor did not start (aclcmp must be installed on every node): {words}") from error
