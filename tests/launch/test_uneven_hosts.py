"""Two Ray nodes on one host with three and one free devices: how ranks are divided, and what the loss of one ends."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from aclcmp.orchestrator.core.run_record import RankState
from aclcmp.orchestrator.run.record_file import load_record
from tests.joinable import cluster_process
from tests.processes import PATIENCE, command_of, kill, living, marked_processes, wait_until

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
def address() -> Iterator[str]:
    """Address of a cluster that lives in a process of its own."""
    with cluster_process(HEAD) as found:
        yield found


def launching(address: str, folder: Path, *command: str) -> subprocess.Popen[bytes]:
    """Launch four ranks on NPUs into `folder`, in a process of its own: one process can have one Ray."""
    run = ["--exec", " ".join(command), "--ranks", "4", "--device", "npu", "--address", address]
    arguments = [sys.executable, "-m", "aclcmp", *run, "--no-compare", "--output", str(folder)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL)


def test_free_devices_of_all_hosts_are_used(address: str, tmp_path: Path) -> None:
    for number in range(2):  # the second time the devices have just become free
        folder = tmp_path / f"run{number}"
        assert launching(address, folder, "env").wait(PATIENCE) == 0
        record = load_record(folder / "run.json")
        assert record.failure is None
        assert sorted(Counter(rank.node_id for rank in record.ranks).values()) == [1, 3]
        assert len({(rank.node_id, rank.devices) for rank in record.ranks}) == 4
        for rank in record.ranks:
            logged = (folder / "logs" / f"rank{rank.rank:05d}.log").read_text()
            seen = dict(line.split("=", 1) for line in logged.splitlines() if "=" in line)
            visible = seen["ASCEND_RT_VISIBLE_DEVICES"].split(",")
            assert len(visible) == int(seen["LOCAL_WORLD_SIZE"]) and seen["WORLD_SIZE"] == "4"
            assert visible[int(seen["LOCAL_RANK"])] == rank.devices[0]


def test_a_lost_host_ends_the_ranks_of_the_others(address: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = launching(address, folder, "sleep", "600")

    def ranks() -> list[psutil.Process]:
        return marked_processes(f"ACLCMP_SHARD_DIR={folder}/")

    wait_until(lambda: sum(command_of(each) == "sleep 600" for each in ranks()) == 4 or process.poll() is not None)
    alone = living(lambda each: each.environ()["LOCAL_WORLD_SIZE"] == "1", ranks())
    kill(living(lambda each: "RankHost" in command_of(each), alone[0].parents()))
    assert process.wait(PATIENCE) == 3
    record = load_record(folder / "run.json")
    assert record.failure is not None and "was lost: its host or its actor died" in record.failure.what
    ranks_on = Counter(rank.node_id for rank in record.ranks)
    for rank in record.ranks:
        assert rank.state is (RankState.LOST if ranks_on[rank.node_id] == 1 else RankState.STOPPED)
    assert not ranks()
