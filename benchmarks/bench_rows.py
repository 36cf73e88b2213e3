"""CPU time to compare rows that are gathered by index, next to the same bytes in one piece.

    python benchmarks/bench_rows.py [FOLDER]

A label [8192, 1024] is compared with a golden one in one piece, with checksums, through `read_pair_stats`: its rows lie
in random order in one record; in 8,192 records of one row, as decode steps leave them, without and with other labels in
between; in 1,024 records of 8 rows, with 8 other labels in between; and in records of 512 rows. Rounds are interleaved,
each of them takes all checksums anew, and medians count.

Records are written one by one, as they are recorded: Linux keeps what one call wrote in few large pages, and what
many small calls wrote in pages of 4 KiB, each of which takes time to map. So the second ratio is to the same bytes in
one piece that were written in calls of the same size: it is the cost of gathering alone.
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


def contiguous(path: Path, bits: npt.NDArray[np.uint8], dtype: str, rows: int = SHAPE[0]) -> Source:
    """Write rows in one piece, some of them at a time."""
    with path.open("wb", buffering=0) as file:
        for begin in range(0, len(bits), rows):
            file.write(bits[begin : begin + rows].tobytes())
    return Source(str(path), 0, dtype, SHAPE, nbytes=bits.size, checksum=payload_checksum(bits.reshape(-1)))


def gathered(
    path: Path,
    bits: npt.NDArray[np.uint8],
    dtype: str,
    rows: int,
    order: npt.NDArray[np.int32] | None = None,
    others: int = 0,
) -> Source:
    """Write pieces of some rows, with so many others behind each; row i is stored as row `order[i]`."""
    order = np.arange(len(bits), dtype=np.int32) if order is None else order
    stored = np.empty_like(bits)
    stored[order] = bits
    pieces = stored.reshape(-1, rows * bits.shape[1])
    with path.open("wb", buffering=0) as file:
        for piece in pieces:
            for _ in range(1 + others):
                file.write(piece.tobytes())
    count = len(pieces)
    places = RowPlaces(
        paths=(str(path),),
        file=np.zeros(count, np.int32),
        offset=np.arange(count, dtype=np.int64) * (pieces.shape[1] * (1 + others)),
        rows=np.full(count, rows, np.int64),
        checksum=np.array([payload_checksum(piece) for piece in pieces], np.uint64),
        piece=(order // rows).astype(np.int32),
        row=(order % rows).astype(np.int32),
    )
    return Source(str(path), 0, dtype, SHAPE, places=places)


def timed(pair: Pair) -> float:
    """Return the seconds of CPU time of a comparison in which all checksums are taken."""
    memory_map._checked.clear()
    gathered_rows._checked.clear()
    begun = time.process_time()
    read_pair_stats(pair)
    return time.process_time() - begun


def main() -> None:
    """Print the times and ratios of each dtype."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for dtype, itemsize in (("float32", 4), ("bfloat16", 2)):
            rng = np.random.default_rng(0)
            values = rng.standard_normal(SHAPE, np.float32).view(np.uint32)
            bits = (values if itemsize == 4 else (values >> 16).astype(np.uint16)).view(np.uint8)
            write: Callable[..., Source] = partial(gathered, bits=bits, dtype=dtype)
            order = rng.permutation(SHAPE[0]).astype(np.int32)
            sides = {
                "one record, random order": (SHAPE[0], write(Path(folder, "random"), rows=SHAPE[0], order=order)),
                "8,192 records of a row": (1, write(Path(folder, "steps"), rows=1)),
                "the same, others in between": (1, write(Path(folder, "apart"), rows=1, others=1)),
                "1,024 of 8, others in between": (8, write(Path(folder, "batch"), rows=8, others=8)),
                "records of 512 rows": (512, write(Path(folder, "chunks"), rows=512)),
            }
            golden = contiguous(Path(folder, "golden"), bits, dtype)
            region = Region.whole(SHAPE)
            pair = Pair(LabelKey(0, "x", 0), 0, golden, region, golden, region, SHAPE, region, "whole")
            peers = {rows: contiguous(Path(folder, f"whole {rows}"), bits, dtype, rows) for rows, _ in sides.values()}
            pairs = [replace(pair, actual=side) for side in (*peers.values(), *(side for _, side in sides.values()))]
            stats = [read_pair_stats(each) for each in pairs]
            assert all(each.n_equal == stats[0].n for each in stats)
            times = np.median([[timed(each) for each in pairs] for _ in range(ROUNDS)], axis=0).tolist()
            of_peer = dict(zip(peers, times, strict=False))
            whole = of_peer[SHAPE[0]]
            print(f"{dtype} {list(SHAPE)}, golden in one piece, checksums taken; medians of {ROUNDS}")
            print(f"  {'in one piece':30} {1e3 * whole:6.1f} ms")
            for (name, (rows, _)), seconds in zip(sides.items(), times[len(peers) :], strict=True):
                ratio = seconds / whole
                told = "pass" if ratio <= BAR else "FAIL"
                alike = f"{seconds / of_peer[rows]:5.2f} of one piece that was written alike"
                print(f"  {name:30} {1e3 * seconds:6.1f} ms   {ratio:5.2f} (bar {BAR}: {told}), {alike}")


if __name__ == "__main__":
    main()
