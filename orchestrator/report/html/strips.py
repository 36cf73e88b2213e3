"""Where along the rows or channels of a label its error sits, in few bins: one strip per rank, all on one axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.diagnosis import HISTOGRAM_LOWEST, ChannelSums, Look
from aclcmp.orchestrator.core.stats import RowSums
from aclcmp.orchestrator.report.html.packed import rounded

MOST_BINS = 240


def relative_errors(sums: RowSums | ChannelSums) -> npt.NDArray[np.float64]:
    """Return sqrt(sum d^2 / sum x^2) by row or channel group, with the denominator of `Metrics.worst_row`."""
    nonzero = sums.sum_xx[sums.sum_xx > 0]
    floor = np.median(nonzero) if nonzero.size else 0.0
    with np.errstate(all="ignore"):
        relative = np.sqrt(sums.sum_dd / np.maximum(sums.sum_xx, floor))
    relative[sums.sum_dd == 0] = 0.0
    return np.asarray(relative, np.float64)


def strips(held: Mapping[int, RowSums | ChannelSums]) -> dict[str, Any]:
    """Return the relative errors of each rank in bins of equal width, the largest of each bin; None where it has none.

    `start` and `step` are in rows (or channels) of the whole tensor. At least one rank has one.
    """
    low = min(int(sums.index[0]) for sums in held.values())
    high = max(int(sums.index[-1]) for sums in held.values())
    group = max(next(iter(held.values())).group, 1)
    width = -(-(high - low + 1) // MOST_BINS)
    bins = (high - low) // width + 1
    errors = []
    for sums in held.values():
        largest = np.full(bins, -1.0)
        np.maximum.at(largest, (sums.index - low) // width, np.nan_to_num(relative_errors(sums), posinf=np.inf))
        errors.append([None if value < 0 else rounded(value, 2) for value in largest.tolist()])
    return {"start": low * group, "step": width * group, "ranks": list(held), "errors": errors}


def histogram(look: Look) -> dict[str, Any] | None:
    """Return the counts by power of two of |d| / rms(x) from the first bin that holds something to the last."""
    filled = np.flatnonzero(look.histogram)
    if not filled.size:
        return None
    first, last = int(filled[0]), int(filled[-1])
    return {"log2": HISTOGRAM_LOWEST + first, "counts": look.histogram[first : last + 1].tolist()}
