"""Commands that start their own ranks are recognised, and others are not taken for them."""

from pathlib import Path

import pytest

from aclcmp.orchestrator.core.detect_launcher import ReadScript, own_launcher


def within(folder: Path) -> ReadScript:
    """Return a function that reads the files of a folder."""
    return lambda name: (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("torchrun --nproc_per_node 8 a.py", "torchrun"),
        ("/opt/venv/bin/torchrun a.py", "torchrun"),
        ("python", None),
        ("python -m torch.distributed.run a.py", "python -m torch.distributed.run"),
        ("python3.11 -u -m torch.distributed.launch a.py", "python3.11 -m torch.distributed.launch"),
        ("env A=1 mpirun -n 8 python a.py", "mpirun"),
        ("mpiexec -n 2 a", "mpiexec"),
        ("srun a", "srun"),
        ("deepspeed a.py", "deepspeed"),
        ("msrun a.py", "msrun"),
        ("accelerate launch a.py", "accelerate launch"),
        ("accelerate config", None),
        ("python a.py -m torch.distributed.run", None),
        ("python -m pytest -m torch.distributed.run", None),
        ("python torchrun", None),
        ("echo torchrun", None),
        ("nosuch", None),
    ],
)
def test_words(command: str, found: str | None, tmp_path: Path) -> None:
    assert own_launcher(command.split(), within(tmp_path)) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("torchrun a.py", True),
        ("#!/bin/bash\nset -e\nsource env.sh\nexport A=1\nA=2 exec torchrun \\\n  --nnodes 1 a.py\n", True),
        ("cd x && torchrun a.py", True),
        ("python a.py | tee log; mpirun -n 8 b", True),
        ("if [ -z $A ]; then export A=1; fi\npython -m torch.distributed.run a.py", True),
        ("nohup torchrun a.py > log 2>&1 &", True),
        ("# torchrun a.py\npython a.py", False),
        ("python a.py  # not torchrun", False),
        ("echo 'use\ntorchrun a.py\nplease'\npython a.py", False),
        ("if [ $A = 1 ]; then\n torchrun a.py\nelse\n python a.py\nfi", False),
        ("case $A in\n a) torchrun a.py ;;\n *) python a.py ;;\nesac", False),
        ("launch() {\n torchrun a.py\n}\npython a.py", False),
        ("python a.py || torchrun a.py", False),
        ("V=$(torchrun --version)\npython a.py", False),
        ("TOOLS=(torchrun mpirun)\npython a.py", False),
        ("cat <<EOF\ntorchrun a.py\nEOF\npython a.py", False),
        ("cat <<< torchrun\necho $((1 << 3))\npython a.py", False),
        ("python a.py\nexit 0\ntorchrun a.py", False),
        ("command -v torchrun\npython a.py", False),
        ("echo it's fine", False),
        ("", False),
    ],
)
def test_shell_scripts(text: str, found: bool, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text(text)
    assert bool(own_launcher(["bash", "-e", "run.sh", "x"], within(tmp_path))) is found
    assert bool(own_launcher(["bash", "-c", text], within(tmp_path))) is found
    script.write_text("#!/usr/bin/env bash\n" + text)
    assert bool(own_launcher(["./run.sh"], within(tmp_path))) is found


def test_other_scripts_and_programs_are_not_read_as_shell(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("#!/usr/bin/env python\ntorchrun = 1\n")
    (tmp_path / "elf").write_bytes(b"\x7fELF\x00torchrun")
    assert own_launcher(["./run"], within(tmp_path)) is None
    assert own_launcher(["./elf"], within(tmp_path)) is None
    assert own_launcher(["bash", "elf"], within(tmp_path)) is None
    assert own_launcher(["bash", "absent.sh"], within(tmp_path)) is None
    assert own_launcher(["bash"], within(tmp_path)) is None
