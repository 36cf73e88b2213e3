"""Two Ray nodes on one host with three and one free devices: how ranks are divided, and what the loss of one ends."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.core.job import Device, Job, Placement
from aclcmp.orchestrator.core.run_record import RankState
from aclcmp.orchestrator.launch.launcher import launch
from aclcmp.orchestrator.run.directory import RunDir
from tests.launch.conftest import Notes
from tests.processes import PATIENCE, command_of, kill, living, marked_processes

pytestmark = pytest.mark.ray

HEAD = """
import sys
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"resources": {"NPU": 3}, "include_dashboard": False})
cluster.add_node(resources={"NPU": 4})
ray.init(cluster.address, log_to_driver=False)
@ray.remote(num_cpus=0, resources={"NPU": 3})
class Other:
    def there(self):
        return ray.get_runtime_context().get_node_id()
node, = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("NPU") == 4]
there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
other = Other.options(scheduling_strategy=there).remote()
assert ray.get(other.there.remote()) == node
print(cluster.address, flush=True)
sys.stdin.read()
"""
"""Three NPUs are free on the head, one on the other node: another job has three of its four."""


@pytest.fixture(scope="module")
def uneven() -> Iterator[Cluster]:
    """Join a cluster that lives in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    lines = (line.strip() for line in process.stdout)
    address = next((line for line in lines if line.count(":") == 1 and " " not in line), "")
    assert address, "the cluster did not start"
    with Cluster.open(address) as cluster:
        yield cluster
    process.communicate("", timeout=PATIENCE)


def test_free_devices_of_all_hosts_are_used(uneven: Cluster, tmp_path: Path) -> None:
    for number in range(2):  # the second time the devices have just become free
        notes, run = Notes(), RunDir.create(tmp_path / f"run{number}")
        record = launch(Job(("env",), tmp_path, ranks=4, device=Device.NPU), uneven, run, notes)
        assert record.failure is None
        assert sorted(Counter(rank.node_id for rank in record.ranks).values()) == [1, 3]
        assert len({(rank.node_id, rank.devices) for rank in record.ranks}) == 4
        for rank in range(4):
            seen = dict(line.split("=", 1) for line in notes.of(rank) if "=" in line)
            visible = seen["ASCEND_RT_VISIBLE_DEVICES"].split(",")
            assert len(visible) == int(seen["LOCAL_WORLD_SIZE"]) and seen["WORLD_SIZE"] == "4"
            assert visible[int(seen["LOCAL_RANK"])] == record.ranks[rank].devices[0]


class Assassin(Notes):
    """Kills the actor of the host with one rank, as soon as the ranks run."""

    def __init__(self, shards: Path) -> None:
        super().__init__()
        self._shards = shards

    def on_start(self, ranks: Sequence[Placement]) -> None:
        super().on_start(ranks)
        (alone,) = (rank for rank in ranks if rank.local_world_size == 1)
        of_run = marked_processes(f"ACLCMP_SHARD_DIR={self._shards}")
        of_rank = living(lambda each: each.environ()["RANK"] == str(alone.rank), of_run)
        kill(living(lambda each: "RankHost" in command_of(each), of_rank[0].parents()))


def test_a_lost_host_ends_the_ranks_of_the_others(uneven: Cluster, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    notes = Assassin(run.shards)
    record = launch(Job(("sleep", "600"), tmp_path, ranks=4, device=Device.NPU), uneven, run, notes)
    assert record.failure is not None and "was lost: its host or its actor died" in record.failure.what
    states = {place.rank: place.local_world_size for place in notes.placements}
    for rank in record.ranks:
        assert rank.state is (RankState.LOST if states[rank.rank] == 1 else RankState.STOPPED)
    assert not marked_processes(f"ACLCMP_SHARD_DIR={run.shards}")
