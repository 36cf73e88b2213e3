"""Comparison by threads of one process, without Ray."""

import os
import pickle
import subprocess
import sys
import threading
from math import inf
from pathlib import Path

import numpy as np
import pytest

from aclcmp.orchestrator.compare import local_comparer
from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.compare.schedule import SPLIT_BYTES
from aclcmp.orchestrator.core.diagnosis import Look, Suspect
from aclcmp.orchestrator.core.stats import Outcome, Outcomes, PairStats
from aclcmp.orchestrator.run.directory import RunDir
from tests.compare.stored_pairs import pair_of, write
from tests.processes import PATIENCE
from tests.recorded import record_run

NO_RAY = """
import sys
from importlib.abc import MetaPathFinder

class NoRay(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoRay())
sys.argv[0] = "aclcmp"
from aclcmp.__main__ import main
main()
"""

LABELS = """
import numpy, aclcmp
for side in ("pta", "acl"):
    aclcmp.set_label(side, "layers.0", numpy.arange(64, dtype=numpy.float32))
"""


def sorted_values(outcomes: Outcomes) -> list[Outcome]:
    return [outcomes[name] for name in sorted(outcomes, key=lambda name: name[1])]


def test_the_last_bit_does_not_depend_on_the_threads(tmp_path: Path) -> None:
    shape = (SPLIT_BYTES // 8 // 1024 * 3, 1024)
    write(tmp_path / "large", shape)
    write(tmp_path / "small")
    pairs = [pair_of(tmp_path / "large", 0, shape), *(pair_of(tmp_path / "small", rank) for rank in range(1, 300))]
    done: list[tuple[int, int]] = []
    one, many = (
        LocalComparer(workers).compare_pairs(pairs, lambda pairs, size: done.append((pairs, size)))
        for workers in (1, 7)
    )
    assert list(map(pickle.dumps, sorted_values(one))) == list(map(pickle.dumps, sorted_values(many)))
    assert sum(pairs for pairs, _ in done) == 600


def test_what_cannot_be_read_is_said_and_the_rest_compared(tmp_path: Path) -> None:
    write(tmp_path / "good")
    (tmp_path / "short").write_bytes(b"1234")
    pairs = [pair_of(tmp_path / name, rank) for rank, name in enumerate(("good", "short", "missing"))]
    outcomes = LocalComparer(2).compare_pairs(pairs, lambda *_: None)
    results = [outcomes[pair.key, pair.rank] for pair in pairs]
    assert isinstance(results[0], PairStats)
    assert isinstance(results[1], str) and "truncated" in results[1]
    assert isinstance(results[2], str) and "No such file" in results[2]
    looks = LocalComparer(2).look_again([Suspect((pair,), 1.0) for pair in pairs], inf, lambda _: None)
    assert [type(looks[pair.key, pair.rank]) for pair in pairs] == [Look, str, str]


def test_interrupt_keeps_what_is_done_and_ends_the_threads(tmp_path: Path) -> None:
    write(tmp_path / "data")
    pairs = [pair_of(tmp_path / "data", rank) for rank in range(5000)]

    def advance(pairs: int, size: int) -> None:
        raise KeyboardInterrupt

    outcomes = LocalComparer(2).compare_pairs(pairs, advance)
    assert 0 < len(outcomes) < 5000
    assert not [each for each in threading.enumerate() if each.name.startswith("compare")]


def test_an_error_of_ours_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pairs: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(local_comparer, "compare_batch", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        LocalComparer(2).compare_pairs([pair_of(tmp_path / "data", 0)], lambda *_: None)


def without_ray(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", NO_RAY, *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, timeout=PATIENCE)


def test_the_commands_on_one_host_need_no_ray(tmp_path: Path) -> None:
    for side, factor in (("golden", 1.0), ("actual", 1.5)):
        (tmp_path / side).mkdir()
        np.save(tmp_path / side / "x.npy", np.arange(64, dtype=np.float32) * np.float32(factor))
    done = without_ray(tmp_path, "compare", "golden", "actual", "--output", "two")
    assert done.returncode == 1, done
    assert "First divergence: x" in done.stdout and (tmp_path / "two/report.json").exists()
    run = RunDir.create(tmp_path / "one")
    told = {"RANK": "0", "WORLD_SIZE": "1", "ACLCMP_RUN_ID": "run", "ACLCMP_SHARD_DIR": str(run.shards)}
    subprocess.run([sys.executable, "-c", LABELS], env=os.environ | told, check=True, timeout=PATIENCE)
    record_run(run, "labels.py", 1)
    for arguments in (
        ("compare", "one"),
        ("verdict", "one"),
        ("report", "one", "--html"),
        ("explain", "one", "layers.0"),
        ("diff", "one", "one"),
        ("compare", "golden", "actual", "--suggest-map"),
    ):
        done = without_ray(tmp_path, *arguments)
        assert done.returncode == 0, (arguments, done)
    done = without_ray(tmp_path, "--exec", "true")
    assert done.returncode != 0 and "ModuleNotFoundError: ray" in done.stderr
