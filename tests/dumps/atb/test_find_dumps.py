"""The search: which file of which execution matches which label, in every generation of dump folders."""

import math
import os
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped
from aclcmp.orchestrator.dumps.atb.find_dumps import FileLabel, find_dumps
from tests.dumps.atb_writer import values, write_atb, write_pointer

PID = 4711
T = 1_700_000_000.0
NAME = "0_Model/0_LayerGraphRunner/3_OpRunner/after/outTensor0.bin"


def label(seq: int, time: float = T, path: str = NAME, task: int = 0, site: str = "model.py:1") -> FileLabel:
    return FileLabel(seq, task, path, time, site)


def dump(folder: Path, number: float, at: float = T + 1, name: str = NAME, again: bool = False) -> Path:
    return write_atb(folder / name, np.full(4, number, np.float32), at=at, again=again)


def numbers(
    labels: Sequence[FileLabel], *roots: Path, pid: int = PID, own: Set[Path] = frozenset(), since: float = -math.inf
) -> list[float | str]:
    """What each label gets: the number that the file is full of, or the reason why there is none."""
    found = find_dumps(labels, pid, roots, own=own, since=since)
    assert sorted(found) == sorted(label.seq for label in labels)
    answers = [found[label.seq] for label in labels]
    for answer in answers:
        assert not isinstance(answer, NotDumped) or answer.reason.isprintable()
    return [a.reason if isinstance(a, NotDumped) else float(values(a).ravel()[0]) for a in answers]


def tensor(label: FileLabel, *roots: Path, pid: int = PID) -> DumpedTensor:
    answer = find_dumps([label], pid, roots, own=set(roots))[label.seq]
    assert isinstance(answer, DumpedTensor), answer
    return answer


def missing(label: FileLabel, *roots: Path, pid: int = PID) -> NotDumped:
    answer = find_dumps([label], pid, roots)[label.seq]
    assert isinstance(answer, NotDumped), answer
    return answer


GENERATIONS = {
    "A": "tensors/4711/4711_0",
    "A, no task": "tensors/thread_140234/0",
    "B": "atb_temp/tensors/4711_4890/0",
    "B, with a task": "atb_temp/tensors/4711_4890/4711_0",
    "B, its folder given": "tensors/4711_4711/2",
    "C": "ait_dump/tensors/3_4711/4711",
    "C, stamped": "msit_dump_20240101_120000/tensors/0_4711/1",
    "C, old CANN": "msit_dump/tensors/4711/77",
    "D": "atb_dump_data/data/7_4711/0",
    "no execution": "tensors/4711",
    "the process's folder alone": "4711",
    "no folder": ".",
}


@pytest.mark.parametrize("folder", GENERATIONS.values(), ids=GENERATIONS)
def test_generations(tmp_path: Path, folder: str) -> None:
    for other in ("tensors/4712/4712_0", "tensors/471/0", "tensors/14711/0", "atb_dump_data/data/4711x/0"):
        dump(tmp_path / other, 99)
    expected = dump(tmp_path / folder, 5)
    assert tensor(label(0), tmp_path).path == str(expected)
    assert numbers([label(0)], tmp_path / "none", tmp_path, own={tmp_path}) == [5.0]


@pytest.mark.parametrize("folder", GENERATIONS.values(), ids=GENERATIONS)
@pytest.mark.parametrize("prefix", ["", "./", "tensors/../"])
def test_pasted_paths(tmp_path: Path, folder: str, prefix: str) -> None:
    dump(tmp_path / folder, 5)
    wanted = label(0, path=f"{prefix}{folder}/{NAME}")
    if ".." in prefix:
        assert "does not lead into a dump folder" in missing(wanted, tmp_path).reason
    else:
        assert numbers([wanted], tmp_path) == [5.0]


def test_ranks_pids_and_devices_do_not_mix(tmp_path: Path) -> None:
    for rank in range(8):
        dump(tmp_path / f"atb_dump_data/data/{rank}_{5000 + rank}/0", rank)
        dump(tmp_path / f"tensors/{6000 + rank}/{6000 + rank}_0", 10 + rank)
    for rank in range(8):
        assert numbers([label(0)], tmp_path, pid=5000 + rank) == [rank]
        assert numbers([label(0)], tmp_path, pid=6000 + rank) == [10 + rank]
    assert "tensors holds no 5008, but 6000, 6001" in missing(label(0), tmp_path, pid=5008).reason


def test_pids_of_containers_are_not_devices(tmp_path: Path) -> None:
    """Ranks on devices 0..7 with the pids 7..14: `7_14` is device 7 of pid 14, no thread of pid 7."""
    for rank in range(8):
        dump(tmp_path / f"atb_dump_data/data/{rank}_{7 + rank}/0", rank)
    for rank in range(8):
        assert numbers([label(0)], tmp_path, pid=7 + rank) == [rank]


def test_threads_of_a_small_pid(tmp_path: Path) -> None:
    dump(tmp_path / "tensors/14_20/0", 2, name="other.bin")
    assert numbers([label(1, path="other.bin")], tmp_path, pid=14) == [2.0]  # there are no devices
    dump(tmp_path / "tensors/14_14/0", 1)
    assert numbers([label(0), label(1, path="other.bin")], tmp_path, pid=14) == [1.0, 2.0]


@pytest.mark.parametrize(("pid", "expected"), [(63, ["1"]), (64, ["1", "2"])])
def test_pid_that_is_no_device_s_number_keeps_its_threads(tmp_path: Path, pid: int, expected: list[str]) -> None:
    """Beside a device's folder `63_99` may be device 63's, of pid 99; there is no device 64."""
    dump(tmp_path / f"tensors/3_{pid}/0", 1, name="1.bin")
    dump(tmp_path / f"tensors/{pid}_99/0", 2, name="2.bin")
    found = numbers([label(1, path="1.bin"), label(2, path="2.bin")], tmp_path, pid=pid)
    assert [str(n) for n, number in enumerate(found, 1) if number == n] == expected


@pytest.mark.parametrize(("device", "found"), [(63, True), (64, False)])
def test_thread_of_another_process_is_no_device(tmp_path: Path, device: int, found: bool) -> None:
    """`64_5` is thread 5 of process 64."""
    dump(tmp_path / f"tensors/{device}_5/0", 1)
    assert (numbers([label(0)], tmp_path, pid=5) == [1.0]) is found


def test_thread_folders_count_only_where_no_process_is_named(tmp_path: Path) -> None:
    dump(tmp_path / "tensors/thread_9/0", 9)
    assert numbers([label(0)], tmp_path, own={tmp_path}) == [9.0]
    dump(tmp_path / "tensors/4711/0", 1)
    assert numbers([label(0)], tmp_path, own={tmp_path}) == [1.0]


def test_thread_folders_that_may_be_another_ranks_are_not_taken(tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "rank1"
    dump(shared / "tensors/thread_9/0", 9)
    reason = missing(label(0), shared).reason
    assert f"thread_* folders in {shared}/tensors were not taken because they may be another rank's" in reason
    assert ",thread_*}" not in reason
    dump(own / "tensors/thread_9/0", 1)
    (tmp_path / "link").symlink_to(own)
    assert numbers([label(0)], shared, own, own={tmp_path / "link"}) == [1.0]
    assert "another rank's" in str(numbers([label(0)], shared, own, own={tmp_path})[0])


def test_files_of_an_earlier_run_are_not_taken(tmp_path: Path) -> None:
    stale = dump(tmp_path / "old/tensors/4711/0", 9, at=T - 3600)
    dump(tmp_path / "old/tensors/4711/1", 8, at=T - 3600)
    (reason,) = numbers([label(0)], tmp_path / "old", since=T - 60)
    assert str(reason).startswith(f"{stale} was last written at ") and "is an earlier run's" in str(reason)
    assert numbers([label(0, path=str(stale))], tmp_path / "old", since=T - 60) == [9.0]
    assert not missing(label(0, path=NAME.replace("after", "before")), tmp_path / "old").reason.count("earlier run")
    dump(tmp_path / "new/tensors/4711/0", 1)
    assert numbers([label(0)], tmp_path / "old", tmp_path / "new", since=T - 60) == [1.0]
    dump(tmp_path / "old", 2)
    assert numbers([label(0)], tmp_path / "old", tmp_path / "new", since=T - 60) == [2.0]


@pytest.mark.parametrize(("before", "taken"), [(0.04, True), (0.06, False)])
def test_coarse_clock_makes_no_file_stale(tmp_path: Path, before: float, taken: bool) -> None:
    dump(tmp_path / "tensors/4711/0", 1, at=T - before)
    assert (numbers([label(0)], tmp_path, since=T) == [1.0]) is taken


def test_stale_executions_do_not_count(tmp_path: Path) -> None:
    """Two are of an earlier run, and the last of this one is not there: else as many files as labels."""
    for execution in range(5):
        dump(tmp_path / f"tensors/4711/{execution}", execution, at=T + 2 * execution - 4)
    found = numbers([label(seq, T + 2 * seq) for seq in range(5)], tmp_path, since=T - 1)
    assert found[:3] == [2.0, 3.0, 4.0] and all("before this label was set" in str(why) for why in found[3:])


def test_earlier_root_wins(tmp_path: Path) -> None:
    dump(tmp_path / "a/tensors/4711/0", 1, name="X.bin", at=T + 5)
    dump(tmp_path / "b/tensors/4711/0", 2, name="x.bin")
    dump(tmp_path / "b/tensors/4711/1", 3, name="x.bin", at=T + 2)
    dump(tmp_path / "b/tensors/4711/1", 4, name="y.bin", at=T + 2)
    dump(tmp_path / "a", 5, name="z.bin")
    dump(tmp_path / "b/tensors/4711/0", 6, name="z.bin")
    wanted = [label(seq, path=path) for seq, path in enumerate(("x.bin", "y.bin", "z.bin"))]
    assert numbers(wanted, tmp_path / "a", tmp_path / "b") == [1.0, 4.0, 5.0]
    assert numbers(wanted, tmp_path / "b", tmp_path / "a") == [2.0, 4.0, 6.0]


def test_child_that_inherited_its_parents_task(tmp_path: Path) -> None:
    """The child's pid, then AIT_CMP_TASK_ID as its parent had set it."""
    for task in (0, 1):
        dump(tmp_path / f"tensors/4711/4700_{task}", task)
        dump(tmp_path / f"tensors/4700/4700_{task}", 90 + task)
        dump(tmp_path / f"tensors/4711/4700_{task}x", 99)
    assert numbers([label(task, task=task) for task in (0, 1)], tmp_path) == [0.0, 1.0]
    assert "was dumped in task 0, 1, not" in str(numbers([label(0, task=2)], tmp_path)[0])


def test_absolute_path(tmp_path: Path) -> None:
    path = dump(tmp_path, 5)
    assert numbers([label(0, path=str(path))]) == [5.0]
    link = tmp_path / "link.bin"
    link.symlink_to(path)
    assert tensor(label(0, path=str(link))).path == str(path)
    answer = missing(label(0, path=str(path.with_name("outTensor1.bin"))))
    assert "does not exist" in answer.reason and "did you mean outTensor0.bin?" in answer.reason
    assert not answer.unreadable
    assert missing(label(0, path=str(path / "x"))).unreadable
    assert missing(label(0, path=str(tmp_path))).unreadable
    assert missing(label(0, path="/" + "x" * 300)).unreadable


@pytest.mark.parametrize("path", ["../x.bin", "a/../../x.bin", "", ".", "./.", "a\0b", "x" * 5000, "a/" * 500])
def test_paths_that_are_none(tmp_path: Path, path: str) -> None:
    dump(tmp_path, 5, name="x.bin")
    assert not missing(label(0, path=path), tmp_path / "none").unreadable


def test_case_is_a_matter_of_taste_unless_both_are_there(tmp_path: Path) -> None:
    dump(tmp_path / "TENSORS/4711/4711_0", 1, name="0_model/AFTER/outtensor0.bin")
    operation = label(0, path="0_Model/after/outTensor0.bin")
    assert numbers([operation], tmp_path) == [1.0]
    dump(tmp_path / "TENSORS/4711/4711_0", 2, name="0_model/AFTER/outTensor0.bin")
    assert numbers([operation, label(1, path="0_model/after/outtensor0.bin")], tmp_path) == [2.0, 1.0]
    assert "did you mean" in str(numbers([label(0, path="0_model/after/OUTTENSOR0.bin")], tmp_path)[0])


def test_kernels_and_operations_of_several_executions_do_not_mix(tmp_path: Path) -> None:
    dump(tmp_path / "tensors/4711/0", 1, name="a/outtensor0.bin")
    dump(tmp_path / "tensors/4711/1", 2, name="a/outTensor0.bin")
    assert numbers([label(0, path="a/outTensor0.bin")], tmp_path) == [2.0]
    assert numbers([label(0, path="A/outtensor0.bin")], tmp_path) == [1.0]


def test_folders_that_differ_in_case_are_all_entered(tmp_path: Path) -> None:
    dump(tmp_path / "tensors/4711/0", 1, name="0_model/x.bin")
    dump(tmp_path / "tensors/4711/0", 2, name="0_Model/y.bin")
    dump(tmp_path / "tensors/4711/0", 3, name="0_Model/z.bin")
    dump(tmp_path / "tensors/4711/0", 4, name="0_model/z.bin")
    wanted = [label(0, path="0_Model/x.bin"), label(1, path="0_model/y.bin"), label(2, path="0_Model/z.bin")]
    assert numbers(wanted, tmp_path) == [1.0, 2.0, 3.0]


def test_exact_folder_is_found_among_very_many_that_differ_in_case(tmp_path: Path) -> None:
    """`A` sorts before `a` on each of 7 levels, and in 64 folders of the 128 there is nothing."""
    (tmp_path / "decoy").mkdir()
    for name in "aA":
        (tmp_path / "decoy" / name).symlink_to(".")
    folder = tmp_path / "tensors/4711/0"
    for depth in range(7):
        (folder / ("a/" * depth) / "a").mkdir(parents=True)
        (folder / ("a/" * depth) / "A").symlink_to(tmp_path / "decoy")
    dump(folder, 1, name="a/" * 7 + "x.bin")
    assert numbers([label(0, path="a/" * 7 + "x.bin")], tmp_path) == [1.0]


def test_containers_are_searched_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Nothing else tells these executions apart."""
    for number, container in enumerate(("AIT_DUMP_B", "ait_dump_a", "ait_dump_b")):
        dump(tmp_path / container / "tensors/4711/0", number, at=T + 10)
    assert numbers([label(seq, T + seq) for seq in range(3)], tmp_path) == [0.0, 1.0, 2.0]


def test_name_with_an_ir_name(tmp_path: Path) -> None:
    dump(tmp_path / "tensors/4711/0", 1, name="after/outtensor1_yOut.bin")
    dump(tmp_path / "tensors/4711/0", 2, name="after/outtensor10_z.bin")
    assert numbers([label(0, path="after/outTensor1.bin")], tmp_path) == [1.0]
    dump(tmp_path / "tensors/4711/0", 3, name="after/outtensor1_w.bin")
    assert "did you mean" in str(numbers([label(0, path="after/outtensor1.bin")], tmp_path)[0])


def test_weird_names(weird_path: Path) -> None:
    name = '0_L\'äyer "x"/目录 {a,b}*/out.bin'
    dump(weird_path / "tensors/4711/4711_0", 4, name=name)
    assert numbers([label(0, path=name)], weird_path) == [4.0]
    assert "did you mean" in str(numbers([label(0, path=name + "x")], weird_path)[0])


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "dumps"
    secret = dump(tmp_path / "elsewhere", 6)
    folder = root / "tensors/4711/0"
    folder.mkdir(parents=True)
    (folder / "x.bin").symlink_to(secret)
    (folder / "0_Model").symlink_to(tmp_path / "elsewhere/0_Model")
    for path in ("x.bin", NAME):
        answer = missing(label(0, path=path), root)
        assert answer.unreadable and "leads outside" in answer.reason
    (folder / "y.bin").symlink_to(dump(root, 7, name="kept.bin"))
    assert numbers([label(0, path="y.bin")], root) == [7.0]
    (tmp_path / "link").symlink_to(root)
    assert numbers([label(0, path="y.bin")], tmp_path / "link") == [7.0]


def test_links_in_circles_end(tmp_path: Path) -> None:
    folder = tmp_path / "tensors/4711"
    folder.mkdir(parents=True)
    (folder / "a").symlink_to(".")
    (folder / "A").symlink_to(".")
    (folder / "0").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    dump(folder, 1, name="x.bin")
    assert numbers([label(0, path="a/A/" * 10 + "x.bin")], tmp_path) == [1.0]
    assert "was not dumped" in missing(label(0, path="a/" * 100 + "y.bin"), tmp_path).reason
    assert "Too many levels" in missing(label(0, path="loop/x.bin"), tmp_path).reason


def test_pointer_is_followed_within_the_root(tmp_path: Path) -> None:
    write_pointer(tmp_path / "dumps/atb_dump_data/data/0_4711/0/b/after/out.bin", (4,), 0, "../../a/after/out.bin")
    dump(tmp_path / "dumps/atb_dump_data/data/0_4711/0", 8, name="a/after/out.bin")
    assert numbers([label(0, path="b/after/out.bin")], tmp_path / "dumps") == [8.0]
    write_pointer(tmp_path / "dumps/atb_dump_data/data/0_4711/0/c.bin", (4,), 0, str(dump(tmp_path / "else", 9)))
    answer = missing(label(0, path="c.bin"), tmp_path / "dumps")
    assert answer.unreadable and "lies outside" in answer.reason


def test_one_dump_serves_labels_of_different_lines(tmp_path: Path) -> None:
    dump(tmp_path / "tensors/4711/4711_0", 3)
    assert numbers([label(seq, site=f"model.py:{seq}") for seq in range(50)], tmp_path) == [3.0] * 50


def test_tasks_are_kept_apart(tmp_path: Path) -> None:
    for task in (0, 1, 10):
        dump(tmp_path / f"tensors/4711/4711_{task}", task)
    labels = [label(task, task=task) for task in (0, 1, 10)]
    assert numbers(labels, tmp_path) == [0.0, 1.0, 10.0]
    assert numbers(labels[:1], tmp_path) == [0.0]
    assert "was dumped in task 0, 1, 10, not" in str(numbers([label(0, task=2)], tmp_path)[0])
    assert numbers(labels, tmp_path / "tensors" / "4711") == [0.0, 1.0, 10.0]


def test_as_many_executions_as_labels_pair_in_order(tmp_path: Path) -> None:
    """Whatever the files' times say: they may have been copied."""
    for execution in (0, 1, 2, 10, 11):
        dump(tmp_path / f"tensors/0_4711/{execution}", execution, at=T - 100 * execution)
    assert numbers([label(seq, T + seq) for seq in (5, 6, 7, 8, 9)], tmp_path) == [0.0, 1.0, 2.0, 10.0, 11.0]


def test_both_lines_of_a_loop_get_the_same_executions(tmp_path: Path) -> None:
    for execution in range(3):
        dump(tmp_path / f"tensors/0_4711/{execution}", execution)
    labels = [label(seq, T + seq, site=f"model.py:{seq % 2}") for seq in range(6)]
    assert numbers(labels, tmp_path) == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]


def test_first_file_after_a_label_answers_it(tmp_path: Path) -> None:
    """A warm-up before the first label, an execution without a label, and a label without an execution."""
    for execution, at in enumerate((-5.0, 0.2, 0.6, 2.1, 2.9)):
        dump(tmp_path / f"tensors/4711/{execution}", execution, at=T + at)
    found = numbers([label(0, T), label(1, T + 1), label(2, T + 2), label(3, T + 3)], tmp_path)
    assert [found[0], found[2]] == [1.0, 3.0]
    assert "for a later execution, that of label 2 " in str(found[1])
    assert "before this label was set" in str(found[3])
    assert all("to share a dump, label it from different lines)" in str(found[k]) for k in (1, 3))


def test_coarse_clock_of_a_file_system(tmp_path: Path) -> None:
    for execution in range(3):
        dump(tmp_path / f"tensors/4711/{execution}", execution, at=T + execution - 0.004)
    assert numbers([label(0, T), label(1, T + 1)], tmp_path) == [0.0, 1.0]


def test_labels_in_quick_succession(tmp_path: Path) -> None:
    """20 ms apart: 50 ms for the clock would hand each label a file of two executions before."""
    for execution in range(50):
        dump(tmp_path / f"tensors/4711/{execution}", execution, at=T + 0.02 * execution + 0.01)
    assert numbers([label(seq, T + 0.02 * seq) for seq in range(49)], tmp_path) == [float(n) for n in range(49)]


def test_fast_loop_is_no_reason_to_warn(tmp_path: Path) -> None:
    """5 ms apart on a clock that ticks every 4 ms and is behind."""
    labels = [label(seq, T + 0.005 * seq) for seq in range(20)]
    for execution in range(20):
        dump(tmp_path / f"tensors/4711/{execution}", execution, at=T + 0.005 * execution - 0.003)
    found = find_dumps(labels, PID, [tmp_path])
    assert all(isinstance(answer, DumpedTensor) and not answer.warnings for answer in found.values())


def test_copied_files_cannot_be_told_apart(tmp_path: Path) -> None:
    for execution in range(3):
        dump(tmp_path / f"tensors/4711/{execution}", execution, at=T + 1000)
    found = numbers([label(0, T), label(1, T + 1)], tmp_path)
    assert all("cannot tell which of the 3 executions" in str(reason) for reason in found)


def test_single_label_takes_the_first_of_several_executions_and_says_so(tmp_path: Path) -> None:
    for execution in range(3):
        dump(tmp_path / f"tensors/4711/{execution}", execution, at=T + execution)
    answer = tensor(label(0), tmp_path)
    assert values(answer)[0] == 0 and answer.warnings == (
        "several executions followed the label; the first to be written is taken",
    )


def test_overwritten_file_answers_the_last_label_before_it(tmp_path: Path) -> None:
    dump(tmp_path / "tensors/4711/4711_0", 7, at=T + 2.5)
    found = numbers([label(seq, T + seq) for seq in range(5)], tmp_path)
    assert found[2] == 7.0
    for seq in (0, 1):
        assert "for a later execution, that of label 2 " in str(found[seq])
    for seq in (3, 4):
        assert "before this label was set" in str(found[seq])


def test_file_older_than_its_only_label_is_told(tmp_path: Path) -> None:
    dump(tmp_path / "tensors/4711/4711_0", 7, at=T - 3)
    answer = tensor(label(0), tmp_path)
    assert answer.warnings == ("the file was written before the label was set",)
    (why,) = numbers([label(0)], tmp_path, since=T - 2)
    assert "earlier run's" in str(why)
    assert all("before this label" in str(why) for why in numbers([label(0), label(1, T + 1)], tmp_path))


def test_overwritten_file_is_that_of_the_last_execution_of_all_lines(tmp_path: Path) -> None:
    """The second line was passed in the first execution only, whose file is gone."""
    dump(tmp_path / "tensors/4711/4711_0", 7, at=T + 2.5)
    sites = ("model.py:1", "model.py:2", "model.py:1", "model.py:1")
    found = numbers([label(seq, T + max(seq - 1, 0), site=site) for seq, site in enumerate(sites)], tmp_path)
    assert found[3] == 7.0 and all("for a later execution, that of label 3 " in str(why) for why in found[:3])


@pytest.mark.parametrize(
    ("lines", "count", "expected"),
    [
        ("a", 1, [0]),
        ("aaa", 3, [0, 1, 2]),
        ("ababab", 3, [0, 0, 1, 1, 2, 2]),
        ("ababab", 6, [0, 1, 2, 3, 4, 5]),
        ("abbb", 3, [0, 0, 1, 2]),
        ("abbb", 4, [0, 1, 2, 3]),
        ("abaab", 3, [0, 0, 1, 2, 2]),
        ("abcacb", 2, [0, 0, 0, 1, 1, 1]),
        ("a", 3, None),
        ("aa", 3, None),
        ("aaaaa", 3, None),
        ("ababab", 2, None),
        ("ababab", 4, None),
        ("ab", 3, None),
    ],
)
@pytest.mark.parametrize("at", [T - 10, T + 1.5, T + 100])
def test_file_that_went_on_at_its_end(
    tmp_path: Path, lines: str, count: int, expected: list[float] | None, at: float
) -> None:
    """An object for each execution or for each label; anything else is not guessed."""
    for number in range(count):
        path = dump(tmp_path / "tensors/4711/4711_0", number, at=at, again=True)
    found = numbers([label(seq, T + seq, site=f"model.py:{line}") for seq, line in enumerate(lines)], tmp_path)
    if expected is None:
        assert all(f"cannot tell which of the {count} tensors in {path} " in str(why) for why in found)
    else:
        assert found == expected


def test_files_of_tasks_that_went_on_at_their_ends(tmp_path: Path) -> None:
    for task in (0, 1):
        for execution in range(2):
            dump(tmp_path / f"tensors/4711/4711_{task}", 10 * task + execution, again=True)
    labels = [label(seq, T + seq, task=seq // 2) for seq in range(4)]
    assert numbers(labels, tmp_path) == [0.0, 1.0, 10.0, 11.0]
    assert "cannot tell" in str(numbers(labels[:3], tmp_path)[2])


@pytest.mark.parametrize(("lines", "expected"), [(1, [None, None]), (2, [0, 10, 1, 11]), (3, [None] * 6)])
def test_each_of_several_executions_was_dumped_again(tmp_path: Path, lines: int, expected: list[float | None]) -> None:
    for execution in (0, 1):
        for run in (0, 1):
            dump(tmp_path / f"tensors/4711/{execution}", 10 * run + execution, again=run > 0)
    labels = [label(seq, T + seq, site=f"model.py:{seq % lines}") for seq in range(2 * lines)]
    for number, want in zip(numbers(labels, tmp_path), expected, strict=True):
        assert number == want if want is not None else "cannot tell which of the 2 tensors" in str(number)


def test_warnings_of_successive_executions_are_equal_texts(tmp_path: Path) -> None:
    """The report folds notes by their text."""
    labels = [label(seq, T + 7 * seq, path=f"{seq % 3}.bin") for seq in range(9)]
    for seq in range(9):
        dump(tmp_path / f"tensors/4711/{seq // 3}", seq, at=T + 3 * seq - 20, name=f"{seq % 3}.bin")
    dump(tmp_path / "tensors/4711/0", 0, at=T - 1, name="9.bin")
    dump(tmp_path / "tensors/4711/0", 0, at=T - 2, name="10.bin")
    labels += [label(seq, path=f"{seq}.bin") for seq in (9, 10)]
    found = find_dumps(labels, PID, [tmp_path])
    warnings = [answer.warnings for answer in found.values() if isinstance(answer, DumpedTensor)]
    assert len(warnings) == 11 and len(set(warnings) - {()}) == 2
    assert not any(character.isdigit() for texts in warnings for character in "".join(texts))


def test_unreadable_file_fails_its_labels_alone(tmp_path: Path) -> None:
    dump(tmp_path / "tensors/4711/4711_0", 1, name="good.bin")
    dump(tmp_path / "tensors/4711/4711_0", 1, name="bad.bin").write_bytes(b"garbage")
    os.mkfifo(tmp_path / "tensors/4711/4711_0/pipe.bin")
    (tmp_path / "tensors/4711/4711_0/folder.bin").mkdir()
    for path in ("bad.bin", "pipe.bin", "folder.bin"):
        answer = missing(label(0, path=path), tmp_path)
        assert answer.unreadable and path in answer.reason
    assert numbers([label(0, path="good.bin")], tmp_path) == [1.0]


def test_file_below_two_roots_is_one_file(tmp_path: Path) -> None:
    for execution in range(2):
        dump(tmp_path / f"rank0/tensors/4711/{execution}", execution)
    dump(tmp_path / "old/tensors/4711/0", 9, name="y.bin")
    roots = (tmp_path / "rank0", tmp_path / "rank0", tmp_path / "rank0" / "tensors", tmp_path / "old")
    assert numbers([label(0), label(1, T + 1)], *roots) == [0.0, 1.0]
    assert numbers([label(0, path="y.bin")], *roots) == [9.0]


def test_reason_names_every_place_and_the_nearest_name(tmp_path: Path) -> None:
    roots = [tmp_path / "run" / "rank0", tmp_path / "none", tmp_path]
    dump(roots[0] / "tensors/4711/4711_0", 1)
    reason = missing(label(0, path=NAME.replace("3_OpRunner", "4_OpRunner")), *roots).reason
    assert all(str(root) in reason for root in roots) and f"{roots[1]} (no such folder)" in reason
    assert "{4711,4711_*,*_4711}/{,*/}" in reason
    (whole,) = numbers([label(0, path="none.bin")], *roots, own={roots[0]})
    assert "{4711,4711_*,*_4711,thread_*}/{,*/}" in str(whole)
    assert "0_LayerGraphRunner holds no 4_OpRunner; did you mean 3_OpRunner?" in reason
    reason = missing(label(0, path="0_Model/after/x.bin"), *roots).reason
    assert "0_Model holds no after, but 0_LayerGraphRunner" in reason
    reason = missing(label(0), *roots, pid=4712).reason
    assert "tensors holds no 4712, but 4711" in reason
    assert "no folder" in missing(label(0)).reason


def test_nothing_is_wanted(tmp_path: Path) -> None:
    assert find_dumps([], PID, [tmp_path]) == {}


def test_file_appears_between_two_calls(tmp_path: Path) -> None:
    assert not missing(label(0), tmp_path).unreadable
    dump(tmp_path / "tensors/4711/4711_0", 3)
    assert numbers([label(0)], tmp_path) == [3.0]


def test_folders_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 labels, present and missing, of 20 executions in 3 roots."""
    for execution in range(20):
        dump(tmp_path / f"tensors/4711/{execution}", execution)
    listed: list[str] = []
    scandir = os.scandir

    def counted(path: str) -> object:
        listed.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    labels = [label(2 * seq, T + seq) for seq in range(20)]
    labels += [label(2 * seq + 1, path=f"0_Model/{seq % 300}_Layer/after/outTensor{seq}.bin") for seq in range(2_000)]
    found = find_dumps(labels, PID, [tmp_path, tmp_path / "a", tmp_path / "tensors"])
    assert sum(isinstance(answer, DumpedTensor) for answer in found.values()) == 20
    assert len(listed) == len(set(listed)) < 400
