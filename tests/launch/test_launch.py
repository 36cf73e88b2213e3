"""Real commands on a real local Ray: what the ranks see, what comes back, and how failures are told."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from aclcmp.orchestrator.cluster.cluster import Cluster
from aclcmp.orchestrator.core.job import Device, Job, Launcher, Placement, Visibility
from aclcmp.orchestrator.core.run_record import RankState, RunRecord
from aclcmp.orchestrator.errors import LaunchError, UsageError
from aclcmp.orchestrator.launch.launcher import check_fit, launch
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record
from tests.launch.conftest import Notes
from tests.processes import marked_processes

pytestmark = pytest.mark.ray
Run = Callable[..., tuple[RunRecord, Notes, RunDir]]


def variables(notes: Notes, rank: int) -> dict[str, str]:
    """What `env` printed in a rank."""
    return dict(line.split("=", 1) for line in notes.of(rank) if "=" in line)


def test_eight_ranks_see_torchruns_variables(run_job: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_THE_SHELL", "yes")
    record, notes, run = run_job("env", ranks=8, env={"MINE": "a=b c"})
    assert record.failure is None
    for rank in range(8):
        seen = variables(notes, rank)
        assert (seen["RANK"], seen["LOCAL_RANK"], seen["WORLD_SIZE"]) == (str(rank), str(rank), "8")
        assert (seen["LOCAL_WORLD_SIZE"], seen["GROUP_RANK"], seen["MASTER_ADDR"]) == ("8", "0", "127.0.0.1")
        assert seen["MASTER_PORT"] == variables(notes, 0)["MASTER_PORT"]
        assert (seen["ACLCMP_RUN_ID"], seen["ACLCMP_SHARD_DIR"]) == (run.run_id, str(run.shards))
        assert (seen["MINE"], seen["FROM_THE_SHELL"], seen["OMP_NUM_THREADS"]) == ("a=b c", "yes", "1")
        assert {name for name in seen if name.startswith("RAY_")} == {"RAY_AUTH_MODE"}  # from our own environment
        assert not {"ASCEND_RT_VISIBLE_DEVICES", "PYTHONBREAKPOINT", "SPT_NOENV"} & seen.keys()
    assert [place.rank for place in notes.placements] == list(range(8))
    assert notes.ends == dict.fromkeys(range(8), (RankState.FINISHED, 0))
    assert [(rank.rank, rank.state, rank.exit_code) for rank in record.ranks] == [
        (rank, RankState.FINISHED, 0) for rank in range(8)
    ]
    assert record.command == ("env",) and record.cluster == "local Ray" and record.device == "cpu"
    assert "MASTER_PORT" in record.environment and "MINE" not in record.environment
    assert load_record(run.record) == record


def test_output_in_order_and_whole(run_job: Run) -> None:
    count = 30_000
    script = """
import sys
for i in range(int(sys.argv[1])):
    print("line", i, file=sys.stderr if i % 7 else sys.stdout)
print("\\xff")
"""
    record, notes, run = run_job("python", "-c", script, str(count), ranks=2, env={"PYTHONIOENCODING": "latin1"})
    assert record.failure is None
    for rank in range(2):
        logged = run.log(rank).read_bytes()
        assert logged == b"".join(b"line %d\n" % number for number in range(count)) + b"\xff\n"
        shown = notes.of(rank)
        assert shown[-1] == "\ufffd"
        hidden = sum(
            int(match[1].replace(",", "")) for line in shown if (match := re.match(r"\.\.\. ([\d,]+) lines not", line))
        )
        numbers = [int(line.split()[1]) for line in shown if line.startswith("line")]
        assert numbers == sorted(numbers) and len(numbers) + hidden == count


def test_the_first_rank_to_fail_by_time_is_named(run_job: Run) -> None:
    script = "echo before; case $RANK in 2) sleep 1; seq 100; echo 'broken' >&2; exit 7;; *) sleep 600;; esac"
    record, notes, _ = run_job("bash", "-c", script, ranks=4)
    assert record.failure is not None and record.failure.rank == 2
    assert re.fullmatch(r"rank 2 \(host \S+\) exited with code 7", record.failure.what)
    assert record.failure.last_lines == (*map(str, range(87, 101)), "broken")
    assert [rank.state for rank in record.ranks] == [
        RankState.STOPPED, RankState.STOPPED, RankState.FAILED, RankState.STOPPED,
    ]  # fmt: skip
    assert record.ranks[2].exit_code == 7
    assert notes.ends[2] == (RankState.FAILED, 7)


def test_one_of_sixty_four_ranks_fails(run_job: Run) -> None:
    script = "echo rank $RANK; if [ $RANK = 40 ]; then sleep 1; exit 9; fi; exec sleep 600"
    record, notes, run = run_job("bash", "-c", script, ranks=64)
    assert record.failure is not None and record.failure.what.endswith("exited with code 9")
    assert [rank.rank for rank in record.ranks if rank.state is RankState.FAILED] == [40]
    assert sum(rank.state is RankState.STOPPED for rank in record.ranks) == 63
    assert [notes.of(rank) for rank in range(64)] == [[f"rank {rank}"] for rank in range(64)]
    assert not marked_processes(f"ACLCMP_SHARD_DIR={run.shards}")


def test_a_signal_is_named(run_job: Run) -> None:
    record, _, _ = run_job("bash", "-c", "[ $RANK = 0 ] && kill -SEGV $$; sleep 600", ranks=2)
    assert record.failure is not None and record.failure.what.endswith("exited with code 139 (SIGSEGV)")


def test_a_taken_port_is_told(run_job: Run) -> None:
    record, _, _ = run_job("bash", "-c", "echo 'RuntimeError: EADDRINUSE, Address already in use'; exit 1", ranks=1)
    assert record.failure is not None and "in use by another process: run it again" in record.failure.what


def test_timeout_names_who_still_runs(run_job: Run) -> None:
    script = "echo at step $RANK; [ $RANK = 0 ] || sleep 600"
    record, _, _ = run_job("bash", "-c", script, ranks=3, timeout=5.0)
    assert record.failure is not None and record.failure.rank is None
    assert re.fullmatch(r"timed out after 5 s; still running: rank 1 \(.*\), rank 2 \(.*\)", record.failure.what)
    assert record.failure.last_lines == ("[rank1] at step 1", "[rank2] at step 2")
    assert [rank.state for rank in record.ranks] == [RankState.FINISHED, RankState.TIMEOUT, RankState.TIMEOUT]


def test_daemons_end_with_their_rank(run_job: Run, tmp_path: Path) -> None:
    record, _, run = run_job("bash", "-c", "setsid sleep 600 & setsid setsid sleep 600 & exit 0", ranks=2)
    assert record.failure is None
    assert not marked_processes(f"ACLCMP_SHARD_DIR={run.shards}")


class Impatient(Notes):
    """Ends the run as soon as it runs, as `kill` would."""

    def on_start(self, ranks: Sequence[Placement]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_stops_the_ranks_and_the_record_comes_back(cluster: Cluster, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    job = Job(("bash", "-c", "trap 'exit 0' TERM; sleep 600 & wait"), tmp_path, ranks=2, device=Device.CPU)
    record = launch(job, cluster, RunDir.create(tmp_path / "run"), Impatient())
    assert record.failure is not None and record.failure.rank is None
    assert record.failure.what == "interrupted by SIGTERM; the ranks that ran were stopped"
    assert [rank.state for rank in record.ranks] == [RankState.STOPPED] * 2
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_working_directory_stdin_and_weird_paths(cluster: Cluster, weird_path: Path) -> None:
    notes, run = Notes(), RunDir.create(weird_path / "run")
    script = 'pwd; cat; echo "$1"; ls -d "$ACLCMP_SHARD_DIR"'
    record = launch(
        Job(("bash", "-c", script, "-", "a 'b' $c"), weird_path, ranks=1, device=Device.CPU), cluster, run, notes
    )
    assert record.failure is None
    assert notes.of(0) == [str(weird_path), "a 'b' $c", str(run.shards)]


def test_npu_ranks_see_all_devices_of_the_node_in_order(run_job: Run) -> None:
    record, notes, _ = run_job("env", ranks=3, device="auto")
    assert record.device == "npu"
    granted = [rank.devices[0] for rank in record.ranks]
    assert granted == sorted(granted, key=int) and len(set(granted)) == 3
    for rank in range(3):
        visible = variables(notes, rank)["ASCEND_RT_VISIBLE_DEVICES"].split(",")
        assert visible == granted and visible[int(variables(notes, rank)["LOCAL_RANK"])] == granted[rank]


def test_npu_ranks_with_visibility_own(run_job: Run) -> None:
    # All eight: the devices of the launches before are free again.
    record, notes, _ = run_job("env", ranks=8, device="npu", visibility=Visibility.OWN, nodes=1)
    seen = [variables(notes, rank)["ASCEND_RT_VISIBLE_DEVICES"] for rank in range(8)]
    assert seen == [rank.devices[0] for rank in record.ranks] == list("01234567")


def test_more_than_the_cluster_has(cluster: Cluster, tmp_path: Path) -> None:
    ip = cluster.nodes[0].ip
    with pytest.raises(UsageError, match=re.escape(f"asked for 9 NPU, the cluster has 8 ({ip}: 8)")):
        check_fit(Job(("true",), tmp_path, ranks=9), cluster)
    with pytest.raises(UsageError, match="asked for 2 nodes"):
        check_fit(Job(("true",), tmp_path, ranks=8, nodes=2), cluster)
    with pytest.raises(UsageError, match="asked for 1 GPU, the cluster has none"):
        check_fit(Job(("true",), tmp_path, ranks=1, device=Device.CUDA), cluster)


def test_a_missing_working_directory(cluster: Cluster, tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run")
    with pytest.raises(LaunchError, match=r"^the working directory /no/such/folder does not exist on host \S+$"):
        launch(Job(("true",), Path("/no/such/folder"), ranks=1, device=Device.CPU), cluster, run, Notes())
    record = load_record(run.record)
    assert record.failure is not None and "/no/such/folder" in record.failure.what


SPAWN = """
import os, subprocess, sys
assert "RANK" not in os.environ and "LOCAL_RANK" not in os.environ
each = int(os.environ["NPROC_PER_NODE"])
first = int(os.environ["NODE_RANK"]) * each
world = str(each * int(os.environ["NNODES"]))
child = ["sh", "-c", "echo child $RANK of $WORLD_SIZE"]
ranks = [
    subprocess.Popen(child, env={**os.environ, "RANK": str(first + i), "WORLD_SIZE": world})
    for i in range(each)
]
sys.exit(max(rank.wait() for rank in ranks) or int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_script_that_starts_its_own_ranks(run_job: Run, tmp_path: Path, code: int) -> None:
    (tmp_path / "spawn.py").write_text(SPAWN)
    record, notes, run = run_job("python", "spawn.py", str(code), ranks=3, device="npu", launcher=Launcher.SCRIPT)
    assert sorted(notes.of(0)) == ["child 0 of 3", "child 1 of 3", "child 2 of 3"]
    assert run.node_log(0).read_text().count("child") == 3
    state = RankState.FAILED if code else RankState.FINISHED
    assert [(rank.rank, rank.state, rank.exit_code) for rank in record.ranks] == [
        (rank, state, code) for rank in range(3)
    ]
    assert len({rank.devices for rank in record.ranks}) == 3
    assert set(notes.ends) == {0, 1, 2}
    if code:
        assert record.failure is not None and re.match(
            r"ranks 0-2 \(host \S+\) exited with code 3", record.failure.what
        )
