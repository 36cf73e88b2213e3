"""Every finding: what makes it appear, and that healthy hosts have none of them."""

from __future__ import annotations

from typing import Any

import pytest

from aclcmp.orchestrator.doctor.checks import check
from aclcmp.orchestrator.doctor.facts import Health
from aclcmp.orchestrator.doctor.findings import Finding, HostReport, Severity
from tests.doctor.hosts import GIB, host_report, two_hosts

B = "acl-b (10.0.0.2)"
MIB = 1 << 20


def problems(hosts: list[HostReport], *silent: tuple[str, str], **more: Any) -> list[Finding]:
    return [finding for finding in check(hosts, silent, **more) if finding.level is not Severity.OK]


def test_healthy_hosts_have_no_problem() -> None:
    assert problems([host_report()]) == [] and problems(two_hosts()) == []
    fine = [finding.what for finding in check(two_hosts())]
    assert "Ray asks for a token" in fine and "a lost host is noticed within 15 s" in fine
    assert fine.count("Ray offers 8 NPU, the host has 8 of /dev/davinci*") == 2
    assert "torch-npu 2.5.1 was released for torch 2.5.1 and CANN 8.1.RC1" in fine
    assert "its clock is within 0.01 s of that of acl-a (10.0.0.1)" in fine


@pytest.mark.parametrize(
    ("level", "what", "fix", "changes"),
    [
        ("bad", "has aclcmp 1.2.2, acl-a (10.0.0.1) has 1.2.3", "the same version", {"versions__aclcmp": "1.2.2"}),
        ("bad", "has aclcmp (no version)", "the same version", {"versions__aclcmp": ""}),
        ("warn", "has another state of aclcmp 1.2.3", "same state", {"code": "f00d"}),
        ("bad", "has Python 3.12.7", "the Python that runs Ray", {"versions__python": "3.12.7"}),
        ("warn", "has Python 3.11.9", "to the last number", {"versions__python": "3.11.9"}),
        ("bad", "has Ray 2.59.0", "pip install ray==2.60.0", {"versions__ray": "2.59.0"}),
        ("warn", "has no h5py", "the same versions", {"versions__h5py": ""}),
        ("warn", "has CANN 8.2.RC1, acl-a (10.0.0.1) has 8.1.RC1", "same CANN", {"ascend__cann": "8.2.RC1"}),
        ("bad", "torch-npu 2.5.1 is for torch 2.5.1, and torch 2.6.0 is", "torch==2.5.1", {"versions__torch": "2.6.0"}),
        ("warn", "torch-npu is not installed", "pip install torch-npu", {"versions__torch_npu": ""}),
        ("bad", "no CANN was found", "set_env.sh", {"ascend__cann": ""}),
        ("warn", "its environment is not set", "/latest/set_env.sh", {"ascend__sourced": False}),
        ("bad", "shared memory: 64 MiB free", "--shm-size", {"shm__free": 64 * MIB, "shm__total": 64 * MIB}),
        ("warn", "little for several ranks", "emptyDir", {"shm__free": 512 * MIB, "shm__total": 512 * MIB}),
        ("bad", "Ray's folder /tmp/ray: 100 MiB free", "RAY_TMPDIR", {"ray_folder__free": 100 * MIB}),
        ("warn", "the run folder /home/me/work: 5 GiB free", "--output", {"run_folder__free": 5 * GIB}),
        ("warn", "30 GiB free of 1,000 GiB", "make room", {"run_folder__free": 30 * GIB}),
        ("bad", "no file can be made", "make room", {"run_folder__inodes": 0}),
        ("bad", "the run folder /home/me/work cannot be written", "chmod", {"run_folder__writable": False}),
        ("warn", "there is no folder /home/me/work", "mkdir -p", {"run_folder__exists": False}),
        ("warn", "cannot be locked (No locks available)", "HDF5_USE_", {"run_folder__locks": "No locks available"}),
        ("warn", "may open 256 files", "ulimit -n", {"open_files": (256, 1 << 20)}),
        ("warn", "at most 2048", "ulimit -n", {"open_files": (2048, 2048)}),
        ("warn", "does not resolve", '"ADDRESS acl-b" in /etc/hosts', {"network__resolved": ()}),
        ("warn", "resolves to 127.0.1.1: gloo and HCCL", "/etc/hosts", {"network__resolved": ("127.0.1.1",)}),
        ("warn", "took 4.0 s", "/etc/hosts", {"network__resolve_seconds": 4.0}),
        (
            "warn",
            "no interface has Ray's address 10.0.0.2",
            "--network=host",
            {"network__interfaces": (("lo", "::1"),)},
        ),
        (
            "bad",
            "GLOO_SOCKET_IFNAME=eth names no interface of this host (eth0, lo)",
            "unset GLOO",
            {"network__socket_names": (("GLOO_SOCKET_IFNAME", "eth"),)},
        ),
        ("warn", "http_proxy would be asked for 10.0.0.1", "no_proxy", {"network__proxied": ("10.0.0.1",)}),
        ("bad", "no free port: ranks cannot connect", "ip_local_port_range", {"network__free_port": False}),
        ("warn", "port 60003 of HCCL's", "HCCL_IF_BASE_PORT", {"network__taken": ((60003, "nginx"),)}),
        ("warn", "HCCL's ports 60000-60015 to anybody", "sysctl -w", {"network__reserved_ports": "60000-60007"}),
        ("warn", "other users may read Ray's token", "chmod 600", {"token__readable": True}),
        ("bad", "RAY_AUTH_MODE=tokens is for Ray as good as disabled", "=token", {"token__mode": "tokens"}),
        ("bad", "there is no token", "RAY_AUTH_TOKEN", {"token__source": "", "token__digest": ""}),
        (
            "bad",
            "ray_current_cluster belongs to user 1001",
            "RAY_TMPDIR",
            {"cluster_file_owner": 1001, "cluster_file_writable": False},
        ),
        ("warn", "Ray offers 8 NPU, the host has 16 of", "ASCEND_RT_VISIBLE_DEVICES", {"devices__npus": 16}),
        ("warn", "Ray offers 0 GPU, the host has 2 of", "--num-gpus=2", {"devices__gpus": 2}),
        ("bad", "Ray offers 8 NPU, the host has 7 of", "--resources", {"devices__npus": 7}),
    ],
)
def test_one_thing_is_wrong_on_one_host(level: str, what: str, fix: str, changes: dict[str, object]) -> None:
    found = problems(two_hosts(**{f"facts__{path}": value for path, value in changes.items()}))
    matching = [finding for finding in found if what in finding.what]
    assert [finding.level for finding in matching] == [level], found
    assert matching[0].where == B and fix in matching[0].fix
    assert all(finding.where in (B, "") for finding in found) and len(found) <= 2, found
    assert all("\n" not in finding.what + finding.fix for finding in found)


def test_a_clock_that_is_off_for_certain() -> None:
    assert problems([*two_hosts(), host_report("acl-c", "10.0.0.3", skew=(-20.0, 20.0))]) == []  # not known
    (ahead,) = problems([host_report(), host_report("acl-b", "10.0.0.2", skew=(1.5, 1.6))])
    (behind,) = problems([host_report(), host_report("acl-b", "10.0.0.2", skew=(-3600.2, -3600.1))])
    assert "at least 1.5 s ahead of that of acl-a" in ahead.what and "at least 3600.1 s behind" in behind.what
    assert "chrony" in ahead.fix and ahead.level is Severity.WARN


def test_a_host_that_gives_no_answer() -> None:
    none, mute = problems(
        [host_report()], ("acl-b (10.0.0.2)", "has no aclcmp: install it"), ("acl-c", "did not answer")
    )
    assert none.level is mute.level is Severity.BAD
    assert (
        none.where == B
        and none.what == "has no aclcmp"
        and "install the same version" in none.fix
        and "ray status" in mute.fix
    )


def test_what_only_many_hosts_can_have_wrong() -> None:
    (slow,) = problems([host_report(facts__health=Health(3000, 10000, 5)), *two_hosts()[1:]])
    assert "after up to 65 s" in slow.what and "RAY_health_check_period_ms=" in slow.fix
    assert problems([host_report(facts__health=None), *two_hosts()[1:]]) == []

    (shared,) = problems([host_report(), host_report("acl-b", "10.0.0.1")])
    assert "2 nodes of Ray share the address 10.0.0.1" in shared.what

    (other,) = problems(two_hosts(facts__token__digest="d2"))
    assert "token on acl-b (10.0.0.2) is another than on acl-a (10.0.0.1)" in other.what

    (loopback,) = [f for f in problems([host_report(), host_report("acl-b", "127.0.0.1")]) if f.level is Severity.BAD]
    assert "Ray knows it as 127.0.0.1" in loopback.what and "--node-ip-address" in loopback.fix


def test_one_host_alone_needs_no_name_and_no_health_checks() -> None:
    assert problems([host_report(facts__network__resolved=("127.0.1.1",), facts__health=Health(3000, 10000, 5))]) == []


@pytest.mark.parametrize(("mode", "source"), [("disabled", "RAY_AUTH_TOKEN"), ("", "")])
def test_a_cluster_without_a_token(mode: str, source: str) -> None:
    changes = {"facts__token__mode": mode, "facts__token__source": source}
    found = problems([host_report(**changes), host_report("acl-b", "10.0.0.2", **changes)])
    assert [finding.what[:24] for finding in found] == ["Ray asks for no token: w"]
    assert "RAY_AUTH_MODE=token" in found[0].fix


@pytest.mark.parametrize(
    ("variable", "value", "right"),
    [
        ("GLOO_SOCKET_IFNAME", "eth0", True),
        ("HCCL_SOCKET_IFNAME", "eth", True),
        ("HCCL_SOCKET_IFNAME", "=eth", False),
        ("HCCL_SOCKET_IFNAME", "=eth0,eth1", True),
        ("NCCL_SOCKET_IFNAME", "^docker", True),
        ("NCCL_SOCKET_IFNAME", "ib", False),
    ],
)
def test_names_of_interfaces_as_each_library_reads_them(variable: str, value: str, right: bool) -> None:
    assert problems([host_report(facts__network__socket_names=((variable, value),))]) == [] or not right
    assert right or problems([host_report(facts__network__socket_names=((variable, value),))])


def test_the_shell_that_asks_may_say_something_else() -> None:
    shell = host_report(facts__network__socket_names=(("GLOO_SOCKET_IFNAME", "ib0"),)).facts.network
    (finding,) = problems(two_hosts(), shell=shell)
    assert finding.where == "acl-a, this shell" and "GLOO_SOCKET_IFNAME=ib0" in finding.what
    assert len(problems([host_report(facts__network=shell)], shell=shell)) == 1


def test_ports_where_a_ray_would_be_started() -> None:
    tunnel = host_report(ip="", facts__network__taken=((8265, "ssh"),))
    assert not any("8265" in finding.what for finding in problems([tunnel]))
    here = host_report(ip="", facts__network__taken=((6379, "redis-server"), (8265, "raylet"), (10001, "")))
    redis, hidden = problems([here])
    assert "port 6379" in redis.what and "redis-server" in redis.what and "--port=6380" in redis.fix
    assert "port 10001" in hidden.what and "another user" in hidden.what
    assert any("a Ray that runs here (raylet)" in finding.what for finding in check([here]))


def test_little_shared_memory_is_worse_where_devices_are() -> None:
    changes: dict[str, Any] = {"facts__shm__free": 64 * MIB, "facts__shm__total": 64 * MIB}
    (finding,) = problems([host_report(resources={}, facts__devices__npus=0, facts__versions__torch_npu="", **changes)])
    assert finding.level is Severity.WARN and "64 MiB" in finding.what
    (finding,) = problems([host_report(**changes)])
    assert finding.level is Severity.BAD


def test_a_host_without_any_device() -> None:
    plain = host_report(
        resources={"CPU": 4.0}, facts__devices__npus=0, facts__versions__torch_npu="", facts__ascend__cann=""
    )
    assert problems([plain]) == []
    assert any(finding.what.startswith("no NPU and no GPU") for finding in check([plain]))
