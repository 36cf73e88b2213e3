"""Rows gathered from stored pieces against the same rows in one piece, and damaged files."""

from __future__ import annotations

import ctypes
import itertools
import os
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from aclcmp.labeling.errors import ShardError
from aclcmp.labeling.shard.checksum import payload_checksum
from aclcmp.orchestrator.compare import gathered_rows, remote_reads
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.compare.remote_reads import read_dense
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, RowPlaces, Source
from tests.compare.conftest import TARGETS
from tests.processes import memory_growth


def stored(folder: Path, rows: np.ndarray, sizes: list[int], rng: np.random.Generator, shift: int) -> RowPlaces:
    """The rows in pieces of these sizes, in random order, over two files; `shift` bytes before each piece."""
    order = rng.permutation(len(rows))
    bounds = np.cumsum([0, *sizes])
    piece_of = np.repeat(np.arange(len(sizes)), sizes)
    contents, offsets, checksums = [bytearray(), bytearray()], [], []
    for number, (begin, end) in enumerate(itertools.pairwise(bounds.tolist())):
        piece = np.ascontiguousarray(rows[np.argsort(order)][begin:end]).reshape(-1).view(np.uint8)
        content = contents[number % 2]
        content += bytes(shift)
        offsets.append(len(content))
        content += piece.tobytes()
        checksums.append(payload_checksum(piece))
    paths = tuple(str(folder / name) for name in ("even", "odd"))
    for path, content in zip(paths, contents, strict=True):
        Path(path).write_bytes(bytes(content) or b"-")
    return RowPlaces(
        paths,
        np.arange(len(sizes), dtype=np.int32) % 2,
        np.array(offsets, np.int64),
        np.array(sizes, np.int64),
        np.array(checksums, np.uint64),
        piece_of[order].astype(np.int32),
        (order - bounds[piece_of[order]]).astype(np.int32),
    )


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.sampled_from(["float32", "float64", "int16", "uint8"]),
    st.sampled_from([(3,), (70,), (5, 33), ()]),
    st.sampled_from([0, 8, 3]),
    st.sampled_from([16, 4 << 20]),
    st.sampled_from([0, 600, 64 << 10]),
    st.integers(0, 99),
)
def test_rows_compare_as_if_they_lay_in_one_piece(
    tmp_path: Path,
    sizes: list[int],
    dtype: str,
    features: tuple[int, ...],
    shift: int,
    window: int,
    largest_read: int,
    seed: int,
) -> None:
    """All pieces are mapped, or read into memory, or some are."""
    rng = np.random.default_rng(seed)
    shape = (sum(sizes), *features)
    rows, golden = (rng.integers(0, 100, shape).astype(dtype) for _ in "xy")
    places = stored(tmp_path, rows, sizes, rng, shift)
    (tmp_path / "golden").write_bytes(golden.tobytes())
    (tmp_path / "whole").write_bytes(rows.tobytes())
    x = Source(str(tmp_path / "golden"), 0, dtype, shape)
    scattered = Source(places.paths[0], 0, dtype, shape, places=places)
    whole = Source(str(tmp_path / "whole"), 0, dtype, shape)
    start = tuple(int(rng.integers(0, size)) for size in shape)
    box = Region(start, tuple(int(rng.integers(1, size - at + 1)) for at, size in zip(start, shape, strict=True)))
    for region in (Region.whole(shape), box):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gathered_rows, "_LARGEST_READ", largest_read)
            found, expected = (
                read_pair_stats(Pair(LabelKey(0, "x", 0), 0, x, region, y, region, shape, region, ""))
                for y in (scattered, whole)
            )
        assert found.n_equal == expected.n_equal and found.max_abs_d == expected.max_abs_d
        assert found.sum_dd == pytest.approx(expected.sum_dd, rel=1e-12)
        assert found.max_abs_d_index == expected.max_abs_d_index
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(remote_reads, "_WINDOW_BYTES", window)
            patch.setattr(gathered_rows, "_LARGEST_READ", largest_read)
            np.testing.assert_array_equal(read_dense((scattered, region)), read_dense((whole, region)))


@pytest.mark.parametrize("largest_read", [0, 64 << 10])
@pytest.mark.parametrize("width", [8, 5000, 2_000_000])
def test_damage_in_a_row_that_is_read_or_not_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, largest_read: int
) -> None:
    monkeypatch.setattr(gathered_rows, "_LARGEST_READ", largest_read)
    rows = np.ones((3, width), np.float32)
    places = stored(tmp_path, rows, [1, 1, 1], np.random.default_rng(0), 0)
    source = Source(places.paths[0], 0, "float32", rows.shape, places=places)
    first = Region((0, 0), (1, width))
    pair = Pair(LabelKey(0, "x", 0), 0, source, first, source, first, rows.shape, first, "")
    gathered_rows._checked.clear()
    for path in places.paths:
        content = bytearray(Path(path).read_bytes())
        content[-1] ^= 1
        Path(path).write_bytes(content)
    with pytest.raises(ShardError, match="checksum is wrong"):
        read_pair_stats(pair)
    Path(places.paths[0]).write_bytes(b"short")
    with pytest.raises(ShardError, match="has 5 bytes"):
        read_pair_stats(pair)


def test_a_file_that_is_cut_while_it_is_read_is_told(tmp_path: Path) -> None:
    values = np.ones((64, 4096), np.float32)
    places = stored(tmp_path, values, [1] * 64, np.random.default_rng(0), 0)
    rows = gathered_rows.GatheredRows(Source(places.paths[0], 0, "float32", values.shape, places=places))
    gathered_rows._checked.clear()
    for path in places.paths:
        os.truncate(path, 4096)
    with pytest.raises(ShardError, match="it was cut while it was compared"):
        rows.prepare(0, 64)
    rows.read(Region.whole(values.shape))
    with pytest.raises(ShardError, match="it was cut while it was compared"):
        rows.check()


def test_a_file_that_is_cut_before_its_small_pieces_are_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.ones((8, 64), np.float32)
    places = stored(tmp_path, values, [1] * 8, np.random.default_rng(0), 4096)
    lie_apart = gathered_rows.GatheredRows._lie_apart

    def cut_then_look(rows: gathered_rows.GatheredRows) -> np.ndarray:
        os.truncate(places.paths[1], 4096)
        return lie_apart(rows)

    monkeypatch.setattr(gathered_rows.GatheredRows, "_lie_apart", cut_then_look)
    with pytest.raises(ShardError, match="odd: could not be read to its end: it was cut while it was compared"):
        gathered_rows.GatheredRows(Source(places.paths[0], 0, "float32", values.shape, places=places))


def zeros(folder: Path, pieces: int, rows: int, width: int, gap: int = 0) -> Source:
    """All rows of equal pieces of zeros, which take no disk, with a gap behind each."""
    nbytes = rows * width * 4
    (folder / "pieces").touch()
    os.truncate(folder / "pieces", pieces * (nbytes + gap))
    places = RowPlaces(
        (str(folder / "pieces"),),
        np.zeros(pieces, np.int32),
        np.arange(pieces, dtype=np.int64) * (nbytes + gap),
        np.full(pieces, rows, np.int64),
        np.full(pieces, payload_checksum(np.zeros(nbytes, np.uint8)), np.uint64),
        np.repeat(np.arange(pieces, dtype=np.int32), rows),
        np.tile(np.arange(rows, dtype=np.int32), pieces),
    )
    return Source(places.paths[0], 0, "float32", (pieces * rows, width), places=places)


@pytest.mark.parametrize("is_read", [True, False])
def test_few_pieces_stay_in_memory_after_they_are_hashed(tmp_path: Path, is_read: bool) -> None:
    gathered_rows._checked.clear()
    rows = gathered_rows.GatheredRows(zeros(tmp_path, 64, 4, 1 << 18))
    with memory_growth([psutil.Process()]) as growth:
        if is_read:
            rows.prepare(0, 64 * 4)
        rows.check()
    assert max(growth) < 96 << 20


@pytest.mark.parametrize("pieces", [1200, 2000])
def test_small_pieces_are_read_into_memory_only_if_they_are_few(tmp_path: Path, pieces: int) -> None:
    """Of 48 KiB each; the files of those that are too many stay in memory in part, too."""
    gathered_rows._checked.clear()
    source = zeros(tmp_path, pieces, 3, 4096, 256 << 10)
    with memory_growth([psutil.Process()]) as growth:
        rows = gathered_rows.GatheredRows(source)
        addresses = rows.addresses(Region.whole(source.shape))
        for begin in range(0, pieces * 3, 300):
            rows.prepare(begin, begin + 300)
        rows.check()
    assert max(growth) < 96 << 20
    assert addresses is not None and (addresses % 16 == 0).all()
    assert len(rows._copies) == (pieces * (48 << 10) if pieces == 1200 else 0)


def test_more_files_than_may_be_open_twice(tmp_path: Path) -> None:
    """Each mapped file keeps a descriptor; to read small pieces takes one more, whatever their number."""
    paths = [tmp_path / str(number) for number in range(120)]
    for path in paths:
        path.write_bytes(bytes(256))
    number, zero = np.arange(120, dtype=np.int32), np.zeros(120, np.int64)
    checksums = np.full(120, payload_checksum(np.zeros(256, np.uint8)), np.uint64)
    places = RowPlaces(tuple(map(str, paths)), number, zero, zero + 1, checksums, number, zero.astype(np.int32))
    source = Source(places.paths[0], 0, "float32", (120, 64), places=places)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 160, limits[1]))
    try:
        rows = gathered_rows.GatheredRows(source)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert rows._is_read.all()
    rows.check()


def test_few_long_rows_stay_in_memory_after_they_are_read(tmp_path: Path) -> None:
    gathered_rows._checked.clear()
    source = zeros(tmp_path, 24, 8, 1 << 18)
    whole = Region.whole(source.shape)
    golden = replace(source, places=None)
    pair = Pair(LabelKey(0, "x", 0), 0, golden, whole, source, whole, source.shape, whole, "")
    with memory_growth([psutil.Process()]) as growth:
        assert read_pair_stats(pair).n_equal == whole.size
    assert max(growth) < 96 << 20


@settings(max_examples=60)
@given(st.lists(st.integers(241, 5000), min_size=1, max_size=5), st.integers(0, 2**32), st.sampled_from(TARGETS))
def test_hashes_are_those_of_xxhash(kernels: ctypes.CDLL, sizes: list[int], seed: int, target: int) -> None:
    kernels.use_target(target)
    pieces = [np.random.default_rng(seed).integers(0, 256, size, np.uint8) for size in sizes]
    addresses, lengths = np.array([each.ctypes.data for each in pieces]), np.array(sizes)
    found = np.empty(len(sizes), np.uint64)
    arrays = [ctypes.c_void_p(each.ctypes.data) for each in (addresses, lengths)]
    kernels.hash_pieces(*arrays, ctypes.c_int64(len(sizes)), ctypes.c_void_p(found.ctypes.data))
    assert found.tolist() == [xxhash.xxh3_64_intdigest(each) for each in pieces]
