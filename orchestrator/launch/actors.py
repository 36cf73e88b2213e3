"""The rank hosts as Ray actors, one for each node: how they are placed, reached, and removed at the end."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
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
    """Start one actor per host, placed as `how` says; remove all of them when the context is left.

    Raises LaunchError when the devices are taken by others for too long or the head is lost, SignalError on a signal.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

    # max_restarts 0: a user's script is never run again silently. num_cpus 0: any number of ranks runs on few cores.
    remote = ray.remote(num_cpus=0, max_concurrency=4, max_restarts=0)(RankHost)
    actors: list[Any] = []
    with contextlib.ExitStack() as stack:
        shares, resource = how.ranks, RESOURCE.get(device)
        if resource is None:
            places = [NodeAffinitySchedulingStrategy(node.node_id, soft=False) for node in how.nodes]
        else:
            if how.divisible:
                shares = _divide(sum(shares), resource, interrupts, head)
            group = stack.enter_context(_reserve(shares, "STRICT_SPREAD", resource, interrupts, head))
            places = [PlacementGroupSchedulingStrategy(group, index) for index in range(len(shares))]
        try:
            for share, place in zip(shares, places, strict=True):
                devices = _devices(resource, share)
                actors.append(remote.options(scheduling_strategy=place, **devices).remote(share))
            yield actors
        finally:
            if not head.lost:  # else these calls would wait for the head until Ray ends this process
                for actor in actors:
                    ray.kill(actor)


def _devices(resource: str | None, count: int) -> dict[str, Any]:
    """Return the options of an actor that holds so many devices."""
    if resource is None:
        return {}
    return {"num_gpus": count} if resource == "GPU" else {"resources": {resource: count}}


def _divide(devices: int, resource: str, interrupts: Interrupts, head: HeadWatch) -> tuple[int, ...]:
    """Let Ray find so many free devices on as few nodes as it can; return their number on each node."""
    from ray.util import placement_group_table

    with _reserve((1,) * devices, "PACK", resource, interrupts, head) as group:
        nodes = placement_group_table(group)["bundles_to_node_id"].values()
        return tuple(sorted(Counter(nodes).values(), reverse=True))


@contextlib.contextmanager
def _reserve(
    shares: Sequence[int], strategy: str, resource: str, interrupts: Interrupts, head: HeadWatch
) -> Iterator[Any]:
    """Reserve a bundle of devices for each share, until the context is left; yield the placement group.

    An actor gets devices of one bundle alone, so one that shall hold all of a node's devices needs one bundle of them.
    """
    import ray
    from ray.util import placement_group, remove_placement_group

    group = placement_group([{resource: float(share)} for share in shares], strategy=strategy)
    try:
        free = ray.available_resources().get(resource, 0)
        words = f"{sum(shares)} {resource} were not free within {GROUP_SECONDS:g} s ({free:g} free at the start)"
        gather([group.ready()], interrupts, head, GROUP_SECONDS, words)
        yield group
    finally:
        if not head.lost:  # else the call would wait for the head until Ray ends this process
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
        raise LaunchError(f"a host's actor did not start (aclcmp must be installed on every node): {words}") from error
