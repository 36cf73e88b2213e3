"""Low level, selection and capture from the command line: real ranks, a library that writes real dumps."""

from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.recorded import read_report

pytestmark = pytest.mark.ray

SCRIPT = '''
import os, sys, time
from pathlib import Path
import numpy as np
from aclcmp import gen_id, set_label, set_task_id

rank = int(os.environ["RANK"])
KERNEL = "0_Model/{}_Layer/1_Attention/{}_Kernel/after/outTensor0.bin"
HEAD = (
    "$Version=1.0\\n$Object.Count=1\\n$Object.Length={0}\\n"
    "format=2\\ndtype=0\\ndims={1}\\n$Object.data=0,{0}\\n$End=1\\n"
)


def library(x, execution):
    """Adds 1 in each of three kernels of two layers, and dumps what it computes where it is told to."""
    for layer in range(2):
        for kernel in range(3):
            x = x + 1
            if "--fault" in sys.argv and rank == 1 and (layer, kernel) == (1, 2):
                x = x * 1.5
            if os.environ.get("ATB_SAVE_TENSOR") == "1":
                folder = Path(os.environ["ATB_OUTPUT_DIR"]) / "atb_dump_data" / "data" / f"{rank}_{os.getpid()}"
                file = folder / str(execution) / KERNEL.format(layer, kernel).lower()
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(HEAD.format(x.nbytes, ",".join(map(str, x.shape))).encode() + x.tobytes())
    return x


for task in range(2):
    set_task_id()
    x = np.full((4, 8), task, np.float32)
    golden = x
    for layer in range(2):
        for kernel in range(3):
            golden = golden + 1
            name = f"layers.{layer}.attn.k{kernel}" if layer else gen_id()
            set_label("pta", name, golden)
            set_label("acl", name, tensor_path=KERNEL.format(layer, kernel))
        set_label("pta", f"layers.{layer}.out", golden)
    time.sleep(0.1)
    y = library(x, task)
    set_label("acl", "layers.0.out", x + 3)
    set_label("acl", "layers.1.out", y)
'''


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "s.py").write_text(SCRIPT)
    return "python s.py"


def test_a_fault_inside_the_library_is_named(aclcmp: Command, tmp_path: Path, script: str) -> None:
    done = aclcmp("--exec", f"{script} --fault", "--ranks", "2", "--low-level", "--output", "run")
    assert done.code == 1, done
    assert "low level: the library's dumps go to" in done.out
    found = read_report(tmp_path / "run")
    first = found["first_divergence"]
    assert (first["label"], first["ranks"], first["task"]) == ("layers.1.attn.k2", [1], 0)
    assert "First divergence: layers.1.attn.k2 (low-level op inside layers.1.out), task 0, rank 1" in done.out
    assert found["coverage"]["complete"]
    levels = {label["label"]: label for label in found["labels"] if label["task"] == 0}
    assert (levels["layers.1.out"]["level"], levels["layers.1.attn.k2"]["level"]) == ("high", "low")
    assert levels["layers.1.attn.k2"]["parent"] == {"task": 0, "label": "layers.1.out", "occurrence": 0}
    generated = [label for name, label in levels.items() if name.startswith("data_")]
    assert [label["layer"] for label in generated] == ["0"] * 3 and all(label["parent"] for label in generated)
    # at the high level alone only the layer is known
    done = aclcmp("--exec", f"{script} --fault", "--ranks", "2", "--labels", r"\.out$", "--output", "high")
    assert done.code == 1
    assert read_report(tmp_path / "high")["first_divergence"]["label"] == "layers.1.out"


def test_clean_takes_what_matches_and_nothing_else(aclcmp: Command, tmp_path: Path, script: str) -> None:
    done = aclcmp("--exec", f"{script} --fault", "--ranks", "2", "--low-level", "--clean", "--output", "run")
    assert done.code == 1 and "removed 22 dumped files that match" in done.out
    left = sorted(path.parent.parent.name for path in (tmp_path / "run" / "dumps").rglob("*.bin"))
    assert left == ["2_kernel"] * 2
    again = aclcmp("compare", "run")
    assert again.code == 1 and "Not dumped by the library" in again.out


def test_a_library_that_dumps_nothing_is_told(aclcmp: Command, tmp_path: Path, script: str) -> None:
    done = aclcmp("--exec", script, "--ranks", "2", "--output", "run")
    assert done.code == 4, done
    assert "Not dumped by the library" in done.out and "--low-level" in done.out
    missing = [
        rank["reason"]
        for label in read_report(tmp_path / "run")["labels"]
        for rank in label["ranks"].values()
        if rank["status"] == "missing"
    ]
    assert len(missing) == 24 and all(str(tmp_path) in reason for reason in missing)
    assert read_report(tmp_path / "run")["coverage"]["missing_actual"] == 24


@pytest.mark.parametrize("capture", ["stats", "fingerprint"])
def test_capture(aclcmp: Command, tmp_path: Path, capture: str) -> None:
    (tmp_path / "s.py").write_text(
        "import numpy as np\n"
        "from aclcmp import set_label, set_task_id\n"
        "for task in range(3):\n"
        "    set_task_id()\n"
        "    for layer in range(3):\n"
        "        x = np.random.default_rng(layer).standard_normal((64, 4096)).astype(np.float32)\n"
        "        y = np.roll(x, 1, axis=1) if layer == 1 else x * np.float32(1.04) if layer == 2 else x\n"
        "        set_label('pta', f'layers.{layer}.out', x)\n"
        "        set_label('acl', f'layers.{layer}.out', y)\n"
    )
    done = aclcmp(
        *("--exec", "python s.py", "--capture", capture, "--tasks", "0,2", "--labels", "layers", "--output", "run")
    )
    assert done.code == 1, done
    found = read_report(tmp_path / "run")
    assert sorted({label["task"] for label in found["labels"]}) == [0, 2]
    by_layer = {label["layer"]: label["ranks"]["0"] for label in found["labels"] if label["task"] == 0}
    assert by_layer["0"]["bitwise"] and by_layer["0"]["stats"]["basis"] == ("norms" if capture == "stats" else capture)
    assert by_layer["2"]["status"] == "diverged"
    assert by_layer["2"]["metrics"]["rel_l2"] == pytest.approx(0.04, rel=0.12)
    # what keeps the norm of every row is seen by the projection alone, and the report says so
    assert by_layer["1"]["status"] == ("match" if capture == "stats" else "diverged")
    assert ("goes unseen" in by_layer["1"]["reason"]) == (capture == "stats")
    assert (found["run"]["capture"], found["run"]["tasks"]) == (capture, "0,2")
    assert sum(path.stat().st_size for path in (tmp_path / "run" / "shards").iterdir()) < 12 * 64 * 4096 * 4 / 10


def test_a_selection_that_leaves_nothing_is_told(aclcmp: Command, tmp_path: Path, script: str) -> None:
    done = aclcmp("--exec", script, "--labels", "no such label", "--output", "run")
    assert done.code == 4 and "--labels no such label may have left none" in done.out
    assert not list((tmp_path / "run" / "shards").iterdir())
