"""How much of a tensor is kept, in real processes, and on a file system that fills up."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.capture import Budget, Capture
from aclcmp.labeling.shard.recovery import recover
from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_reader import read_label, read_shard
from aclcmp.labeling.shard.summarise import summarise
from aclcmp.labeling.shard.tensor_summary import TensorSummary
from tests.labeling.test_api import run_script
from tests.processes import PATIENCE

LABELS = """
import numpy as np
from aclcmp import set_label, set_task_id
for task in range(4):
    set_task_id()
    for name in ("layers.0.attn", "layers.1.mlp"):
        set_label("pta", name, np.arange(65536, dtype=np.float32).reshape(64, 1024) + task)
        set_label("acl", name, np.float32(3.0))
"""


def test_selection_in_a_script(tmp_path: Path) -> None:
    (index,), _ = run_script(tmp_path, LABELS, ACLCMP_LABELS=r"mlp$", ACLCMP_TASKS="1-2")
    assert {(r.task, r.data_id) for r in index.records} == {(1, "layers.1.mlp"), (2, "layers.1.mlp")}


def test_a_selection_that_cannot_be_read_records_everything(tmp_path: Path) -> None:
    (index,), err = run_script(tmp_path, LABELS, ACLCMP_TASKS="all")
    assert len(index.records) == 16 and "all labels are recorded in full" in err


@pytest.mark.parametrize("capture", [Capture.STATS, Capture.FINGERPRINT])
def test_a_summary_stands_for_the_tensor(tmp_path: Path, capture: Capture) -> None:
    (index,), _ = run_script(tmp_path, LABELS, ACLCMP_CAPTURE=capture.value)
    for record in index.records:
        if record.side == "acl":  # a scalar is smaller than any summary of it
            assert record.capture == "full" and read_label(index, record) == 3.0
            continue
        assert (record.capture, record.dtype, record.shape) == (capture.value, "float32", (64, 1024))
        value = np.arange(65536, dtype=np.float32).reshape(64, 1024) + record.task
        expected = summarise(value.reshape(-1).view(np.uint8), "float32", value.shape, sketch=capture.value != "stats")
        found = TensorSummary.unpack(read_label(index, record))
        assert found.digest == expected.digest and np.array_equal(found.sketch, expected.sketch)
        assert record.nbytes < value.nbytes / 15


def test_a_torn_shard_of_summaries_is_rebuilt(tmp_path: Path) -> None:
    run_script(tmp_path, LABELS + "\nimport os\nos._exit(1)", ok=False, ACLCMP_CAPTURE="fingerprint")
    (files,) = shards_in(tmp_path)
    torn = read_shard(files)
    assert not recover(files.segment(0)).lost
    whole = read_shard(files)
    for before, after in zip(torn.records, whole.records, strict=True):
        assert np.array_equal(read_label(torn, before), read_label(whole, after)) and before.capture == after.capture


def test_levels_are_recorded(tmp_path: Path) -> None:
    script = """
import numpy as np
from aclcmp import set_label
set_label("pta", "x", np.zeros(2), level="layer")
set_label("acl", "x", tensor_path="0_Model/after/outTensor0.bin", level="layer")
set_label("acl", "y", np.zeros(2), level="kernel")
"""
    (index,), err = run_script(tmp_path, script)
    assert [record.level for record in index.records] == ["layer", "layer", ""]
    assert "level='kernel'" in index.records[2].error and "'op', 'layer' or 'model'" in err


def test_wanted_files_are_told_to_the_probe(tmp_path: Path) -> None:
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="aclcmptest", dir="/tmp"))
    name = folder.name.replace("_", "x")
    folder = folder.rename(folder.with_name(name))
    try:
        script = """
from aclcmp import set_label
for path in ("0_M/a.bin", "0_M/b.bin", "0_M/a.bin", "0_M/new\\nline.bin"):
    set_label("acl", path, tensor_path=path)
"""
        told = folder / "ait_compare_acl_map.txt"
        for number in "123":
            (tmp_path / number).mkdir()
        run_script(tmp_path / "1", script, AIT_CMP_TASK="1", AIT_CMP_TASK_PID=name)
        assert told.read_text().splitlines() == ["0_M/a.bin", "0_M/b.bin"]
        told.unlink()
        run_script(tmp_path / "2", script, AIT_CMP_TASK_PID=name)  # not launched for low level
        folder.chmod(0o777)  # anybody could have put a link there
        run_script(tmp_path / "3", script, AIT_CMP_TASK="1", AIT_CMP_TASK_PID=name)
        assert not told.exists()
    finally:
        shutil.rmtree(folder)


def budget(folder: Path, said: list[str], ranks: int = 1) -> Budget:
    return Budget(folder, Capture.FULL, ranks, said.append, lambda: said.append("relieved"))


def test_what_was_asked_for_is_kept_whatever_the_disk_says(tmp_path: Path) -> None:
    said: list[str] = []
    wish = Budget(tmp_path, Capture.STATS, 1, said.append, lambda: None)
    assert wish.capture_for(1 << 62) is Capture.STATS and not said


def test_a_tensor_that_does_not_fit_switches_down_for_good(tmp_path: Path) -> None:
    said: list[str] = []
    short = budget(tmp_path, said)
    assert short.capture_for(100) is Capture.FULL
    assert short.capture_for(1 << 60) is Capture.FINGERPRINT
    assert short.capture_for(100) is Capture.FINGERPRINT
    assert len(said) == 2 and "only fingerprints" in said[0] and said[1] == "relieved"


def test_the_next_task_is_forecast_from_the_last(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    said: list[str] = []
    tight = budget(tmp_path, said)
    tight.capture_for(free // 3)
    tight.end_task(0)
    assert "has room for" in said[0] and tight.capture is Capture.FULL
    full = budget(tmp_path, said, ranks=8)
    full.capture_for(free // 7)
    full.end_task(4)
    assert "task 4 took" in said[1] and "8 ranks" in said[1] and full.capture is Capture.FINGERPRINT


FILL = """
import os
from pathlib import Path
import numpy as np
from aclcmp import set_label, set_task_id
os.environ["ATB_SAVE_TENSOR"] = "1"
for task in range(6):
    set_task_id()
    for layer in range(4):
        set_label("pta", f"layers.{layer}", np.full((512, 512), task + layer, np.float32))
        set_label("acl", f"layers.{layer}", np.full((512, 512), task + layer, np.float32))
print("done", os.environ["ATB_SAVE_TENSOR"], os.statvfs(os.environ["ACLCMP_SHARD_DIR"]).f_bavail > 0)
"""


DUMP = """
import os
from pathlib import Path
import numpy as np
from aclcmp import set_label, set_task_id
os.environ["ATB_SAVE_TENSOR"] = "1"
for task in range(6):
    set_task_id()
    set_label("pta", "layers.0", np.zeros(4))
    set_label("acl", "layers.0", tensor_path="0_Layer/after/outTensor0.bin")
    if os.environ["ATB_SAVE_TENSOR"] == "1":
        Path(os.environ["ACLCMP_SHARD_DIR"]).with_name(f"dump{task}").write_bytes(bytes(9 << 20))
print("done", os.environ["ATB_SAVE_TENSOR"], len(list(Path(os.environ["ACLCMP_SHARD_DIR"]).parent.glob("dump*"))))
"""


def on_a_small_disk(tmp_path: Path, script: str) -> "subprocess.CompletedProcess[str]":
    """Run a script with its shards on 24 MiB of its own; skip where that cannot be had."""
    mount = 'mount -t tmpfs -o size=24m none "$1" && cd "$1" && mkdir s && "$2" -c "$3" && cp -r s "$4"'
    (tmp_path / "small").mkdir()
    environ = os.environ | {"ACLCMP_SHARD_DIR": str(tmp_path / "small" / "s"), "ACLCMP_RUN_ID": "stamp"}
    arguments = ["sh", "-c", mount, "sh", str(tmp_path / "small"), sys.executable, script, str(tmp_path / "kept")]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to mount a small file system")
    done = subprocess.run(["unshare", "-rm", *arguments], capture_output=True, text=True, timeout=PATIENCE, env=environ)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    return done


def test_a_run_that_would_fill_the_disk_goes_on_with_fingerprints(tmp_path: Path) -> None:
    """24 MiB hold not quite three of the six tasks, of 8 MiB each."""
    done = on_a_small_disk(tmp_path, FILL)
    assert done.stdout.split() == ["done", "0", "True"], done.stderr
    assert done.stderr.count("only fingerprints of tensors are kept") == 1, done.stderr
    (files,) = shards_in(tmp_path / "kept")
    records = read_shard(files).records
    assert len(records) == 48 and not any(record.error for record in records)
    kept = [record.capture for record in records]
    assert kept == sorted(kept, key=["full", "fingerprint"].index) and 8 <= kept.count("full") <= 22


def test_dumps_that_would_fill_the_disk_are_stopped(tmp_path: Path) -> None:
    done = on_a_small_disk(tmp_path, DUMP)
    assert done.stdout.split() == ["done", "0", "2"], done.stderr
    assert done.stderr.count("nothing is dumped") == 1, done.stderr


def test_no_working_directory_and_odd_paths(tmp_path: Path) -> None:
    script = """
import os
import numpy as np
from pathlib import Path
from aclcmp import set_label
Path("gone").mkdir()
os.chdir("gone")
os.rmdir(os.getcwd())
set_label("pta", "x", np.zeros(2))
set_label("acl", "empty", tensor_path="")
set_label("acl", "bytes", tensor_path=b"a.bin")
set_label("acl", "path", tensor_path=Path("a") / "b.bin")
set_label("acl", "odd", tensor_path=7)
"""
    (index,), err = run_script(tmp_path, f"import os\nos.chdir({str(tmp_path)!r})\n{script}")
    assert [(r.data_id, r.tensor_path, bool(r.error)) for r in index.records] == [
        ("x", "", False),
        ("empty", "", True),
        ("bytes", "a.bin", False),
        ("path", "a/b.bin", False),
        ("odd", "", True),
    ]
    assert "Traceback" not in err


def test_a_forked_child_names_its_own_task(tmp_path: Path) -> None:
    script = """
import os
import numpy as np
from aclcmp import set_label, set_task_id
set_task_id(); set_task_id()
set_label("pta", "x", np.zeros(2))
if os.fork() == 0:
    assert os.environ["AIT_CMP_TASK_ID"] == f"{os.getpid()}_1", os.environ["AIT_CMP_TASK_ID"]
    os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
"""
    run_script(tmp_path, script)
