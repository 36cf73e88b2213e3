"""The kernels' machine code is compiled once, whoever asks for it from wherever."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.processes import PATIENCE

ROOT = Path(__file__).parents[3]
LOAD = """
from aclcmp.orchestrator.compare.kernels.kernel import scan32, scan64
from aclcmp.orchestrator.compare.kernels.operands import add_up
from aclcmp.orchestrator.compare.pair import warm_up
warm_up(lambda: print("compiling"))
print(sum(sum(each.stats.cache_misses.values()) for each in (scan32, scan64, add_up)))
"""
FOLDER = "from aclcmp.orchestrator.compare.kernels.kernel_cache import kernel_folder; print(kernel_folder())"


def run(code: str, tree: Path = ROOT, **environ: str) -> str:
    environ = {**os.environ, "PYTHONPATH": str(tree), **environ}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd="/", env=environ, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_copy_elsewhere_loads_what_is_compiled(tmp_path: Path) -> None:
    run(LOAD)
    shutil.copytree(ROOT / "aclcmp", tmp_path / "aclcmp", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(LOAD, tmp_path) == "0\n"
    with (tmp_path / "aclcmp/orchestrator/compare/kernels/gather.py").open("a") as source:
        source.write("# another version\n")
    assert run(FOLDER, tmp_path) != run(FOLDER)


def test_no_cache_folder_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run(FOLDER, XDG_CACHE_HOME=str(tmp_path / "file")) == "None\n"
