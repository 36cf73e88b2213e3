"""Several labels of one side that are together one of the other: side by side along the last dimension, or summed.

A label that lies side by side is cut: each part is planned under its partner's name as if it had been stored by itself,
and its pairs are then moved to where it lies. A sum is planned as its first summand, and its pairs get the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from aclcmp.labeling.layout import Layout
from aclcmp.orchestrator.core.plan import Gap, GapKind, LabelPlan
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.text import note_on_unused_rules
from aclcmp.orchestrator.plan.id_rules import JoinRule
from aclcmp.orchestrator.plan.layouts.interpretations import INFERRED, PROVED, AlignmentError
from aclcmp.orchestrator.plan.rank_labels import RankLabel, see_label

RankLabels = tuple[int, list[RankLabel]]
"""A rank and its labels in one run."""
_Call = tuple[int, int]
"""Task and occurrence."""
_Place = tuple[LabelKey, str, int]
"""A label, its side ("golden" or "actual"), and the rank that has it."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The place of a part in the last dimension of its stored tensor."""

    begin: int
    size: int
    whole: int
    """Size of the stored tensor."""


class JoinedLabels:
    """The labels of a golden and an actual run, with joined ones in the place of their partners."""

    def __init__(self, goldens: list[RankLabels], actuals: list[RankLabels], rules: Sequence[JoinRule]) -> None:
        """Take the labels of both runs, and change their lists; ids have been mapped, and tasks aligned."""
        self._by_side = {"golden": goldens, "actual": actuals}
        self._parts: dict[_Place, _Part] = {}
        self._summands: dict[_Place, tuple[Source, ...]] = {}
        self._words: dict[LabelKey, str] = {}
        """Of each label that is a part or a sum, in the words of its layout."""
        self._wrong: dict[LabelKey, str] = {}
        """Labels of which nothing can be compared, and why."""
        names = list(dict.fromkeys(label.key.label for _, labels in self._by_side["golden"] for label in labels))
        unused: list[int] = []
        for rule in rules:
            before = len(self._words)
            for golden_names, actual_names in rule.names(names):
                if rule.how == "+":
                    self._add_up("golden", golden_names)
                    self._add_up("actual", actual_names)
                elif len(golden_names) > 1:
                    self._cut("actual", actual_names[0], self._sizes("golden", golden_names))
                else:
                    self._cut("golden", golden_names[0], self._sizes("actual", actual_names))
            if len(self._words) == before:
                unused.append(rule.line)
        self.notes = note_on_unused_rules(unused, "the map")

    def finish(self, plan: LabelPlan) -> LabelPlan:
        """Return the plan of a label with its pairs where the parts lie, and with all summands."""
        if plan.key in self._wrong:
            return _mismatch(plan, self._wrong[plan.key])
        if plan.key not in self._words:
            return plan
        try:
            return plan.change_pairs(self._change)
        except AlignmentError as error:
            return _mismatch(plan, str(error))

    def _add_up(self, side: str, names: Sequence[str]) -> None:
        """Take the summands beside the first out of a side's labels."""
        first, *others = names
        for rank, labels in self._by_side[side] if others else ():
            by_key = {label.key: label for label in labels}
            taken = set()
            for key in [key for key in by_key if key.label == first]:
                keys = [key._replace(label=other) for other in others]
                summands = [by_key[each] for each in keys if each in by_key]
                taken.update(keys)
                self._words[key] = f"sum of {len(names)} tensors"
                self._summands[key, side, rank] = tuple(label.source for label in summands)
                if reason := _why_no_sum([by_key[key], *summands], names):
                    self._wrong[key] = f"{reason} on rank {rank}"
            labels[:] = [label for label in labels if label.key not in taken]

    def _sizes(self, side: str, names: Sequence[str]) -> dict[_Call, dict[str, int]]:
        """Return the last sizes of labels of these names, by call, on the first rank that has them all."""
        found: dict[_Call, dict[str, int]] = {}
        for _, labels in self._by_side[side]:
            here: dict[_Call, dict[str, int]] = {}
            for label in labels:
                if label.key.label in names and label.shape:
                    call = label.key.task, label.key.occurrence
                    here.setdefault(call, dict.fromkeys(names, 0))[label.key.label] = label.shape[-1]
            found = {call: sizes for call, sizes in here.items() if all(sizes.values())} | found
        return found

    def _cut(self, side: str, name: str, partners: Mapping[_Call, Mapping[str, int]]) -> None:
        """Put parts in the place of a label; one without all of its partners stays as it is."""
        for rank, labels in self._by_side[side]:
            cut: list[RankLabel] = []
            for label in labels:
                wanted = partners.get((label.key.task, label.key.occurrence)) if label.key.label == name else None
                cut += [label] if wanted is None else self._parts_of(side, rank, label, wanted)
            labels[:] = cut

    def _parts_of(self, side: str, rank: int, label: RankLabel, partners: Mapping[str, int]) -> Iterator[RankLabel]:
        columns = label.shape[-1] if label.shape else 0
        theirs = self._by_side["golden" if side == "actual" else "actual"]
        sizes = _part_sizes(columns, list(partners.values()), len(self._by_side[side]), len(theirs))
        reason = _why_no_parts(label)
        if not reason and sizes is None:
            told = " and ".join(f"{size:,} of {name}" for name, size in partners.items())
            reason = f"the {columns:,} columns of {label.key.label} cannot be divided like {told}"
        begin = 0
        for number, name in enumerate(partners):
            key = label.key._replace(label=name)
            part = replace(label, key=key, record=replace(label.record, data_id=name))
            self._words[key] = f"part {number + 1} of {len(partners)} side by side"
            if reason or sizes is None:
                if not label.record.error:
                    self._wrong[key] = f"{reason} on rank {rank}"
                yield part
                continue
            self._parts[key, side, rank] = _Part(begin, sizes[number], columns)
            begin += sizes[number]
            yield see_label(part, (*label.shape[:-1], sizes[number]), _layout_of_part(label))

    def _change(self, pair: Pair, golden_side: str, actual_side: str) -> Pair:
        """Return a pair with what is stored in the place of parts, and with all summands. Raises AlignmentError."""
        goldens = self._all_summands(pair.key, golden_side, (pair.golden, *pair.more_golden))
        actuals = self._all_summands(pair.key, actual_side, (pair.actual, *pair.more_actual))
        layout = next((end for end in (INFERRED, PROVED) if pair.layout.endswith(end)), "")
        return replace(
            pair,
            golden=goldens[0],
            golden_region=self._move(pair.key, golden_side, pair.golden, pair.golden_region),
            actual=actuals[0],
            actual_region=self._move(pair.key, actual_side, pair.actual, pair.actual_region),
            layout=f"{pair.layout.removesuffix(layout)}, {self._words[pair.key]}{layout}",
            more_golden=tuple(goldens[1:]),
            more_actual=tuple(actuals[1:]),
        )

    def _all_summands(self, key: LabelKey, side: str, sources: Iterable[Source]) -> list[Source]:
        """Return what is stored of each source, with its further summands. Raises AlignmentError."""
        found = []
        for source in sources:
            part = self._parts.get((key, side, source.rank))
            if part is not None and source.shape[-1:] != (part.size,):
                raise AlignmentError(f"{self._words[key]} cannot be seen as {list(source.shape)}")
            shape = source.shape if part is None else (*source.shape[:-1], part.whole)
            summands = self._summands.get((key, side, source.rank), ())
            found += [replace(each, shape=shape) for each in (source, *summands)]
        return found

    def _move(self, key: LabelKey, side: str, source: Source, region: Region) -> Region:
        part = self._parts.get((key, side, source.rank))
        return region if part is None else region.translate((*(0,) * (len(region.start) - 1), part.begin))


def _mismatch(plan: LabelPlan, reason: str) -> LabelPlan:
    """Return the plan of a label of which nothing can be compared; what failed or is missing stays so."""
    parts = [plan, *(question.unsettled for question in plan.questions)]
    sides = {rank: each for part in parts for rank, each in part.sides.items()}
    gaps = {gap.rank: gap for part in parts for gap in part.gaps}
    mismatches = {rank: Gap(plan.key, rank, GapKind.MISMATCH, reason) for rank in sides}
    return LabelPlan(plan.key, sides, gaps=tuple((mismatches | gaps)[rank] for rank in sorted(mismatches | gaps)))


def _part_sizes(columns: int, partners: Sequence[int], ranks: int, of_partners: int) -> list[int] | None:
    """Return the sizes of parts that make up so many columns, like their partners; None where that is not clear.

    The largest part is cut as all ranks suggest, `ranks` of this side and `of_partners` of the other, or else in the
    only way there is. The others may be cut for fewer ranks: grouped queries may have fewer heads of keys and values
    than there are ranks.
    """
    likely = dict.fromkeys((Fraction(1), Fraction(of_partners, ranks), Fraction(1, ranks), Fraction(of_partners)))
    for factor in likely:
        if sizes := _sizes_with(columns, partners, factor):
            return sizes
    others = [Fraction(1, n) for n in range(2, ranks)] + [Fraction(n) for n in range(2, of_partners)]
    found = [sizes for factor in others if factor not in likely and (sizes := _sizes_with(columns, partners, factor))]
    return found[0] if len(found) == 1 else None


def _sizes_with(columns: int, partners: Sequence[int], factor: Fraction) -> list[int] | None:
    """Return the parts' sizes where the largest is `factor` times its partner, and no other less than that."""
    largest = max(partners)
    rest = sum(size for size in partners if size < largest)
    of_rest = (columns - factor * (sum(partners) - rest)) / rest if rest else factor
    sizes = [size * (factor if size == largest else of_rest) for size in partners]
    fits = sum(sizes) == columns and of_rest >= factor and (of_rest / factor).denominator == 1
    return [int(size) for size in sizes] if fits and all(size.denominator == 1 for size in sizes) else None


def _why_no_parts(label: RankLabel) -> str:
    """Say why a label cannot be cut; "" if it can."""
    if not label.source.is_whole:
        return f"only the {label.source.capture} was kept, of which no part can be compared; use --capture full;"
    if label.in_blocks:
        return "a tensor in FRACTAL_NZ order cannot be cut"
    return "a tensor whose rows have names cannot be cut" if label.rows is not None else ""


def _why_no_sum(labels: Sequence[RankLabel], names: Sequence[str]) -> str:
    """Say why labels of one rank have no sum; "" if they have."""
    if len(labels) < len(names):
        missing = next(name for name in names if name not in {label.key.label for label in labels})
        return f"the summand {missing} is missing"
    if error := next((label.record.error for label in labels if label.record.error), ""):
        return f"a summand failed ({error})"
    if len({(label.dtype, label.shape) for label in labels}) > 1:
        told = " and ".join(f"{label.key.label} ({label.dtype} {list(label.shape)})" for label in labels)
        return f"summands differ in dtype or shape: {told}"
    if not all(label.source.is_whole for label in labels):
        return "only a summary was kept, of which no sum can be compared; use --capture full;"
    if any(label.in_blocks for label in labels):
        return "tensors in FRACTAL_NZ order cannot be added"
    return "tensors whose rows have names cannot be added" if any(label.rows is not None for label in labels) else ""


def _layout_of_part(label: RankLabel) -> Layout | None:
    """Return the layout of a label's parts; None where it may say how the last dimension is cut."""
    layout = label.record.layout
    return layout if layout is not None and layout.is_replicate else None
