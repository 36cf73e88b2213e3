"""The residual stream: a token's row keeps the round-off of the largest norm that it had in it.

In trained models single tokens carry massive activations for some layers (arXiv 2402.17762). Where these are cancelled
again, their rounding stays: relative to what is left of the token it is large, and no fault.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.metrics import Metrics, with_memory
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.stats import PairStats, RowSums

_SHRUNK = 1.25
"""Factor from which a row counts as smaller than before."""

_GONE = 0.9
"""Error from which a row is wrong whatever it was before: zeros have an error of 1."""

_Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class _Stream:
    """The residual stream on one rank in one forward: the rows' numbers, and the largest norm of each so far."""

    index: npt.NDArray[np.int64]
    largest: _Floats
    larger: _Floats | None
    """How many times larger each row was than it is now; None where none was."""
    layer: int = 0
    """The number of the layer that returned it."""


class ResidualStreams:
    """The residual stream of every task, occurrence and rank; labels are passed in golden order.

    The stream is what layers return: labels of the level "layer". Where their numbers begin anew, so does the stream:
    that is a decoder behind an encoder.
    """

    def __init__(self) -> None:
        self._streams: dict[tuple[int, int, int], _Stream] = {}

    def of(self, key: LabelKey, level: Level, rank: int, stats: PairStats, metrics: Metrics) -> Metrics:
        """Return the metrics of a label on a rank, each row relative to the largest norm that its token had before."""
        rows = stats.rows
        if rows.index.size < 2:
            return metrics
        place = key.task, key.occurrence, rank
        stream = self._streams.get(place)
        if level.granularity == "layer" and not level.low:
            layer = int(level.layer) if level.layer.isdecimal() else stream.layer if stream else 0
            stream = _next_stream(stream if stream and stream.layer <= layer else None, rows)
            stream.layer = layer
            self._streams[place] = stream
        if stream is None or stream.larger is None or not np.array_equal(stream.index, rows.index):
            return metrics
        at = int(np.searchsorted(rows.index, metrics.worst_row_index))
        if stream.larger[at] <= _SHRUNK:  # the others only become smaller
            return metrics
        return with_memory(metrics, rows, stream.larger, _GONE)


def _next_stream(stream: _Stream | None, rows: RowSums) -> _Stream:
    """Return the stream after the next layer, whose output has these rows."""
    norms = np.sqrt(rows.sum_xx)
    if stream is None or not np.array_equal(stream.index, rows.index):
        return _Stream(rows.index, norms, None)
    largest = np.maximum(stream.largest, norms)
    there = norms[norms > 0]
    if not there.size or not np.isfinite(largest).all():
        return _Stream(rows.index, largest, None)
    larger = np.maximum(largest / np.maximum(norms, np.median(there)), 1.0)
    return _Stream(rows.index, largest, larger if larger.max() > _SHRUNK else None)
