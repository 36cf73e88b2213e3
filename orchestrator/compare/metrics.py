"""The figures that people read, derived from the statistics of a pair."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metrics:
    """Derived figures; a float is nan where it is undefined. Formulas: see `metrics_of`."""

    rel_l2: float
    worst_row: float
    """Largest row_rel_l2; its denominator is the row's own norm, but at least the norm of the median non-zero row."""
    worst_row_index: int
    """Row group number of the worst row; -1 when there is none."""
    row_p50: float
    row_p99: float
    cosine: float
    pcc: float
    scale: float
    residual: float
    sg_rel: float
    snr_db: float
    linf_rel: float
    max_abs: float
    mean_abs: float
    rms: float
    max_rel: float
    mean_rel: float
    ratio_1k: float
    ratio_5k: float
    pass_rate: float
    max_ulp: int
    mismatch_share: float
    """Share of positions that are not equal."""
