"""Read one row of a pair, both sides, while its windows go by."""

from __future__ import annotations

import numpy as np

from aclcmp.orchestrator.compare.kernels.kernel import add_up
from aclcmp.orchestrator.compare.kernels.kernel_args import KernelOperand
from aclcmp.orchestrator.core.diagnosis import WorstRow
from aclcmp.orchestrator.core.regions import Pair


class RowReader:
    """One row of a pair of real tensors: chosen by its number in the whole, read from windows of the pair's region."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._start = -1
        """Number of its first element in the region; -1 where no row was chosen, or the region has none of it."""
        self._row: tuple[int, ...] = ()
        self._parts: list[tuple[int, np.ndarray, np.ndarray]] = []
        self.is_free = True
        """Whether no row was chosen yet."""

    @property
    def _width(self) -> int:
        return self._pair.region.shape[-1] if self._pair.region.shape else 1

    def choose(self, row: int) -> None:
        """Choose a row; another region of the whole may hold it."""
        self.is_free = False
        *whole, _ = self._pair.whole_shape or (1,)
        region = self._pair.region
        place = [int(at) for at in np.unravel_index(row, whole)] if whole else []
        local = [at - start for at, start in zip(place, region.start, strict=False)]
        if all(0 <= at < size for at, size in zip(local, region.shape, strict=False)):
            self._row = tuple(place)
            self._start = int(np.ravel_multi_index(local, region.shape[:-1])) * self._width if local else 0

    def read(self, golden: KernelOperand, actual: KernelOperand, start: int, stop: int) -> None:
        """Read what a window, of the region's elements `start` to `stop`, holds of the row."""
        first, last = max(start, self._start), min(stop, self._start + self._width)
        if self._start < 0 or first >= last:
            return
        values = np.empty((2, last - first))
        for side, line in zip((golden, actual), values, strict=True):
            add_up(side, first, last, exact=False, first=True, sums=line.view(np.int64))
        self._parts.append((first, *values))

    @property
    def row(self) -> WorstRow | None:
        """What was read, around the place where it is off most; None where nothing was."""
        if not self._parts:
            return None
        starts, golden, actual = zip(*self._parts, strict=True)
        offset = self._pair.region.start[-1] if self._pair.region.shape else 0
        first = offset + starts[0] - self._start
        return WorstRow.of(self._pair.whole_shape, self._row, first, np.concatenate(golden), np.concatenate(actual))
