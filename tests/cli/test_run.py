"""The whole way through the real command: launch, labels, shards, comparison, report, exit code."""

import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_reader import read_shard
from aclcmp.orchestrator.cluster.head_watch import HERE_GONE
from tests.cli.conftest import Command
from tests.processes import PATIENCE, as_in_a_terminal, catches, command_of, living, wait_until
from tests.recorded import read_report

pytestmark = pytest.mark.ray


def test_healthy_run_and_compare_again(aclcmp: Command, script: Path, tmp_path: Path) -> None:
    done = aclcmp("--exec", "python model.py", "--ranks", "4", "--output", "out")
    assert done.code == 0, done
    assert "All match" in done.out
    for rank in range(4):
        assert f"[rank{rank}] turn 1" in done.out
        assert (tmp_path / "out" / "logs" / f"rank{rank:05d}.log").read_text() == "turn 0\nturn 1\n"
    first = read_report(tmp_path / "out")
    assert first["verdict"] == "match" and first["coverage"]["compared"] == 32
    assert all(len(label["ranks"]) == 4 for label in first["labels"])
    assert (tmp_path / "out" / "report.csv").exists() and (tmp_path / "out" / "report.h5").exists()
    again = aclcmp("compare", "out")
    assert again.code == 0
    assert read_report(tmp_path / "out")["labels"] == first["labels"]


def test_fault_is_named(aclcmp: Command, script: Path, tmp_path: Path) -> None:
    done = aclcmp("--exec", "python model.py fault", "--ranks", "2", "--output", "out")
    assert done.code == 1
    assert "First divergence: layers.2.act (op), task 0, rank 1" in done.out
    assert "model.py:" in done.out
    assert "layout inferred from the shapes of all ranks for 4 labels, e.g. layers.0.act: Shard(dim=1)" in done.out
    told = read_report(tmp_path / "out")["first_divergence"]
    assert (told["label"], told["task"], told["ranks"], told["origin"]) == ("layers.2.act", 0, [1], "own")


@pytest.mark.parametrize(
    ("mode", "words"), [("golden only", 'set_label("actual"'), ("actual only", 'set_label("golden"')]
)
def test_one_side_only_is_incomplete(aclcmp: Command, script: Path, mode: str, words: str) -> None:
    done = aclcmp("--exec", f"python model.py '{mode}'", "--ranks", "1")
    assert done.code == 4 and words in done.out


def test_no_labels_is_incomplete_and_says_what_to_do(aclcmp: Command, tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text("print('nothing labelled')")
    done = aclcmp("--exec", "python empty.py", "--ranks", "2")
    assert done.code == 4 and "set_label" in done.out


@pytest.mark.parametrize(("mode", "words"), [("crash", "exited with code 3"), ("abort", "SIGABRT")])
def test_failed_rank_is_named_and_what_was_labelled_is_compared(
    aclcmp: Command, script: Path, tmp_path: Path, mode: str, words: str
) -> None:
    done = aclcmp("--exec", f"python model.py {mode}", "--ranks", "2", "--output", "out")
    assert done.code == 3 and "rank 1" in done.out and words in done.out
    told = read_report(tmp_path / "out")
    assert told["verdict"] == "failed"
    assert told["coverage"]["compared"] >= 4 + 3
    assert {label["label"] for label in told["labels"]} >= {f"layers.{n}.act" for n in range(4)}


def test_timeout_names_the_ranks_that_hang(aclcmp: Command, script: Path, tmp_path: Path) -> None:
    done = aclcmp("--exec", "python model.py hang", "--ranks", "2", "--timeout", "15", "--output", "out")
    assert done.code == 3 and "15" in done.out and "0-1" in done.out
    assert read_report(tmp_path / "out")["coverage"]["compared"] == 2 * 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupt_reports_what_was_labelled(script: Path, tmp_path: Path, number: signal.Signals) -> None:
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "aclcmp", "--exec", "python model.py hang", "--ranks", "2", "--output", "out"]
    running = subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal
    )
    assert running.stdout is not None
    for _ in range(2):
        next(line for line in running.stdout if "hanging" in line)
    running.send_signal(number)
    rest, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 3
    assert "interrupted" in rest
    assert read_report(tmp_path / "out")["coverage"]["compared"] == 2 * 7
    wait_until(lambda: not living(lambda each: str(tmp_path) in command_of(each)))


def test_a_killed_raylet(script: Path, tmp_path: Path) -> None:
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "aclcmp", "--exec", "python model.py hang", "--ranks", "2", "--output", "out"]
    running = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for _ in range(2):
        next(line for line in running.stdout if "hanging" in line)
    (raylet,) = living(lambda each: each.name() == "raylet", psutil.Process(running.pid).children())
    raylet.kill()
    rest, _ = running.communicate(timeout=PATIENCE)
    assert running.returncode == 3
    assert f"{HERE_GONE}: comparing what lies on this host" in rest and f"Run failed: {HERE_GONE}; the ranks" in rest
    assert read_report(tmp_path / "out")["coverage"]["compared"] == 2 * 7


HOSTILE = """
import sys
import numpy as np
from aclcmp import set_label
for name in ("\\x1b]0;owned\\x07", "\\x9b2J", "\\u202eevil", "a\\nb"):
    set_label("golden", name, np.ones(8, np.float32))
    set_label("actual", name, np.arange(8, dtype=np.float32))
    print("prints", name, flush=True)
raise SystemExit("\\x1b[2J\\x1b[31mfailed\\x1b[0m \\u202e")
"""


def test_hostile_output_and_secrets(aclcmp: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_PROXY", "http://me:swordfish@proxy:1")
    (tmp_path / "hostile.py").write_text(HOSTILE)
    done = aclcmp("--exec", "python hostile.py --key swordfish", "--output", "out")
    assert done.code == 3, done
    again = [aclcmp("report", "out", "--html"), aclcmp("explain", "out", "*"), aclcmp("diff", "out", "out")]
    texts = [done.out, done.err, *(each.out + each.err for each in again)]
    texts += [(tmp_path / "out" / f"report.{kind}").read_text() for kind in ("json", "csv", "xml")]
    for text in texts:
        assert text.replace("\n", "").replace("\t", "").isprintable()
    assert "[rank0] prints \\x1b]0;owned\\x07" in done.out and "\\x1b[2J" in done.out
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) >= 6 and not [path for path in files if b"swordfish" in path.read_bytes()]
    run = read_report(tmp_path / "out")["run"]
    assert run["environment"]["NCCL_PROXY"] == "http://(hidden)@proxy:1"
    assert run["command"] == ["python", "hostile.py", "--key", "(hidden)"]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_no_compare_records_only(aclcmp: Command, script: Path, tmp_path: Path) -> None:
    done = aclcmp("--exec", "python model.py", "--no-compare", "--output", "out")
    assert done.code == 0 and "aclcmp compare" in done.out
    assert not (tmp_path / "out" / "report.json").exists()
    assert aclcmp("compare", "out").code == 0


def test_torn_shards_are_compared_directly_and_recovered(aclcmp: Command, script: Path, tmp_path: Path) -> None:
    aclcmp("--exec", "python model.py abort", "--ranks", "2", "--output", "out")
    shard = tmp_path / "out" / "shards" / "rank00001.h5"
    before = read_report(tmp_path / "out")["labels"]
    recovered = aclcmp("recover", shard)
    assert recovered.code == 0 and "rebuilt" in recovered.out and " 0 lost" in recovered.out
    assert aclcmp("compare", "out").code == 3
    after = read_report(tmp_path / "out")["labels"]
    assert [label["ranks"] for label in after] == [label["ranks"] for label in before]
    assert "nothing to recover" in aclcmp("recover", shard).out


def test_a_damaged_label_of_a_sealed_shard_fails_it_and_no_other(aclcmp: Command, script: Path, tmp_path: Path) -> None:
    assert aclcmp("--exec", "python model.py", "--ranks", "2", "--output", "run", "--no-compare").code == 0
    (files,) = [each for each in shards_in(tmp_path / "run" / "shards") if each.rank == 1]
    (record,) = [
        each for each in read_shard(files).records if (each.data_id, each.side, each.task) == ("layers.2.act", "acl", 0)
    ]
    with files.segment(0).open("r+b") as file:
        file.seek((record.offset or 0) + 40)
        file.write(b"\x7f")
    done = aclcmp("compare", "run")
    assert done.code == 4 and "First divergence" not in done.out, done
    assert re.search(r"layers\.2\.act on rank 1.*rank00001\.h5: .*not those that were recorded", done.out), done
    for name in ("report.json", "report.csv"):  # a folder in the place of a file: neither can be written
        (tmp_path / "run" / name).unlink()
        (tmp_path / "run" / name).mkdir()
    again = aclcmp("compare", "run")
    assert again.code == 4 and again.out.replace("report.h5  .xml", "report.json  .csv  .h5  .xml") == done.out, again
    assert f"aclcmp: cannot write {tmp_path / 'run' / 'report.json'}: Is a directory" in again.err


def test_torchrun_under_launcher_script(aclcmp: Command, script: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = aclcmp(
        "--exec",
        "torchrun --nproc-per-node 2 model.py fault",
        "--launcher",
        "script",
        "--ranks",
        "2",
        "--output",
        "out",
    )
    assert done.code == 1, done
    assert "First divergence: layers.2.act (op), task 0, rank 1" in done.out


def test_interrupted_comparisons(aclcmp: Command, script: Path, tmp_path: Path) -> None:
    """Whenever Ctrl-C or SIGTERM comes: one line or a partial report, exit code 3 or 4, no traceback, no Ray left."""
    assert aclcmp("--exec", "python model.py", "--no-compare", "--output", "out").code == 0
    for delay, number in ((0.0, signal.SIGINT), (0.7, signal.SIGINT), (1.5, signal.SIGTERM), (2.5, signal.SIGTERM)):
        running = subprocess.Popen(
            [sys.executable, "-m", "aclcmp", "compare", "out"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=as_in_a_terminal,
        )
        wait_until(partial(catches, running.pid, signal.SIGTERM))
        time.sleep(delay)
        running.send_signal(number)
        told, _ = running.communicate(timeout=PATIENCE)
        assert running.returncode in (3, 4) or (delay and running.returncode == 0), (delay, told)
        assert "Traceback" not in told


def test_a_reader_that_leaves_does_not_end_the_run(script: Path, tmp_path: Path) -> None:
    """`aclcmp ... 2>&1 | head -1`: nobody reads on, and run, comparison and exit code are as ever."""
    command = [sys.executable, "-m", "aclcmp", "--exec", "python model.py fault", "--ranks", "2", "--output", "out"]
    environ = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environ.pop("PYTHONUNBUFFERED", None)  # users do not set it, and what is still buffered must not count either
    process = subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    assert b"aclcmp" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE) == 1
    assert read_report(tmp_path / "out")["first_divergence"]["label"] == "layers.2.act"
