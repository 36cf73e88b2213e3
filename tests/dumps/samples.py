"""Helpers of the tests of other tools' dumps: samples of every dtype, and reading back what an index says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import DumpedTensor, NotDumped
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.orchestrator.dumps.dump_index import DumpIndex
from aclcmp.orchestrator.dumps.registry import read_dump
from tests.dumps.atb_writer import values

SHAPES = ((), (1,), (7,), (0,), (3, 0, 2), (2, 3), (5, 1, 4), (2, 3, 4, 5))


def sample(dtype: str, shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[Any]:
    """Return random bits in `DType.memory`, with NaNs and infinities among them; booleans are 0 or 1."""
    memory = DTYPES[dtype].memory
    bits = np.random.default_rng(seed).integers(0, 256, (*shape, memory.itemsize), np.uint8)
    if dtype == "bool":
        bits &= 1
    return np.ascontiguousarray(bits).view(memory).reshape(shape)


def torch_sample(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Any:
    """Return the sample as a torch tensor."""
    import torch

    content = sample(dtype, shape, seed).tobytes()
    flat = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)[: len(content)]
    return flat.clone().view(getattr(torch, dtype)).reshape(shape)


def same_bits(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def read(folder: Path, side: str = "pta") -> DumpIndex:
    """Index a folder, with copies in a folder beside it."""
    index = read_dump(folder, side, folder.parent / f"scratch-{folder.name}")
    assert index is not None
    check(index, side)
    return index


def check(index: DumpIndex, side: str) -> None:
    """Check what must hold for every index."""
    assert all(note.isprintable() for note in index.notes)
    for rank in index.indices:
        assert [record.seq for record in rank.records] == list(range(len(rank.records)))
        keys = {(record.task, record.data_id, record.occurrence) for record in rank.records}
        assert len(keys) == len(rank.records) == len(rank.dumped)
        for record in rank.records:
            assert record.side == side and Path(record.tensor_path).is_absolute()
            assert record.data_id and record.data_id.isprintable()
            assert LabelRecord.from_fields(json.loads(record.to_json())) == record
            found = rank.dumped[record.seq]
            if isinstance(found, NotDumped):
                assert found.reason.isprintable() and found.reason
            else:
                end = found.offset + values(found).nbytes
                assert 0 <= found.offset <= end <= Path(found.path).stat().st_size


def tensors(index: DumpIndex) -> Iterator[tuple[int, LabelRecord, DumpedTensor | NotDumped]]:
    """Yield rank, label and tensor in order."""
    for rank in index.indices:
        for record in rank.records:
            yield rank.header.rank, record, rank.dumped[record.seq]


def by_name(index: DumpIndex, rank: int = 0, task: int = 0) -> dict[str, DumpedTensor]:
    """Return a rank's tensors by name; all must be there, once each."""
    found: dict[str, DumpedTensor] = {}
    for each, record, tensor in tensors(index):
        if (each, record.task) == (rank, task):
            assert isinstance(tensor, DumpedTensor), tensor
            assert record.data_id not in found
            found[record.data_id] = tensor
    return found


def reasons(index: DumpIndex) -> dict[str, str]:
    """Return why tensors cannot be read, by name."""
    return {record.data_id: found.reason for _, record, found in tensors(index) if isinstance(found, NotDumped)}
