"""What a host tells of itself: from files laid out as CANN, the kernel and Ray lay them out, and from this host."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pickle
import platform
import socket
from pathlib import Path

import pytest

from aclcmp.orchestrator.doctor.ascend import RELEASED_FOR, Ascend, check_pairing, find_ascend
from aclcmp.orchestrator.doctor.disk_folders import inspect_folder
from aclcmp.orchestrator.doctor.facts import (
    Devices,
    FactsRequest,
    Health,
    count_devices,
    find_token,
    gather_facts,
    parse_health,
    read_token,
    sessions_folder,
)
from aclcmp.orchestrator.doctor.network import inspect_network, is_reserved, uses_proxy


def wrote(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_this_host_tells_all(tmp_path: Path) -> None:
    facts = gather_facts(FactsRequest(str(tmp_path), peers=("10.0.0.1",), salt="s"))
    assert pickle.loads(pickle.dumps(facts)) == facts  # it travels
    assert facts.versions.aclcmp and facts.versions.python == platform.python_version() and facts.versions.ray
    assert facts.network.host == socket.gethostname() and facts.network.owner("127.0.0.1")
    assert facts.shm.total > 0 and facts.run_folder.writable and facts.run_folder.locks == ""
    assert facts.network.free_port and len(facts.code) == 12 and facts.health is None
    assert list(tmp_path.iterdir()) == []


def test_cann_where_it_is_installed(tmp_path: Path) -> None:
    assert find_ascend(tmp_path, {}) == Ascend()
    assert find_ascend(tmp_path, {"ASCEND_TOOLKIT_HOME": "/nowhere"}) == Ascend(sourced=True)

    home = tmp_path / "usr/local/Ascend/ascend-toolkit/latest"
    wrote(home / "version.cfg", "# v\nruntime_running_version=[7:8.0]\ntoolkit_running_version=[7.3.0.1.231:8.0.RC2]\n")
    assert find_ascend(tmp_path, {}) == Ascend("8.0.RC2", str(home))
    wrote(home / "version.cfg", "toolkit_installed_version=[7.0.0.10.220:CANN-7.0.1]\n")
    assert find_ascend(tmp_path, {}).cann == "7.0.1"
    info = home / f"{platform.machine()}-linux" / "ascend_toolkit_install.info"
    wrote(info, "package_name=Ascend-cann-toolkit\nversion=8.1.RC1\ninnerversion=V100\n")
    wrote(tmp_path / "usr/local/Ascend/driver/version.info", "Version=25.0.rc1\nascendhal_version=7\n")
    assert find_ascend(tmp_path, {}) == Ascend("8.1.RC1", str(home), driver="25.0.rc1")

    other = tmp_path / "opt/cann"
    wrote(other / "version.cfg", "toolkit_running_version=[8.5.0:8.5.0]\n")
    assert find_ascend(tmp_path, {"ASCEND_HOME_PATH": str(other)}) == Ascend("8.5.0", str(other), True, "25.0.rc1")


def test_pairs_that_are_not_in_the_table_are_not_known_and_never_wrong() -> None:
    assert check_pairing("2.5.1.post1", "2.5.1+cpu", "8.2.RC1")[0] is True
    assert check_pairing("2.5.1", "2.5.1", "8.2.RC1") == (
        None,
        "torch-npu 2.5.1 was released for CANN 8.1.RC1; whether it fits 8.2.RC1 is not known",
    )
    assert check_pairing("2.99.0", "2.99.0", "99.0")[0] is None and check_pairing("2.5.1", "2.5.1", "")[0] is None
    assert check_pairing("2.1.0rc1", "2.1.0", "7.0.RC1")[0] is None
    assert check_pairing("2.5.1.post1", "2.5.0", "8.2.RC1")[0] is False
    assert check_pairing("2.1.0", "2.1", "7.0.0")[0] is True and check_pairing("2.12.0", "2.1", "9.1.0")[0] is False
    assert all(len(version.split(".")) in (3, 4) for version in RELEASED_FOR)


def test_devices_are_counted_by_their_files(tmp_path: Path) -> None:
    assert count_devices(tmp_path) == Devices(0, 0)
    for name in ("davinci0", "davinci1", "davinci_manager", "nvidia0", "nvidiactl", "nvidia-uvm"):
        wrote(tmp_path / "dev" / name, "")
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\nGCC version: 12\n"
    wrote(tmp_path / "proc/driver/nvidia/version", line)
    assert count_devices(tmp_path) == Devices(2, 1, "550.54.15")


def test_the_token_is_found_as_ray_finds_it_and_never_told(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert read_token(home)[0] == "" and find_token(home, "s").source == ""
    file = wrote(tmp_path / ".ray/auth_token", "secret-of-the-file\n")
    file.chmod(0o644)
    token = find_token(home, "s")
    assert token.source == str(file) and token.readable
    file.chmod(0o600)
    assert not find_token(home, "s").readable
    named = wrote(tmp_path / "named", "secret-of-the-path")
    assert read_token({**home, "RAY_AUTH_TOKEN_PATH": str(named)}) == ("secret-of-the-path", str(named))
    both = {**home, "RAY_AUTH_TOKEN_PATH": str(named), "RAY_AUTH_TOKEN": "secret-of-the-file", "RAY_AUTH_MODE": "token"}
    variable = find_token(both, "s")
    assert (variable.mode, variable.source) == ("token", "RAY_AUTH_TOKEN")
    assert variable.digest == token.digest != find_token(both, "other").digest
    assert "secret" not in repr(variable)


def test_health_checks_as_the_head_was_told_them() -> None:
    assert parse_health([], {}) == Health(3000, 10000, 5) and parse_health([], {}).seconds == 65
    config = base64.b64encode(json.dumps({"health_check_period_ms": 1000, "other": True}).encode()).decode()
    assert parse_health(["gcs_server", f"--config_list={config}"], {}).period_ms == 1000
    assert parse_health(["--config_list=%%%"], {"RAY_health_check_timeout_ms": "x"}) == Health(3000, 10000, 5)
    environ = {"RAY_health_check_timeout_ms": "3000", "RAY_health_check_failure_threshold": "3"}
    assert parse_health([f"--config_list={config}"], environ).seconds == 12


def test_the_folder_of_the_ray_that_asks() -> None:
    raylet = ["raylet", "--raylet_socket_name=/big/my ray/session_1/sockets/raylet", "--session-name=session_1"]
    assert sessions_folder(raylet, {}) == Path("/big/my ray")
    assert (
        sessions_folder(["bash"], {"RAY_TMPDIR": "/x"}) == sessions_folder([], {"RAY_TMPDIR": "/x"}) == Path("/x/ray")
    )


def test_a_folder_that_is_not_there_is_looked_at_where_it_would_be(weird_path: Path) -> None:
    folder = inspect_folder(weird_path / "a" / "b", try_locks=True)
    assert not folder.exists and folder.writable and folder.free > 0 and folder.locks == "" and folder.owner == -1
    assert inspect_folder(weird_path).owner == os.getuid()


def test_a_folder_whose_files_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)  # as an NFS mount without its lock daemon does
    assert inspect_folder(tmp_path, try_locks=True).locks == "No locks available"


def test_ports_that_somebody_listens_on() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        network = inspect_network((), (port,), {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": ""})
        assert [each for each, _ in network.taken] == [port]
    assert network.socket_names == (("GLOO_SOCKET_IFNAME", "eth0"),)
    assert inspect_network((), (port,), {}).taken == ()


def test_the_kernels_ranges(tmp_path: Path) -> None:
    wrote(tmp_path / "proc/sys/net/ipv4/ip_local_port_range", "1024\t50000\n")
    wrote(tmp_path / "proc/sys/net/ipv4/ip_local_reserved_ports", "8080,60000-60015\n")
    network = inspect_network((), (), {}, tmp_path)
    assert network.local_ports == (1024, 50000) and network.reserved_ports == "8080,60000-60015"
    assert is_reserved(network.reserved_ports, 60015) and is_reserved("8080", 8080) and not is_reserved("", 1)
    assert not is_reserved(network.reserved_ports, 60016)


def test_which_addresses_a_proxy_would_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert not uses_proxy("10.0.0.1", os.environ)
    monkeypatch.setenv("http_proxy", "http://me:secret@proxy:3128")
    assert uses_proxy("10.0.0.1", os.environ)
    for exempt in ("10.0.0.1", "10.0.0.0/8", "*", "10.0.0.0/8,localhost"):
        monkeypatch.setenv("no_proxy", exempt)
        assert not uses_proxy("10.0.0.1", os.environ), exempt
    monkeypatch.setenv("no_proxy", "10.1.0.0/16")
    assert uses_proxy("10.0.0.1", os.environ)
    assert inspect_network(("10.0.0.1", "10.1.0.1"), (), os.environ).proxied == ("10.0.0.1",)
    assert "secret" not in repr(inspect_network(("10.0.0.1",), (), os.environ))
