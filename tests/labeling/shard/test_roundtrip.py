"""Every kind of tensor comes back bit for bit, and a sealed shard is ordinary HDF5."""

import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles, dataset_name, escape, parse_segment, shards_in
from aclcmp.labeling.shard.shard_reader import read_label, read_shard
from aclcmp.labeling.shard.shard_writer import ShardWriter
from tests.labeling.shard.conftest import bits_of, record_of


@pytest.mark.parametrize("dtype", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 0, 4), (7, 2, 3)])
def test_every_dtype_and_shape_bit_for_bit(
    tmp_path: Path, header: ShardHeader, dtype: str, shape: tuple[int, ...]
) -> None:
    nbytes = int(np.prod(shape)) * DTYPES[dtype].itemsize
    bits = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 256, nbytes, np.uint8)
    record = LabelRecord(0, "x", 0, "pta", 0, 0.0, "f:1", dtype, shape, "cpu")
    writer = ShardWriter(tmp_path, header)
    writer.add(record, bits)
    torn = read_shard(writer.files)
    writer.close()
    sealed = read_shard(writer.files)
    for index in (torn, sealed):
        (label,) = index.records
        assert read_label(index, label).reshape(-1).view(np.uint8).tobytes() == bits.tobytes()
        assert (label.dtype, label.shape) == (dtype, shape)
    assert torn.torn and not sealed.torn


def test_bfloat16_and_float16_have_right_values_in_plain_h5py(tmp_path: Path, header: ShardHeader) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    codes = np.arange(65536, dtype=np.uint16)
    writer = ShardWriter(tmp_path, header)
    writer.add(LabelRecord(0, "b", 0, "pta", 0, 0.0, "f:1", "bfloat16", (65536,), "cpu"), codes.view(np.uint8))
    writer.close()
    with h5py.File(writer.files.segment(0)) as file:
        dataset = file[dataset_name(0, "b", 0, "pta")]
        assert dataset.attrs["torch_dtype"] in ("bfloat16", b"bfloat16")
        np.testing.assert_array_equal(dataset[:], codes.view(ml_dtypes.bfloat16).astype(np.float32))


def test_sealed_shard_is_ordinary(tmp_path: Path, header: ShardHeader) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    writer = ShardWriter(tmp_path, header)
    writer.add(record_of(values, "layers/0/%odd", 0), bits_of(values))
    writer.note(LabelRecord(0, "bad", 0, "acl", 1, 0.5, "f:2", error="no such thing"))
    writer.close()
    path = writer.files.segment(0)
    writer.files.journal.unlink()
    index = read_shard(writer.files)
    assert [record.data_id for record in index.records] == ["layers/0/%odd", "bad"]
    assert index.records[1].error == "no such thing"
    assert index.header == header
    with h5py.File(path) as file:
        dataset = file["tasks/0"][escape("layers/0/%odd")]["0/pta"]
        np.testing.assert_array_equal(dataset[:], values)
        assert dict(dataset.attrs)["seq"] == 0
        assert file.attrs["rank"] == 3
        table = pandas.DataFrame(file["labels"][:])
    assert list(table["data_id"]) == [b"layers/0/%odd", b"bad"]
    if shutil.which("h5dump"):
        subprocess.run(["h5dump", "-H", path], check=True, capture_output=True)


def test_segments_roll(tmp_path: Path, header: ShardHeader) -> None:
    values = np.zeros(1000, np.float32)
    writer = ShardWriter(tmp_path, header, segment_bytes=10_000)
    for number in range(10):
        writer.add(record_of(values + number, f"x{number}", number), bits_of(values + number))
    middle = read_shard(writer.files)
    writer.close()
    assert writer.files.segments() == [0, 1, 2, 3]
    for index in (middle, read_shard(writer.files)):
        assert [float(read_label(index, record)[0]) for record in index.records] == list(range(10))


def test_two_processes_of_a_rank_write_two_shards(tmp_path: Path, header: ShardHeader) -> None:
    first, second = ShardWriter(tmp_path, header), ShardWriter(tmp_path, header)
    for writer in (first, second):
        values = np.ones(3)
        writer.add(record_of(values, "x", 0), bits_of(values))
        writer.close()
    assert shards_in(tmp_path) == [first.files, second.files]
    assert second.files.segment(0).name == "rank00003-1.h5"


def test_weird_folders(weird_path: Path, header: ShardHeader) -> None:
    writer = ShardWriter(weird_path, header)
    values = np.ones(3)
    writer.add(record_of(values, "x", 0), bits_of(values))
    writer.close()
    assert len(read_shard(writer.files).records) == 1


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=50))
def test_escape_is_one_to_one_and_legal(name: str) -> None:
    import urllib.parse

    escaped = escape(name)
    assert "/" not in escaped and escaped not in (".", "..")
    assert urllib.parse.unquote(escaped) == name


@pytest.mark.parametrize("number", [0, 1, 12])
@pytest.mark.parametrize("process", [0, 2])
def test_names_parse_back(number: int, process: int) -> None:
    files = ShardFiles(Path("d"), 7, process)
    assert parse_segment(files.segment(number)) == (files, number)
    assert parse_segment(Path("report.h5")) is None
