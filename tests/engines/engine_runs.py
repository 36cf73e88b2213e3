"""Commands of the environment that has vLLM, and the golden side of the runs that its ranks recorded."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record
from tests.processes import PATIENCE
from tests.recorded import record_run


def run(engine: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `aclcmp ARGUMENTS` of that environment in a folder."""
    environ = os.environ | {"PATH": f"{engine}{os.pathsep}{os.environ['PATH']}"}
    with _alone() if arguments[0] in ("--exec", "check") else nullcontext():
        return subprocess.run(
            [engine / "aclcmp", *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=PATIENCE
        )


@contextmanager
def _alone() -> Iterator[None]:
    """Wait for the engines of other test processes: ranks of two external launchers share vLLM's memory by one name."""
    with (Path(tempfile.gettempdir()) / "aclcmp-tests-engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def record_rounds(engine: Path, folder: Path, script: str, ranks: int) -> None:
    """Run a script of `engine_rank.py` on so many ranks; it makes the run directories itself."""
    done = run(
        engine, folder, "--exec", f"{engine}/python {Path(__file__).parent}/{script}", "--ranks", str(ranks),
        "--no-compare", "--output", "engine",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def add_golden(engine: Path, directory: Path, model: Path, ranks: int, script: str) -> str:
    """Add run.json and the golden side to a run directory that has only shards; return what the command printed."""
    made = RunDir(directory, "run")
    made.logs.mkdir()
    record_run(made, script, ranks, load_record(directory.parents[1] / "engine" / "run.json").run_id)
    done = run(engine, directory.parents[1], "golden", str(directory), "--model", str(model))
    assert done.returncode in (0, 1), done
    return done.stdout


def compare_round(engine: Path, folder: Path, golden: str, name: str) -> Path:
    """Compare a run below `rounds` that has only shards with the golden side of another; return the report's folder."""
    made = RunDir(folder / "rounds" / name, "run")
    made.logs.mkdir()
    engines = load_record(folder / "engine" / "run.json")
    record_run(made, "rounds", len(engines.ranks), engines.run_id)
    out = folder / f"compared-{name}"
    done = run(engine, folder, "compare", f"rounds/{golden}", f"rounds/{name}", "--output", str(out))
    assert done.returncode in (0, 1, 4), done
    (out / "out.txt").write_text(done.stdout)
    return out
