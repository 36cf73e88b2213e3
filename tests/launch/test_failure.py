"""What a rank's last lines tell of why it failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aclcmp.orchestrator.core.job import Placement
from aclcmp.orchestrator.core.run_record import RankState
from aclcmp.orchestrator.launch.failure import first_failure
from aclcmp.orchestrator.launch.follow_ranks import Command, Outcome, Reason

HINT = (
    "; torch_npu, which torch loads by itself, does not find CANN's libhccl.so: source CANN's set_env.sh (usually "
    "/usr/local/Ascend/ascend-toolkit/set_env.sh); or run with --device cpu, without it"
)
LOADER = "raise ImportError('libhccl.so: cannot open shared object file: No such file or directory')\n"


def told(*lines: str, code: int = 1) -> str:
    place = Placement(0, 3, 3, 8, 0, "n", "10.0.0.1", "h", (), ())
    command = Command((place,), Path("log"), 0.0, RankState.FAILED, code)
    command.hear(lines)
    found = first_failure([command], Outcome(Reason.FAILURE), None, None)
    assert found is not None and found.rank == 3 and found.last_lines == lines[-15:]
    return found.what


def test_a_rank_that_could_not_load_torch_says_why() -> None:
    line = "OSError: libascendcl.so: cannot open shared object file: No such file or directory"
    why = "CANN's libascendcl.so is not found: source CANN's set_env.sh (usually /usr/local/Ascend/"
    assert told("Traceback (most recent call last):", line).startswith(f"rank 3 (host h) exited with code 1; {why}")
    assert told(line, code=137).endswith("(SIGKILL; often the system was out of memory)")
    assert (
        told(line, *["a step"] * 16) == told("libhccl.so: undefined symbol: x") == "rank 3 (host h) exited with code 1"
    )


@pytest.mark.model
def test_the_lines_of_the_real_torch(tmp_path: Path) -> None:
    """A torch_npu that cannot load, found by the real torch through its entry point."""
    info = tmp_path / "torch_npu-2.7.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-npu\nVersion: 2.7.1\n")
    (info / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    (tmp_path / "torch_npu.py").write_text(LOADER)
    environ = os.environ | {"PYTHONPATH": str(tmp_path)}

    def imported(**more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "import torch; print(torch.ones(1))"]
        return subprocess.run(command, env=environ | more, capture_output=True, text=True)

    done = imported()
    assert done.returncode == 1
    assert told(*done.stderr.splitlines()).endswith(HINT)
    assert imported(TORCH_DEVICE_BACKEND_AUTOLOAD="0").returncode == 0


def ended(rank: int, state: RankState, finished: float, host_lost: bool = False) -> Command:
    place = Placement(rank, rank, rank, 8, 0, f"n{rank}", "10.0.0.1", f"h{rank}", (), ())
    code = 1 if state is RankState.FAILED else None
    command = Command((place,), Path("log"), 0.0, state, code, finished)
    command.host_lost = host_lost
    return command


def test_a_lost_host_is_blamed_and_not_its_peers_that_failed_in_the_collective() -> None:
    peers = [ended(0, RankState.FAILED, 5.2), ended(1, RankState.FAILED, 5.3)]
    lost = [ended(2, RankState.LOST, 6.5, host_lost=True), ended(3, RankState.LOST, 6.6, host_lost=True)]
    found = first_failure([*peers, *lost], Outcome(Reason.FAILURE), None, None)
    assert found is not None and found.rank == 2 and found.what.startswith("rank 2 (host h2) was lost")


def test_a_rank_that_did_not_stop_is_not_blamed_for_the_one_that_failed() -> None:
    commands = [ended(0, RankState.LOST, 20.0), ended(1, RankState.FAILED, 5.0), ended(2, RankState.STOPPED, 7.0)]
    found = first_failure(commands, Outcome(Reason.FAILURE), None, None)
    assert found is not None and found.rank == 1


def test_a_rank_that_fails_while_enough_is_seen_is_told() -> None:
    commands = [ended(0, RankState.STOPPED, 5.0), ended(1, RankState.FAILED, 4.9)]
    found = first_failure(commands, Outcome(Reason.ENOUGH), None, None)
    assert found is not None and found.rank == 1
    assert first_failure(commands[:1], Outcome(Reason.ENOUGH), None, None) is None
