"""Evidence from values for pairs of forms: whether they prove a pair, contradict it, or differ because of a bug."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from aclcmp.orchestrator.idmap.signatures import AGREE, DIFFER, distances
from aclcmp.orchestrator.idmap.similarity import CandidateLabel, Form, Matrix

_LEAST = 0.1
"""Similarity of labels that only just agree."""
_ROUND_OFF = 0.01
"""Labels nearer than this are not compared with those of the next layer."""
_HEALTHY = 0.25
"""If a larger share of the later labels agrees, there was no bug before them."""


class PairVerdict(Enum):
    """Conclusion from the values of a pair of forms."""

    PROVED = "proved"
    OPEN = "open"
    AGAINST = "against"


@dataclass(frozen=True, slots=True)
class ValueEvidence:
    """Agreement of the values of two forms' labels."""

    found: tuple[tuple[CandidateLabel, float], ...]
    """Golden labels in order of recording, with their relative L2; only those whose values can be compared."""
    one_apart: bool = False
    """True if labels agree with those of the next or the previous layer, and much less with those of their own."""

    @property
    def agreeing(self) -> list[CandidateLabel]:
        """Golden labels that agree."""
        return [label for label, distance in self.found if distance <= AGREE]

    @property
    def differing(self) -> list[tuple[CandidateLabel, float]]:
        """Golden labels that differ, and their relative L2."""
        return [(label, distance) for label, distance in self.found if distance >= DIFFER]


def value_similarity(golden: Sequence[Form], actual: Sequence[Form]) -> Matrix:
    """Return the mean agreement over all labels whose values can be compared: 0, none agrees, to 1, all are equal."""
    total, count = np.zeros((2, len(golden), len(actual)))
    by_numbers: list[dict[tuple[int, ...], list[int]]] = []
    for forms in (golden, actual):
        places: dict[tuple[int, ...], list[int]] = {}
        for place, form in enumerate(forms):
            for numbers, label in form.labels.items():
                if label.signatures:
                    places.setdefault(numbers, []).append(place)
        by_numbers.append(places)
    for numbers, rows in by_numbers[0].items():
        if columns := by_numbers[1].get(numbers):
            apart = distances(
                [golden[row].labels[numbers].signatures for row in rows],
                [actual[column].labels[numbers].signatures for column in columns],
            )
            cells = np.ix_(rows, columns)
            count[cells] += ~np.isnan(apart)
            total[cells] += np.where(apart <= AGREE, 1 - (1 - _LEAST) * apart / AGREE, 0)
    similarity: Matrix = np.round(total / np.maximum(count, 1), 6)  # rounded, so that round-off decides nothing
    return similarity


def evidence_of(golden: Form, actual: Form) -> ValueEvidence:
    """Return the evidence from the labels that two forms have in common."""
    found = tuple(
        (label, apart)
        for numbers, label in golden.labels.items()
        if numbers in actual.labels and not np.isnan(apart := _apart(label, actual.labels[numbers]))
    )
    own = _middle([apart for _, apart in found])
    return ValueEvidence(
        found, own > _ROUND_OFF and any(_agrees_one_apart(golden, actual, step, own) for step in (1, -1))
    )


def _agrees_one_apart(golden: Form, actual: Form, step: int, own: float) -> bool:
    """Tell whether labels agree with those `step` layers further, and are much nearer to them than to their `own`."""
    shifted = [
        _apart(label, other)
        for numbers, label in golden.labels.items()
        if numbers and (other := actual.labels.get((numbers[0] + step, *numbers[1:]))) is not None
    ]
    return _middle([apart for apart in shifted if not np.isnan(apart)]) <= min(AGREE, own / 3)


def _apart(golden: CandidateLabel, actual: CandidateLabel) -> float:
    if not golden.signatures or not actual.signatures:
        return float("nan")
    return float(distances([golden.signatures], [actual.signatures])[0, 0])


class AgreementTrend:
    """Agreement of all pairs along the run, which distinguishes the effect of a bug from a wrong pair.

    After a bug hardly any label agrees. A pair that differs while later labels agree is most likely a wrong pair.
    """

    def __init__(self, pairs: Iterable[ValueEvidence]) -> None:
        """Take the evidence of all pairs, including those of the same name."""
        all_of_them = [pair for pair in pairs if pair.found]
        agreement = [(label.order, True) for pair in all_of_them for label in pair.agreeing]
        agreement += [(label.order, False) for pair in all_of_them for label, _ in pair.differing]
        agreement.sort()
        self._orders = np.array([order for order, _ in agreement], np.int64)
        self._agreeing = np.cumsum([0, *(agrees for _, agrees in agreement)])

    def explains(self, order: int) -> bool:
        """Tell whether a bug may explain that a golden label differs: labels before it agree, hardly any after it."""
        place = int(np.searchsorted(self._orders, order))
        before, total = int(self._agreeing[place]), int(self._agreeing[-1])
        return before > 0 and total - before <= _HEALTHY * (self._orders.size - place)

    def verdict(self, pair: ValueEvidence) -> PairVerdict:
        """Return the conclusion from the values of a pair.

        Proved: at least half of the labels agree, or the first one agrees and a bug may explain the others. Against:
        most labels differ, the first one too, and no bug explains it.
        """
        if not pair.found:
            return PairVerdict.OPEN
        if pair.one_apart:
            return PairVerdict.AGAINST
        starts_well = pair.found[0][1] <= AGREE
        unexplained = sum(not self.explains(label.order) for label, _ in pair.differing)
        doubtful = 2 * unexplained > len(pair.found)
        if 2 * len(pair.agreeing) >= len(pair.found) or (starts_well and not doubtful):
            return PairVerdict.PROVED
        return PairVerdict.AGAINST if doubtful and not starts_well else PairVerdict.OPEN


def value_reasons(pair: ValueEvidence) -> list[str]:
    """Return the evidence as reasons: "values agree (3 of 28 labels)", and how much the others differ."""
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
