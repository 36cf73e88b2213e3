"""Damaged files of every kind that is read: refused in words or read, never a bug, a hang or a gigabyte."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.run.record_file import load_record

ROOT = Path(__file__).parents[1]
INPUTS = 510


@pytest.mark.fuzz
def test_no_damage_ends_badly() -> None:
    pytest.importorskip("torch")
    command = [sys.executable, str(ROOT / "benchmarks" / "damage_inputs.py"), "--inputs", str(INPUTS), "--seed", "1"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = re.findall(r"^(\S.*?) +(\d+) +(\d+) +(\d+) +(\d+) ", ended.stdout, re.MULTILINE)
    assert len(rows) >= 17 and sum(int(inputs) for _, inputs, *_ in rows) >= INPUTS
    assert all(int(refused) > 0 for _, _, refused, *_ in rows)


def test_a_record_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(UsageError, match=r"run\.json cannot be read: Is a directory"):
        load_record(tmp_path / "run.json")
