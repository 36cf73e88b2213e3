"""Closed-form explanations of an error: a simple change of golden that gives actual, and the share that it explains.

Each fit is tried by its residual on values; of about equally good ones the simplest is reported.
"""

from __future__ import annotations

from itertools import chain

import numpy as np

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.orchestrator.compare.diagnosis.fit_trial import GOOD, LAST_RESORT, Floats, Trial
from aclcmp.orchestrator.compare.diagnosis.permutation_fits import moves, orders
from aclcmp.orchestrator.compare.diagnosis.rotation_fits import turns
from aclcmp.orchestrator.compare.diagnosis.value_fits import counts, values
from aclcmp.orchestrator.core.diagnosis import Fit

_WORTH_KEEPING = 0.5
_MOST_KEPT = 4
_BETTER = 2.0
"""A more complicated fit is reported if the simpler one leaves more than this multiple of its remaining error."""
_BY_LINE = ("scale by row", "scale by channel")
_FEWEST = 16
_ROUND_OFF = 1e-3


def fits_of(
    x: Floats,
    y: Floats,
    golden_dtype: str = "float64",
    actual_dtype: str = "float64",
    *,
    cut: bool = False,
    noise: float = 0.0,
) -> tuple[Fit, ...]:
    """Return the fits that explain at least half of the error energy of y against x, the one to report first.

    x and y are finite, of one shape; there are no fits for less than 16 elements, and without error. `cut`: they are a
    part of larger tensors; `noise`: relative error of correct values. Texts number rows and channels as in the arrays.
    """
    size = float(max(np.abs(x).max(initial=0.0), np.abs(y).max(initial=0.0)))
    kind = DTYPES[golden_dtype].kind
    if x.size < _FEWEST or size == 0.0 or kind is Kind.BOOL:
        return ()
    scale = 1.0 if 1e-100 < size < 1e100 else size  # squares must neither overflow nor underflow
    trial = Trial.of(*((x, y) if scale == 1.0 else (x / scale, y / scale)), actual_dtype, cut=cut, noise=noise)
    if trial.energy == 0.0:
        return ()
    found: list[tuple[int, Fit]] = []
    floats = kind in (Kind.FLOAT, Kind.COMPLEX)
    changes = (values, orders, turns) if floats else (counts, moves)
    for candidate in chain.from_iterable(change(trial, scale) for change in changes):
        explained = trial.explained_share(candidate)
        if explained >= _WORTH_KEEPING:
            words = candidate.words if isinstance(candidate.words, str) else candidate.words()
            if words:  # empty if the digits shown would say nothing
                found.append((candidate.cost, Fit(candidate.kind, words, min(explained, 1.0))))
    return _rank(found)


def _rank(found: list[tuple[int, Fit]]) -> tuple[Fit, ...]:
    """Put the simplest of about equally good fits first, then the others by the share that they explain."""
    if not found:
        return ()
    simple = [(cost, fit) for cost, fit in found if cost < LAST_RESORT and fit.explained >= GOOD]
    best = max(fit.explained for _, fit in simple or found)
    limit = 1 - _BETTER * (1 - best) - _ROUND_OFF
    good = [(cost, fit) for cost, fit in simple or found if fit.explained >= limit]
    _, first = min(good, key=lambda item: (item[0], -item[1].explained))
    if first.kind in _BY_LINE and sum(fit.kind in _BY_LINE for _, fit in good) > 1:
        return ()  # golden has so little structure that both explain it
    others = sorted((fit for _, fit in found if fit is not first), key=lambda fit: -fit.explained)
    kinds = {first.kind: first}
    for fit in others:
        kinds.setdefault(fit.kind, fit)
    return tuple(kinds.values())[:_MOST_KEPT]
