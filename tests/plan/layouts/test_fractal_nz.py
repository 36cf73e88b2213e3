"""FRACTAL_NZ: a matrix stored in column blocks is compared with its plain form, block by block."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aclcmp.labeling.shard.dumped_tensor import DumpedTensor
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.core.plan import GapKind
from aclcmp.orchestrator.core.regions import Source
from aclcmp.orchestrator.plan.layouts.fractal_nz import column_blocks, plain_shape
from aclcmp.orchestrator.plan.planner import plan_run
from tests.plan.test_planner import index, label


def fractal(plain: np.ndarray, width: int, height: int = 16) -> np.ndarray:
    """(..., M, N) as (..., N1, M1, height, width), padded with NaN: padding must never be compared."""
    *batch, rows, columns = plain.shape
    padded = np.full((*batch, -(-rows // height) * height, -(-columns // width) * width), np.nan, plain.dtype)
    padded[..., :rows, :columns] = plain
    blocks = padded.reshape(*batch, padded.shape[-2] // height, height, padded.shape[-1] // width, width)
    return np.ascontiguousarray(np.moveaxis(blocks, -2, len(batch)))


@given(
    st.lists(st.integers(1, 3), max_size=2),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([8, 16]),
    st.booleans(),
)
def test_blocks_cover_the_matrix_once(batch: list[int], rows: int, columns: int, width: int, merged: bool) -> None:
    plain = np.arange(math.prod(batch) * rows * columns, dtype=np.float32).reshape(*batch, rows, columns)
    stored = fractal(plain, width)
    if merged:  # ATB writes (batch, N1, M, width)
        stored = stored.reshape(math.prod(batch), stored.shape[-4], -1, width)
    blocks = column_blocks(Source("f", 0, "float32", stored.shape), plain.shape)
    assert blocks is not None
    seen = np.full(plain.shape, -1.0, np.float32)
    flat = stored.reshape(-1)
    for source, inner, whole in blocks:
        start = source.offset // 4
        block = flat[start : start + math.prod(source.shape)].reshape(source.shape)
        here = whole.slices
        assert (seen[here] == -1).all()
        seen[here] = block[inner.slices]
    assert np.array_equal(seen, plain)


@pytest.mark.parametrize("shape", [(), (0, 4), (5, 0), (40, 16), (16, 16), (3, 17, 16), (32, 48)])
def test_what_cannot_be_is_told(shape: tuple[int, ...]) -> None:
    assert column_blocks(Source("f", 0, "float16", (1, 2, 16, 16)), shape) is None


def of_dump(tmp_path: Path, golden: np.ndarray, stored: np.ndarray) -> ShardIndex:
    (tmp_path / "g.bin").write_bytes(golden.tobytes())
    (tmp_path / "a.bin").write_bytes(b"head" + stored.tobytes())
    made = index(
        0,
        label("x", "pta", 0, shape=golden.shape, offset=0, nbytes=golden.nbytes),
        label("x", "acl", 1, shape=(), tensor_path="a.bin", offset=None, dtype=""),
        world_size=1,
    )
    dump = DumpedTensor(str(tmp_path / "a.bin"), 4, "float32", stored.shape, fractal_nz=True)
    return ShardIndex(made.files, made.header, made.records, dumped={1: dump})


def test_the_pairs_of_a_blocked_dump_add_up(tmp_path: Path) -> None:
    golden = np.random.default_rng(0).standard_normal((2, 20, 37)).astype(np.float32)
    actual = golden.copy()
    actual[1, 19, 36] += 3
    plan = plan_run([of_dump(tmp_path, golden, fractal(actual, 16))], 1)
    assert len(plan.pairs) == 6 and plan.comparable == 1 and not plan.gaps
    (tmp_path / "shards").mkdir()
    for pair in plan.pairs:
        assert pair.whole_shape == golden.shape
    merged = None
    for pair in plan.pairs:
        source = Source(str(tmp_path / "g.bin"), 0, "float32", golden.shape)
        found = read_pair_stats(replace(pair, golden=source))
        merged = found if merged is None else merged.merge(found)
    assert merged is not None
    assert (merged.n, merged.n_finite, merged.n - merged.n_equal) == (golden.size, golden.size, 1)
    assert merged.max_abs_d_index == golden.size - 1
    assert merged.rows.index.size == 40


@pytest.mark.parametrize(("shape", "dim"), [((37, 64), 1), ((37, 64), 0), ((2, 5, 96), 2), ((2, 64, 20), 1)])
@pytest.mark.parametrize("merged", [False, True])
def test_a_slice_in_blocks_has_a_plain_shape(shape: tuple[int, ...], dim: int, merged: bool) -> None:
    sliced = list(shape)
    sliced[dim] = 32 if dim == len(shape) - 1 or shape[dim] == 64 else shape[dim]
    plain = np.zeros(sliced, np.float32)
    stored = fractal(plain, 16).shape
    if merged:
        stored = (math.prod(shape[:-2]), stored[-4], stored[-3] * stored[-2], 16)
    assert plain_shape(Source("f", 0, "float32", stored), shape) == tuple(sliced)


def test_slices_in_blocks_are_compared_in_place(tmp_path: Path) -> None:
    golden = np.random.default_rng(0).standard_normal((37, 64)).astype(np.float32)
    indices = []
    for rank, part in enumerate(np.split(golden, 2, axis=1)):
        part = part.copy()
        part[36, 31] += rank
        (tmp_path / str(rank)).mkdir()
        made = of_dump(tmp_path / str(rank), golden, fractal(part, 16))
        header = replace(made.header, rank=rank, world_size=2)
        indices.append(ShardIndex(ShardFiles(tmp_path, rank), header, made.records, dumped=made.dumped))
    plan = plan_run(indices, 2)
    assert not plan.gaps and len(plan.pairs) == 4 and plan.comparable == 2
    for pair in plan.pairs:
        source = Source(str(tmp_path / str(pair.rank) / "g.bin"), 0, "float32", golden.shape)
        found = read_pair_stats(replace(pair, golden=source))
        wrong = pair.rank == 1 and pair.region.start[1] == 48
        assert found.n == 37 * 16 and found.n - found.n_equal == wrong
        assert not wrong or found.max_abs_d_index == golden.size - 1


def test_a_blocked_dump_of_another_shape_is_a_mismatch(tmp_path: Path) -> None:
    golden = np.zeros((64, 16), np.float32)
    plan = plan_run([of_dump(tmp_path, golden, np.zeros((1, 1, 16, 16), np.float32))], 1)
    assert [gap.kind for gap in plan.gaps] == [GapKind.MISMATCH]
