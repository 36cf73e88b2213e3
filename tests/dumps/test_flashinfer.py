"""Folders of FlashInfer's calls (FLASHINFER_LOGLEVEL=10), as `api_logging.py` of its 0.7.4 writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError
from aclcmp.orchestrator.dumps.registry import read_dump
from tests.dumps.atb_writer import values
from tests.dumps.samples import by_name, read, reasons, tensors

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")


def call(
    root: Path, function: str, number: int, inputs: dict[str, Any], outputs: dict[str, Any], at: int = 0, pid: int = 7
) -> Path:
    """Write one call as `_dump_function_inputs` and `_dump_function_outputs` do."""
    folder = root / f"20261129_120000_{at:03d}_pid{pid}_{function}_call{number:04d}"
    folder.mkdir(parents=True)
    torch.save(inputs, folder / "inputs.pt")
    torch.save(outputs, folder / "outputs.pt")
    told = {"function_name": function, "process_id": pid, "execution_status": "completed", "graph_capture": False}
    for file in (folder / "metadata.jsonl", root / "session.jsonl"):
        with file.open("a") as opened:
            opened.write(json.dumps(told) + "\n")
    return folder


def test_calls_are_labels_in_their_order(tmp_path: Path) -> None:
    one, two = torch.ones(2, 3), torch.full((2, 3), 2.0)
    call(tmp_path / "d", "rmsnorm", 2, {"arg_0": two, "kwarg_out": one}, {"result": two}, at=9)
    call(tmp_path / "d", "rmsnorm", 1, {"arg_0": one}, {"result": one}, at=1)
    call(tmp_path / "d", "BatchDecode.run", 1, {"arg_1__0": one}, {"result_0": one, "result_1": two}, at=5)
    index = read(tmp_path / "d")
    assert index.tool == "FlashInfer's calls" and index.order == "calls" and not index.notes
    assert [(record.data_id, record.occurrence) for _, record, _ in tensors(index)] == [
        ("rmsnorm.arg_0", 0),
        ("rmsnorm.result", 0),
        ("BatchDecode.run.arg_1__0", 0),
        ("BatchDecode.run.result_0", 0),
        ("BatchDecode.run.result_1", 0),
        ("rmsnorm.arg_0", 1),
        ("rmsnorm.kwarg_out", 0),
        ("rmsnorm.result", 1),
    ]


def test_strides_are_kept_and_safetensors_are_read(tmp_path: Path) -> None:
    strided = torch.arange(6.0).reshape(2, 3).T
    folder = call(tmp_path / "d", "f", 1, {"arg_0": strided}, {})
    assert values(by_name(read(tmp_path / "d"))["f.arg_0"]).tolist() == strided.tolist()
    (folder / "inputs.pt").unlink()
    safetensors.save_file({"arg_0": strided.contiguous()}, folder / "inputs.safetensors")
    for where in (tmp_path / "d", folder):
        assert values(by_name(read(where))["f.arg_0"]).tolist() == strided.tolist()


def test_replays_of_a_graph_count_once_each(tmp_path: Path) -> None:
    """`flush_graph_dumps` writes each replay below the call's folder, and the last one into it as well."""
    for number in (1, 2):
        last = {"result": torch.full((2,), number * 10 + 3.0)}
        folder = call(tmp_path / "d", "f", number, {}, last, at=number)
        (folder / "inputs.pt").unlink()
        for replay in (1, 2, 3):
            below = folder / "graph_flushes" / f"flush_{replay:04d}"
            below.mkdir(parents=True)
            torch.save({"result": torch.full((2,), number * 10.0 + replay)}, below / "outputs.pt")
    found = [values(tensor)[0] for _, _, tensor in tensors(read(tmp_path / "d"))]
    assert found == [11, 21, 12, 22, 13, 23]


def test_processes_are_ranks(tmp_path: Path) -> None:
    for pid in (300, 41):
        call(tmp_path / "d", "f", 1, {"arg_0": torch.ones(1)}, {}, pid=pid)
        call(tmp_path / "e" / f"rank{pid // 100}", "f", 1, {"arg_0": torch.ones(1)}, {}, pid=pid)
    index = read(tmp_path / "d")
    assert [each.header.rank for each in index.indices] == [0, 1] and "numbered by their IDs" in index.notes[0]
    assert [each.header.rank for each in read(tmp_path / "e").indices] == [0, 3]


def test_processes_of_two_hosts_may_have_one_id(tmp_path: Path) -> None:
    for rank in (0, 1):
        call(tmp_path / "d" / f"rank{rank}", "rank_5", 1, {"arg_0": torch.full((1,), float(rank))}, {})
    index = read(tmp_path / "d")
    assert not index.notes
    for rank in (0, 1):
        assert values(by_name(index, rank)["rank_5.arg_0"]).tolist() == [rank]


def test_two_processes_of_a_rank_are_not_mixed(tmp_path: Path) -> None:
    for pid in (8, 7):
        call(tmp_path / "d" / "rank0", "f", 1, {"arg_0": torch.ones(1)}, {}, pid=pid)
    with pytest.raises(ForeignFormatError, match="rank 0 has calls of both processes 7 and 8; keep the folders of one"):
        read_dump(tmp_path / "d", "pta", tmp_path / "scratch")


def test_where_one_process_tells_no_rank_all_are_numbered(tmp_path: Path) -> None:
    for folder in ("rank5", "rank6", "other"):
        call(tmp_path / "d" / folder, "f", 1, {"arg_0": torch.ones(1)}, {}, pid=7)
    index = read(tmp_path / "d")
    assert [each.header.rank for each in index.indices] == [0, 1, 2] and "numbered by their IDs" in index.notes[0]


def test_damaged_and_dangerous_calls_are_named(tmp_path: Path) -> None:
    folder = call(tmp_path / "d", "f", 1, {"arg_0": torch.ones(100)}, {"result": torch.ones(1)})
    whole = (folder / "inputs.pt").read_bytes()
    (folder / "inputs.pt").write_bytes(whole[: len(whole) // 2])
    torch.save({"evil": Path}, folder / "outputs.pt")
    refused = reasons(read(tmp_path / "d"))
    assert "truncated" in refused["f.inputs"] and "weights_only=True" in refused["f.outputs"]
