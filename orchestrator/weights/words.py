"""Words on what a parameter holds of golden's rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.weight_table import HashedParameter, RowForm, row_length
from aclcmp.orchestrator.core.text import count
from aclcmp.orchestrator.weights.expected import Holding
from aclcmp.orchestrator.weights.golden_rows import GoldenRows, Segment
from aclcmp.orchestrator.weights.names import short_name

_MOST_SEGMENTS = 6
_MOST_RANGES = 3


def held_words(golden: GoldenRows, holding: Holding, bad: Collection[Segment]) -> str:
    """Return what a parameter holds, what is wrong of it between asterisks."""
    wrong = set(bad)
    first = next((place for place, each in enumerate(holding.segments) if each in wrong), 0)
    return f"holds {_segments_words(golden, holding, holding.segments, first, wrong)}"


def told_rows(golden: GoldenRows, holding: Holding) -> str:
    """Return which rows a parameter holds, and from which type they were cast."""
    types = {golden.parameters[each.golden].dtype for each in holding.segments if each.known}
    own = holding.parameter.dtype
    cast = "" if types <= {own} else f" ({own} of {', '.join(sorted(types))})"
    return rows_words(golden, holding, holding.segments) + cast


def rows_words(golden: GoldenRows, holding: Holding, segments: Sequence[Segment]) -> str:
    """Return the names of rows, as they are told beside a parameter's name."""
    return _segments_words(golden, holding, segments)


def length_of(golden: HashedParameter, form: RowForm) -> int:
    """Return how many values the rows of a parameter have in a form."""
    return (golden.shape[-2] if form.transposed else row_length(golden.shape)) // form.parts


def ranges(rows: npt.NDArray[np.bool_]) -> str:
    """Return which rows are true: "64:128, 192:256"."""
    at = np.flatnonzero(rows)
    runs = np.split(at, np.flatnonzero(np.diff(at) != 1) + 1)
    words = [f"{run[0]}:{run[-1] + 1}" for run in runs[:_MOST_RANGES]]
    return ", ".join(words) + (f" and {len(runs) - _MOST_RANGES:,} more" if len(runs) > _MOST_RANGES else "")


def _segment_words(golden: GoldenRows, holding: Holding, segment: Segment) -> str:
    if not segment.known:
        return count(segment.count, f"{'zero' if segment.zero else 'unknown'} row")
    parameter, form = golden.parameters[segment.golden], segment.form
    width = length_of(parameter, form) * form.parts
    total = int(np.prod(parameter.shape, dtype=np.int64)) // width
    name = short_name(holding.parameter.name, parameter.name) + (".T" if form.transposed else "")
    rows = "" if segment.count == total else f"{segment.row}:{segment.row + segment.count}"
    if form.parts > 1:
        step = width // form.parts
        return f"{name}[{rows or ':'}, {form.part * step}:{(form.part + 1) * step}]"
    return f"{name}[{rows}]" if rows else name


def _segments_words(
    golden: GoldenRows, holding: Holding, segments: Sequence[Segment], first: int = 0, wrong: Collection[Segment] = ()
) -> str:
    """Return segments as a list, those that are wrong between asterisks, of many those from the first of them on."""
    begin = max(min(first - 1, len(segments) - _MOST_SEGMENTS), 0)
    shown = segments[begin : begin + _MOST_SEGMENTS]
    left = len(segments) - len(shown)
    words = ((_segment_words(golden, holding, each), each in wrong) for each in shown)
    listed = (f"**{each}**" if is_wrong else each for each, is_wrong in words)
    return ", ".join([*(["..."] if begin else []), *listed]) + (f" and {count(left, 'piece')} more" if left else "")
