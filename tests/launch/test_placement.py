"""Which rank runs where: bundles, order, local ranks, visible devices, and what a too small cluster says."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aclcmp.orchestrator.cluster.cluster import Node
from aclcmp.orchestrator.core.job import Device, Job, Launcher, Visibility
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.launch.placement import Grant, Spread, place, resolve_device, spread


def node(number: int, **resources: float) -> Node:
    return Node(f"id{number}", f"10.0.0.{number}", f"host{number}", 4, resources)


def job(ranks: int, **options: Any) -> Job:
    return replace(Job(("true",), Path("/"), ranks=ranks), **options)


TWO = (node(1, NPU=4.0), node(2, NPU=4.0))


def test_device_auto() -> None:
    assert resolve_device(job(1), TWO) is Device.NPU
    assert resolve_device(job(1), [node(1, GPU=1.0)]) is Device.CUDA
    assert resolve_device(job(1), [node(1, CPU=8.0)]) is Device.CPU
    assert resolve_device(job(1, device=Device.CPU), TWO) is Device.CPU


def test_shares_of_devices() -> None:
    assert spread(job(8), TWO) == Spread((8,), divisible=True)
    assert spread(job(3), TWO[:1]) == spread(job(3), (node(9), *TWO[1:])) == Spread((3,))
    assert spread(job(8, nodes=2), TWO) == Spread((4, 4))
    assert spread(job(8, launcher=Launcher.SCRIPT), TWO) == Spread((4, 4))
    assert spread(job(4, launcher=Launcher.SCRIPT), TWO) == Spread((4,))


def test_cpu_ranks_are_spread_evenly_in_blocks() -> None:
    nodes = (node(9), node(10), node(2))
    assert spread(job(7), nodes) == Spread((3, 2, 2), (nodes[0], nodes[2], nodes[1]))
    assert spread(job(2), nodes) == Spread((1, 1), nodes[:2])
    assert spread(job(100), nodes[:1]) == Spread((100,), nodes[:1])
    assert spread(job(4, nodes=1), nodes) == Spread((4,), nodes[:1])
    assert spread(job(4, nodes=2, launcher=Launcher.SCRIPT), nodes) == Spread((2, 2), nodes[:2])


@pytest.mark.parametrize(
    ("wanted", "nodes", "words"),
    [
        (job(9), TWO, "asked for 9 NPU, the cluster has 8 (10.0.0.1: 4, 10.0.0.2: 4)"),
        (job(1, device=Device.CUDA), TWO, "asked for 1 GPU, the cluster has none"),
        (job(6, nodes=3), TWO, "asked for 3 nodes with 2 NPU each, the cluster has 8 (10.0.0.1: 4, 10.0.0.2: 4)"),
        (job(8, nodes=1), TWO, "asked for 1 nodes with 8 NPU each, the cluster has 8"),
        (job(7, launcher=Launcher.SCRIPT), TWO, "7 ranks cannot be spread evenly over nodes with enough NPU"),
        (job(4, nodes=2), (node(1),), "asked for 2 nodes, the cluster has 1 (10.0.0.1)"),
    ],
)
def test_too_small(wanted: Job, nodes: tuple[Node, ...], words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        spread(wanted, nodes)
    assert words in str(refusal.value)


def grants() -> list[Grant]:
    """Two nodes of three devices; .10 sorts before .9 as text, device 11 before 2."""
    return [
        Grant(3, node_id, ip, host, ("11", "2", "3"))
        for node_id, ip, host in (("b", "10.0.0.10", "hostb"), ("a", "10.0.0.9", "hosta"))
    ]


@pytest.mark.parametrize("shuffled", list(itertools.permutations(grants())))
def test_ranks_are_in_order_of_host_and_device_whatever_ray_did(shuffled: Sequence[Grant]) -> None:
    placed = place(job(6), shuffled, driver_ip="10.0.0.1")
    assert [len(ranks) for ranks in placed] == [3, 3]
    ranks = [rank for host in placed for rank in host]
    assert [rank.rank for rank in ranks] == list(range(6))
    assert [rank.host for rank in ranks] == ["hosta"] * 3 + ["hostb"] * 3
    assert [rank.devices for rank in ranks] == [("2",), ("3",), ("11",)] * 2
    assert [rank.local_rank for rank in ranks] == [0, 1, 2] * 2
    assert [rank.group_rank for rank in ranks] == [0] * 3 + [1] * 3
    assert {rank.local_world_size for rank in ranks} == {3}
    assert {rank.visible for rank in ranks} == {("2", "3", "11")}
    assert all(rank.visible[rank.local_rank] == rank.devices[0] for rank in ranks)
    assert all(shuffled[rank.actor].host == rank.host for rank in ranks)


def test_hosts_may_hold_different_numbers_of_ranks() -> None:
    uneven = [Grant(2, "b", "10.0.0.2", "hostb", ("7", "5")), Grant(1, "a", "10.0.0.1", "hosta", ("6",))]
    placed = place(job(3), uneven, driver_ip="10.0.0.2")
    assert [[rank.rank for rank in host] for host in placed] == [[0, 1], [2]]
    assert [rank.local_world_size for host in placed for rank in host] == [2, 2, 1]
    assert [rank.devices for host in placed for rank in host] == [("5",), ("7",), ("6",)]


def test_the_drivers_node_comes_first() -> None:
    assert place(job(6), grants(), driver_ip="10.0.0.10")[0][0].host == "hostb"


def test_nodes_that_share_an_address_are_two_nodes() -> None:
    same = [Grant(1, each, "10.0.0.1", "h", ("0",)) for each in "ab"]
    assert [host[0].group_rank for host in place(job(2), same, "10.0.0.1")] == [0, 1]


def test_visibility_own() -> None:
    placed = place(job(6, visibility=Visibility.OWN), grants(), "10.0.0.9")
    assert all(rank.visible == rank.devices for host in placed for rank in host)


def test_devices_named_by_uuid() -> None:
    named = [Grant(2, "a", "10.0.0.1", "h", ("GPU-b", "GPU-a"))]
    assert [rank.devices for rank in place(job(2), named, "10.0.0.1")[0]] == [("GPU-a",), ("GPU-b",)]


def test_cpu_ranks_have_no_devices() -> None:
    (ranks,) = place(job(4), [Grant(4, "a", "10.0.0.1", "h", ())], "10.0.0.1")
    assert [rank.rank for rank in ranks] == [0, 1, 2, 3]
    assert {(rank.devices, rank.visible) for rank in ranks} == {((), ())}


def test_a_script_sees_all_devices_of_its_node() -> None:
    nodes = [
        Grant(4, "b", "10.0.0.2", "hostb", ("6", "5", "7", "4")),
        Grant(4, "a", "10.0.0.1", "hosta", ("0", "1", "2", "3")),
    ]
    placed = place(job(8, launcher=Launcher.SCRIPT, visibility=Visibility.OWN), nodes, "10.0.0.1")
    assert [[rank.rank for rank in host] for host in placed] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [rank.devices for rank in placed[1]] == [("4",), ("5",), ("6",), ("7",)]
    assert {rank.visible for rank in placed[1]} == {("4", "5", "6", "7")}
    assert [rank.local_rank for rank in placed[1]] == [0, 1, 2, 3]
