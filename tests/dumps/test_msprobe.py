"""Folders in the format of msprobe 26."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aclcmp.labeling.layout import Partial, Replicate
from tests.dumps.atb_writer import values
from tests.dumps.samples import by_name, read, reasons, tensors

torch = pytest.importorskip("torch")

LINEAR = "Module.layers.0.Linear.forward.0"
ADD = "Functional.add.1.forward"


def leaf(tensor: Any, data_name: str | None = None, **more: Any) -> dict[str, Any]:
    described = {
        "type": "torch.Tensor",
        "dtype": str(tensor.dtype),
        "shape": list(tensor.shape),
        "Max": float(tensor.max()),
        "Min": float(tensor.min()),
        "Mean": 0.0,
        "Norm": 1.0,
        "requires_grad": False,
        **more,
    }
    return described | ({"data_name": data_name} if data_name else {})


def write(folder: Path, data: dict[str, Any], files: dict[str, Any], task: str = "tensor") -> None:
    (folder / "dump_tensor_data").mkdir(parents=True)
    head = {"task": task, "level": "mix", "framework": "pytorch", "dump_data_dir": str(folder / "dump_tensor_data")}
    (folder / "dump.json").write_text(json.dumps(head | {"data": data}, indent=1))
    (folder / "stack.json").write_text("{}")
    for name, tensor in files.items():
        torch.save(tensor, folder / "dump_tensor_data" / name)


def a_dump(folder: Path, factor: float = 1.0) -> None:
    x, w, y = torch.ones(2, 3) * factor, torch.ones(4, 3), torch.arange(8.0).reshape(2, 4) * factor
    names = {
        f"{LINEAR}.input.0.pt": x,
        f"{LINEAR}.parameters.weight.pt": w,
        f"{LINEAR}.output.0.pt": y,
        f"{ADD}.input.0.pt": y,
        f"{ADD}.input.alpha.pt": y.to(torch.bfloat16),
        f"{ADD}.output.0.1.pt": y,
    }
    data = {
        LINEAR: {
            "input_args": [leaf(x, f"{LINEAR}.input.0.pt")],
            "input_kwargs": {},
            "parameters": {"weight": leaf(w, f"{LINEAR}.parameters.weight.pt")},
            "output": [leaf(y, f"{LINEAR}.output.0.pt")],
        },
        ADD: {
            "input_args": [leaf(y, f"{ADD}.input.0.pt"), {"type": "int", "value": 3}],
            "input_kwargs": {"alpha": leaf(y, f"{ADD}.input.alpha.pt"), "out": None},
            "output": [[{"type": "slice", "value": [None, 1]}, leaf(y, f"{ADD}.output.0.1.pt")]],
        },
    }
    write(folder, data, names)


NAMES = [
    f"{LINEAR}.input.0",
    f"{LINEAR}.parameters.weight",
    f"{LINEAR}.output.0",
    f"{ADD}.input.0",
    f"{ADD}.input.alpha",
    f"{ADD}.output.0.1",
]


def test_names_order_ranks_and_steps(tmp_path: Path) -> None:
    for step in (0, 1):
        for rank in (0, 1, 10):
            a_dump(tmp_path / "d" / f"step{step}" / f"rank{rank}", 1.0 + rank)
    index = read(tmp_path / "d")
    assert index.tool == "msprobe" and [each.header.rank for each in index.indices] == [0, 1, 10]
    for rank in (0, 1, 10):
        for step in (0, 1):
            found = by_name(index, rank, step)
            assert list(found) == NAMES
            assert values(found[f"{LINEAR}.output.0"]).ravel().tolist() == [k * (1.0 + rank) for k in range(8)]
            assert found[f"{ADD}.input.alpha"].dtype == "bfloat16"
            assert all(Path(tensor.path).parent.name == "dump_tensor_data" for tensor in found.values())
    assert list(by_name(read(tmp_path / "d" / "step1"), 10, 0)) == NAMES
    assert list(by_name(read(tmp_path / "d" / "step1" / "rank10"))) == NAMES


def test_processes_without_ranks(tmp_path: Path) -> None:
    for process in (4712, 4711):
        a_dump(tmp_path / "d" / "step0" / f"proc{process}")
    index = read(tmp_path / "d")
    assert [each.header.rank for each in index.indices] == [0, 1]
    assert "proc4711" in index.indices[0].records[0].tensor_path


def test_empty_dumps_are_told(tmp_path: Path) -> None:
    a_dump(tmp_path / "some" / "step0" / "rank0")
    write(tmp_path / "some" / "step0" / "rank1", {}, {})
    index = read(tmp_path / "some")
    assert index.notes == ("step0/rank1 holds no tensor", "some: no dump of rank 1 of 2")
    assert [each.header.world_size for each in index.indices] == [2]
    write(tmp_path / "none", {}, {})
    assert read(tmp_path / "none").notes == ("the dump holds no tensor", "none: the dump holds no tensor")


def test_gradients_of_parameters_have_no_index(tmp_path: Path) -> None:
    data = {"Module.a.Linear.parameters_grad.0": {"bias": [leaf(torch.ones(2))], "weight": [leaf(torch.ones(2))]}}
    write(tmp_path / "d", data, {}, "statistics")
    assert list(reasons(read(tmp_path / "d"))) == [f"Module.a.Linear.parameters_grad.0.{p}" for p in ("bias", "weight")]


def test_statistics_and_lost_files_are_no_tensors(tmp_path: Path) -> None:
    a_dump(tmp_path / "lost")
    (tmp_path / "lost" / "dump_tensor_data" / f"{LINEAR}.output.0.pt").unlink()
    assert list(reasons(read(tmp_path / "lost"))) == [f"{LINEAR}.output.0"]
    x = torch.ones(2)
    write(tmp_path / "statistics", {LINEAR: {"input_args": [leaf(x)], "output": [leaf(x), leaf(x)]}}, {}, "statistics")
    found = reasons(read(tmp_path / "statistics"))
    assert list(found) == [f"{LINEAR}.input.0", f"{LINEAR}.output.0", f"{LINEAR}.output.1"]
    assert all("msprobe kept statistics only" in reason for reason in found.values())


@pytest.mark.parametrize("index", [None, "", '{"task": "tensor", "data": {"Modu', "[1]", '{"data": 3}', "[" * 100_000])
def test_a_killed_run_leaves_its_files(tmp_path: Path, index: str | None) -> None:
    folder = tmp_path / "d" / "step0" / "rank0"
    a_dump(folder)
    for k, name in enumerate(NAMES):
        os.utime(folder / "dump_tensor_data" / f"{name}.pt", (k, k))
    (folder / "dump.json").unlink()
    if index is not None:
        (folder / "dump.json").write_text(index)
    found = read(tmp_path / "d")
    assert sorted(by_name(found)) == sorted(NAMES)
    assert found.notes
    if index is None:
        assert list(by_name(found)) == NAMES


@pytest.mark.parametrize("name", ["../../../secret.pt", "/etc/passwd", "", ".", "a\0.pt", "x" * 5_000 + ".pt"])
def test_data_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    torch.save(torch.ones(1), tmp_path / "secret.pt")
    write(tmp_path / "d" / "step0" / "rank0", {LINEAR: {"output": [leaf(torch.ones(1), name)]}}, {})
    assert list(reasons(read(tmp_path / "d"))) == [f"{LINEAR}.output.0"]


def test_weird_leaves_are_passed_over(tmp_path: Path) -> None:
    x = torch.ones(2)
    deep: Any = leaf(x, "deep.pt")
    for _ in range(300):
        deep = [deep]
    data = {
        "a": None,
        "b": [1, None, "x"],
        "c": {"output": 3, "input": {"type": 5, "dtype": 1}},
        "d": {"type": "torch.Tensor", "dtype": "x", "shape": 1, "data_name": ["x"]},
        "e\x1b[2J": {"output": [leaf(x, "deep.pt")]},
        "f": {"output": deep},
    }
    write(tmp_path / "d", data, {"deep.pt": x})
    index = read(tmp_path / "d")
    assert [record.data_id for _, record, _ in tensors(index)] == ["d", "deep", "deep"]


def test_numpy_files_of_mindspore(tmp_path: Path) -> None:
    write(tmp_path / "d", {"Cell.x.Dense.forward.0": {"output": [leaf(torch.ones(2), "y.npy")]}}, {})
    np.save(tmp_path / "d" / "dump_tensor_data" / "y.npy", np.arange(2))
    assert values(by_name(read(tmp_path / "d"))["y"]).tolist() == [0, 1]


def test_dtensors_have_layouts(tmp_path: Path) -> None:
    mesh = [[0, 1], [2, 3]]
    for rank in range(4):
        x = torch.ones(2, 3 if rank % 2 else 4)
        placed = {"type": "torch.distributed.tensor.DTensor", "device_mesh": mesh}
        data = {
            "x": {"output": [leaf(x, "x.pt", **placed, placements=[{"Replicate": {}}, {"Shard": {"dim": 1}}])]},
            "y": {"output": [leaf(x, "y.pt", **placed, placements=[{"Shard": {"dim": 0}}, {"Shard": {"dim": 0}}])]},
            "s": {
                "output": [leaf(x, "s.pt", **placed, placements=[{"Partial": {"reduce_op": "sum"}}, {"Replicate": {}}])]
            },
            "m": {
                "output": [leaf(x, "m.pt", **placed, placements=[{"Partial": {"reduce_op": "max"}}, {"Replicate": {}}])]
            },
            "bad": {"output": [leaf(x, "bad.pt", **placed, placements=[{"Shard": {"dim": 7}}, {"Replicate": {}}])]},
            "short": {"output": [leaf(x, "short.pt", **placed, placements=[{"Replicate": {}}])]},
        }
        names = [f"{name}.pt" for name in data]
        write(tmp_path / "d" / "step0" / f"rank{rank}", data, dict.fromkeys(names, x))
    index = read(tmp_path / "d")
    layouts = {(rank, record.data_id): record.layout for rank, record, _ in tensors(index)}
    for rank in range(4):
        x, y, s = (layouts[rank, name] for name in "xys")
        assert x is not None and y is not None and s is not None
        tp, dp = rank % 2, rank // 2
        assert (x.brief, x.whole_shape) == ("Replicate(), Shard(dim=1)", (2, 7))
        assert x.spans == (((0, 2),), ((4 * tp, 4 - tp),))
        assert (y.whole_shape, y.spans) == ((8, 4 - tp), (((2 * rank, 2),), ((0, 4 - tp),)))
        assert s.placements == (Partial(range(tp, 4, 2)), Replicate(range(2 * dp, 2 * dp + 2))) and s.spans is None
        assert layouts[rank, "m"] is layouts[rank, "bad"] is layouts[rank, "short"] is None
    assert any(note.startswith("bad:") for note in index.notes)
