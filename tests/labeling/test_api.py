"""The public calls in a process of their own, as a user's script makes them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.shard.shard_files import shards_in
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.labeling.shard.shard_reader import read_label, read_shard
from tests.processes import PATIENCE


def run_script(
    folder: Path, script: str, *, strict: bool = False, ok: bool = True, **env: str
) -> tuple[list[ShardIndex], str]:
    """Run a script as rank 0 of 2 with recording on; return its shards and its stderr."""
    environ = (
        os.environ | {"ACLCMP_SHARD_DIR": str(folder), "ACLCMP_RUN_ID": "stamp", "RANK": "0", "WORLD_SIZE": "2"} | env
    )
    if strict:
        environ["ACLCMP_STRICT"] = "1"
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode == 0) == ok, done.stderr
    return [read_shard(files) for files in shards_in(folder)], done.stderr


def test_off_means_off() -> None:
    script = """
import sys
import aclcmp
assert aclcmp.set_label("pta", "x", object()) is None
assert aclcmp.set_label("nonsense", 3) is None
assert aclcmp.set_task_id() is None
assert aclcmp.gen_id().startswith("data_")
for heavy in ("torch", "ray", "h5py", "numpy"):
    assert heavy not in sys.modules, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=dict(os.environ))


def test_sides_tasks_occurrences_ids_and_call_sites(tmp_path: Path) -> None:
    script = """
import numpy as np
from aclcmp import set_label, gen_id, set_task_id
set_label("pta", "before", np.zeros(2))
set_task_id()
for turn in range(2):
    name = gen_id()
    set_label("golden", name, np.zeros(2))
    set_label("actual", name, np.zeros(2))
    set_label("pta", "again", np.array([1.0]))
    set_label("pta", "again", np.array([2.0]))
    set_task_id()
"""
    (index,), _ = run_script(tmp_path, script)
    told = [(r.task, r.data_id, r.occurrence, r.side) for r in index.records]
    assert told == [
        (0, "before", 0, "pta"),
        (0, "data_stamp_0", 0, "pta"),
        (0, "data_stamp_0", 0, "acl"),
        (0, "again", 0, "pta"),
        (0, "again", 1, "pta"),
        (1, "data_stamp_1", 0, "pta"),
        (1, "data_stamp_1", 0, "acl"),
        (1, "again", 0, "pta"),
        (1, "again", 1, "pta"),
    ]
    assert [record.seq for record in index.records] == list(range(9))
    assert index.records[0].call_site == "<string>:4"
    assert not index.notes and not index.torn


def test_wrong_arguments_are_recorded_and_said_once(tmp_path: Path) -> None:
    script = """
import numpy as np
from aclcmp import set_label, Shard
x = np.zeros(2)
for _ in range(3):
    set_label("gpu", "a", x)
set_label("pta", "b", [x])
set_label("pta", "c", {"x": x})
set_label("pta", "", x)
set_label("pta", 7, x)
set_label("pta", "d")
set_label("pta", "e", None, "path.bin")
set_label("pta", "f", np.array(["text"]))
set_label("pta", "g", x, layout="sideways")
set_label("pta", "h" * 5000, x)
set_label("pta", "good", x, layout=Shard(0))
"""
    (index,), stderr = run_script(tmp_path, script)
    assert [bool(record.error) for record in index.records] == [True] * 12 + [False]
    assert stderr.count("is not a side") == 1
    assert str(index.records[-1].layout) == "Shard(dim=0)"
    for record, words in zip(index.records[3:], ("list", "dict", "non-empty", "non-empty", "neither"), strict=False):
        assert words in record.error


def test_strict_raises(tmp_path: Path) -> None:
    (index,), stderr = run_script(
        tmp_path, "from aclcmp import set_label; set_label('pta', 'x', [1])", strict=True, ok=False
    )
    assert "LabelError: data_val is a list" in stderr
    assert index.records[0].error


def test_unwritable_folder_never_breaks_the_script(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    script = """
import numpy as np
from aclcmp import set_label
for _ in range(3):
    set_label("pta", "x", np.ones(2))
"""
    _, stderr = run_script(tmp_path, script, ACLCMP_SHARD_DIR=str(blocked / "shards"))
    assert "label 'x'" in stderr and "cannot even be noted" in stderr


def test_full_disk_is_recorded(tmp_path: Path) -> None:
    script = """
import resource, signal, numpy as np
from aclcmp import set_label
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
set_label("pta", "small", np.ones(4))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
set_label("pta", "big", np.ones(1 << 20))
set_label("pta", "after", np.ones(4))
"""
    (index,), stderr = run_script(tmp_path, script)
    told = {record.data_id: record.error for record in index.records}
    assert told["small"] == "" and "too large" in told["big"].lower()
    assert "big" in stderr
    small = next(record for record in index.records if record.data_id == "small")
    assert (read_label(index, small) == 1).all()


@pytest.mark.parametrize("leave", ["import os; os._exit(0)", "import sys; sys.exit(0)", "pass"])
def test_fork_does_not_touch_the_parents_shard(tmp_path: Path, leave: str) -> None:
    script = f"""
import os, numpy as np
from aclcmp import set_label
for n in range(50):
    set_label("pta", f"p{{n}}", np.full(100, n))
child = os.fork()
if child == 0:
    for n in range(50):
        set_label("acl", f"c{{n}}", np.full(100, n))
    {leave}
else:
    os.waitpid(child, 0)
    for n in range(50, 100):
        set_label("pta", f"p{{n}}", np.full(100, n))
"""
    indices, stderr = run_script(tmp_path, script)
    assert stderr == ""
    told: dict[str, list[str]] = {}
    for index in indices:
        for record in index.records:
            assert not record.error
            assert (read_label(index, record) == int(record.data_id[1:])).all()
            told.setdefault(record.side, []).append(record.data_id)
    assert told["pta"] == [f"p{n}" for n in range(100)]
    assert told["acl"] == [f"c{n}" for n in range(50)]
    parent = next(index for index in indices if index.files.process == 0)
    assert not parent.notes


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_workers(tmp_path: Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import multiprocessing, numpy as np
from aclcmp import set_label, set_task_id
def work(n):
    set_label("acl", f"w{{n}}", np.full(10, n))
    return n
if __name__ == "__main__":
    set_task_id(); set_task_id()
    set_label("pta", "p", np.ones(3))
    with multiprocessing.get_context("{method}").Pool(3) as pool:
        pool.map(work, range(20), chunksize=1)
        pool.close()
        pool.join()
    set_label("pta", "q", np.ones(3))
"""
    )
    script = f"import runpy; runpy.run_path({str(program)!r}, run_name='__main__')"
    if method != "fork":
        script = f"import subprocess, sys; subprocess.run([sys.executable, {str(program)!r}], check=True)"
    shards = tmp_path / "shards"
    shards.mkdir()
    indices, stderr = run_script(shards, script)
    records = [(index, record) for index in indices for record in index.records]
    assert {record.data_id for _, record in records} == {"p", "q"} | {f"w{n}" for n in range(20)}
    assert {record.task for _, record in records} == {1}
    assert all((read_label(index, r) == int(r.data_id[1:])).all() for index, r in records if r.side == "acl")
    assert stderr == ""


def test_threads(tmp_path: Path) -> None:
    script = """
import threading, numpy as np
from aclcmp import set_label
def work(t):
    for n in range(100):
        set_label("pta", f"{t}.{n}", np.full(1000, t * 1000 + n))
threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    (index,), _ = run_script(tmp_path, script)
    assert len(index.records) == 800
    for record in index.records:
        thread, number = map(int, record.data_id.split("."))
        assert (read_label(index, record) == thread * 1000 + number).all()


def test_numpy_kinds(tmp_path: Path) -> None:
    script = """
import numpy as np
from aclcmp import set_label
set_label("pta", "big-endian", np.arange(4, dtype=">f4"))
set_label("pta", "strided", np.arange(24).reshape(4, 6)[::2, ::3])
set_label("pta", "scalar", np.float32(2.5))
set_label("pta", "reversed", np.arange(4)[::-1])
"""
    (index,), _ = run_script(tmp_path, script)
    values = {record.data_id: read_label(index, record) for record in index.records}
    np.testing.assert_array_equal(values["big-endian"], np.arange(4))
    np.testing.assert_array_equal(values["strided"], np.arange(24).reshape(4, 6)[::2, ::3])
    assert values["scalar"] == 2.5
    np.testing.assert_array_equal(values["reversed"], [3, 2, 1, 0])


def test_a_failed_label_keeps_its_occurrence(tmp_path: Path) -> None:
    script = """
import numpy as np
from aclcmp import set_label
for value in (np.zeros(2), None, np.ones(2)):
    set_label("pta", "x", value)
    set_label("acl", "x", np.zeros(2) if value is None else value)
"""
    (index,), _ = run_script(tmp_path, script)
    told = [(r.side, r.occurrence, bool(r.error)) for r in index.records]
    assert told == [(side, n, (side, n) == ("pta", 1)) for n in range(3) for side in ("pta", "acl")]


def test_an_unwritable_disk_costs_no_descriptors(tmp_path: Path) -> None:
    script = """
import os, resource, signal, numpy as np
from aclcmp import set_label
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
for n in range(300):
    set_label("pta", f"x{n}", np.ones(4))
assert len(os.listdir("/proc/self/fd")) < 30
"""
    indices, _ = run_script(tmp_path, script)
    assert indices == []
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_imported_or_printed_never_reaches_the_script(tmp_path: Path) -> None:
    script = """
import sys, numpy as np
from aclcmp import set_label, set_task_id
class Rude:
    def __repr__(self): raise RuntimeError("no")
set_label("pta", Rude(), np.ones(2))
set_label(Rude(), "x", np.ones(2))
sys.stderr = None
set_label("gpu", "x", np.ones(2))
"""
    (index,), _ = run_script(tmp_path, script)
    assert all(record.error for record in index.records) and len(index.records) == 3
    blocked = """
import sys
sys.modules["h5py"] = None
from aclcmp import set_label, set_task_id
set_task_id()
set_label("pta", "x", 1)
set_label("pta", "x", 1)
"""
    _, stderr = run_script(tmp_path / "none", blocked)
    assert stderr.count("labels are off") == 1


def test_fork_while_a_thread_sets_its_first_label(tmp_path: Path) -> None:
    script = """
import os, signal, threading, numpy as np
from aclcmp import set_label
thread = threading.Thread(target=lambda: [set_label("pta", f"t{n}", np.ones(2)) for n in range(200)])
thread.start()
children = []
for n in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        set_label("acl", f"c{n}", np.ones(2))
        os._exit(0)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
thread.join()
"""
    indices, _ = run_script(tmp_path, script)
    names = [record.data_id for index in indices for record in index.records]
    assert sorted(names) == sorted([f"t{n}" for n in range(200)] + [f"c{n}" for n in range(5)])


def test_worker_of_a_parent_that_labelled_seals_its_shard(tmp_path: Path) -> None:
    script = """
import multiprocessing, numpy as np
from aclcmp import set_label
set_label("pta", "p", np.ones(3))
def work():
    set_label("acl", "w", np.ones(3))
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
"""
    indices, _ = run_script(tmp_path, script)
    assert len(indices) == 2
    assert not any(index.notes or index.torn for index in indices)
    assert not list(tmp_path.glob("*.reserve"))


def test_tasks_by_their_numbers(tmp_path: Path) -> None:
    """A script that serves two requests at once goes from one to the other, or says it of one label."""
    script = """
import os
import numpy as np
from aclcmp import set_label, set_task_id
for task in (3, 7, 3):
    set_task_id(task)
    set_label("pta", "x", np.ones(2))
    set_label("pta", "y", np.ones(2), task=np.int64(7))
assert os.environ["AIT_CMP_TASK_ID"].endswith("_3")
set_task_id()
set_label("pta", "x", np.ones(2))
"""
    (index,), _ = run_script(tmp_path, script)
    told = [(r.task, r.data_id, r.occurrence) for r in index.records]
    assert told == [(3, "x", 0), (7, "y", 0), (7, "x", 0), (7, "y", 1), (3, "x", 1), (7, "y", 2), (4, "x", 0)]
    assert not any(record.error for record in index.records)


@pytest.mark.parametrize("number", ["-1", "1.0", "True", "'1'", "2**31", "2**80", "Rude()"])
def test_impossible_numbers_of_tasks_are_failed_labels(tmp_path: Path, number: str) -> None:
    script = f"""
import numpy as np
from aclcmp import set_label, set_task_id
class Rude:
    def __index__(self): raise RuntimeError("no")
    def __repr__(self): raise RuntimeError("no")
set_task_id(2)
set_task_id({number})
set_label("pta", "x", np.ones(2), task={number})
set_label("pta", "y", np.ones(2))
"""
    (index,), _ = run_script(tmp_path, script)
    assert [(r.task, r.data_id, "number of a task" in r.error) for r in index.records] == [
        (2, "set_task_id", True),
        (2, "x", True),
        (2, "y", False),
    ]
    run_script(tmp_path / "strict", script, strict=True, ok=False)
