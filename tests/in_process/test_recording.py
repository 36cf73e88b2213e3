"""`aclcmp.record()`: blocks, what is left behind them, and what they refuse."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import cast

import numpy as np
import pytest

import aclcmp
from aclcmp.labeling import api
from aclcmp.orchestrator.errors import UsageError

ONES = np.ones((4, 8), np.float32)


def label_both(name: str, actual: float = 1.0) -> None:
    aclcmp.set_label("golden", name, ONES)
    aclcmp.set_label("actual", name, ONES * np.float32(actual))


def names(comparison: aclcmp.Comparison) -> list[str]:
    return [label.label for label in comparison.labels]


def test_labels_count_inside_the_block_only() -> None:
    label_both("before")
    with aclcmp.record() as run:
        label_both("x")
        assert api.is_on()
    label_both("after")
    assert not api.is_on()
    found = run.compare()
    assert found and (found.verdict, found.exit_code, found.first_divergence) == ("match", 0, None)
    assert names(found) == ["x"]
    assert str(found) == "All match, bit for bit: 1 label on 1 rank."


def test_the_first_divergence() -> None:
    with aclcmp.record() as run:
        label_both("layers.0")
        label_both("layers.1", 1.5)
        label_both("layers.2", 1.5)
    found = run.compare()
    first = found.first_divergence
    assert not found and first is not None
    assert (first.label, first.task, first.ranks, first.origin) == ("layers.1", 0, (0,), "own")
    assert first.call_site.startswith(__file__) and "relative L2 0.5" in first.reason
    assert [(label.status, label.origin) for label in found.labels[1:]] == [
        ("diverged", "own"),
        ("diverged", "inherited"),
    ]


def test_what_is_not_compared_is_not_green() -> None:
    with aclcmp.record() as run:
        pass
    assert run.compare().verdict == "incomplete"
    with run:
        aclcmp.set_label("golden", "alone", ONES)
    assert (run.compare().verdict, run.compare().labels[0].status) == ("incomplete", "missing")


def test_a_value_that_is_no_tensor_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with aclcmp.record() as run:
        aclcmp.set_label("golden", "x", "text")
        aclcmp.set_label("actual", "x", ONES)
    assert [(label.status, "str" in label.reason) for label in run.compare().labels] == [("failed", True)]
    assert "label 'x' (pta)" in capsys.readouterr().err


def test_an_exception_passes_on_and_labels_stay() -> None:
    run = aclcmp.record()
    with pytest.raises(ZeroDivisionError), run:
        label_both("x")
        raise ZeroDivisionError("by zero")
    assert not api.is_on()
    found = run.compare()
    assert (found.verdict, found.exit_code, names(found)) == ("failed", 3, ["x"])
    assert "the block ended with ZeroDivisionError: by zero" in str(found)


def test_a_block_inside_another_records_alone() -> None:
    with aclcmp.record() as outer:
        label_both("first")
        with aclcmp.record() as inner:
            label_both("second", 2.0)
        label_both("third")
    assert names(outer.compare()) == ["first", "third"]
    assert (names(inner.compare()), inner.compare().verdict) == (["second"], "diverged")


def test_blocks_that_end_in_another_order() -> None:
    one, other = aclcmp.record(), aclcmp.record()
    one.start()
    other.start()
    one.stop()
    label_both("x")
    other.stop()
    assert (names(one.compare()), names(other.compare())) == ([], ["x"])
    assert not api.is_on()


def test_a_recording_goes_on_in_a_later_cell() -> None:
    run = aclcmp.record()
    with run:
        aclcmp.set_task_id()
        aclcmp.set_label("golden", "x", ONES)
        assert os.environ["AIT_CMP_TASK_ID"].endswith("_0")
    assert "AIT_CMP_TASK_ID" not in os.environ
    with run:
        aclcmp.set_label("actual", "x", ONES)
        aclcmp.set_task_id()
        label_both("x")
        label_both("x")
    assert [(label.task, label.occurrence, label.status) for label in run.compare().labels] == [
        (0, 0, "match"),
        (1, 0, "match"),
        (1, 1, "match"),
    ]
    assert "Note" not in str(run.compare())


def test_compare_while_it_records() -> None:
    with aclcmp.record() as run:
        label_both("x")
        assert str(run.compare()) == "All match, bit for bit: 1 label on 1 rank."
        label_both("y", 3.0)
    assert run.compare().verdict == "diverged"


def test_labels_of_threads_count() -> None:
    with aclcmp.record() as run:
        threads = [threading.Thread(target=label_both, args=(f"x{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert run.compare() and len(run.compare().labels) == 4


def test_what_goes_on_behind_the_block_is_not_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    with aclcmp.record() as run:
        label_both("x")
        recorder = api._live_recorder()
    assert recorder is not None
    recorder.record("pta", "late", ONES, None, None, "", None, "a device graph")  # as replays of a graph do
    assert [label.label for label in run.compare().labels] == ["x"] and not capsys.readouterr().err


def test_starting_twice_and_after_close() -> None:
    run = aclcmp.record()
    with run, pytest.raises(UsageError, match="started already"):
        run.start()
    run.stop()
    run.close()
    assert not run.folder.exists() and "closed" in repr(run)
    for call in (run.start, run.compare):
        with pytest.raises(UsageError, match="closed"):
            call()


def test_a_temporary_folder_goes_with_its_recording() -> None:
    run = aclcmp.record()
    with run:
        label_both("x", 2.0)
    folder, found = run.folder, run.compare()
    assert list((folder / "shards").iterdir())
    del run
    gc.collect()
    assert not folder.exists()
    assert "diverged" in str(found) and "<table" in found._repr_html_()


def test_output_is_a_run_directory(tmp_path: Path) -> None:
    with aclcmp.record(output=tmp_path / "run") as run:
        label_both("x", 2.0)
    run.close()
    with pytest.raises(UsageError, match="holds another run"):
        aclcmp.record(output=tmp_path / "run")
    again = [sys.executable, "-m", "aclcmp", "compare", str(tmp_path / "run")]
    done = subprocess.run(again, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "First divergence: x" in done.stdout, done.stdout + done.stderr
    both = aclcmp.compare(tmp_path / "run", str(tmp_path / "run"))
    assert both.first_divergence is not None and both.first_divergence.label == "x"


def test_the_policy(tmp_path: Path) -> None:
    with aclcmp.record() as run:
        label_both("x", 1.01)
    assert run.compare().verdict == "diverged"
    assert run.compare(policy={"limits": {"float32": {"warn": 0.1, "fail": 0.5}}})
    (tmp_path / "policy.toml").write_text('[[ignore]]\npattern = "x"\n')
    assert run.compare(policy=tmp_path / "policy.toml").verdict == "incomplete"
    with pytest.raises(UsageError, match=r"policy: limits.float32.warm is not known; did you mean warn\?"):
        run.compare(policy={"limits": {"float32": {"warm": 0.1, "fail": 0.5}}})
    with pytest.raises(UsageError, match="policy is a int"):
        run.compare(policy=cast("str", 3))
    with pytest.raises(UsageError, match="No such file"):
        run.compare(policy=tmp_path / "none.toml")


def test_a_map_and_layouts(tmp_path: Path) -> None:
    with aclcmp.record() as run:
        aclcmp.set_label("golden", "h.0", ONES)
        aclcmp.set_label("actual", "layers.0", ONES)
    (tmp_path / "map.txt").write_text("h.* -> layers.*\n")
    (tmp_path / "layouts.txt").write_text("actual layers.* -> Replicate()\n")
    assert run.compare().verdict == "incomplete"
    assert run.compare(map=tmp_path / "map.txt", layouts=str(tmp_path / "layouts.txt"))


def test_a_launched_process_records_for_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shards").mkdir()
    monkeypatch.setenv("ACLCMP_SHARD_DIR", str(tmp_path / "shards"))
    with aclcmp.record(output=tmp_path / "other") as run:
        assert run.is_launched and not api.is_on()
    assert "leaves the labels to the run that aclcmp launched" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    with pytest.raises(UsageError, match="which compares them"):
        run.compare()


FORK = """
import os, sys
import numpy as np
import aclcmp
run = aclcmp.record()
run.start()
aclcmp.set_label("golden", "x", np.ones(4))
aclcmp.set_label("actual", "x", np.ones(4))
child = os.fork()
if not child:
    aclcmp.set_label("golden", "of the child", np.ones(4))
    aclcmp.set_label("actual", "of the child", np.ones(4))
    sys.exit()
os.waitpid(child, 0)
print(run.compare(), sorted(label.label for label in run.compare().labels), run.folder)
"""


def test_a_fork_and_the_end_of_the_process(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "All match, bit for bit: 2 labels" in done.stdout and "['of the child', 'x']" in done.stdout
    assert not Path(done.stdout.split()[-1]).exists()


def test_importing_loads_little() -> None:
    code = (
        "import sys, aclcmp; print(any(name in sys.modules for name in ('numpy', 'torch', 'ray', 'aclcmp.labeling')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
