"""Facts of rows of logits, read from a pair: what each side prefers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.orchestrator.compare.kernels.kernel import add_up
from aclcmp.orchestrator.core.choices import RowChoices, choices_of, is_vocabulary, join_choices
from aclcmp.orchestrator.core.regions import Pair, Region

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aclcmp.orchestrator.compare.kernels.kernel_args import KernelOperand

    Windows = Iterable[tuple[int, int, KernelOperand, KernelOperand]]


def has_choices(pair: Pair) -> bool:
    """Tell whether a pair is of logits whose rows have names: [rows, vocabulary]."""
    named = pair.golden.places is not None and pair.actual.places is not None
    floats = all(DTYPES[side.dtype].kind is Kind.FLOAT for side in (pair.golden, pair.actual))
    return named and floats and len(pair.whole_shape) == 2 and is_vocabulary(pair.key.label)


def read_choices(windows: Windows, region: Region) -> RowChoices:
    """Return the facts of a region of logits from the windows of both sides, as `pair.windows` yields them.

    No more than a window and a row are in memory at a time.
    """
    width, (row, first_id) = region.shape[1], region.start
    parts: list[RowChoices] = []
    left = np.empty((2, 0))
    for start, stop, *sides in windows:
        values = np.empty((2, stop - start))
        for side, into in zip(sides, values, strict=True):
            add_up(side, start, stop, exact=False, first=True, sums=into.view(np.int64))
        values = np.concatenate([left, values], axis=1)
        rows = values.shape[1] // width
        x, y = values[:, : rows * width].reshape(2, rows, width)
        parts.append(choices_of(x, y, row, first_id))
        row, left = row + rows, values[:, rows * width :]
    return join_choices(parts)
