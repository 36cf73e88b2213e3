"""Places of a region's elements in the tensor around it: runs of neighbours, and the strides between runs."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from aclcmp.orchestrator.core.regions import Region


class Walk(NamedTuple):
    """Map from a region's element numbers (C order) to flat indices in the tensor around it.

    Each `run` consecutive elements are neighbours; run number k begins at `base` plus the mixed-radix expansion of k
    over the sizes of `levels`, weighted by their strides.
    """

    run: int
    base: int
    levels: tuple[tuple[int, int], ...] = ()
    """(size, stride in elements), outermost first; sizes are at least 2."""

    @staticmethod
    @lru_cache(maxsize=4096)  # a run has many pairs of few shapes, and a walk takes a tenth of the time of a small pair
    def of(shape: tuple[int, ...], region: Region) -> Walk:
        """Return the walk of `region` within a dense tensor of `shape`, with as few and as long runs as possible."""
        step = 1
        base = 0
        levels: list[tuple[int, int]] = []  # innermost first; none continues the one before
        for whole, start, size in zip(reversed(shape), reversed(region.start), reversed(region.shape), strict=True):
            base += start * step
            if size > 1 and levels and levels[-1][0] * levels[-1][1] == step:
                levels[-1] = (size * levels[-1][0], levels[-1][1])
            elif size > 1:
                levels.append((size, step))
            step *= whole
        run = levels.pop(0)[0] if levels and levels[0][1] == 1 else 1
        return Walk(run, base, tuple(reversed(levels)))

    def flat_index(self, position: int) -> int:
        """Return the flat index, in the tensor around it, of the region's element number `position`."""
        number, within = divmod(position, self.run)
        index = self.base + within
        for size, stride in reversed(self.levels):
            number, digit = divmod(number, size)
            index += digit * stride
        return index

    @property
    def last(self) -> int:
        """Flat index of the region's last element."""
        return self.base + self.run - 1 + sum((size - 1) * stride for size, stride in self.levels)
