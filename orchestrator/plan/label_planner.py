"""Plans labels one by one. The search for alignments is done once for all labels that lie alike."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable

from aclcmp.labeling.layout import Layout
from aclcmp.orchestrator.core.plan import LabelPlan
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.plan.label_sides import (
    LabelsByRank,
    LabelSides,
    RankSets,
    equal_golden_ranks,
    split_by_rank_groups,
)
from aclcmp.orchestrator.plan.layouts.alignment import Alignment, LabelSide, find_alignments
from aclcmp.orchestrator.plan.layouts.fractal_nz import plain_shape
from aclcmp.orchestrator.plan.layouts.interpretations import AlignmentError, LocalTensor, Shape
from aclcmp.orchestrator.plan.layouts.views import Views, find_views
from aclcmp.orchestrator.plan.rank_group import RankGroup
from aclcmp.orchestrator.plan.rank_labels import RankLabel

_Signature = tuple[tuple[int, Shape, Layout | None, str], ...]
_Signatures = tuple[tuple[bool, bool], _Signature, _Signature]


class Planner:
    """Plans labels one by one; remembers the alignments of those it has seen."""

    def __init__(self, golden_ranks: int, actual_ranks: int, *, one_run: bool) -> None:
        """`one_run`: golden and actual ranks correspond. `golden_ranks`, `actual_ranks`: how many the jobs had."""
        self._sizes = golden_ranks, actual_ranks
        self._one_run = one_run
        self._usual_golden_sets: RankSets = ()
        self._alignments: dict[object, list[Alignment] | AlignmentError] = {}
        self._views: dict[object, tuple[list[Views], list[Views]]] = {}

    def learn_golden_sets(self, labels: Iterable[LabelSides]) -> None:
        """Learn from all labels of one run which ranks usually hold the same golden tensors."""
        if self._one_run:
            counts = Counter(sets for sides in labels if (sets := equal_golden_ranks(sides.goldens)))
            self._usual_golden_sets = counts.most_common(1)[0][0] if counts else ()

    def plan(self, key: LabelKey, sides: LabelSides) -> LabelPlan:
        """Plan one label."""
        groups = split_by_rank_groups(sides) if self._one_run else [sides]
        plans = [
            RankGroup(key, group, self._one_run, self._usual_golden_sets).plan(self._find_alignments, self._find_views)
            for group in groups
        ]
        return functools.reduce(LabelPlan.with_part, plans)

    def _find_alignments(self, goldens: LabelsByRank, actuals: LabelsByRank) -> list[Alignment]:
        """Return the alignments of two sides, from memory if others lay alike. Raises AlignmentError."""
        signature = self._signatures(goldens, actuals)
        if signature not in self._alignments:
            try:
                self._alignments[signature] = find_alignments(*self._sides(signature), one_run=self._one_run)
            except AlignmentError as error:
                self._alignments[signature] = error
        found = self._alignments[signature]
        if isinstance(found, AlignmentError):
            raise found
        return found

    def _find_views(self, goldens: LabelsByRank, actuals: LabelsByRank) -> tuple[list[Views], list[Views]]:
        """Return the views under which two sides fit, and others to try, from memory if others lay alike."""
        if any(label.in_blocks or label.places is not None for side in (goldens, actuals) for label in side.values()):
            return [], []
        signature = self._signatures(goldens, actuals)
        if signature not in self._views:
            self._views[signature] = find_views(*self._sides(signature), one_run=self._one_run)
        return self._views[signature]

    def _signatures(self, goldens: LabelsByRank, actuals: LabelsByRank) -> _Signatures:
        alike = _are_equal(goldens), _are_equal(actuals)
        return alike, self._signature(goldens, {}), self._signature(actuals, goldens)

    def _sides(self, signatures: _Signatures) -> tuple[LabelSide, LabelSide]:
        alike, *sides = signatures
        golden, actual = (
            LabelSide({rank: LocalTensor(shape, layout, host) for rank, shape, layout, host in side}, size, same)
            for side, size, same in zip(sides, self._sizes, alike, strict=True)
        )
        return golden, actual

    def _signature(self, labels: LabelsByRank, goldens: LabelsByRank) -> _Signature:
        """Return all of one side that decides how it lies: a thousand labels of 256 ranks have few signatures."""
        return tuple(
            [
                (rank, _logical_shape(each, goldens.get(rank)), each.record.layout, each.host if self._one_run else "")
                for rank, each in labels.items()
            ]
        )


def _are_equal(labels: LabelsByRank) -> bool:
    """Tell whether all ranks surely hold the same; of slices the second one already differs."""
    each = iter(labels.values())
    first = next(each).content
    return len(labels) == 1 or (first is not None and all(other.content == first for other in each))


def _logical_shape(label: RankLabel, golden: RankLabel | None) -> Shape:
    """Return the shape of a tensor as it lies in the whole, also of one that is stored in blocks."""
    shape = plain_shape(label.source, golden.shape) if label.in_blocks and golden is not None else None
    return label.shape if shape is None else shape
