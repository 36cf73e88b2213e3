"""Count ids that differ only because two scores are nearly equal: an argmax or a routing flipped by noise."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.dtypes import DTYPES, Kind
from aclcmp.labeling.shard.element_values import decode
from aclcmp.orchestrator.compare.kernels.memory_map import open_bits
from aclcmp.orchestrator.core.diagnosis import TieQuestion
from aclcmp.orchestrator.core.regions import Pair, Source

_MOST_IDS = 1 << 20
_MOST_SCORES = 1 << 28
"""Most scores that are read to check that the ids belong to them."""
_AT_ONCE = 1 << 22


def scores_fit(ids: tuple[int, ...], scores: tuple[int, ...]) -> bool:
    """Tell whether ids of one shape can be places along the last axis of scores of another shape."""
    if not scores:
        return False
    return scores[:-1] == ids or (len(ids) > 0 and scores[:-1] == ids[:-1] and scores[-1] > ids[-1])


def count_ties(question: TieQuestion) -> int:
    """Return how many of the ids that differ are ties.

    Let m be the difference, in golden's scores, between golden's id and actual's id. Actual prefers its id only if the
    errors of both scores together exceed m, so it is a tie if m is at most twice the largest error. Golden's ids must
    be the places of the k largest scores of their row, else the scores do not belong to them, and actual's ids of a row
    must differ. Tensors of more than 2**20 ids have no ties. Raises ShardError when a side cannot be read.
    """
    golden, actual = (_integers(side) for side in (question.ids.golden, question.ids.actual))
    differing = np.flatnonzero(golden != actual)
    scores = question.scores
    places = scores.shape[-1]
    per_row = 1 if scores.shape[:-1] == question.ids.golden.shape else question.ids.golden.shape[-1]
    if golden.size > _MOST_IDS or not per_row < places:
        return 0
    here, there = golden[differing], actual[differing]
    known = (here >= 0) & (here < places) & (there >= 0) & (there < places)
    ranked = np.sort(actual.reshape(-1, per_row), axis=1)
    known &= (ranked[:, 1:] != ranked[:, :-1]).all(axis=1)[differing // per_row]
    rows, here, there = (differing // per_row)[known], here[known], there[known]
    preferred = _values(scores, rows * places + here)
    tied = np.abs(preferred - _values(scores, rows * places + there)) <= 2 * question.noise
    rows, preferred = rows[tied], preferred[tied]
    if rows.size * places > _MOST_SCORES:
        return 0
    ties, step = 0, max(1, _AT_ONCE // places)
    for begin in range(0, rows.size, step):
        at = rows[begin : begin + step, None] * places + np.arange(places)
        above = _values(scores, at.ravel()).reshape(at.shape) > preferred[begin : begin + step, None]
        ties += int(np.count_nonzero(above.sum(axis=1) < per_row))
    return ties


def are_ids(source: Source) -> bool:
    """Tell whether a stored tensor can hold ids: integers, not a mask."""
    return DTYPES[source.dtype].kind is Kind.INT


def is_scores(source: Source) -> bool:
    """Tell whether a stored tensor can hold scores: whole, of real numbers."""
    return source.is_whole and source.places is None and DTYPES[source.dtype].kind is Kind.FLOAT


def _integers(source: Source) -> npt.NDArray[np.int64]:
    stored = open_bits(source)
    integers = np.asarray(stored.bits).astype(np.int64)
    stored.check()
    return integers


def _values(source: Source, at: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Read only the elements at these flat indices."""
    stored = open_bits(source)
    bits = np.asarray(stored.bits)[at]
    stored.check()
    return decode(np.ascontiguousarray(bits).view(np.uint8), source.dtype).astype(np.float64)


def is_whole_pair(pair: Pair) -> bool:
    """Tell whether a pair compares two whole tensors of one shape, labelled by one rank."""
    if pair.golden.places is not None or pair.actual.places is not None:
        return False
    whole = pair.golden.shape == pair.actual.shape == pair.region.shape == pair.whole_shape
    simple = pair.is_whole and not pair.more_golden and not pair.more_actual
    return whole and simple and pair.golden.rank == pair.actual.rank and math.prod(pair.whole_shape) <= _MOST_IDS
