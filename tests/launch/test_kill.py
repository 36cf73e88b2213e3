"""However a run ends, no process of a rank is left: signals and SIGKILL to the driver, an actor, the raylet."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from aclcmp.orchestrator.cluster.head_watch import HERE_GONE
from aclcmp.orchestrator.core.run_record import RankState, RunRecord
from aclcmp.orchestrator.run.record_file import load_record
from tests.launch import driver
from tests.launch.conftest import without_ray_settings
from tests.processes import as_in_a_terminal, command_of, kill, living, marked_processes, wait_until

pytestmark = pytest.mark.ray
RANKS = 3
TREE = """
ignore='trap "" TERM; exec sleep 600'
sh -c "$ignore" & setsid sh -c "$ignore" & (setsid setsid sh -c "$ignore" &)
trap 'echo stopping' TERM
while :; do wait; done
"""
"""A rank that ignores SIGTERM, with children in its own group, in a session of their own, and orphaned."""
PER_RANK = 6  # outer guard, inner guard, bash, three sleeps


@dataclass(frozen=True)
class Running:
    """A driver with all ranks up."""

    process: subprocess.Popen[bytes]
    mark: str
    folder: Path
    home: Path
    output: Path

    def ranks(self) -> list[psutil.Process]:
        """Guards and all that runs below them. (Ray's processes do not have ACLCMP_SHARD_DIR.)"""
        return marked_processes(f"ACLCMP_SHARD_DIR={self.folder}/")

    def everything(self) -> list[psutil.Process]:
        """The driver, Ray and the ranks."""
        return marked_processes(self.mark)

    def actor(self) -> psutil.Process:
        """The rank host."""
        (found,) = living(lambda each: "RankHost" in command_of(each), self.everything())
        return found

    def raylet(self) -> psutil.Process:
        """The local raylet."""
        (found,) = living(lambda each: each.name() == "raylet", psutil.Process(self.process.pid).children())
        return found

    def record(self) -> RunRecord:
        """What run.json says."""
        return load_record(self.folder / "run.json")


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Running]:
    """Launch three ranks in a process of their own; end whatever is left of it afterwards."""
    mark = uuid.uuid4().hex
    home, folder, output = tmp_path / "home", tmp_path / "run", tmp_path / "output"
    home.mkdir()
    with output.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, driver.__file__, str(folder), str(RANKS), "bash", "-c", TREE],
            env={**without_ray_settings(os.environ), "KILL_TEST": mark, "HOME": str(home)},
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=as_in_a_terminal,
        )
    run = Running(process, mark, folder, home, output)
    try:
        yield run
    finally:
        kill(run.everything())
        process.wait()


@pytest.fixture
def running(starting: Running) -> Running:
    """The same, with all processes of all ranks up."""
    run = starting
    wait_until(lambda: len(run.ranks()) == RANKS * PER_RANK or run.process.poll() is not None, run.ranks)
    assert run.process.poll() is None, run.output.read_text()
    return run


def gone(run: Running) -> str:
    """Wait until nothing is left; return what the driver printed."""

    def left() -> list[psutil.Process]:
        # Two of Ray's own agents give a killed cluster up only after 60 s.
        return [each for each in run.everything() if not re.search("DashboardAgent|RuntimeEnvAgent", str(each))]

    wait_until(lambda: not run.ranks(), run.ranks)
    wait_until(lambda: not left(), left)
    assert not list(run.home.iterdir())  # Ray would write a token here
    return run.output.read_text()


def test_ctrl_c(running: Running) -> None:
    os.killpg(running.process.pid, signal.SIGINT)
    printed = gone(running)
    assert printed.endswith("closed\n"), printed
    record = running.record()
    assert record.failure is not None and record.failure.what.startswith("interrupted by SIGINT")
    assert {rank.state for rank in record.ranks} == {RankState.STOPPED}
    assert {rank.exit_code for rank in record.ranks} == {137}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup(running: Running, number: signal.Signals) -> None:
    running.process.send_signal(number)
    assert gone(running).endswith("closed\n")
    record = running.record()
    assert record.failure is not None and record.failure.what.startswith(f"interrupted by {number.name}")


def test_second_ctrl_c(running: Running) -> None:
    os.killpg(running.process.pid, signal.SIGINT)
    wait_until(lambda: "stopping" in running.output.read_text(), running.ranks)
    os.killpg(running.process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in gone(running)
    record = running.record()
    assert record.failure is not None and record.failure.what == "interrupted by SIGINT; the ranks were killed"


def test_kill_driver(running: Running) -> None:
    running.process.kill()
    gone(running)
    record = running.record()
    assert record.failure is not None and "killed before the run ended" in record.failure.what


def test_kill_actor(running: Running) -> None:
    running.actor().kill()
    assert gone(running).endswith("closed\n")
    record = running.record()
    assert record.failure is not None and "lost" in record.failure.what
    assert {rank.state for rank in record.ranks} == {RankState.LOST}


def test_kill_raylet(running: Running) -> None:
    running.raylet().kill()
    assert f"{HERE_GONE}: stopping the ranks" in gone(running)
    record = running.record()
    assert record.failure is not None and record.failure.what == f"{HERE_GONE}; the ranks that ran were stopped"
    assert {rank.state for rank in record.ranks} <= {RankState.STOPPED, RankState.LOST}


def test_ctrl_c_while_ray_starts(starting: Running) -> None:
    def daemons() -> list[psutil.Process]:
        return [each for each in starting.everything() if each.pid != starting.process.pid]

    wait_until(daemons, daemons)
    os.killpg(starting.process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in gone(starting)
