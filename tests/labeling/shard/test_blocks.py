"""Small tensors lie one after the other in blocks; each is read on its own, by us and by any reader of HDF5."""

from itertools import pairwise
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.plain import check_plain
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.recovery import recover
from aclcmp.labeling.shard.shard_files import dataset_name
from aclcmp.labeling.shard.shard_reader import read_label, read_shard
from aclcmp.labeling.shard.shard_writer import ShardWriter

HEADER = ShardHeader("20260101-000000", 3, 8, 3, 0, "host-a", 42, 1.5, {"aclcmp": "0.1.0"})
OWN = 1 << 16
"""Bytes from which a tensor has a dataset of its own."""
SHAPES = st.one_of(
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
    st.integers(OWN // 8 - 2, OWN // 8 + 2).map(lambda count: (count,)),  # of 8 bytes each: at the limit
    st.integers(1, 40_000).map(lambda count: (count, 2)),
)


def bits(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    nbytes = prod(shape) * DTYPES[dtype].itemsize
    drawn = np.random.default_rng(seed).integers(0, 256, nbytes, np.uint8)
    return drawn % 2 if dtype == "bool" else drawn


def write(folder: Path, tensors: list[tuple[str, tuple[int, ...]]]) -> ShardWriter:
    writer = ShardWriter(folder, HEADER)
    for seq, (dtype, shape) in enumerate(tensors):
        record = LabelRecord(0, f"x{seq}", 0, "pta", seq, 0.5, "model.py:1", dtype, shape, "cpu")
        writer.add(record, bits(dtype, shape, seq))
    return writer


def check(writer: ShardWriter, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    """Check all bytes, and that no two tensors share any."""
    index = read_shard(writer.files)
    assert len(index.records) == len(tensors)
    for record, (dtype, shape) in zip(index.records, tensors, strict=True):
        stored = read_label(index, record)
        assert not record.error and stored.shape == shape
        assert (stored.reshape(-1).view(np.uint8) == bits(dtype, shape, record.seq)).all()
    places = sorted((record.offset or 0, record.nbytes) for record in index.records if record.nbytes)
    assert all(begin + nbytes <= after for (begin, nbytes), (after, _) in pairwise(places))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(DTYPES)), SHAPES), min_size=1, max_size=40))
def test_every_mixture_is_read_back_while_written_sealed_and_rebuilt(
    tensors: list[tuple[str, tuple[int, ...]]],
) -> None:
    with TemporaryDirectory() as folder:
        writer = write(Path(folder), tensors)
        check(writer, tensors)
        writer.close()
        check(writer, tensors)
        with h5py.File(writer.files.segment(0)) as file:
            for seq, (dtype, shape) in enumerate(tensors):
                dataset = file[dataset_name(0, f"x{seq}", 0, "pta")]
                assert dataset.shape == shape and dataset.attrs["torch_dtype"] == dtype.encode()
                if dtype != "bfloat16":  # plain h5py converts it
                    plain = np.ascontiguousarray(dataset[()]).reshape(-1).view(np.uint8)
                    assert (plain == bits(dtype, shape, seq)).all()
    with TemporaryDirectory() as folder:
        writer = write(Path(folder), tensors)
        writer.detach()
        assert not recover(writer.files.journal).lost
        check(writer, tensors)


def test_few_datasets_hold_many_small_tensors(tmp_path: Path) -> None:
    """A decode step's tensors: 2,000 of 4.6 kB in the same number of blocks however many layers and steps they are."""
    tensors: list[tuple[str, tuple[int, ...]]] = [("bfloat16", (4, 576))] * 2000
    writer = write(tmp_path, tensors)
    writer.close()
    with h5py.File(writer.files.segment(0)) as file:
        blocks = list(file["blocks/bfloat16"].values())
        assert len(blocks) < 20
        used = 2000 * 4 * 576 * 2
        assert used <= sum(2 * block.size for block in blocks) < used + (1 << 20) + len(blocks) * 4608
        assert all(block.chunks is None for block in blocks)


def test_sealed_shard_moves_to_another_name(tmp_path: Path) -> None:
    """Views name no file but their own."""
    writer = write(tmp_path, [("float32", (5,))])
    writer.close()
    moved = tmp_path / "elsewhere" / "moved.h5"
    moved.parent.mkdir()
    writer.files.segment(0).rename(moved)
    with h5py.File(moved) as file:
        assert (file["tasks/0/x0/0/pta"][:].view(np.uint8) == bits("float32", (5,), 0)).all()


def test_views_count_by_what_they_show(tmp_path: Path) -> None:
    """Many views of one block would unpack to more than any shard holds."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("block", data=np.zeros(1 << 20, np.uint8))
        for number in range(600):
            layout = h5py.VirtualLayout((1 << 20,), np.uint8)
            layout[:] = h5py.VirtualSource(".", "block", (1 << 20,))
            file.create_virtual_dataset(f"view{number}", layout)
    with h5py.File(path) as file, pytest.raises(ValueError, match="would unpack"):
        check_plain(file)
