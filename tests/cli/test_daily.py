"""The runs of a day: the latest is meant where none is named, and old shards are removed on request."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command, assert_one_line

pytestmark = pytest.mark.ray

SCRIPT = """
import sys
import numpy as np
import aclcmp

for i in range(3):
    aclcmp.set_label("pta", f"layers.{i}.mlp", np.ones((4, 4), np.float32))
    aclcmp.set_label("acl", f"layers.{i}.mlp", np.ones((4, 4), np.float32) * (1.1 if "--wrong" in sys.argv else 1))
"""


def test_a_day(aclcmp: Command, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(SCRIPT)
    assert aclcmp("run", "--device", "cpu", "--", "python", "run.py").code == 0
    assert_one_line(aclcmp("diff"), "has no two runs that were compared")
    assert aclcmp("--device", "cpu", "--output", "mine", "--exec", "python run.py --wrong").code == 1
    link = tmp_path / "aclcmp-runs" / "latest"
    assert link.is_symlink() and link.resolve() == tmp_path / "mine"

    assert "Run: mine, the latest" in aclcmp("report").err
    shown = aclcmp("report", "--json")
    assert shown.out.startswith("{") and "Run: mine" in shown.err
    explained = aclcmp("explain", "**.mlp")
    assert explained.code == 0 and "layers.0.mlp" in explained.out and "Run: mine, the latest" in explained.err
    assert aclcmp("explain", "mine", "layers.0.mlp").err == ""
    assert_one_line(aclcmp("explain", "mine"), "mine is a run; name a label of it, too")
    (tmp_path / "layers.0.mlp").mkdir()
    assert "layers.0.mlp (" in aclcmp("explain", "layers.0.mlp").out, "a folder of that name is no run"
    assert aclcmp("verdict").code == 1
    (first,) = (each for each in (tmp_path / "aclcmp-runs").iterdir() if not each.is_symlink())
    changed = aclcmp("diff")
    assert changed.code == 1 and "match -> diverged" in changed.out
    assert f"Runs: aclcmp-runs/{first.name} and mine, the latest two" in changed.err

    both = aclcmp("compare", first, "aclcmp-runs/latest")  # while it runs, its own folder becomes the latest
    assert both.code == 1 and "Note: actual: " in both.out and f"{tmp_path / 'mine'}, 1 rank" in both.out, both.out
    for report in (tmp_path / "aclcmp-runs" / "latest").resolve().iterdir():
        report.unlink()

    listed = aclcmp("runs")
    assert first.name in listed.out and " match " in listed.out and "mine" not in listed.out
    assert aclcmp("prune").out == "Nothing to remove: the newest 3 runs keep everything\n"
    told = aclcmp("prune", "--keep", "0")
    assert "MiB of 1 run would be removed; nothing is yet: add --yes" in told.out
    assert list((first / "shards").iterdir())
    removed = aclcmp("prune", "--keep", "0", "--yes")
    assert removed.code == 0 and "Removed" in removed.out and not (first / "shards").exists()
    assert (first / "report.h5").exists() and (first / "logs").exists()
    assert aclcmp("prune", "--keep", "0").out == "Nothing to remove\n"
    before = (first / "report.json").read_bytes()
    assert_one_line(aclcmp("compare", first), "has no shards any more, only its report")
    assert (first / "report.json").read_bytes() == before
    assert aclcmp("report", first).code == 0


def test_the_shell_completes(tmp_path: Path) -> None:
    asked = {"_ACLCMP_COMPLETE": "complete_bash", "COMP_WORDS": "aclcmp re", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "aclcmp"], env=asked, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ["recover", "report"]
