"""What each column of /labels in report.h5 and of report.csv means, and its unit: for tools and for the docs."""

from __future__ import annotations

from aclcmp.orchestrator.core.floors import FloorSource
from aclcmp.orchestrator.core.metrics import METRICS
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.report.flat import COLUMNS

_SIDES = {"golden": "x", "actual": "y"}
_OF_ROWS = {"row_p50": "the median row's", "worst_row": "the worst row's", "rel_l2": "the whole tensor's"}
_WORDS = {
    "task": "Number of the task (a turn or a step), from 0.",
    "label": "Id of the label.",
    "occurrence": "Number of the label among those of the same task, id and side, from 0.",
    "rank": "Rank that the verdict is on.",
    "status": ", ".join(each.value for each in Status) + ".",
    "origin": "own: the error began here; inherited: it was there before; empty: it is not wrong.",
    "label_status": "The gravest status of the label over all ranks.",
    "reason": "Why it has this status, in one line.",
    "level": "high, or low where the library dumped the actual side.",
    "granularity": "op, layer or model.",
    "layer": "Number of the layer in the label's name; empty where it has none.",
    "parent": "High-level label of the same layer that a low-level one is shown under.",
    "parent_occurrence": "Occurrence of that label.",
    "root": "Label that a wrong one inherits its error from.",
    "root_occurrence": "Occurrence of that label.",
    "bitwise": "Whether both sides are equal bit by bit.",
    "layout": "How this rank's tensor lies in the whole, and how that is known.",
    "limit_warn": "Relative L2 error from which on the label drifts.",
    "limit_fail": "Relative L2 error from which on it diverges.",
    "limit_source": "Where the limits come from: a measured floor, the table of a dtype, or a rule of the policy.",
    "limit_rows": "How many times the limits count for the worst row.",
    "margin": "Largest error divided by its limit: above 1 it diverges.",
    "excused": "Why it does not count, where the policy lets it pass.",
    "ignored": "Whether the policy ignores the label altogether.",
    "golden_compared": "Type as which golden's values were compared.",
    "actual_compared": "Type as which actual's values were compared.",
    "gap": "Kind of gap, where nothing or not all was compared.",
    "gap_reason": "Why there is a gap.",
    "uncovered": "Part of the whole that was not compared.",
    "worst_row_name": "Request, position and token of the worst row, where rows have names.",
    "ties": "Positions that differ though both sides' values are equal within the noise (ids of equal scores).",
    "summed": "Ranks whose tensors were added up for this side.",
    "own_rms": "Root mean square of the error from golden's values (--local).",
    "own_rows": "Number of rows of which that error was taken.",
    "stats_n": "Positions that were compared.",
    "stats_n_equal": "Positions with the same value, or the same kind of value that is not finite.",
    "stats_n_finite": "Positions where both sides are finite: sums and extremes are over these.",
    "stats_sum_d": "Sum of d = y - x; x is golden, y actual.",
    "stats_sum_dd": "Sum of d², the energy of the error.",
    "stats_sum_xy": "Sum of the products x·y.",
    "stats_sum_abs_d": "Sum of |d|.",
    "stats_max_abs_d": "Largest |d|.",
    "stats_max_abs_d_index": "Flat index, in the whole tensor, of the largest |d|.",
    "stats_max_abs_d_x": "Golden's value there.",
    "stats_max_abs_d_y": "Actual's value there.",
    "stats_sum_rel_d": "Sum of |d / x| over positions with x != 0.",
    "stats_max_rel_d": "Largest |d / x|.",
    "stats_n_over_1k": "Positions with |d| > 1e-3 |x|.",
    "stats_n_over_5k": "Positions with |d| > 5e-3 |x|.",
    "stats_n_over_tolerance": "Positions with |d| > atol + rtol |x| of the narrower dtype.",
    "stats_max_ulp": "Largest distance in representable values.",
    "stats_n_nonfinite_equal": "Positions where both sides are not finite in the same way.",
    "stats_basis": "What the figures were taken from: values, or summaries of tensors.",
    "stats_rows_group": "Rows that were summed together.",
    "stats_rows_count": "Such groups of rows.",
}
_OF_A_SIDE = {
    "path": "Where the tensor is stored.",
    "dtype": "Element type as recorded.",
    "shape": "Shape as recorded.",
    "device": "Device that the tensor was on.",
    "call_site": "file:line that labelled it.",
    "seq": "Number of the label on its rank, from 0.",
    "time": "When it was labelled.",
    "capture": "How much of the tensor was kept.",
    "inputs": "Ids of the labels that it was computed from, where told.",
}
_OF_A_LETTER = {
    "sum_{}": "Sum of the values.",
    "sum_{0}{0}": "Sum of squares.",
    "min_{}": "Smallest value.",
    "max_{}": "Largest value.",
    "nan_{}": "Positions with NaN.",
    "posinf_{}": "Positions with +infinity.",
    "neginf_{}": "Positions with -infinity.",
    "mantissa_{}": "Leading bits of the mantissa that the values use.",
}
_UNITS = {"golden_time": "seconds since the epoch", "actual_time": "seconds since the epoch"}


def column_help() -> dict[str, str]:
    """Return what each column means, by its name, in their order. Raises KeyError for a column without words."""
    words = {name: f"{metric.label[:1].upper()}{metric.label[1:]}: {metric.help}." for name, metric in METRICS.items()}
    words |= _WORDS
    for side, letter in _SIDES.items():
        words |= {f"{side}_{name}": f"{side.capitalize()}: {text}" for name, text in _OF_A_SIDE.items()}
        of_letter = {name.format(letter): text for name, text in _OF_A_LETTER.items()}
        words |= {f"stats_{name}": f"{side.capitalize()}: {text}" for name, text in of_letter.items()}
    for name, whose in _OF_ROWS.items():
        words[f"own_{name}"] = f"Relative L2 of {whose} error from golden's values (--local)."
        for source in FloorSource:
            words[f"floor_{source.value}_{name}"] = f"Relative L2 of {whose} noise, source: {source.value}."
    return {column.name: words[column.name] for column in COLUMNS}


def column_units() -> dict[str, str]:
    """Return the units of the columns that have one, by their names."""
    return {name: metric.unit for name, metric in METRICS.items() if metric.unit} | _UNITS
