"""Two Ray nodes on one host, joined by --address: ranks are spread, and each shard is compared on its own node.

The same run is then compared again without Ray.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.joinable import cluster_process
from tests.recorded import read_report

pytestmark = pytest.mark.ray

HEAD = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
cluster.add_node(num_cpus=2)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def address() -> Iterator[str]:
    """Address of a cluster of two nodes, which lives in a process of its own."""
    with cluster_process(HEAD) as found:
        yield found


def test_ranks_on_two_nodes(aclcmp: Command, script: Path, tmp_path: Path, address: str) -> None:
    # by its path: other nodes keep their own PATH
    arguments = ("--exec", f"{sys.executable} model.py fault", "--ranks", "4", "--nodes", "2", "--address", address)
    done = aclcmp(*arguments, "--output", "out")
    assert done.code == 1, done
    assert f"4 ranks on 2 hosts (cpu)   {address}" in done.out
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    nodes = [rank["node_id"] for rank in record["ranks"]]
    assert nodes[0] == nodes[1] != nodes[2] == nodes[3]
    assert [rank["local_rank"] for rank in record["ranks"]] == [0, 1, 0, 1]
    report = read_report(tmp_path / "out")
    assert report["coverage"]["compared"] == 32
    assert report["first_divergence"]["ranks"] == [1]

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "out").glob("report.*")}

    by_actors = files()
    assert by_actors.keys() == {"report.json", "report.csv", "report.h5", "report.xml"}
    assert aclcmp("compare", "out").code == 1
    assert files() == by_actors, "threads of one process find the same, to the last byte"
    layouts = tmp_path / "layouts.txt"
    layouts.write_text("nothing -> Replicate()\n")
    for where in ([], ["--address", address]):
        assert aclcmp("compare", "out", "--layouts", str(layouts), *where).code == 1
        assert json.loads((tmp_path / "out" / "report.json").read_text())["paths"] == {"layouts": str(layouts)}
