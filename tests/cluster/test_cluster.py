"""Opening a cluster: addresses that are refused, resources that are claimed, and an environment left as it was."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.cluster.ray_start import SIMULATE, authentication
from aclcmp.orchestrator.errors import UsageError
from tests.joinable import joinable_ray


@pytest.mark.parametrize(
    "address", ["nonsense", "ray://10.0.0.1:10001", "http://10.0.0.1:8265", "host:", ":6379", "h:x"]
)
def test_not_an_address(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        Cluster.open(address)


def test_nothing_listens_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"no Ray answers at {address}.*RAY_AUTH_TOKEN"):
            Cluster.open(address)


@pytest.mark.parametrize("text", ["NPU", "[8]", '{"NPU": "many"}', '{"NPU": null}'])
def test_a_bad_simulation(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIMULATE, text)
    with pytest.raises(UsageError, match="is not JSON like"):
        Cluster.open()


def test_simulation_is_for_a_local_ray() -> None:
    with pytest.raises(UsageError, match="local Ray only"):
        Cluster.open("auto", simulate={"NPU": 1})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with joinable_ray(simulate={"NPU": 8}) as opened:
        yield opened


OPENED = """
import sys
from aclcmp.orchestrator.cluster.cluster import Cluster
assert "ray" not in sys.modules
try:
    with Cluster.open(sys.argv[1]) as cluster:
        print(cluster.address_words, [node.node_id for node in cluster.nodes], cluster.resources()["NPU"])
except Exception as error:
    print(type(error).__name__, error)
"""


def opened(address: str) -> str:
    """What a process prints that joins `address`; one process can join one cluster."""
    return subprocess.run(
        [sys.executable, "-c", OPENED, address],
        env={**os.environ, **authentication()},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.ray
def test_join(cluster: Cluster) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    (node,) = cluster.nodes
    assert node.node_id == cluster.driver_node_id and node.resources["NPU"] == 8 and node.cpus >= 1
    assert opened(address) == f"{address} ['{node.node_id}'] 8.0\n"
    assert cluster.resources()["NPU"] == 8  # still there


@pytest.mark.ray
def test_one_ray_per_process(cluster: Cluster) -> None:
    with pytest.raises(RuntimeError, match="open Ray already"):
        Cluster.open()
    assert cluster.resources()["NPU"] == 8


@pytest.mark.ray
def test_someone_else_listens_there() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        assert opened(address).startswith(f"UsageError no Ray answers at {address}")
