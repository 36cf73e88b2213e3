"""Match the forms of two runs: first by values, then by clear names, by the order between those, by other names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.idmap.similarity import Form, Matrix, name_similarity, shape_similarity
from aclcmp.orchestrator.idmap.value_evidence import value_similarity

BY_NAME, BY_SHAPE, BY_ORDER = 0.55, 0.25, 0.2
"""Weight of each in a score."""

_ALIKE = 0.5
"""Names that share less, by weight of words, are matched by their order only."""
_TIE = 0.02
_VALUES_TIE = 0.1
_MOST_CELLS = 1 << 24


@dataclass(frozen=True, slots=True)
class FormMatch:
    """Match of golden form number `golden` with actual form number `actual`."""

    golden: int
    actual: int
    name: float
    """Similarity of the names, from 0 to 1."""
    in_order: bool
    """True if it lies in the same order among the other matches on both sides."""
    rivals: str
    """What other forms match as well: "name" or "values"; else ""."""


def match_forms(golden: Sequence[Form], actual: Sequence[Form]) -> list[FormMatch]:
    """Match forms, each at most once and those of the same text always; return the matches in golden order.

    Time and memory grow with the number of golden forms times that of actual ones. Raises UsageError where these are
    too many.
    """
    if len(golden) * len(actual) > _MOST_CELLS:
        raise UsageError(
            f"{len(golden)} golden and {len(actual)} actual ids that differ in more than layer numbers are too many to "
            "propose rules between; write rules by hand, with stars"
        )
    pairing = _Pairing(golden, actual)
    pairs = pairing.solve()
    in_order = set(pairing.chain(pairing.pairs_as_matrix()))
    return [
        FormMatch(i, j, float(pairing.name[i, j]), (i, j) in in_order, pairing.rivals.get((i, j), ""))
        for i, j in sorted(pairs.items())
    ]


class _Pairing:
    """Matching in progress. In all matrices golden's forms are the rows and actual's the columns, both in order."""

    def __init__(self, golden: Sequence[Form], actual: Sequence[Form]) -> None:
        self._golden, self._actual = golden, actual
        self._shape = shape_similarity(golden, actual)
        self.name = name_similarity(golden, actual) * (self._shape >= 0)
        self._values = value_similarity(golden, actual) * (self._shape >= 0)
        self._pairs: dict[int, int] = {}
        self.rivals: dict[tuple[int, int], str] = {}

    def solve(self) -> dict[int, int]:
        """Match forms of the same text, then of the same values, then of clearly similar names.

        Then match what the order between those decides, and the rest by name.
        """
        columns = {form.text: j for j, form in enumerate(self._actual)}
        self._pairs |= {i: columns[form.text] for i, form in enumerate(self._golden) if form.text in columns}
        while self._take(self._mutual(self._by_values(), strict=True)) or self._take_same_values():
            pass
        while self._take(self._mutual(self._free(self.name), strict=True)):
            pass
        anchors = self.chain(self.pairs_as_matrix())
        self._take(self._note_rivals(self._between(anchors), self._free(self.name), "name"))
        while self._take(self._note_rivals(self._mutual(free := self._free(self.name), strict=False), free, "name")):
            pass
        return self._pairs

    def _take(self, pairs: dict[int, int]) -> bool:
        self._pairs |= pairs
        return bool(pairs)

    def _take_same_values(self) -> bool:
        """Match forms that neither values nor names tell apart, in their order as far as possible."""
        weights, before = self._by_values(), len(self._pairs)
        while self._take(self._note_rivals(dict(self.chain(self._free(weights))), weights, "values")):
            pass
        return len(self._pairs) > before

    def _note_rivals(self, pairs: dict[int, int], weights: Matrix, rivals: str) -> dict[int, int]:
        """Return the pairs unchanged, after noting those that have rivals of about the same weight."""
        for i, j in pairs.items():
            others = np.concatenate([np.delete(weights[i], j), np.delete(weights[:, j], i)])
            if others.size and others.max() >= weights[i, j] - _TIE and weights[i, j] > 0:
                self.rivals[i, j] = rivals
        return pairs

    def _free(self, similarity: Matrix) -> Matrix:
        """Return a copy of a similarity matrix with zeros for forms that are matched already."""
        free = similarity.copy()
        free[list(self._pairs)] = 0
        free[:, list(self._pairs.values())] = 0
        return free

    def _by_values(self) -> Matrix:
        """Return weights of pairs with the same values, unless other pairs have much more similar ones; else 0.

        Names decide between them, since several labels may hold the same tensor, as a projection and the attention
        around it do.
        """
        free = self._free(self._values)
        if not free.size or not free.any():
            return np.zeros_like(free)
        best = np.maximum(free.max(axis=1)[:, None], free.max(axis=0)[None, :])
        weights: Matrix = (free > 0) * (free >= best - _VALUES_TIE) * (_ALIKE + self.name)
        return weights

    @staticmethod
    def _mutual(free: Matrix, *, strict: bool) -> dict[int, int]:
        """Return pairs of which each is the best for the other; with `strict`, only if no other comes near."""
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
        """Return a matrix with the weight of each pair, for `chain`."""
        weights = np.zeros_like(self.name)
        for i, j in self._pairs.items():
            weights[i, j] = max(self.name[i, j], self._values[i, j], 0.1)
        return weights

    def _between(self, anchors: list[tuple[int, int]]) -> dict[int, int]:
        """Match forms that lie between the same anchors on both sides, in their order, by names and shapes."""
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
