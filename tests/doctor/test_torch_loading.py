"""Whether torch can be loaded, found out in a process of its own: with packages that fail, hang and crash."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aclcmp.orchestrator.cluster.versions import Versions
from aclcmp.orchestrator.doctor.checks import check
from aclcmp.orchestrator.doctor.findings import Finding, Severity
from aclcmp.orchestrator.doctor.torch_loading import Loading, try_loading
from tests.doctor.hosts import host_report
from tests.processes import living, wait_until

BOTH = Versions("1", "3.11.7", torch="2.13.0", torch_npu="2.13.0")
FINE = "class ones:\n    def __init__(self, size): pass\n    def numpy(self): pass\n"
NO_CANN = "libhccl.so: cannot open shared object file: No such file or directory"


def load(folder: Path, torch: str, torch_npu: str = "", seconds: float = 60.0, **environ: str) -> Loading:
    (folder / "torch.py").write_text(torch)
    (folder / "torch_npu.py").write_text(torch_npu)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    loading = try_loading(BOTH, {**os.environ, "PYTHONPATH": path, **environ}, seconds)
    assert pickle.loads(pickle.dumps(loading)) == loading  # it travels
    return loading


def finding(loading: Loading, ip: str = "", npus: int = 0, home: str = "") -> Finding:
    host = host_report(ip=ip, facts__loading=loading, facts__devices__npus=npus, facts__ascend__home=home)
    (only,) = (found for found in check([host]) if "import" in found.what or "can be loaded" in found.what)
    return only


def test_both_load(weird_path: Path) -> None:
    loading = load(weird_path, FINE)
    assert (loading.tried, loading.failed, loading.lines) == (("torch", "torch_npu"), "", ())
    assert finding(loading).what.startswith("torch and torch-npu can be loaded, in ")
    assert finding(loading).level is Severity.OK


def test_where_there_is_no_torch_nothing_is_tried() -> None:
    loading = try_loading(Versions("1", "3.11.7"), {})
    assert loading == Loading()
    assert not any("load" in found.what for found in check([host_report(facts__loading=loading)]))


def test_what_torch_cannot_load(tmp_path: Path) -> None:
    inner = tmp_path / "torch_npu"
    inner.mkdir()
    (inner / "__init__.py").write_text(f"raise ImportError({NO_CANN!r})")
    loading = load(tmp_path, f"import torch_npu\n{FINE}")
    assert loading.failed == "torch" and loading.lines[-1] == f"ImportError: {NO_CANN}"
    found = finding(loading)
    assert found.level is Severity.BAD
    assert found.what == "`import torch` fails: torch_npu does not find CANN's libhccl.so"
    assert "(no CANN was found here; usually /usr/local/Ascend" in found.fix
    assert finding(loading, ip="10.0.0.1", home="/opt/cann").fix == (
        "source /opt/cann/set_env.sh; on this host, before `ray start`"
    )


def test_torch_npu_alone_is_bad_only_where_npus_are(tmp_path: Path) -> None:
    loading = load(tmp_path, FINE, "raise RuntimeError('no\\x1b[31m luck')")
    assert loading.failed == "torch_npu"
    assert finding(loading).level is Severity.WARN and finding(loading, npus=8).level is Severity.BAD
    assert finding(loading).what == "`import torch_npu` fails: RuntimeError: no\\x1b[31m luck"
    assert finding(loading).fix.endswith("-c 'import torch_npu'")


def test_tensors_that_cannot_become_arrays(tmp_path: Path) -> None:
    words = "def ones(size): raise RuntimeError('Numpy is not available')"
    found = finding(load(tmp_path, words))
    assert found.level is Severity.BAD and "was built for another numpy" in found.what


@pytest.mark.parametrize(
    ("torch", "what", "fix"),
    [
        ("import os; os.kill(os.getpid(), 4)", "`import torch` fails: Python is killed by SIGILL", "another CPU"),
        ("import os; os.kill(os.getpid(), 11)", "`import torch` fails: Python is killed by SIGSEGV", "faulthandler"),
        ("import os; os._exit(7)", "`import torch` fails: it printed nothing", "faulthandler"),
        ("import sys; sys.exit()", "`import torch` fails: it printed nothing", "faulthandler"),
        ("raise SystemExit('not here')", "`import torch` fails: not here", "faulthandler"),
        ("import os; os.write(1, b'\\xff\\n'); os._exit(1)", "`import torch` fails: \ufffd", "faulthandler"),
    ],
)
def test_a_process_that_dies(tmp_path: Path, torch: str, what: str, fix: str) -> None:
    found = finding(load(tmp_path, torch))
    assert (found.level, found.what) == (Severity.BAD, what) and fix in found.fix


def test_a_process_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    mark = f"sleeper-{os.getpid()}-{time.time_ns()}"
    sleep = "import time; time.sleep(300)"
    start = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {sleep!r}, {mark!r}])\n"
    loading = load(tmp_path, start + sleep, seconds=3.0)
    assert loading.failed == "torch" and not loading.in_time
    found = finding(loading)
    assert found.level is Severity.BAD and found.what == "`import torch` did not end within 3 s"
    wait_until(lambda: not living(lambda each: mark in each.cmdline()))


def test_what_is_printed_is_kept_in_part(tmp_path: Path) -> None:
    loading = load(tmp_path, "print('x' * 10_000_000)\nfor each in range(10_000): print(each)\nraise ValueError(1)")
    assert len(loading.lines) == 200 and loading.lines[-1] == "ValueError: 1"
    assert finding(loading).what == "`import torch` fails: ValueError: 1"


def test_no_folder_of_the_asker_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/torch.py").write_text("raise ValueError('the wrong one')")
    monkeypatch.chdir(tmp_path / "here")
    assert load(tmp_path, FINE).failed == ""


def test_devices_that_a_worker_of_ray_hides_are_seen(tmp_path: Path) -> None:
    seen = "import os\nassert 'CUDA_VISIBLE_DEVICES' not in os.environ\n"
    seen += "assert os.environ['ASCEND_RT_VISIBLE_DEVICES'] == '3'\n"
    loading = load(tmp_path, seen + FINE, CUDA_VISIBLE_DEVICES="", ASCEND_RT_VISIBLE_DEVICES="3")
    assert loading.failed == "", loading.lines


def test_this_process_loads_nothing() -> None:
    script = """
import os, sys
from aclcmp.orchestrator.doctor.facts import FactsRequest, gather_facts
gather_facts(FactsRequest(os.getcwd()))
assert not {"torch", "torch_npu"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
