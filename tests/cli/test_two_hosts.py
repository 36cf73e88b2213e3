"""Two real hosts: neither sees the other's files, so slices of golden tensors travel, and every label is compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import Host, hosts, ray_on

pytestmark = pytest.mark.netns

SCRIPT = """
import os, sys
import numpy as np
from aclcmp import set_label

rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
fault = int(sys.argv[1]) if len(sys.argv) > 1 else -1
random = np.random.default_rng(0)
for layer in range(6):
    whole = random.standard_normal((48, 16 * world)).astype(np.float32)
    local = np.split(whole, world, axis=1)[rank].copy()
    if rank == fault and layer >= 3:
        local[5] *= 2
    if rank == 0:
        set_label("golden", f"layers.{layer}.mlp", whole)
    set_label("actual", f"layers.{layer}.mlp", local)
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """Two hosts with a Ray over both, and the script on each."""
    with hosts(tmp_path_factory.mktemp("hosts")) as made, ray_on(made):
        for host in made:
            (host.files / "model.py").write_text(SCRIPT)
        yield made


def run(two: list[Host], output: str, *arguments: str) -> tuple[int, dict, str]:
    """Run the script on four ranks over both hosts; return the exit code, the report, and what was printed."""
    script = " ".join((sys.executable, "model.py", *arguments))
    options = ("--ranks", "4", "--nodes", "2", "--address", f"{two[0].ip}:6379", "--output", output)
    done = two[0].run(sys.executable, "-m", "aclcmp", "--exec", script, *options)
    report = two[0].files / output / "report.json"
    assert report.exists(), done
    return done.code, json.loads(report.read_text()), f"{done.out}\n{done.err}"


def shards(host: Host, output: str) -> list[str]:
    return sorted(path.name for path in (host.files / output / "shards").glob("*.h5"))


def test_hosts_are_hosts(two: list[Host]) -> None:
    a, b = two
    assert [host.run("hostname").out.strip() for host in two] == ["acl-a", "acl-b"]
    (a.files / "only-a").write_text("a")
    assert a.run("cat", "only-a").out == "a" and b.run("cat", "only-a").code != 0
    assert not list(Path(a.work).iterdir())  # neither does this process see them there
    ask = "import socket; socket.create_connection(('10.77.0.2', 22), timeout=5)"
    assert "refused" in a.run(sys.executable, "-c", ask).err  # it is reached
    nodes = "import ray; ray.init('auto', log_to_driver=False); print(len(ray.nodes()))"
    assert b.run(sys.executable, "-c", nodes).out.strip() == "2"


def test_golden_on_one_host_is_compared_on_both(two: list[Host]) -> None:
    code, report, printed = run(two, "good")
    assert shards(two[0], "good") == ["rank00000.h5", "rank00001.h5"]
    assert shards(two[1], "good") == ["rank00002.h5", "rank00003.h5"]
    assert code == 0, printed
    assert report["verdict"] == "match" and report["coverage"]["compared"] == 24
    assert all(label["status"] == "match" and set(label["ranks"]) == set("0123") for label in report["labels"])


def test_a_fault_on_the_other_host_is_found(two: list[Host]) -> None:
    code, report, printed = run(two, "bad", "3")
    assert code == 1, printed
    assert report["coverage"]["compared"] == 24
    assert report["first_divergence"]["ranks"] == [3] and report["first_divergence"]["label"] == "layers.3.mlp"
