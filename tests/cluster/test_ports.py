"""The port where ranks meet."""

import random
import socket
from pathlib import Path

import pytest

from aclcmp.orchestrator.cluster import ports


def test_a_port_that_the_kernel_does_not_hand_out_itself() -> None:
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if lowest <= 20_000 and highest >= 29_999:
        pytest.skip("the kernel hands out all ports here")
    for port in {ports.free_port() for _ in range(50)}:
        assert not lowest <= port <= highest
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_ports_in_use_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        used = taken.getsockname()[1]
        monkeypatch.setattr(ports, "_CANDIDATES", range(used, used + 1))
        monkeypatch.setattr(ports, "ephemeral_ports", lambda: (1, 1))
        assert ports.free_port() != used


def test_where_the_kernel_hands_out_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "ephemeral_ports", lambda: (1024, 65_535))
    monkeypatch.setattr(random, "sample", lambda candidates, count: list(candidates)[:count])
    assert ports.free_port() > 0
