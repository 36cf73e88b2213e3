"""Time and memory of hashing a model's weights, and of finding them in golden's.

    python benchmarks/bench_weights.py [GIGABYTES]

Linear layers of a decoder, by default 1 GB of them, with random weights. The actual side is one rank's; golden is
hashed as `aclcmp golden` does for an engine of as many ranks: whole rows, parts of rows for row-parallel layers, and
the cast to the engine's type. Each figure is the shortest of three rounds on one core.
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from aclcmp.labeling import weights
from aclcmp.labeling.layout import divisors
from aclcmp.labeling.shard.weight_table import NOT_ZERO, HashedParameter, RowForm, WeightTable
from aclcmp.orchestrator.weights.check_weights import check_weights
from aclcmp.orchestrator.weights.weight_map import map_weights

HIDDEN, INNER = 2048, 5632
ROUNDS = 3
BAR = 2.0
"""Seconds per GB and rank."""


class Layer(torch.nn.Module):
    """The linear layers of one decoder layer."""

    def __init__(self, ranks: int, dtype: torch.dtype) -> None:
        super().__init__()
        shapes = {
            "q_proj": (HIDDEN // ranks, HIDDEN),
            "o_proj": (HIDDEN, HIDDEN // ranks),
            "gate_proj": (INNER // ranks, HIDDEN),
            "up_proj": (INNER // ranks, HIDDEN),
            "down_proj": (HIDDEN, INNER // ranks),
        }
        for name, (rows, columns) in shapes.items():
            self.add_module(name, torch.nn.Linear(columns, rows, bias=False, dtype=dtype))


def model_of(gigabytes: float, ranks: int, dtype: torch.dtype) -> torch.nn.Module:
    """Return a rank's part of a model: that of one rank has so many bytes."""
    size = torch.empty(0, dtype=dtype).element_size()
    layers = max(round(gigabytes * 1e9 / size / (2 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER) * ranks), 1)
    return torch.nn.ModuleDict({"layers": torch.nn.ModuleList(Layer(ranks, dtype) for _ in range(layers))})


def peak() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def hash_once(model: torch.nn.Module, side: str, **options: Any) -> tuple[float, float, WeightTable]:
    """Return seconds per GB, the memory that it took beyond what was there before (MB), and the table."""
    tables: list[WeightTable] = []
    nbytes = sum(each.numel() * each.element_size() for each in model.parameters())
    before, start = peak(), time.monotonic()
    with patch.object(weights, "record_weights", tables.append):
        weights.hash_weights(model, side, **options)
    return (time.monotonic() - start) / (nbytes / 1e9), peak() - before, tables[0]


def check_wrong_rows(layers: int) -> tuple[int, float]:
    """Return how many of golden's rows the ranks do not have, every second one, and the seconds that it takes."""
    rng, rows = np.random.default_rng(0), 2000
    golden, actual = [], []
    for name in (f"layers.{layer}.{each}.weight" for layer in range(layers) for each in "qkoud"):
        right, wrong = (rng.integers(1, NOT_ZERO, rows, dtype=np.uint64) | np.uint64(NOT_ZERO) for _ in range(2))
        wrong[::2] = right[::2]
        for side, hashes in ((golden, right), (actual, wrong)):
            side.append(HashedParameter(name, "float32", (rows, 64), "Linear", "", "", {RowForm(): hashes}))
    start = time.monotonic()
    found = map_weights([(0, WeightTable("pta", tuple(golden)))], [(0, WeightTable("acl", tuple(actual)))])
    assert found is not None and len(check_weights(found, 1).wrong) == 5  # those of all layers are one
    return len(golden) * rows // 2, time.monotonic() - start


def main() -> int:
    """Print the table; return 1 where a rank takes longer than the bar."""
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    torch.set_num_threads(1)
    slow = False
    for dtype in (torch.float32, torch.bfloat16):
        for ranks in (1, 4):
            model = model_of(gigabytes, ranks, dtype)
            largest = max(each.numel() * each.element_size() for each in model.parameters()) / 1e6
            rounds = [hash_once(model, "acl") for _ in range(ROUNDS)]
            best = min(seconds for seconds, _, _ in rounds)
            slow |= best > BAR
            print(
                f"actual, {str(dtype)[6:]}, 1 of {ranks} ranks: {best:.2f} s/GB, "
                f"{rounds[0][1]:.0f} MB beside the model (largest parameter {largest:.0f} MB)"
            )
            del model
    golden = model_of(gigabytes, 1, torch.float32)
    wanted = {"widths": {HIDDEN, HIDDEN // 4, INNER // 4}, "dtypes": ("bfloat16",), "parts": (1, 2, 4)}
    rounds = [hash_once(golden, "pta", **wanted) for _ in range(ROUNDS)]
    print(f"golden, float32, for 4 ranks in bfloat16: {min(s for s, _, _ in rounds):.2f} s/GB, {rounds[0][1]:.0f} MB")
    for dtype in (torch.float32, torch.bfloat16):
        model = model_of(gigabytes / 2, 1, dtype)
        best = min(hash_once(model, "pta", parts=divisors(8))[0] for _ in range(ROUNDS))
        slow |= best > BAR
        print(f"golden in a script, {str(dtype)[6:]}, for 8 ranks in any type: {best:.2f} s/GB")
        del model
    actual = golden.to(torch.bfloat16)
    table = hash_once(actual, "acl")[2]
    start = time.monotonic()
    found = map_weights([(0, rounds[0][2])], [(0, table)])
    assert found is not None and not check_weights(found, 1).wrong
    print(f"found again: {time.monotonic() - start:.1f} s for {len(table.hashes()):,} rows")
    for layers in (10, 20, 40):
        wrong, seconds = check_wrong_rows(layers)
        print(f"every second row is wrong: {seconds:.1f} s for {wrong:,} unknown rows in {2 * wrong:,}")
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
