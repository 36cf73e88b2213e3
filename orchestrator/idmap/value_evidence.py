"""What values say of pairs of forms: whether they prove a pair or speak against it, and what a bug may explain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from aclcmp.orchestrator.idmap.signatures import AGREE, DIFFER, distances
from aclcmp.orchestrator.idmap.similarity import CandidateLabel, Form, Matrix

_LEAST = 0.1
"""The likeness of labels that only just agree."""
_ROUND_OFF = 0.01
"""Labels nearer than this are not looked for one layer apart."""
_HEALTHY = 0.25
"""Where more of what follows agrees than this, no bug came before."""


class PairVerdict(Enum):
    """What values say of a pair of forms."""

    PROVED = "proved"
    OPEN = "open"
    AGAINST = "against"


@dataclass(frozen=True, slots=True)
class ValueEvidence:
    """What values say of the labels of two forms."""

    found: tuple[tuple[CandidateLabel, float], ...]
    """Golden labels, in order of recording, and their relative L2; without those of which values say nothing."""
    one_apart: bool = False
    """Whether labels agree with those of the next layer, or the one before, and much less with those of their own."""

    @property
    def agreeing(self) -> list[CandidateLabel]:
        """The golden labels that agree."""
        return [seen for seen, distance in self.found if distance <= AGREE]

    @property
    def differing(self) -> list[tuple[CandidateLabel, float]]:
        """The golden labels that differ, and how much."""
        return [(seen, distance) for seen, distance in self.found if distance >= DIFFER]


def value_similarity(golden: Sequence[Form], actual: Sequence[Form]) -> Matrix:
    """From 0, nothing agrees, to 1, all is the same: the mean over the labels of which values say something."""
    total, count = np.zeros((2, len(golden), len(actual)))
    by_numbers: list[dict[tuple[int, ...], list[int]]] = []
    for forms in (golden, actual):
        places: dict[tuple[int, ...], list[int]] = {}
        for place, form in enumerate(forms):
            for numbers, seen in form.labels.items():
                if seen.views:
                    places.setdefault(numbers, []).append(place)
        by_numbers.append(places)
    for numbers, rows in by_numbers[0].items():
        if columns := by_numbers[1].get(numbers):
            apart = distances(
                [golden[row].labels[numbers].views for row in rows],
                [actual[column].labels[numbers].views for column in columns],
            )
            cells = np.ix_(rows, columns)
            count[cells] += ~np.isnan(apart)
            total[cells] += np.where(apart <= AGREE, 1 - (1 - _LEAST) * apart / AGREE, 0)
    likeness: Matrix = np.round(total / np.maximum(count, 1), 6)  # so that no rounding decides
    return likeness


def evidence_of(golden: Form, actual: Form) -> ValueEvidence:
    """Look at the labels that two forms have in common."""
    found = tuple(
        (seen, apart)
        for numbers, seen in golden.labels.items()
        if numbers in actual.labels and not np.isnan(apart := _apart(seen, actual.labels[numbers]))
    )
    own = _middle([apart for _, apart in found])
    return ValueEvidence(found, own > _ROUND_OFF and any(_agree_shifted(golden, actual, step, own) for step in (1, -1)))


def _agree_shifted(golden: Form, actual: Form, step: int, own: float) -> bool:
    """Whether labels agree with those of the layer `step` further, and are much nearer to them than to their `own`."""
    shifted = [
        _apart(seen, other)
        for numbers, seen in golden.labels.items()
        if numbers and (other := actual.labels.get((numbers[0] + step, *numbers[1:]))) is not None
    ]
    return _middle([apart for apart in shifted if not np.isnan(apart)]) <= min(AGREE, own / 3)


def _apart(golden: CandidateLabel, actual: CandidateLabel) -> float:
    if not golden.views or not actual.views:
        return float("nan")
    return float(distances([golden.views], [actual.views])[0, 0])


class AgreementTrend:
    """How the values of all pairs go along the run, by which the effect of a bug is told from a wrong pair.

    After a bug hardly anything agrees any more. A pair that differs while what follows agrees is most likely no pair.
    """

    def __init__(self, pairs: Iterable[ValueEvidence]) -> None:
        """Take what is known of all pairs, those of the same name too."""
        all_of_them = [pair for pair in pairs if pair.found]
        told = [(seen.order, True) for pair in all_of_them for seen in pair.agreeing]
        told += [(seen.order, False) for pair in all_of_them for seen, _ in pair.differing]
        told.sort()
        self._orders = np.array([order for order, _ in told], np.int64)
        self._agreeing = np.cumsum([0, *(agrees for _, agrees in told)])

    def explains(self, order: int) -> bool:
        """Whether a golden label may differ because of a bug: something before it agrees, hardly anything after it."""
        place = int(np.searchsorted(self._orders, order))
        before, total = int(self._agreeing[place]), int(self._agreeing[-1])
        return before > 0 and total - before <= _HEALTHY * (self._orders.size - place)

    def verdict(self, pair: ValueEvidence) -> PairVerdict:
        """Say what values say of a pair.

        Proved: at least half of the labels agree, or the first does and a bug may explain the others. Against: most
        differ, from the first on, and no bug explains it.
        """
        if not pair.found:
            return PairVerdict.OPEN
        if pair.one_apart:
            return PairVerdict.AGAINST
        starts_well = pair.found[0][1] <= AGREE
        unexplained = sum(not self.explains(seen.order) for seen, _ in pair.differing)
        doubtful = 2 * unexplained > len(pair.found)
        if 2 * len(pair.agreeing) >= len(pair.found) or (starts_well and not doubtful):
            return PairVerdict.PROVED
        return PairVerdict.AGAINST if doubtful and not starts_well else PairVerdict.OPEN


def value_reasons(pair: ValueEvidence) -> list[str]:
    """Return what values say of a pair as reasons: "values agree (3 of 28 labels)", and how much the others differ."""
    total = f"{len(pair.found)} label{'s' * (len(pair.found) != 1)}"
    agreeing, differing = pair.agreeing, pair.differing
    middle = f"relative L2 {_middle([apart for _, apart in differing or pair.found]):.2g}"
    reasons = [f"values agree ({len(agreeing)} of {total})"] if agreeing else []
    if differing:
        first = f", first in {differing[0][0].data_id}" if agreeing else ""
        reasons.append(f"values differ ({len(differing)} of {total}): {middle}{first}")
    if pair.found and not reasons:
        reasons.append(f"values neither agree nor differ ({total}): {middle}")
    if pair.one_apart:
        reasons.append("values agree one layer apart: layers are counted from different numbers")
    return reasons


def _middle(found: Sequence[float]) -> float:
    return float(np.median(found)) if found else float("nan")
