"""Places of a region's elements in the tensor around it: runs of neighbours, and the strides between runs."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.regions import Region


class Walk(NamedTuple):
    """Map from a region's element numbers (C order) to flat indices in the tensor around it.

    Each `run` consecutive elements are neighbours; run number k begins at `base` plus the mixed-radix expansion of k
    over `sizes`, weighted by `strides` (both int64, in elements, outermost first).
    """

    run: int
    base: int
    sizes: npt.NDArray[np.int64]
    strides: npt.NDArray[np.int64]

    @staticmethod
    @lru_cache(maxsize=4096)  # a run has many pairs of few shapes, and a walk takes a tenth of the time of a small pair
    def of(shape: tuple[int, ...], region: Region) -> Walk:
        """Return the walk of `region` within a dense tensor of `shape`, with as few and as long runs as possible."""
        steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        base = sum(start * step for start, step in zip(region.start, steps, strict=True))
        levels: list[tuple[int, int]] = []  # (size, stride), innermost first; none continues the one before
        for size, step in zip(reversed(region.shape), reversed(steps), strict=True):
            if size == 1:
                continue
            if levels and levels[-1][0] * levels[-1][1] == step:
                levels[-1] = (size * levels[-1][0], levels[-1][1])
            else:
                levels.append((size, step))
        run = levels.pop(0)[0] if levels and levels[0][1] == 1 else 1
        outer = np.array(levels[::-1], np.int64).reshape(-1, 2)
        return Walk(run, base, np.ascontiguousarray(outer[:, 0]), np.ascontiguousarray(outer[:, 1]))

    def flat_index(self, position: int) -> int:
        """Return the flat index, in the tensor around it, of the region's element number `position`."""
        number, index = divmod(position, self.run)
        index += self.base
        for size, stride in zip(self.sizes[::-1].tolist(), self.strides[::-1].tolist(), strict=True):
            number, digit = divmod(number, size)
            index += digit * stride
        return index
