"""Time to compare rows that are gathered by index, next to the same bytes in one piece.

    python benchmarks/bench_rows.py [FOLDER]

A label [8192, 1024] is compared with a golden one in one piece, with checksums, through `read_pair_stats`: its rows lie
in random order in one record, in 8,192 records of one row, as decode steps leave them, without and with other labels in
between, and in records of 512 rows. Rounds are interleaved, each of them takes all checksums anew, and medians count.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.checksum import payload_checksum
from aclcmp.orchestrator.compare import gathered_rows
from aclcmp.orchestrator.compare.kernels import memory_map
from aclcmp.orchestrator.compare.pair import read_pair_stats
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, RowPlaces, Source

SHAPE = (8192, 1024)
ROUNDS = 21
BAR = 1.5


def contiguous(path: Path, bits: npt.NDArray[np.uint8], dtype: str) -> Source:
    """Write rows in one piece."""
    path.write_bytes(bits.tobytes())
    return Source(str(path), 0, dtype, SHAPE, nbytes=bits.size, checksum=payload_checksum(bits.reshape(-1)))


def gathered(
    path: Path,
    bits: npt.NDArray[np.uint8],
    dtype: str,
    rows: int,
    order: npt.NDArray[np.int32] | None = None,
    gap: int = 0,
) -> Source:
    """Write pieces of some rows, with a gap behind each; row i of the label is stored as row `order[i]`."""
    order = np.arange(len(bits), dtype=np.int32) if order is None else order
    stored = np.empty_like(bits)
    stored[order] = bits
    pieces = stored.reshape(-1, rows * bits.shape[1])
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece.tobytes() + bytes(gap))
    count = len(pieces)
    places = RowPlaces(
        paths=(str(path),),
        file=np.zeros(count, np.int32),
        offset=np.arange(count, dtype=np.int64) * (pieces.shape[1] + gap),
        rows=np.full(count, rows, np.int64),
        checksum=np.array([payload_checksum(piece) for piece in pieces], np.uint64),
        piece=(order // rows).astype(np.int32),
        row=(order % rows).astype(np.int32),
    )
    return Source(str(path), 0, dtype, SHAPE, places=places)


def timed(pair: Pair) -> float:
    """Return the seconds of a comparison in which all checksums are taken."""
    memory_map._checked.clear()
    gathered_rows._checked.clear()
    begun = time.perf_counter()
    read_pair_stats(pair)
    return time.perf_counter() - begun


def main() -> None:
    """Print the times and ratios of each dtype."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for dtype, itemsize in (("float32", 4), ("bfloat16", 2)):
            rng = np.random.default_rng(0)
            values = rng.standard_normal(SHAPE, np.float32).view(np.uint32)
            bits = (values if itemsize == 4 else (values >> 16).astype(np.uint16)).view(np.uint8)
            write: Callable[..., Source] = partial(gathered, bits=bits, dtype=dtype)
            sides = {
                "in one piece": contiguous(Path(folder, "whole"), bits, dtype),
                "one record, random order": write(
                    Path(folder, "random"), rows=SHAPE[0], order=rng.permutation(SHAPE[0]).astype(np.int32)
                ),
                "8,192 records of a row": write(Path(folder, "steps"), rows=1),
                "the same, 4 KiB in between": write(Path(folder, "apart"), rows=1, gap=4096),
                "records of 512 rows": write(Path(folder, "chunks"), rows=512),
            }
            golden = contiguous(Path(folder, "golden"), bits, dtype)
            region = Region.whole(SHAPE)
            pair = Pair(LabelKey(0, "x", 0), 0, golden, region, golden, region, SHAPE, region, "whole")
            pairs = {name: replace(pair, actual=side) for name, side in sides.items()}
            stats = [read_pair_stats(each) for each in pairs.values()]
            assert all(each.n_equal == stats[0].n for each in stats)
            times = np.median([[timed(each) for each in pairs.values()] for _ in range(ROUNDS)], axis=0)
            print(f"{dtype} {list(SHAPE)}, golden in one piece, checksums taken; medians of {ROUNDS}")
            for name, seconds in zip(pairs, times.tolist(), strict=True):
                ratio = seconds / times[0]
                told = "" if name == "in one piece" else f"bar {BAR}: {'pass' if ratio <= BAR else 'FAIL'}"
                print(f"  {name:26} {1e3 * seconds:6.1f} ms   {ratio:5.2f}   {told}")


if __name__ == "__main__":
    main()
