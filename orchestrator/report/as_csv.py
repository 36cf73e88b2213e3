"""report.csv: one row per (label, rank), for spreadsheets.

It begins with the columns of `ait debug compare aclcmp` (`pta` is the golden side, `acl` the actual one) in their order
and with their meaning, so that what reads those reports reads this one.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.metrics import LATER_METRICS, Metrics
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.core.verdicts import RankVerdict, Status
from aclcmp.orchestrator.report.flat import COLUMNS, Block, Scalar, Values, blocks, shape_text

ORIGINAL = (
    "data_id",
    "pta_data_path",
    "pta_dtype",
    "pta_shape",
    "pta_max_value",
    "pta_min_value",
    "pta_mean_value",
    "acl_data_path",
    "acl_dtype",
    "acl_shape",
    "acl_max_value",
    "acl_min_value",
    "acl_mean_value",
    "cmp_flag",
    "cosine_similarity",
    "max_relative_error",
    "mean_relative_error",
    "relative_euclidean_distance",
    "cmp_fail_reason",
)

_HERE = ("rank", "task", "seq", "status", "origin", "reason")
_AFTER = (
    "occurrence",
    "bitwise",
    "layout",
    "rel_l2",
    "worst_row",
    "worst_row_index",
    "max_abs",
    "mean_abs",
    "rms",
    "linf_rel",
    "max_ulp",
    "pass_rate",
    "mismatch_share",
    "scale",
    "residual",
    "limit_warn",
    "limit_fail",
    "limit_source",
    "margin",
    "golden_device",
    "golden_call_site",
    "actual_device",
    "actual_call_site",
    "level",
    "granularity",
    "layer",
    "parent",
    "stats_basis",
    *LATER_METRICS,
    "own_rel_l2",
    "own_worst_row",
)
HEADER = (*ORIGINAL, *_HERE, *_AFTER)
_SHARED = [column for column in COLUMNS if column.name in {*_HERE, *_AFTER, "label", "task"}]
_Column = Sequence[Scalar | None] | npt.NDArray[Any]
_WHOLE_METRICS = {column.name for column in COLUMNS if column.part == "metrics" and column.kind is int}


def write_csv(report: Report, path: Path) -> None:
    """Write report.csv as UTF-8, all rows of it, however many: a block at a time.

    A cell of what does not exist or is not a number is empty.
    """
    # An id may hold half of a surrogate pair, which UTF-8 cannot.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(HEADER)
        for block in blocks(report.judgement):
            columns = [_cells(values) for values in _columns(block)]
            writer.writerows(zip(*columns, strict=True))


def _columns(block: Block) -> Iterator[_Column]:
    """Yield the columns in the header's order."""
    shared = dict(_shared_columns(block))
    verdicts = block.verdicts
    yield shared["label"]
    yield from zip(*[_side(verdict.golden) for verdict in verdicts], strict=True)
    yield from zip(*[_range(verdict.stats, "x") for verdict in verdicts], strict=True)
    yield from zip(*[_side(verdict.actual) for verdict in verdicts], strict=True)
    yield from zip(*[_range(verdict.stats, "y") for verdict in verdicts], strict=True)
    yield [verdict.stats is not None for verdict in verdicts]
    yield from zip(*[_errors(verdict.metrics) for verdict in verdicts], strict=True)
    yield [_fail_reason(verdict) for verdict in verdicts]
    yield shared["rank"]
    yield shared["task"]
    yield [None if (side := verdict.golden or verdict.actual) is None else side.seq for verdict in verdicts]
    yield from (shared[name] for name in ("status", "origin", "reason", *_AFTER))


def _shared_columns(block: Block) -> Iterator[tuple[str, Values]]:
    for name, values in block.columns(_SHARED).items():
        if name in _WHOLE_METRICS:
            pairs = zip(block.verdicts, values, strict=True)
            yield name, [None if verdict.metrics is None else int(value) for verdict, value in pairs]
        else:
            yield name, values


def _side(side: SideFacts | None) -> tuple[str, str, str]:
    if side is None:
        return "", "", ""
    return side.path, side.dtype, shape_text(side.shape) if side.dtype else ""


def _range(stats: PairStats | None, side: str) -> tuple[float | None, float | None, float | None]:
    if stats is None or stats.n_finite == 0:
        return None, None, None
    total: float = getattr(stats, f"sum_{side}")
    return getattr(stats, f"max_{side}"), getattr(stats, f"min_{side}"), total / stats.n_finite


def _errors(metrics: Metrics | None) -> tuple[float | None, ...]:
    if metrics is None:
        return (None,) * 4
    # The original takes no square root of its Euclidean distance.
    return metrics.cosine, metrics.max_rel, metrics.mean_rel, metrics.rel_l2 * metrics.rel_l2


def _fail_reason(verdict: RankVerdict) -> str:
    """Why nothing was compared, in the original's words where it had some."""
    if verdict.stats is not None:
        return ""
    if verdict.status is Status.MISSING:
        return f"{'pta' if verdict.golden is None else 'acl'}_data_path is not exist."
    if (
        verdict.golden is not None
        and verdict.actual is not None
        and math.prod(verdict.golden.shape) != math.prod(verdict.actual.shape)
    ):
        return "data shape doesn't match."
    return verdict.reason


def _cells(values: _Column) -> list[Any]:
    """Return what csv writes for them. Of texts there are few, many times."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind != "f" or not np.isnan(values).any():
            return list(values.tolist())
        values = values.tolist()
    known: dict[str, str] = {}
    cells: list[Scalar] = []
    for value in values:
        if value is None or value != value:
            cells.append("")
        elif isinstance(value, str):
            text = known.get(value)
            cells.append(known.setdefault(value, _text(value)) if text is None else text)
        else:
            cells.append(value)
    return cells


def _text(value: str) -> str:
    text = visible(value)  # a NUL is refused by csv readers, others steer the terminal of who looks at the file
    # Spreadsheets run text that begins like a formula.
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
