"""Time of comparing a sharded tensor with a whole golden one, as a ratio to comparing the same bytes unsharded.

    python benchmarks/bench_layouts.py [MIB]

One golden tensor of MIB (default 256) of float32, then of bfloat16, 4,096 columns; actual: the same values whole, and
split over 8 ranks in several layouts, planned as always and compared in this process. Each layout's figure
is the median of seven ratios, each taken right after the unsharded comparison. Bound: 1.3.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.layout import Layout, Placement, Shard
from aclcmp.labeling.shard.journal import ShardHeader
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.labeling.shard.shard_files import ShardFiles
from aclcmp.labeling.shard.shard_index import ShardIndex
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.core.regions import Pair
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.plan.planner import plan_two

RANKS, COLUMNS, ROUNDS = 8, 4096, 7

Array = npt.NDArray[np.generic]


def write_and_index(
    folder: Path, side: str, dtype: str, tensors: list[Array], placements: list[tuple[Placement, ...]]
) -> list[ShardIndex]:
    """Write each rank's tensor to a plain file, and return the index of each."""
    folder.mkdir()
    indices = []
    for rank, tensor in enumerate(tensors):
        tensor.tofile(folder / f"rank{rank:05d}.h5")
        layout = Layout(placements[rank]) if placements[rank] else None
        record = LabelRecord(
            *(0, "x", 0, side, 0, 0.0, "f:1", dtype, tensor.shape, "cpu", layout),
            offset=0,
            nbytes=tensor.nbytes,
            checksum=rank,
        )
        header = ShardHeader("r", rank, len(tensors), rank, 0, "here", 1, 0.0)
        indices.append(ShardIndex(ShardFiles(folder, rank, 0), header, (record,)))
    return indices


def layouts(whole: Array) -> dict[str, tuple[list[Array], list[tuple[Placement, ...]]]]:
    """Return, by name, the ways in which 8 ranks share the tensor: each rank's tensor and its placements."""
    rows, columns = (np.split(whole, RANKS, axis=axis) for axis in (0, 1))
    q, k, v = whole[:, :2048], whole[:, 2048:3072], whole[:, 3072:]
    fused = [[np.split(part, RANKS, axis=1)[rank] for part in (q, k, v)] for rank in range(RANKS)]
    chunks = np.split(whole, 2 * RANKS, axis=0)
    zigzag = [np.concatenate([chunks[rank], chunks[-1 - rank]]) for rank in range(RANKS)]
    mesh = [np.split(np.split(whole, 2, axis=0)[rank // 4], 4, axis=1)[rank % 4] for rank in range(RANKS)]
    of_mesh = [
        (Shard(0, ranks=range(r % 4, 8, 4)), Shard(1, ranks=range(r // 4 * 4, r // 4 * 4 + 4))) for r in range(RANKS)
    ]
    return {
        "rows, inferred": (rows, [()] * RANKS),
        "columns, inferred": (columns, [()] * RANKS),
        "columns in 3 fused parts": (
            [np.concatenate(f, axis=1) for f in fused],
            [(Shard(1, parts=(2048, 1024, 1024)),)] * RANKS,
        ),
        "rows in zigzag order": (zigzag, [(Shard(0, zigzag=True),)] * RANKS),
        "a mesh of 2 x 4": (mesh, of_mesh),
    }


def time_pairs(pairs: list[Pair]) -> tuple[float, PairStats]:
    """Compare pairs one after the other; return seconds and the merged statistics."""
    start = time.perf_counter()
    merged = PairStats.empty()
    for pair in pairs:
        merged = merged.merge(read_pair_stats(pair))
    return time.perf_counter() - start, merged


def measure(folder: Path, dtype: str, mib: int, make: Callable[[int], Array]) -> None:
    """Print a line for each layout."""
    whole = make(mib << 20)
    golden = write_and_index(folder / "golden", "pta", dtype, [whole], [()])
    actual = write_and_index(folder / "actual", "acl", dtype, [whole], [()])
    unsharded = plan_two(golden, actual, 1).pairs
    expected = time_pairs(unsharded)[1]
    for number, (name, (tensors, placements)) in enumerate(layouts(whole).items()):
        sides = write_and_index(folder / f"sharded{number}", "acl", dtype, tensors, placements)
        pairs = plan_two(golden, sides, RANKS).pairs
        stats = time_pairs(pairs)[1]
        assert stats.n == stats.n_equal == expected.n, name
        ratios = [time_pairs(pairs)[0] / time_pairs(unsharded)[0] for _ in range(ROUNDS)]
        rate = 2 * whole.nbytes / time_pairs(unsharded)[0] / 1e9
        print(f"{dtype:9} {name:26} {statistics.median(ratios):.2f} times the time of the whole ({rate:.1f} GB/s)")


def main() -> None:
    """Print the table."""
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    load_library()
    random = np.random.default_rng(0)
    for dtype, make in (
        ("float32", lambda size: random.standard_normal(size // 4, np.float32).reshape(-1, COLUMNS)),
        (
            "bfloat16",
            lambda size: (
                (random.standard_normal(size // 2, np.float32).view(np.uint32) >> 16)
                .astype(np.uint16)
                .reshape(-1, COLUMNS)
            ),
        ),
    ):
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), dtype, mib, make)


if __name__ == "__main__":
    main()
