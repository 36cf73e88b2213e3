"""Which forms of two runs go together: by values, then names beyond doubt, the order between those, names at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aclcmp.orchestrator.idmap.similarity import Form, Matrix, name_similarity, shape_similarity
from aclcmp.orchestrator.idmap.value_evidence import value_similarity

BY_NAME, BY_SHAPE, BY_ORDER = 0.55, 0.25, 0.2
"""What each counts in a score."""

_ALIKE = 0.5
"""Names that share less, by weight of words, pair by their order only."""
_TIE = 0.02
_VALUES_TIE = 0.1


@dataclass(frozen=True, slots=True)
class FormMatch:
    """How golden form number `golden` goes with actual form number `actual`."""

    golden: int
    actual: int
    name: float
    """How alike the names are, from 0 to 1."""
    in_order: bool
    """Whether it stands among the other pairs where both sides recorded it."""
    rivals: str
    """Where others would fit as well: "name" or "values"; else ""."""


def match_forms(golden: Sequence[Form], actual: Sequence[Form]) -> list[FormMatch]:
    """Pair forms, each at most once, those of the same text in any case; in golden order.

    Takes time and memory as the number of golden forms times that of actual ones.
    """
    pairing = _Pairing(golden, actual)
    pairs = pairing.solve()
    in_order = set(pairing.chain(pairing.pairs_as_matrix()))
    return [
        FormMatch(i, j, float(pairing.name[i, j]), (i, j) in in_order, pairing.rivals.get((i, j), ""))
        for i, j in sorted(pairs.items())
    ]


class _Pairing:
    """Golden's forms are rows, actual's columns, both in their order."""

    def __init__(self, golden: Sequence[Form], actual: Sequence[Form]) -> None:
        self._golden, self._actual = golden, actual
        self._shape = shape_similarity(golden, actual)
        self.name = name_similarity(golden, actual) * (self._shape >= 0)
        self._values = value_similarity(golden, actual) * (self._shape >= 0)
        self._pairs: dict[int, int] = {}
        self.rivals: dict[tuple[int, int], str] = {}

    def solve(self) -> dict[int, int]:
        """Pair what has one text, then what has the same values, then what is named alike beyond doubt.

        Then what the order between those decides, then the rest by name.
        """
        columns = {form.text: j for j, form in enumerate(self._actual)}
        self._pairs |= {i: columns[form.text] for i, form in enumerate(self._golden) if form.text in columns}
        while self._take(self._mutual(self._by_values(), strict=True)) or self._take_same_values():
            pass
        while self._take(self._mutual(self._free(self.name), strict=True)):
            pass
        anchors = self.chain(self.pairs_as_matrix())
        self._take(self._noted(self._between(anchors), self._free(self.name), "name"))
        while self._take(self._noted(self._mutual(free := self._free(self.name), strict=False), free, "name")):
            pass
        return self._pairs

    def _take(self, pairs: dict[int, int]) -> bool:
        self._pairs |= pairs
        return bool(pairs)

    def _take_same_values(self) -> bool:
        """Take what neither values nor names tell apart, in its order where that can be."""
        weights, before = self._by_values(), len(self._pairs)
        while self._take(self._noted(dict(self.chain(self._free(weights))), weights, "values")):
            pass
        return len(self._pairs) > before

    def _noted(self, pairs: dict[int, int], weights: Matrix, rivals: str) -> dict[int, int]:
        """Return the pairs, and note of which others have about the same weight."""
        for i, j in pairs.items():
            others = np.concatenate([np.delete(weights[i], j), np.delete(weights[:, j], i)])
            if others.size and others.max() >= weights[i, j] - _TIE and weights[i, j] > 0:
                self.rivals[i, j] = rivals
        return pairs

    def _free(self, likeness: Matrix) -> Matrix:
        """A likeness among what is not paired yet, zero elsewhere."""
        free = likeness.copy()
        free[list(self._pairs)] = 0
        free[:, list(self._pairs.values())] = 0
        return free

    def _by_values(self) -> Matrix:
        """What has the same values and no others have values much more alike: by names, from _ALIKE on; else zero.

        Several labels may hold one tensor, as a projection and the attention around it do.
        """
        free = self._free(self._values)
        if not free.size or not free.any():
            return np.zeros_like(free)
        best = np.maximum(free.max(axis=1)[:, None], free.max(axis=0)[None, :])
        weights: Matrix = (free > 0) * (free >= best - _VALUES_TIE) * (_ALIKE + self.name)
        return weights

    @staticmethod
    def _mutual(free: Matrix, *, strict: bool) -> dict[int, int]:
        """Return pairs of which each is the best for the other; `strict`: and no other comes near."""
        if not free.size:
            return {}
        rows, columns = free.argmax(axis=1), free.argmax(axis=0)
        found = {}
        for i, j in enumerate(rows.tolist()):
            if free[i, j] < _ALIKE or columns[j] != i:
                continue
            near = (free[i] >= free[i, j] - _TIE).sum() + (free[:, j] >= free[i, j] - _TIE).sum() > 2
            if not (strict and near):
                found[i] = j
        return found

    def pairs_as_matrix(self) -> Matrix:
        """Return the weight of each pair in an order."""
        weights = np.zeros_like(self.name)
        for i, j in self._pairs.items():
            weights[i, j] = max(self.name[i, j], self._values[i, j], 0.1)
        return weights

    def _between(self, anchors: list[tuple[int, int]]) -> dict[int, int]:
        """Pair what lies between the same anchors on both sides, in its order, by names and shapes."""
        before_row, before_column = (np.zeros(len(side), int) for side in (self._golden, self._actual))
        for i, j in anchors:
            before_row[i:] += 1
            before_column[j:] += 1
        free = (self._shape > 0) & (before_row[:, None] == before_column[None, :])
        free[list(self._pairs)] = False
        free[:, list(self._pairs.values())] = False
        weights = (BY_NAME * self.name + BY_SHAPE * self._shape.clip(0)) * free
        return dict(self.chain(weights))

    @staticmethod
    def chain(weights: Matrix) -> list[tuple[int, int]]:
        """Return the heaviest sequence of cells, each below and to the right of the one before."""
        rows, columns = weights.shape
        best = np.zeros((rows + 1, columns + 1))
        for i in range(rows):
            best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], best[i, :-1] + weights[i]))
        chain = []
        i, j = rows, columns
        while i and j:
            if best[i, j] == best[i - 1, j]:
                i -= 1
            elif best[i, j] == best[i, j - 1]:
                j -= 1
            else:
                i, j = i - 1, j - 1
                chain.append((i, j))
        return chain[::-1]
