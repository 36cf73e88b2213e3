"""Whole folders of ATB's probes, of every generation."""

from pathlib import Path

import numpy as np
import pytest

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor
from tests.dumps.atb_writer import CODES, values, write_atb, write_pointer
from tests.dumps.samples import by_name, read, reasons, same_bits, sample, tensors

BEFORE = "0_Decoder/1_Layer/before/intensor0.bin"
AFTER = "0_Decoder/1_Layer/after/outtensor0.bin"


def dump(root: Path, *paths: str) -> None:
    for path in paths:
        write_atb(root / path, np.full(2, 1.0, np.float32))


def labels(root: Path) -> list[tuple[int, int, str]]:
    return [(rank, record.task, record.data_id) for rank, record, _ in tensors(read(root))]


@pytest.mark.parametrize("dtype", CODES)
def test_every_dtype(tmp_path: Path, dtype: str) -> None:
    bits = sample(dtype, (3, 4))
    write_atb(tmp_path / "d/atb_dump_data/data/0_77/0" / AFTER, bits, CODES[dtype])
    (found,) = by_name(read(tmp_path / "d")).values()
    assert found.dtype == dtype and same_bits(values(found), bits)


GENERATIONS = {
    "A": ("tensors/4711/4711_{}", "tensors/4712/4712_{}"),
    "A, no task": ("tensors/thread_140/{}", "tensors/thread_141/{}"),
    "B": ("atb_temp/tensors/4711_4890/{}", "atb_temp/tensors/4712_4712/{}"),
    "C": ("ait_dump/tensors/0_4711/{}", "ait_dump/tensors/1_4712/{}"),
    "C, stamped": ("msit_dump_20240101_120000/tensors/4_4711/{}", "msit_dump_20240101_120000/tensors/5_4712/{}"),
    "D": ("atb_dump_data/data/0_4712/{}", "atb_dump_data/data/1_4711/{}"),
    "D, inner folder": ("data/0_4712/{}", "data/1_4711/{}"),
    "D, folder of processes": ("0_4712/{}", "1_4711/{}"),
}


@pytest.mark.parametrize("generation", GENERATIONS)
def test_generations(tmp_path: Path, generation: str) -> None:
    root = tmp_path / "2024"
    for process in GENERATIONS[generation]:
        dump(root, *(f"{process.format(task)}/{path}" for task in (0, 2, 10) for path in (BEFORE, AFTER)))
    names = [BEFORE.removesuffix(".bin"), AFTER.removesuffix(".bin")]
    assert labels(root) == [(rank, task, name) for rank in (0, 1) for task in (0, 2, 10) for name in names]


def test_a_process_folder_and_an_execution_folder(tmp_path: Path) -> None:
    dump(tmp_path / "0_4711", f"0/{AFTER}", f"1/{AFTER}")
    assert labels(tmp_path / "0_4711") == [(0, 0, AFTER[:-4]), (0, 1, AFTER[:-4])]
    assert labels(tmp_path / "0_4711" / "1") == [(0, 0, AFTER[:-4])]


def test_threads_are_executions_in_their_order(tmp_path: Path) -> None:
    dump(tmp_path / "d", f"tensors/3_4711/4711/{AFTER}", f"tensors/3_4711/4890/{AFTER}")
    index = read(tmp_path / "d")
    assert [(rank, record.task) for rank, record, _ in tensors(index)] == [(0, 0), (0, 1)]
    assert index.notes == ("ranks are devices, of which 3 is the lowest",)


def test_lost_devices_and_shared_ones(tmp_path: Path) -> None:
    dump(tmp_path / "lost", *(f"data/{device}_9{device}/0/{AFTER}" for device in (0, 1, 3)))
    assert read(tmp_path / "lost").notes == ("lost: no dump of rank 2 of 4",)
    dump(tmp_path / "shared", f"data/0_90/0/{AFTER}", f"data/0_91/0/{AFTER}")
    index = read(tmp_path / "shared")
    assert [rank for rank, _, _ in tensors(index)] == [0, 1]
    assert index.notes == ("ranks are processes in the order of their numbers: 90, 91",)


def test_operations_run_in_their_order(tmp_path: Path) -> None:
    ordered = [
        "0_Model/before/intensor0",
        "0_Model/0_Embed/before/intensor0",
        "0_Model/0_Embed/after/outtensor0",
        "0_Model/2_Layer/before/intensor0",
        "0_Model/2_Layer/before/intensor10",
        "0_Model/2_Layer/0_Op/0_Kernel/after/outTensor0",
        "0_Model/2_Layer/after/outtensor0",
        "0_Model/10_Layer/after/outtensor0",
        "0_Model/after/outtensor0",
    ]
    dump(tmp_path / "d", *(f"data/0_77/0/{name}.bin" for name in reversed(ordered)))
    assert [name for _, _, name in labels(tmp_path / "d")] == ordered


def test_appended_tensors_pointers_and_damage(tmp_path: Path) -> None:
    folder = tmp_path / "d/data/0_77/0/0_Op/after"
    write_atb(folder / "outtensor0.bin", np.zeros(3, np.float32))
    write_atb(folder / "outtensor0.bin", np.ones(3, np.float32), again=True)
    write_pointer(folder / "outtensor1.bin", (3,), 0, "outtensor0.bin")
    (folder / "outtensor2.bin").write_bytes(b"$Version=1.0\n")
    (folder / "op_param.bin").write_bytes(b"something else")
    (folder.parent / "op_param.json").write_text("{}")
    (tmp_path / "outside.bin").write_bytes((folder / "outtensor0.bin").read_bytes())
    (folder / "outtensor3.bin").symlink_to(tmp_path / "outside.bin")
    index = read(tmp_path / "d")
    names = [(record.data_id.rpartition("/")[2], record.occurrence) for _, record, _ in tensors(index)]
    assert names[1:] == [("outtensor0", 0), ("outtensor0", 1), *((f"outtensor{k}", 0) for k in (1, 2, 3))]
    assert [name.rpartition("/")[2] for name in reasons(index)] == ["op_param", "outtensor2", "outtensor3"]
    good = [found for _, _, found in tensors(index) if isinstance(found, DumpedTensor)]
    assert [values(found).tolist() for found in good] == [[0] * 3, [1] * 3, [1] * 3]
