"""The stand-in library by itself: the bytes and folders of its dumps, and the variables that it obeys."""

import csv
import os
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.examples.op_layer_model_ranks import EXAMPLE, read_strictly

pytestmark = pytest.mark.model

torch = pytest.importorskip("torch")
sys.path.append(str(EXAMPLE))
from standin import FAULTS, Root, SelfAttentionOperation, plant  # noqa: E402  # the example's folder is no package
from standin.tensor_file import DTYPES, encode  # noqa: E402

PID = os.getpid()
OPERATION = "0_SelfAttentionOperation"
SOFTMAX = f"{OPERATION}/2_SoftmaxKernel/after/outtensor0.bin"


@pytest.fixture(autouse=True)
def wiped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("ATB_", "ACLTRANSFORMER_", "ASDOPS_", "STANDIN_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def switched_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ATB_SAVE_TENSOR", "1")
    monkeypatch.setenv("ATB_OUTPUT_DIR", f"{tmp_path}/")
    return tmp_path / "msit_dump" / "tensors" / f"0_{PID}"


def query_key_value() -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(1, heads, 5, 4, generator=generator) for heads in (4, 2, 2))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_bytes_of_a_file() -> None:
    tensor = torch.tensor([[1.0, 2.0]], dtype=torch.float16).unsqueeze(0)
    assert encode(tensor) == (
        b"$Version=1.0\n$Object.Count=1\n$Object.Length=4\nformat=2\ndtype=1\ndims=1,1,2\n$Object.data=0,4\n$End=1\n"
        b"\x00\x3c\x00\x40"
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_dense(dtype: Any) -> None:
    tensor = (torch.arange(6).reshape(2, 3) % 2).to(dtype)
    header, payload = encode(tensor.T).split(b"$End=1\n")
    assert f"dtype={DTYPES[dtype]}\ndims=3,2\n".encode() in header
    assert len(payload) == 6 * dtype.itemsize
    assert torch.equal(torch.frombuffer(bytearray(payload), dtype=dtype).reshape(3, 2), tensor.T)


@pytest.mark.parametrize(("shape", "dims"), [((), b"1"), ((0, 3), b"0,3"), ((1,) * 8, b"1,1,1,1,1,1,1,1")])
def test_odd_shapes(shape: tuple[int, ...], dims: bytes) -> None:
    header, payload = encode(torch.ones(shape)).split(b"$End=1\n")
    assert b"\ndims=" + dims + b"\n" in header
    assert len(payload) == torch.ones(shape).nbytes


def test_silent_unless_told_to_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATB_OUTPUT_DIR", str(tmp_path))
    Root(SelfAttentionOperation())(*query_key_value())
    monkeypatch.setenv("ATB_SAVE_TENSOR", "0")
    Root(SelfAttentionOperation())(*query_key_value())
    assert not files(tmp_path)


def test_all_files_of_an_operation(switched_on: Path) -> None:
    query, key, value = query_key_value()
    (context,) = Root(SelfAttentionOperation(), device=0)(query, key, value)
    kernels = {
        "0_QkMatmulKernel": 2,
        "1_MaskKernel": 1,
        "2_SoftmaxKernel": 1,
        "3_PvMatmulKernel": 2,
        "4_MergeHeadsKernel": 1,
        "": 3,
    }
    expected = [
        "/".join(part for part in (OPERATION, name, moment, f"{kind}{index}.bin") if part)
        for name, inputs in kernels.items()
        for moment, kind, count in (("before", "intensor", inputs), ("after", "outtensor", 1))
        for index in range(count)
    ]
    folder = switched_on / "0"
    assert files(folder) == sorted(expected)
    assert (read_strictly(folder / OPERATION / "before/intensor1.bin") == key.numpy()).all()
    assert (read_strictly(folder / OPERATION / "after/outtensor0.bin") == context.numpy()).all()
    assert (read_strictly(folder / OPERATION / "4_MergeHeadsKernel/after/outtensor0.bin") == context.numpy()).all()
    assert stat.S_IMODE((folder / SOFTMAX).stat().st_mode) == 0o640


def test_folders_of_the_generations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACLTRANSFORMER_SAVE_TENSOR", "1")
    monkeypatch.setenv("ATB_SAVE_TENSOR_RUNNER", "SoftmaxKernel")
    thread = threading.get_native_id()

    def dumped() -> set[str]:
        before = set(files(tmp_path))
        Root(SelfAttentionOperation(), number=7, device=3)(*query_key_value())
        new = set(files(tmp_path)) - before
        return {name.split("/7_SelfAttentionOperation")[0] + " " + name.rpartition("/")[2] for name in new}

    early = "inTensor0.bin", "outTensor0.bin"
    late = "intensor0.bin", "outtensor0.bin"
    assert dumped() == {f"atb_temp/tensors/{PID}_{thread}/0 {name}" for name in early}
    monkeypatch.setenv("ACLTRANSFORMER_HOME_PATH", f"{tmp_path}/a")
    assert dumped() == {f"a/tensors/thread_{thread}/0 {name}" for name in early}
    monkeypatch.setenv("AIT_CMP_TASK_ID", f"{PID}_4")
    assert dumped() == {f"a/tensors/{PID}/{PID}_4 {name}" for name in early}
    monkeypatch.setenv("ASDOPS_LOG_TO_FILE_DIR", f"{tmp_path}/b")
    assert dumped() == {f"b/tensors/{PID}_{thread}/0 {name}" for name in early}
    monkeypatch.setenv("ATB_OUTPUT_DIR", f"{tmp_path}/c/")
    assert dumped() == {f"c/msit_dump/tensors/3_{PID}/0 {name}" for name in late}
    monkeypatch.setenv("STANDIN_GENERATION", "D")
    assert dumped() == {
        *(f"c/atb_dump_data/data/3_{PID}/0 {name}" for name in late),
        f"c/atb_dump_data/data/3_{PID}/0/statistic.csv statistic.csv",
    }


def test_operations_keep_the_small_letter_in_early_generations(
    switched_on: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STANDIN_GENERATION", "B")
    Root(SelfAttentionOperation())(*query_key_value())
    names = files(tmp_path / "atb_temp")
    assert all(("Tensor" in name.rpartition("/")[2]) == ("Kernel/" in name) for name in names)


@pytest.mark.parametrize(
    ("bounds", "executions"),
    [(None, "0123"), ("0,1", "01"), ("2,2", "2"), ("0,0,3,2147483647", "03"), ("5,9", "")],
)
def test_range_of_executions(
    switched_on: Path, monkeypatch: pytest.MonkeyPatch, bounds: str | None, executions: str
) -> None:
    if bounds is not None:
        monkeypatch.setenv("ATB_SAVE_TENSOR_RANGE", bounds)
    root = Root(SelfAttentionOperation())
    for _ in range(4):
        root(*query_key_value())
    assert {name.split("/")[0] for name in files(switched_on)} == set(executions)


@pytest.mark.parametrize(
    ("runners", "nodes"),
    [
        ("SoftmaxKernel", {"2_SoftmaxKernel"}),
        ("softmax, pvMATMUL", {"2_SoftmaxKernel", "3_PvMatmulKernel"}),
        ("kernel", set()),
        ("Self", {"", "0_QkMatmulKernel", "1_MaskKernel", "2_SoftmaxKernel", "3_PvMatmulKernel", "4_MergeHeadsKernel"}),
    ],
)
def test_white_list(switched_on: Path, monkeypatch: pytest.MonkeyPatch, runners: str, nodes: set[str]) -> None:
    monkeypatch.setenv("ATB_SAVE_TENSOR_RUNNER", runners)
    Root(SelfAttentionOperation())(*query_key_value())
    found = {name.split("/")[2] for name in files(switched_on)}
    assert {"" if name in ("before", "after") else name for name in found} == nodes


def test_map_of_wanted_files_is_read_at_every_execution(
    switched_on: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIT_CMP_TASK_PID", f"..{tmp_path}")  # taken literally: leads out of /tmp and back
    root, wanted = Root(SelfAttentionOperation()), tmp_path / "ait_compare_acl_map.txt"
    root(*query_key_value())
    wanted.touch()
    root(*query_key_value())
    wanted.write_text(f"{SOFTMAX.upper()}\n")
    root(*query_key_value())
    with wanted.open("a") as file:
        file.write(f"{OPERATION}/after/outTensor0.bin\n0_Other/after/outTensor0.bin")
    root(*query_key_value())
    of_execution = [[name[2:] for name in files(switched_on) if name.startswith(str(n))] for n in range(4)]
    assert len(of_execution[0]) == 16
    assert of_execution[1:] == [[], [SOFTMAX], [SOFTMAX, f"{OPERATION}/after/outtensor0.bin"]]


def test_a_second_execution_in_a_task_replaces_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACLTRANSFORMER_SAVE_TENSOR", "1")
    monkeypatch.setenv("ACLTRANSFORMER_HOME_PATH", str(tmp_path))
    monkeypatch.setenv("AIT_CMP_TASK_ID", f"{PID}_0")
    root = Root(SelfAttentionOperation())
    root(*query_key_value())
    (context,) = root(*(tensor[:, :, :3] for tensor in query_key_value()))
    (file,) = (tmp_path / "tensors" / str(PID) / f"{PID}_0" / OPERATION / "after").iterdir()
    assert (read_strictly(file) == context.numpy()).all()


def test_table_of_generation_d(switched_on: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STANDIN_GENERATION", "D")
    Root(SelfAttentionOperation())(*(tensor.bfloat16() for tensor in query_key_value()))
    folder = tmp_path / "atb_dump_data" / "data" / f"0_{PID}" / "0"
    text = (folder / "statistic.csv").read_text()
    assert text.splitlines()[0] == (
        "Device and PID,Execution Count,Op Name,Op Type,Op Id,Input/Output,Index,Dtype,Format,Shape,"
        "Max,Min,Mean,Norm,Tensor Path"
    )
    rows = list(csv.DictReader(text.splitlines()))
    assert {row["Tensor Path"] for row in rows} == {str(folder / name) for name in files(folder) if ".bin" in name}
    row = next(row for row in rows if row["Tensor Path"].endswith("2_SoftmaxKernel/after/outtensor0.bin"))
    assert list(row.values())[:-1] == [
        *(f"0_{PID}", "0", "SelfAttentionOperation/SoftmaxKernel", "SoftmaxKernel", "0_2", "output", "0"),
        *("bf16", "nd", "1x4x5x5", "N/A", "N/A", "N/A", "N/A"),
    ]


def test_attention_agrees_with_torch() -> None:
    query, key, value = query_key_value()
    (context,) = Root(SelfAttentionOperation())(query, key, value)
    key, value = (tensor.repeat_interleave(2, dim=1) for tensor in (key, value))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(context, expected.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_inside_the_third_kernel(switched_on: Path, fault: str, dtype: Any) -> None:
    operation = SelfAttentionOperation()
    root = Root(operation)
    inputs = [tensor.to(dtype) for tensor in query_key_value()]
    root(*inputs)
    plant(operation, fault)
    root(*inputs)
    differ = {
        name
        for name in files(switched_on / "0")
        if (switched_on / "0" / name).read_bytes() != (switched_on / "1" / name).read_bytes()
    }
    assert {"/".join(name.split("/")[1:-1]) for name in differ} == {
        "2_SoftmaxKernel/after",
        *("3_PvMatmulKernel/before", "3_PvMatmulKernel/after", "4_MergeHeadsKernel/before", "4_MergeHeadsKernel/after"),
        "after",
    }
    weights = read_strictly(switched_on / "1" / SOFTMAX)
    assert abs(weights.sum(-1) - 1).max() < 2e-2, "still weights: no check of the kernel by itself shows the fault"
