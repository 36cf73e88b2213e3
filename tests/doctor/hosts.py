"""Reports of healthy hosts, of which a test changes single facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aclcmp.orchestrator.cluster.versions import Versions
from aclcmp.orchestrator.doctor.ascend import Ascend
from aclcmp.orchestrator.doctor.disk_folders import Folder
from aclcmp.orchestrator.doctor.facts import Devices, Health, NodeFacts, Token
from aclcmp.orchestrator.doctor.findings import HostReport
from aclcmp.orchestrator.doctor.network import Network
from aclcmp.orchestrator.doctor.torch_loading import Loading

GIB = 1 << 30


def folder(path: str) -> Folder:
    return Folder(path, exists=True, writable=True, total=1000 * GIB, free=500 * GIB, inodes=1 << 20, owner=1000)


def host_report(name: str = "acl-a", ip: str = "10.0.0.1", **changes: Any) -> HostReport:
    """Return the report of a healthy host with eight NPUs; a change is named by its path, `facts__shm__free=0`."""
    facts = NodeFacts(
        versions=Versions("1.2.3", "3.11.7", "2.60.0", "2.4.6", "3.16.0", "2.5.1", "2.5.1"),
        code="c0de",
        network=Network(
            host=name,
            interfaces=(("eth0", ip), ("lo", "127.0.0.1")),
            resolved=(ip,),
            resolve_seconds=0.01,
            local_ports=(32768, 60999),
            reserved_ports="60000-60015",
        ),
        shm=folder("/dev/shm"),
        ray_folder=folder("/tmp/ray"),
        run_folder=folder("/home/me/work"),
        devices=Devices(npus=8, gpus=0),
        ascend=Ascend("8.1.RC1", "/usr/local/Ascend/ascend-toolkit/latest", sourced=True, driver="25.0"),
        token=Token("token", "RAY_AUTH_TOKEN", digest="d1"),
        user=1000,
        cluster_file_owner=-1,
        cluster_file_writable=True,
        open_files=(65536, 1 << 20),
        health=Health(2000, 3000, 3) if name == "acl-a" else None,
        loading=Loading(("torch", "torch_npu"), seconds=2.5),
    )
    host = HostReport(f"{name} ({ip})", ip, facts, {"CPU": 64.0, "NPU": 8.0})
    for path, value in changes.items():
        host = with_value(host, path.split("__"), value)
    return host


def with_value(whole: Any, path: list[str], value: object) -> Any:
    first, *rest = path
    return replace(whole, **{first: with_value(getattr(whole, first), rest, value) if rest else value})


def two_hosts(**changes: Any) -> list[HostReport]:
    """Return the reports of two hosts; the changes are those of the second."""
    return [host_report(), host_report("acl-b", "10.0.0.2", skew=(-0.01, 0.01), **changes)]
