"""Check before anything starts that every host which ranks may run on can run them."""

from __future__ import annotations

from collections.abc import Sequence

from aclcmp.orchestrator.cluster.cluster import Cluster, Node
from aclcmp.orchestrator.cluster.versions import Versions, installed_versions
from aclcmp.orchestrator.core.job import Device, Job
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.launch.placement import RESOURCE, resolve_device, spread

_SECONDS = 60.0
"""The first question on a host starts a Python there, which takes seconds on a slow disk."""


def hosts_for(job: Job, nodes: Sequence[Node]) -> tuple[Node, ...]:
    """Return the nodes that ranks may be placed on: those with the job's device, or on CPU those already chosen."""
    device = resolve_device(job, nodes)
    if device is Device.CPU:
        chosen = {node.node_id for node in spread(job, nodes).nodes}
        return tuple(node for node in nodes if node.node_id in chosen)
    return tuple(node for node in nodes if node.resources.get(RESOURCE[device], 0) >= 1)


def preflight(cluster: Cluster, nodes: Sequence[Node]) -> None:
    """Check the versions on all nodes.

    Raises UsageError that names every host without aclcmp, with another version of it or of Python, or without answer.
    """
    answers = cluster.ask(installed_versions, nodes=nodes, patience=_SECONDS)
    here = installed_versions()
    problems = [why for node in nodes if (why := _why_not(node, answers[node.node_id], here))]
    if problems:
        raise UsageError(f"nothing was started: {'; '.join(problems)}. `aclcmp doctor --address` tells more")


def _why_not(node: Node, answer: Versions | str, here: Versions) -> str:
    if isinstance(answer, str):
        return answer
    where = f"host {node.host} ({node.ip})"
    if answer.aclcmp != here.aclcmp:
        return (
            f"{where} has aclcmp {answer.aclcmp or 'of no version'}, this one is {here.aclcmp}: install the same there"
        )
    if answer.python.split(".")[:2] != here.python.split(".")[:2]:
        return f"{where} has Python {answer.python}, here it is {here.python}: run Ray by the same Python there"
    return ""
