"""Two real hosts: what is wrong on one is told before anything starts, and by `aclcmp doctor`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import aclcmp
from tests.netns import Done, Host, hosts, ray_on

pytestmark = pytest.mark.netns

PACKAGE = Path(aclcmp.__file__).parent


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """Two hosts with a Ray over both, its job server on the first one's loopback."""
    with hosts(tmp_path_factory.mktemp("hosts")) as made, ray_on(made, dashboard="127.0.0.1"):
        yield made


@contextmanager
def covered(host: Host, path: Path, by: str | Path) -> Iterator[None]:
    """Have `by` lie over a file or folder, on this host only."""
    assert host.run("mount", "--bind", by, path).code == 0
    try:
        yield
    finally:
        assert host.run("umount", path).code == 0


def aclcmp_on(host: Host, *arguments: str) -> Done:
    return host.run(sys.executable, "-m", "aclcmp", *arguments)


def run(two: list[Host], output: str) -> Done:
    """Start a job on both hosts from the first one."""
    address = ("--address", f"{two[0].ip}:6379", "--output", output)
    return aclcmp_on(two[0], "--exec", "true", "--ranks", "2", "--nodes", "2", "--no-compare", *address)


def test_a_host_without_aclcmp_is_named_before_anything_starts(two: list[Host]) -> None:
    b = two[1]
    (b.files / "empty").mkdir()
    with covered(b, PACKAGE, b.work / "empty"):
        done = run(two, "none")
        assert done.code == 2, done
        assert done.err.count("\n") == 1 and "host acl-b (10.77.0.2) has no aclcmp: install it" in done.err
        assert not (two[0].files / "none").exists()

        done = aclcmp_on(two[0], "doctor", "--address", f"{two[0].ip}:6379")
        assert done.code == 4 and "✗ has no aclcmp" in done.out.partition("acl-b")[2], done


def test_a_host_with_another_aclcmp_is_named(two: list[Host]) -> None:
    (metadata,) = Path(sys.prefix).glob("lib/python*/site-packages/aclcmp-*.dist-info/METADATA")
    b = two[1]
    (b.files / "METADATA").write_text("Metadata-Version: 2.1\nName: aclcmp\nVersion: 0.0.7\n")
    with covered(b, metadata, b.work / "METADATA"):
        done = run(two, "other")
        assert done.code == 2, done
        assert done.err.count("\n") == 1 and "host acl-b (10.77.0.2) has aclcmp 0.0.7, this one is" in done.err
        assert not (two[0].files / "other").exists()


def test_healthy_hosts(two: list[Host]) -> None:
    done = run(two, "good")
    assert done.code == 0, done
    done = aclcmp_on(two[0], "doctor", "--address", "auto", "--json")
    assert done.code == 0, done
    told = json.loads(done.out)
    assert told["healthy"] and [host["ip"] for host in told["hosts"]] == ["10.77.0.1", "10.77.0.2"]
    whats = [finding["what"] for finding in told["findings"] if finding["where"] == "acl-b (10.77.0.2)"]
    assert "its name resolves to 10.77.0.2" in whats
    assert "Ray's address 10.77.0.2 is that of interface eth0" in whats
    assert any(what.startswith("its clock is within") for what in whats)
    if told["hosts"][1]["versions"]["torch"]:
        assert any(" can be loaded, in " in what for what in whats), whats
    assert two[0].environ["RAY_AUTH_TOKEN"] not in done.out
    together = [finding["what"] for finding in told["findings"] if not finding["where"]]
    assert "Ray asks for a token" in together
    assert any(what.startswith("a lost host is noticed within") for what in together), together


def test_a_name_that_resolves_to_loopback(two: list[Host]) -> None:
    a, b = two
    (b.files / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 acl-b\n10.77.0.1 acl-a\n")
    with covered(b, Path("/etc/hosts"), b.work / "hosts"):
        done = aclcmp_on(a, "doctor", "--address", f"{a.ip}:6379")
    assert done.code == 0, done  # aclcmp copes with it: a warning
    (line,) = [line for line in done.out.splitlines() if "! its name" in line]
    assert "resolves to 127.0.1.1" in line and "GLOO_, HCCL_ and NCCL_SOCKET_IFNAME" in line
    assert line in done.out.partition("acl-b (10.77.0.2)\n")[2]


@pytest.mark.submit
def test_a_cluster_file_whose_hosts_are_asked_by_a_job(two: list[Host]) -> None:
    a = two[0]
    text = "address: http://127.0.0.1:{}\naclcmp:\n  exec: bash run.sh\n  ranks: 4\n  nodes: 2\n"
    (a.files / "cluster.yaml").write_text(text.format(8265))
    done = aclcmp_on(a, "doctor", "cluster.yaml")
    assert done.code == 0, done
    assert done.out.startswith(
        "aclcmp doctor: cluster.yaml, http://127.0.0.1:8265: the Ray cluster at 10.77.0.1:6379, 2"
    )
    for line in ("✓ the file is right: `bash run.sh` on 4 ranks", "✓ the job server answers", "✓ its name resolves to"):
        assert f"  {line}" in done.out
    assert "\nacl-b (10.77.0.2)\n" in done.out

    wrong = a.run("env", "RAY_AUTH_TOKEN=" + "x" * 64, sys.executable, "-m", "aclcmp", "doctor", "cluster.yaml")
    assert wrong.code == 4 and "✗ the cluster does not accept the token from RAY_AUTH_TOKEN" in wrong.out, wrong
