"""The command as a user calls it, and which hosts are asked before a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aclcmp.orchestrator.cli.app import run_cli
from aclcmp.orchestrator.cluster.cluster import Node
from aclcmp.orchestrator.core.job import Device, Job
from aclcmp.orchestrator.launch.preflight import hosts_for
from tests.processes import PATIENCE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.yaml", "--address", "auto"], "give FILE or --address"),
        (["missing.yaml"], "missing.yaml"),
        (["--address", "nonsense"], "HOST:PORT"),
        (
            ["--address", "127.0.0.1:1"],
            "Only a host of the cluster can join it: run this on one, or give a cluster file",
        ),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["doctor", *arguments]) == 2
    told = capsys.readouterr()
    assert words in told.err and told.err.count("\n") == 1 and told.out == ""


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["doctor", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for words in (
        "Usage: aclcmp doctor [OPTIONS] [FILE]",
        "--address",
        "--json",
        "Exit codes: 0 nothing is bad",
        "fix",
    ):
        assert words in told


@pytest.mark.ray
def test_this_machine(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aclcmp", "doctor", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    told = json.loads(done.stdout)
    assert done.returncode == (0 if told["healthy"] else 4), done
    assert any(finding["what"].startswith("a local Ray starts, in ") for finding in told["findings"]), told
    assert told["hosts"][0]["versions"]["aclcmp"] and list(tmp_path.iterdir()) == []


def test_hosts_that_ranks_may_run_on_are_asked() -> None:
    plain, one, two = (
        Node(f"n{number}", f"10.0.0.{number}", f"h{number}", 8, {"CPU": 8.0, **devices})
        for number, devices in enumerate(({}, {"NPU": 8.0}, {"NPU": 8.0}))
    )
    job = Job(command=("true",), ranks=4, cwd=Path("/"))
    assert hosts_for(job, (plain, one, two)) == (one, two)  # auto is NPU here; Ray chooses among them
    cpu = Job(command=("true",), ranks=4, cwd=Path("/"), device=Device.CPU, nodes=2)
    assert hosts_for(cpu, (plain, one, two)) == (plain, one)
