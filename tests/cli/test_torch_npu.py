"""The real torch_npu on a host without CANN, without the driver, with another CANN: what a new user is told.

CANN's libraries are empty ones with the names that torch_npu looks for; all messages are the dynamic loader's own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from aclcmp.orchestrator.cluster.versions import Versions
from aclcmp.orchestrator.doctor.load_checks import check_loading
from aclcmp.orchestrator.doctor.torch_loading import try_loading
from tests.doctor.hosts import host_report
from tests.processes import PATIENCE

pytestmark = pytest.mark.model
CANN = ("hccl", "acl_op_compiler", "ge_runner", "graph", "acl_tdt_channel")
SCRIPT = """
import torch
from aclcmp import set_label
for side in ("pta", "acl"):
    set_label(side, "x", torch.arange(8.0))
"""


@pytest.fixture(scope="module")
def torch_npu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the torch_npu that belongs to this torch, 44 MB, from a package index."""
    wanted = f"torch-npu=={version('torch').partition('+')[0]}"
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--retries", "0", "--timeout", "15"]
    try:
        done = subprocess.run([*command, "--target", folder, wanted], capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{wanted} was not there within 300 s")
    if done.returncode:
        pytest.skip(f"{wanted} cannot be installed: {(done.stderr.splitlines() or ['pip says nothing'])[-1]}")
    return folder


@pytest.fixture
def cann(tmp_path: Path) -> Path:
    """A folder with CANN's libraries, as far as the dynamic loader looks; the driver's is not there."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    folder = tmp_path / "cann"
    folder.mkdir()
    build = ["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null", "-x", "none"]
    for name in (*CANN, "ascend_hal"):
        subprocess.run([*build, "-o", folder / f"lib{name}.so", f"-Wl,-soname,lib{name}.so"], check=True)
    needs = ["-Wl,--no-as-needed", f"-L{folder}", "-lascend_hal", "-Wl,-soname,libascendcl.so"]
    subprocess.run([*build, "-o", folder / "libascendcl.so", *needs], check=True)
    (folder / "libascend_hal.so").rename(folder / "driver.so")
    return folder


def environ(torch_npu: Path, **more: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(torch_npu))))
    return {**os.environ, "PYTHONPATH": path, **more}


def why(torch_npu: Path, **more: str) -> tuple[str, str]:
    versions = Versions("1", "3.11.7", torch="there", torch_npu="there")
    loading = try_loading(versions, environ(torch_npu, **more))
    (found,) = check_loading(host_report(facts__loading=loading, facts__devices__npus=0))
    return found.level.value, found.what


def test_no_cann(torch_npu: Path) -> None:
    words = "does not find CANN's libhccl.so"
    assert why(torch_npu) == ("bad", f"`import torch` fails: torch_npu, which torch loads by itself, {words}")
    alone = why(torch_npu, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    assert alone == ("warn", f"`import torch_npu` fails: torch_npu {words}")


def test_cann_and_no_driver(torch_npu: Path, cann: Path) -> None:
    level, what = why(torch_npu, LD_LIBRARY_PATH=str(cann))
    assert level == "bad" and what.endswith("does not find the NPU driver's libascend_hal.so")


def test_another_cann(torch_npu: Path, cann: Path) -> None:
    (cann / "driver.so").rename(cann / "libascend_hal.so")
    level, what = why(torch_npu, LD_LIBRARY_PATH=str(cann))
    assert level == "bad" and "was built for another CANN or NNAL: " in what


@pytest.mark.ray
def test_a_new_user_is_told_why_and_the_way_around_works(torch_npu: Path, tmp_path: Path) -> None:
    def aclcmp(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "aclcmp", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environ(torch_npu), capture_output=True, text=True, timeout=PATIENCE
        )

    (tmp_path / "script.py").write_text(SCRIPT)
    run = ("--exec", f"{sys.executable} script.py", "--ranks", "2")
    cause = "torch_npu, which torch loads by itself, does not find CANN's libhccl.so"

    examined = aclcmp("doctor", "--json")
    bad = [each for each in json.loads(examined.stdout)["findings"] if each["level"] == "bad"]
    assert examined.returncode == 4 and any(each["what"] == f"`import torch` fails: {cause}" for each in bad)

    failed = aclcmp(*run, "--output", "failed")
    assert failed.returncode == 3 and f"exited with code 1; {cause}: source CANN's set_env.sh" in failed.stdout
    assert "or run with --device cpu, without it" in failed.stdout

    done = aclcmp(*run, "--output", "done", "--device", "cpu")
    assert done.returncode == 0 and "All match, bit for bit: 1 label on 2 ranks." in done.stdout


def test_files_of_torch_are_read_without_its_backends(torch_npu: Path, tmp_path: Path) -> None:
    script = """
import os, pathlib, sys
os.environ.pop("TORCH_DEVICE_BACKEND_AUTOLOAD", None)
from aclcmp.orchestrator.dumps.scratch import Scratch
from aclcmp.orchestrator.dumps.torch_files import read_torch
print(read_torch(sys.argv[1], Scratch(pathlib.Path())).tensors[0][1].shape)
assert "TORCH_DEVICE_BACKEND_AUTOLOAD" not in os.environ
"""
    import torch

    torch.save(torch.ones(2, 3), tmp_path / "x.pt")
    command = [sys.executable, "-c", script, str(tmp_path / "x.pt")]
    done = subprocess.run(command, env=environ(torch_npu), capture_output=True, text=True, timeout=PATIENCE)
    assert done.stdout == "(2, 3)\n", done.stderr
