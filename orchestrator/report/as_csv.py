"""report.csv: one row per (label, rank), for spreadsheets.

It begins with the columns of `ait debug compare aclcmp` (`pta` is the golden side, `acl` the actual one) in their order
and with their meaning, so that what reads those reports reads this one.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

from aclcmp.orchestrator.compare.metrics import Metrics
from aclcmp.orchestrator.compare.stats import PairStats
from aclcmp.orchestrator.judge.verdicts import LabelVerdict, RankVerdict, Status
from aclcmp.orchestrator.plan.model import SideFacts
from aclcmp.orchestrator.report.flat import COLUMNS, Scalar, rows, shape_text
from aclcmp.orchestrator.report.model import Report

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

_SHARED = {column.name: column for column in COLUMNS}
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
)
HEADER = (*ORIGINAL, *_HERE, *_AFTER)


def write_csv(report: Report, path: Path) -> None:
    """Write report.csv as UTF-8. A cell of what does not exist or is not a number is empty."""
    # An id may hold half of a surrogate pair, which UTF-8 cannot.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(HEADER)
        for label, verdict in rows(report.judgement):
            writer.writerow([_cell(value) for value in _values(label, verdict)])


def _values(label: LabelVerdict, verdict: RankVerdict) -> list[Scalar | None]:
    stats, metrics = verdict.stats, verdict.metrics
    side = verdict.golden or verdict.actual
    return [
        label.key.label,
        *_side(verdict.golden),
        *_range(stats, "x"),
        *_side(verdict.actual),
        *_range(stats, "y"),
        stats is not None,
        *_errors(metrics),
        _fail_reason(verdict),
        verdict.rank,
        label.key.task,
        None if side is None else side.seq,
        *(_SHARED[name].value(label, verdict) for name in ("status", "origin", "reason")),
        *(_shared(name, label, verdict) for name in _AFTER),
    ]


def _shared(name: str, label: LabelVerdict, verdict: RankVerdict) -> Scalar | None:
    if verdict.metrics is None and name in ("worst_row_index", "max_ulp"):
        return None
    return _SHARED[name].value(label, verdict)


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


def _cell(value: Scalar | None) -> Scalar:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if math.isnan(value) else value
    if isinstance(value, str):
        text = value.replace("\0", "\\x00")  # which csv readers refuse
        # Spreadsheets run text that begins like a formula.
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
    return value
