"""Whose dump a folder is, and that the comparison can take it as a side."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aclcmp.labeling.shard.dumped_tensor import ForeignFormatError
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.dumps.registry import read_dump
from aclcmp.orchestrator.plan.rank_labels import merge_processes
from tests.dumps.atb_writer import write_atb
from tests.dumps.samples import read, same_bits, sample


def test_folders_of_no_known_tool(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    assert read_dump(tmp_path / "absent", "pta", scratch) is None
    (tmp_path / "d" / "deep").mkdir(parents=True)
    assert read_dump(tmp_path / "d", "pta", scratch) is None
    (tmp_path / "d" / "notes.txt").write_text("hello")
    (tmp_path / "d" / "weights.bin").write_bytes(bytes(100))
    (tmp_path / "d" / "dump.json").write_text("{}")
    assert read_dump(tmp_path / "d", "pta", scratch) is None
    assert read_dump(tmp_path / "d" / "notes.txt", "pta", scratch) is None
    np.save(tmp_path / "d" / "x.npy", np.zeros(1))
    assert read_dump(tmp_path / "d", "pta", scratch) is not None
    (tmp_path / "d" / "run.json").write_text("{}")
    assert read_dump(tmp_path / "d", "pta", scratch) is None
    assert not scratch.exists()


def test_the_first_tool_that_fits_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    tools = []
    np.save(folder / "x.npy", np.zeros(1))
    tools.append(read(folder).tool)
    (folder / "step=0___rank=0___dump_index=1___name=x.pt").write_bytes(b"")
    tools.append(read(folder).tool)
    write_atb(folder / "data/0_77/0/0_Op/after/outtensor0.bin", np.zeros(1, np.float32))
    tools.append(read(folder).tool)
    (folder / "step0" / "rank0").mkdir(parents=True)
    (folder / "step0" / "rank0" / "dump.json").write_text(json.dumps({"task": "tensor", "data": {}}))
    tools.append(read(folder).tool)
    assert tools == ["tensor files", "SGLang's dumper", "ATB", "msprobe"]


@pytest.mark.parametrize("side", ["pta", "acl"])
def test_the_comparison_reads_what_is_indexed(tmp_path: Path, side: str) -> None:
    (tmp_path / "d").mkdir()
    whole = {f"x{k}": sample("float32", shape, k) for k, shape in enumerate([(2, 3), (), (0, 4), (700, 30)])}
    arrays: dict[str, Any] = {**whole, "order": np.array(whole["x3"], order="F")}
    np.savez(tmp_path / "d" / "a_rank1.npz", **arrays)
    (index,) = read(tmp_path / "d", side).indices
    held = merge_processes([index])
    assert [each.record.data_id for each in held] == [*whole, "order"]
    assert (index.header.rank, index.header.world_size, index.header.pid) == (1, 2, 0)
    for each, bits in zip(held, [*whole.values(), whole["x3"]], strict=True):
        assert (each.dtype, each.shape, each.record.side) == ("float32", bits.shape, side)
        assert same_bits(np.array(open_bits(each.source).bits).reshape(bits.shape), bits)


def test_folders_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    (tmp_path / "d" / "inner").mkdir(parents=True)
    scan = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ForeignFormatError, match="inner: Permission denied"):
        read_dump(tmp_path / "d", "pta", tmp_path / "scratch")
