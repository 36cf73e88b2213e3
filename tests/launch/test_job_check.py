"""What is wrong with a job itself is said in one line before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aclcmp.orchestrator.core.job import Job, Launcher
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.launch.job_check import check_job as check


def job(folder: Path, *command: str, **options: Any) -> Job:
    return replace(Job(command or ("true",), folder, ranks=4), **options)


def test_a_sound_job_passes(weird_path: Path) -> None:
    script = weird_path / "run.sh"
    script.write_text("#!/bin/sh\n")
    check(job(weird_path, "bash", "run.sh"))
    script.chmod(0o755)
    check(job(weird_path, "./run.sh", nodes=2, timeout=0.5, env={"A": "=b c", "OMP_NUM_THREADS": "4"}))
    check(job(weird_path, str(script)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command": ()}, "no command"),
        ({"command": ("",)}, "no command"),
        ({"command": ("no-such-program",)}, "no-such-program: command not found"),
        ({"command": ("./nothing.sh",)}, "./nothing.sh: no such file"),
        ({"command": ("./folder",)}, "is a folder"),
        ({"command": ("./run.sh",)}, "did you mean `bash ./run.sh`"),
        ({"command": ("run.sh",)}, "did you mean `bash run.sh`"),
        ({"command": ("./a.py",)}, "did you mean `python ./a.py`"),
        ({"ranks": 0}, "at least one rank"),
        ({"ranks": -1}, "at least one rank"),
        ({"nodes": 0}, "at least one node"),
        ({"nodes": 3}, "evenly over --nodes 3"),
        ({"timeout": 0.0}, "positive"),
        ({"timeout": -1.0}, "positive"),
        ({"timeout": float("nan")}, "positive"),
        ({"env": {"RANK": "1"}}, "--env RANK"),
        ({"env": {"MASTER_PORT": "1"}}, "--env MASTER_PORT"),
        ({"env": {"ASCEND_RT_VISIBLE_DEVICES": "0"}}, "--env ASCEND_RT_VISIBLE_DEVICES"),
        ({"env": {"CUDA_VISIBLE_DEVICES": ""}}, "--env CUDA_VISIBLE_DEVICES"),
        ({"env": {"ACLCMP_SHARD_DIR": "/"}}, "--env ACLCMP_SHARD_DIR"),
        ({"env": {"": "1"}}, "not a variable's name"),
        ({"env": {"A": "\0"}}, "not a variable's name"),
        ({"env": {"PATH": "/nowhere"}}, "true: command not found"),
    ],
)
def test_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "run.sh").touch()
    (tmp_path / "a.py").touch()
    with pytest.raises(UsageError) as refusal:
        check(job(tmp_path, **options))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_command_that_starts_its_own_ranks_needs_the_script_launcher(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("mpirun -n 4 python a.py\n")
    with pytest.raises(UsageError, match=r"mpirun in run\.sh starts its own ranks; add --launcher script"):
        check(job(tmp_path, "bash", "run.sh"))
    check(job(tmp_path, "bash", "run.sh", launcher=Launcher.SCRIPT))
