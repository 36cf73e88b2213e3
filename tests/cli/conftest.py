"""Runs of the command as a user starts it: in a process of its own, in a folder of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import PATIENCE


@dataclass(frozen=True)
class Done:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


def assert_one_line(done: Done, words: str) -> None:
    """Check that a command refused its input: exit code 2, one line with these words, and nothing else."""
    assert done.code == 2, done
    assert words in done.err, done.err
    assert done.err.startswith("aclcmp: error: ") and done.err.count("\n") == 1, done.err
    assert done.out == "", done


@pytest.fixture
def aclcmp(tmp_path: Path) -> Command:
    """Run `aclcmp ARGUMENTS` in the test's folder; `python` is the tests' own interpreter."""

    def run(*arguments: str | Path, timeout: float = PATIENCE, cwd: Path = tmp_path) -> Done:
        environ = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        command = [sys.executable, "-m", "aclcmp", *map(str, arguments)]
        done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=timeout)
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def forking() -> Iterator[subprocess.Popen[str]]:
    """The process that forks commands."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("ACLCMP_")}
    command = [sys.executable, "-m", "tests.cli.forking"]
    mine |= {"PYTHONPATH": str(Path(__file__).parents[2]), "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=mine, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def quick_aclcmp(forking: subprocess.Popen[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Run `aclcmp ARGUMENTS` in the test's folder, in a fork of a process that has imported it; for short commands."""

    def run(*arguments: str | Path, cwd: Path = tmp_path) -> Done:
        texts = tmp_path_factory.mktemp("printed")
        request = {"arguments": [*map(str, arguments)], "environ": dict(os.environ), "folder": str(cwd)}
        request |= {name: str(texts / name) for name in ("out", "err")}
        assert forking.stdin is not None and forking.stdout is not None
        print(json.dumps(request), file=forking.stdin, flush=True)
        code = int(forking.stdout.readline())
        return Done(code, *((texts / name).read_text() for name in ("out", "err")))

    return run


SCRIPT = """
import os, sys
import numpy as np
from aclcmp import set_label, set_task_id

rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
mode = sys.argv[1] if len(sys.argv) > 1 else ""
random = np.random.default_rng(0)
for turn in range(2):
    set_task_id()
    print(f"turn {turn}", flush=True)
    for layer in range(4):
        whole = random.standard_normal((24, 8 * world)).astype(np.float32)
        local = np.split(whole, world, axis=1)[rank].copy()
        if mode == "fault" and layer == 2 and rank == 1:
            local = local[::-1]
        if mode != "actual only":
            set_label("golden", f"layers.{layer}.act", whole)
        if mode != "golden only":
            set_label("actual", f"layers.{layer}.act", local)
        if mode == "crash" and turn == 1 and layer == 2 and rank == 1:
            raise SystemExit(3)
        if mode == "abort" and turn == 1 and layer == 2 and rank == 1:
            os.abort()
        if mode == "hang" and turn == 1 and layer == 2:
            import time
            print("hanging", flush=True)
            time.sleep(600)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A small sharded model in numpy; its argument plants a fault, a crash, or a hang."""
    path = tmp_path / "model.py"
    path.write_text(SCRIPT)
    return path
