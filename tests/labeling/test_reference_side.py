"""The third side: recorded like the others, and no side of the comparison."""

from pathlib import Path

import h5py
import pytest

from aclcmp.labeling.layout import Layout, Partial, Shard
from aclcmp.labeling.shard.recovery import recover
from aclcmp.labeling.shard.shard_reader import read_label
from tests.labeling.test_api import run_script


def test_it_counts_its_own_occurrences_and_has_its_own_place(tmp_path: Path) -> None:
    script = """
import numpy as np
from aclcmp import Partial, Shard, set_label, set_task_id
for turn in range(2):
    set_task_id()
    for n in range(2):
        set_label("ref", "x", np.full(3, n, np.float64))
    set_label("golden", "x", np.zeros(3, np.float32))
    set_label("reference", "y", np.ones(2), layout=Shard(0), level="op", inputs=["x"])
    set_label("ref", "z", np.ones(2), layout=Partial())
"""
    (index,), stderr = run_script(tmp_path, script)
    assert stderr == ""
    each = [("x", 0, "ref"), ("x", 1, "ref"), ("x", 0, "pta"), ("y", 0, "ref"), ("z", 0, "ref")]
    told = [(record.task, record.data_id, record.occurrence, record.side) for record in index.records]
    assert told == [(task, *label) for task in range(2) for label in each]
    assert (read_label(index, index.records[1]) == 1).all()
    y, z = index.records[3:5]
    assert (y.layout, y.level, y.inputs) == (Layout((Shard(0),)), "op", ("x",))
    assert z.layout == Layout((Partial(),))
    with h5py.File(index.files.segment(0)) as file:
        assert set(file["tasks/0/x/0"]) == {"ref", "pta"} and set(file["tasks/0/x/1"]) == {"ref"}
        assert file["tasks/0/x/1/ref"].attrs["torch_dtype"] in ("float64", b"float64")
        assert set(file["labels"]["side"]) == {b"ref", b"pta"}


@pytest.mark.parametrize("value", ["None", "np.ones(2)"])
def test_it_names_no_file(tmp_path: Path, value: str) -> None:
    script = f"""
import numpy as np
from aclcmp import set_label
set_label("ref", "x", {value}, "dumped.bin")
set_label("ref", "y")
"""
    for name in ("shards", "strict"):
        (tmp_path / name).mkdir()
    (index,), _ = run_script(tmp_path / "shards", script)
    assert [record.side for record in index.records] == ["ref", "ref"]
    assert "takes no tensor_path" in index.records[0].error and "neither" in index.records[1].error
    _, stderr = run_script(tmp_path / "strict", script, strict=True, ok=False)
    assert "LabelError: the reference needs data_val" in stderr


def test_a_wrong_side_is_told_all_sides(tmp_path: Path) -> None:
    script = "import numpy as np\nfrom aclcmp import set_label\nset_label('fp32', 'x', np.ones(2))"
    (index,), _ = run_script(tmp_path, script)
    assert "'fp32' is not a side; use 'pta' (golden), 'acl' (actual) or 'ref' (reference)" in index.records[0].error


def test_selection_capture_and_strict_hold_for_it(tmp_path: Path) -> None:
    script = """
import numpy as np
from aclcmp import set_label
set_label("ref", "kept", np.arange(100_000, dtype=np.float32))
set_label("ref", "dropped", np.ones(2))
"""
    (index,), _ = run_script(tmp_path, script, strict=True, ACLCMP_LABELS="kept", ACLCMP_CAPTURE="fingerprint")
    assert [(record.data_id, record.side, record.capture) for record in index.records] == [
        ("kept", "ref", "fingerprint")
    ]


def test_it_survives_a_kill(tmp_path: Path) -> None:
    script = """
import os, signal
import numpy as np
from aclcmp import set_label
for n in range(20):
    set_label("ref", "x", np.full(50, n, np.float64))
os.kill(os.getpid(), signal.SIGKILL)
"""
    (index,), _ = run_script(tmp_path, script, ok=False)
    assert [record.occurrence for record in index.records] == list(range(20))
    recover(index.files.segment(0))
    with h5py.File(index.files.segment(0)) as file:
        assert all((file[f"tasks/0/x/{n}/ref"][:] == n).all() for n in range(20))


@pytest.mark.model
def test_a_model_is_watched_as_reference(tmp_path: Path) -> None:
    script = """
import torch
from aclcmp import watch
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
with watch(model, "reference"), watch(model, "golden"):
    model(torch.ones(2, 4))
"""
    (index,), stderr = run_script(tmp_path, script)
    assert stderr == ""
    told = {(record.data_id, record.side) for record in index.records}
    assert told == {(name, side) for name in ("0", "1", "forward") for side in ("ref", "pta")}
