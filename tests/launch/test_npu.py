"""What an NPU host lacks, said without loading anything of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aclcmp.orchestrator.cluster.cluster import Node
from aclcmp.orchestrator.core.job import Device, Job
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.launch.placement import npu_software, spread


def test_a_host_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/davinci_manager").touch()  # in containers it is there without any device
    assert npu_software(tmp_path, {}) == (
        "this host has no /dev/davinci*; torch-npu is not installed; "
        "ASCEND_TOOLKIT_HOME is not set: source CANN's set_env.sh"
    )


def test_a_host_with_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("davinci0", "davinci11", "davinci_manager"):
        (tmp_path / "dev" / name).touch()
    info = tmp_path / "site/torch_npu-2.7.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-npu\nVersion: 2.7.1\n")
    (tmp_path / "site/torch_npu.py").write_text("raise ImportError('it was imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    home = tmp_path / "cann"
    words = npu_software(tmp_path, {"ASCEND_TOOLKIT_HOME": str(home), "LD_LIBRARY_PATH": ":/no/such"})
    assert words.startswith("this host has 2 of /dev/davinci*; torch-npu 2.7.1 is installed; ")
    assert words.endswith(f"{home} has no lib64/libascendcl.so: is CANN installed whole?")
    (home / "lib64").mkdir(parents=True)
    (home / "lib64/libascendcl.so").touch()
    assert npu_software(tmp_path, {"ASCEND_HOME_PATH": str(home)}).endswith(f"CANN is at {home}")


def test_npus_asked_for_where_there_are_none() -> None:
    job, node = Job(("true",), Path("/"), ranks=2, device=Device.NPU), Node("a", "10.0.0.1", "h", 4, {"CPU": 4.0})
    with pytest.raises(UsageError) as refusal:
        spread(job, [node])
    assert str(refusal.value) == f"asked for 2 NPU, the cluster has none ({npu_software()}); --device cpu needs none"
    with pytest.raises(UsageError, match=r"^asked for 2 GPU, the cluster has none; --device cpu needs none$"):
        spread(replace(job, device=Device.CUDA), [node])


def test_nothing_heavy_is_loaded() -> None:
    script = """
import sys
from aclcmp.orchestrator.launch.placement import npu_software
npu_software()
assert not {"torch", "torch_npu", "acl", "ray"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
