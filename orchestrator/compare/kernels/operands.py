"""Operands in the form that kernels read: a stored tensor in place, or the sum of several, one window at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.element_codes import FLOAT64, INT64, UINT64
from aclcmp.orchestrator.compare.kernels.kernel import add_up
from aclcmp.orchestrator.compare.kernels.kernel_args import KernelOperand
from aclcmp.orchestrator.compare.kernels.strides import Walk

SUM_WINDOW = 262_144
"""Most elements whose sums are in memory at a time: 2 MiB."""


def window_operand(
    values: npt.NDArray[np.int64] | npt.NDArray[np.float64], code: int, start: int, stop: int
) -> KernelOperand:
    """Return 8-byte values in memory as an operand: a region's elements start <= i < stop."""
    # The kernels use the elements' numbers in the region, so the window's base is -start.
    return KernelOperand(values.view(np.uint8), 8, code, Walk(stop, -start))


class Reach(NamedTuple):
    """Places of an operand's elements in storage, and their type."""

    itemsize: int
    code: int
    walk: Walk


class OperandReader(Protocol):
    """Operand that is read window by window."""

    @property
    def reach(self) -> Reach:
        """Places of the operand's elements in storage."""

    def window(self, start: int, stop: int) -> KernelOperand:
        """Return a kernel operand with the region's elements start <= i < stop, by their numbers in the region."""

    def release(self, start: int, stop: int) -> None:
        """Give back the memory behind elements that have been read."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredOperand:
    """Operand that is one stored tensor."""

    side: KernelOperand
    free: Callable[[int, int], None]
    """Called with (start, stop) when the stored tensor's components start <= i < stop have been read."""

    @property
    def reach(self) -> Reach:
        """Places of its elements in storage."""
        return Reach(self.side.itemsize, self.side.code, self.side.walk)

    def window(self, start: int, stop: int) -> KernelOperand:
        """Return the same side for every window: the kernels find the elements themselves."""
        return self.side

    def release(self, start: int, stop: int) -> None:
        """Give back the memory behind elements that have been read."""
        self.free(self.side.walk.flat_index(start), self.side.walk.flat_index(stop - 1) + 1)


class WindowOperand:
    """Operand whose elements another reader brings into memory, some rows of its region at a time."""

    def __init__(self, reach: Reach, width: int, read_rows: Callable[[int, int], npt.NDArray[np.uint8]]) -> None:
        """`reach` is as if the elements lay dense, `width` of them in a row; `read_rows(begin, end)` gives bytes."""
        self.reach = reach
        self._width = width
        self._read_rows = read_rows

    def window(self, start: int, stop: int) -> KernelOperand:
        """Read the rows that hold a window."""
        begin, end = start // self._width, -(-stop // self._width)
        data = self._read_rows(begin, end)
        walk = Walk(end * self._width, -begin * self._width)
        return KernelOperand(data, self.reach.itemsize, self.reach.code, walk)

    def release(self, start: int, stop: int) -> None:
        """Do nothing: the memory is freed with the window."""


class ScatteredRows:
    """Operand whose rows lie anywhere in memory."""

    def __init__(self, reach: Reach, width: int, side: KernelOperand, prepare: Callable[[int, int], None]) -> None:
        """`reach` is as if the elements lay dense, `width` in a row; `prepare(begin, end)` is told what comes next."""
        self.reach = reach
        self._width = width
        self._side = side
        self._prepare = prepare

    def window(self, start: int, stop: int) -> KernelOperand:
        """Return the same side for every window: the kernels find the elements themselves."""
        self._prepare(start // self._width, -(-stop // self._width))
        return self._side

    def release(self, start: int, stop: int) -> None:
        """Do nothing: pages are given back before others are read."""


class SumOperand:
    """Operand that is the sum of stored tensors of one element type and shape, each over the same region.

    Floats are added in float64, in the order given and as IEEE 754 has it (inf - inf is NaN). Integers are added in 64
    bits, and bools as 0 and 1. Sums are never rounded to the narrower stored type.
    """

    def __init__(self, summands: Sequence[OperandReader], exact: bool, size: int) -> None:
        """Prepare for windows of up to SUM_WINDOW of `size` elements; `exact`: integers or bools."""
        self._summands = tuple(summands)
        self._exact = exact
        code = self.reach.code
        self._code = FLOAT64 if not exact else UINT64 if code == UINT64 else INT64
        self._sums = np.empty(min(size, SUM_WINDOW), np.int64)

    @property
    def reach(self) -> Reach:
        """Places of the first summand's elements in storage, which stand for those of all."""
        return self._summands[0].reach

    def window(self, start: int, stop: int) -> KernelOperand:
        """Return the sum over a window; each summand is released after it is read."""
        sums = self._sums[: stop - start]
        for number, summand in enumerate(self._summands):
            add_up(summand.window(start, stop), start, stop, self._exact, number == 0, sums)
            summand.release(start, stop)
        return window_operand(sums, self._code, start, stop)

    def release(self, start: int, stop: int) -> None:
        """Do nothing: the memory is used again for the next window."""
