"""Several labels of one side that are together one of the other: side by side along the last dimension, or summed.

A label that lies side by side is cut: each part is planned under its partner's name as if it had been stored by itself,
and its pairs are then moved to where it lies. A sum is planned as its first summand, and its pairs get the others.
Labels whose rows have names are one label in all calls: of these the parts and sums go by id, not by call.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from aclcmp.labeling.layout import Layout, Shard, divisors
from aclcmp.orchestrator.core.plan import Gap, GapKind, LabelPlan
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, RowPlaces, Source
from aclcmp.orchestrator.core.text import note_on_unused_rules
from aclcmp.orchestrator.plan.id_rules import JoinRule
from aclcmp.orchestrator.plan.layouts.interpretations import INFERRED, PROVED, AlignmentError, Shape
from aclcmp.orchestrator.plan.rank_labels import RankLabel, see_label
from aclcmp.orchestrator.plan.rows.row_sets import features_of

RankLabels = tuple[int, list[RankLabel]]
"""A rank and its labels in one run."""
_Call = tuple[int, int]
"""Task and occurrence."""
_Name = LabelKey | str
"""A label in one call, or in all calls: those whose rows have names are planned once, for all."""
_Place = tuple[_Name, str, int]
"""A label, its side ("golden" or "actual"), and the rank that has it."""
_Stored = tuple[str, str, str, int]
"""A label's id and side, and where the tensor of a call lies: path and byte offset."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The place of a part in the last dimension of its stored tensor."""

    begin: int
    size: int
    whole: int
    """Size of the stored tensor."""

    def stored_shape(self, seen: Shape) -> Shape:
        """Return the stored tensor's shape by that in which the part is seen. Raises AlignmentError.

        Of a transposed tensor the last dimension may hold several rows, one after another.
        """
        if not seen or not self.size or seen[-1] % self.size:
            raise AlignmentError(f"{self.size:,} of {self.whole:,} columns cannot be seen as {list(seen)}")
        return (*seen[:-1], seen[-1] // self.size * self.whole)

    def stored_region(self, seen: Region) -> Region:
        """Return where a region of the part lies in the stored tensor. Raises AlignmentError if it is in several."""
        row, column = divmod(seen.start[-1], self.size)
        if column + seen.shape[-1] > self.size:
            raise AlignmentError(f"{self.size:,} of {self.whole:,} columns cannot be seen with other rows side by side")
        return Region((*seen.start[:-1], row * self.whole + self.begin + column), seen.shape)


class JoinedLabels:
    """The labels of a golden and an actual run, with joined ones in the place of their partners."""

    def __init__(self, goldens: list[RankLabels], actuals: list[RankLabels], rules: Sequence[JoinRule]) -> None:
        """Take the labels of both runs, and change their lists; ids have been mapped, and tasks aligned."""
        self._by_side = {"golden": goldens, "actual": actuals}
        self._parts: dict[_Place, _Part] = {}
        self._summands: dict[_Stored, tuple[Source, ...]] = {}
        """By each first summand the others."""
        self._words: dict[_Name, str] = {}
        """Of each label that is a part or a sum, in the words of its layout."""
        self._wrong: dict[_Name, str] = {}
        """Labels of which nothing can be compared, and why."""
        self._ids = {
            side: dict.fromkeys(label.key.label for _, labels in ranks for label in labels).keys()
            for side, ranks in self._by_side.items()
        }
        names = self._ids["golden"]
        unused: list[int] = []
        for rule in rules:
            before = len(self._words)
            for golden_names, actual_names in rule.names(names):
                if rule.how == "+" and len(golden_names) > 1:
                    self._add_up("golden", golden_names, actual_names[0])
                elif rule.how == "+":
                    self._add_up("actual", actual_names, golden_names[0])
                elif len(golden_names) > 1:
                    self._cut("actual", actual_names[0], self._sizes("golden", golden_names))
                else:
                    self._cut("golden", golden_names[0], self._sizes("actual", actual_names))
            if len(self._words) == before:
                unused.append(rule.line)
        self.notes = note_on_unused_rules(unused, "the map")

    def finish(self, plan: LabelPlan) -> LabelPlan:
        """Return the plan of a label with its pairs where the parts lie, and with all summands."""
        name = plan.key if plan.rows is None else plan.key.label
        if name in self._wrong:
            return _mismatch(plan, self._wrong[name])
        if name not in self._words:
            return plan
        try:
            return plan.change_pairs(self._change)
        except AlignmentError as error:
            return _mismatch(plan, str(error))

    def _add_up(self, side: str, names: Sequence[str], name: str) -> None:
        """Put the sum of several labels of a side in the place of the first, under the name of their partner."""
        first, *others = names
        is_taken = name in self._ids[side] - {*names}
        there = {label.key for _, labels in self._by_side[side] for label in labels}
        for rank, labels in self._by_side[side]:
            by_key = {label.key: label for label in labels}
            sums: dict[LabelKey, RankLabel] = {}
            for key in [key for key in by_key if key.label == first]:
                keys = [key, *(key._replace(label=other) for other in others)]
                summands = [by_key[each] for each in keys if each in by_key]
                broken = next((label for label in summands if label.problem), None)
                sums[key] = _rename(broken or by_key[key], name)
                self._tell(sums[key], f"sum of {len(names)} tensors")
                stored = by_key[key].source
                self._summands[name, side, stored.path, stored.offset] = tuple(label.source for label in summands[1:])
                missing = next((each for each in keys if each not in by_key), None)
                if is_taken:
                    self._tell_wrong(sums[key], _own_label(side, name))
                elif missing is not None:
                    where = f"missing on rank {rank}" if missing in there else "missing on all ranks"
                    self._tell_wrong(sums[key], f"the summand {missing.label} is {where}")
                elif broken is None and (reason := _why_no_sum(summands)):
                    self._tell_wrong(sums[key], f"{reason} on rank {rank}")
            taken = {key._replace(label=other) for key in sums for other in others}
            labels[:] = [sums.get(label.key, label) for label in labels if label.key not in taken]

    def _tell(self, label: RankLabel, words: str) -> None:
        """Note what a label is in the words of its layout."""
        self._words |= dict.fromkeys(_names_of(label), words)

    def _tell_wrong(self, label: RankLabel, reason: str) -> None:
        """Note that nothing of a label can be compared; the first reason counts."""
        for name in _names_of(label):
            self._wrong.setdefault(name, reason)

    def _sizes(self, side: str, names: Sequence[str]) -> dict[_Call | None, dict[str, int | str]]:
        """Return the last size of each of these labels by call, on the first rank that tells it, or why none does.

        Also return it for any call, under None. Left out are calls in which a label is on no rank.
        """
        found: dict[_Call | None, dict[str, int | str]] = {}
        for _, labels in self._by_side[side]:
            for label in labels:
                if label.key.label in names:
                    size = label.problem or (label.shape[-1] if label.shape else "it has no dimension")
                    for call in ((label.key.task, label.key.occurrence), None):
                        sizes = found.setdefault(call, {})
                        if isinstance(sizes.get(label.key.label, ""), str):
                            sizes[label.key.label] = size
        return {
            call: {name: sizes[name] for name in names} for call, sizes in found.items() if len(sizes) == len(names)
        }

    def _cut(self, side: str, name: str, partners: Mapping[_Call | None, Mapping[str, int | str]]) -> None:
        """Put parts in the place of a label; one without all of its partners stays as it is."""
        taken = self._ids[side] - {name}
        for rank, labels in self._by_side[side]:
            cut: list[RankLabel] = []
            for label in labels:
                call = None if _has_rows(label) else (label.key.task, label.key.occurrence)
                wanted = partners.get(call) if label.key.label == name else None
                parts = [label] if wanted is None else [*self._parts_of(side, rank, label, wanted)]
                for part in parts:
                    if wanted is not None and part.key.label in taken:
                        self._tell_wrong(part, _own_label(side, part.key.label))
                cut += parts
            labels[:] = cut

    def _parts_of(
        self, side: str, rank: int, label: RankLabel, partners: Mapping[str, int | str]
    ) -> Iterator[RankLabel]:
        told = _told_parts(label, len(partners))
        sizes, reason = ([size for size, _ in told], "") if told else self._part_sizes(side, label, partners)
        layouts: list[Layout | None] = [layout for _, layout in told] or [_layout_of_part(label)] * len(partners)
        begin = 0
        for number, name in enumerate(partners):
            part = _rename(label, name)
            self._tell(part, f"part {number + 1} of {len(partners)} side by side")
            if label.problem:
                yield part
            elif reason:
                self._tell_wrong(part, f"{reason} on rank {rank}")
                yield part
            else:
                place = _Part(begin, sizes[number], label.shape[-1])
                self._parts |= {(each, side, rank): place for each in _names_of(part)}
                begin += sizes[number]
                yield see_label(part, (*label.shape[:-1], sizes[number]), layouts[number])

    def _part_sizes(self, side: str, label: RankLabel, partners: Mapping[str, int | str]) -> tuple[list[int], str]:
        """Return the sizes of a label's parts, or why they are not known."""
        name = label.key.label
        if reason := _why_no_parts(label):
            return [], reason
        known = [size for size in partners.values() if isinstance(size, int)]
        if unknown := next((each for each, size in partners.items() if isinstance(size, str)), None):
            return [], f"how {name} is divided is not known without {unknown} ({partners[unknown]});"
        columns = label.shape[-1] if label.shape else 0
        theirs = self._by_side["golden" if side == "actual" else "actual"]
        sizes = part_sizes(columns, known, len(self._by_side[side]), len(theirs))
        if sizes is None:
            told = " and ".join(f"{size:,} of {each}" for each, size in partners.items())
            return [], f"the {columns:,} columns of {name} cannot be divided like {told}"
        return sizes, ""

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
            layout=f"{pair.layout.removesuffix(layout)}, {self._words[_name_in(pair.key, pair.golden)]}{layout}",
            more_golden=tuple(goldens[1:]),
            more_actual=tuple(actuals[1:]),
        )

    def _all_summands(self, key: LabelKey, side: str, sources: Iterable[Source]) -> list[Source]:
        """Return what is stored of each source, with its further summands. Raises AlignmentError."""
        found = []
        for source in sources:
            part = self._part_of(key, side, source)
            shape = source.shape if part is None else part.stored_shape(source.shape)
            summands = self._summands_of(key.label, side, source)
            found += [replace(each, shape=shape) for each in (source, *summands)]
        return found

    def _move(self, key: LabelKey, side: str, source: Source, region: Region) -> Region:
        part = self._part_of(key, side, source)
        return region if part is None else part.stored_region(region)

    def _part_of(self, key: LabelKey, side: str, source: Source) -> _Part | None:
        return self._parts.get((_name_in(key, source), side, source.rank))

    def _summands_of(self, label: str, side: str, source: Source) -> Sequence[Source]:
        """Return the further summands of a tensor, or of one that is gathered from several calls."""
        places = source.places
        if places is None:
            return self._summands.get((label, side, source.path, source.offset), ())
        pieces = zip(places.file.tolist(), places.offset.tolist(), strict=True)
        of_pieces = [self._summands.get((label, side, places.paths[file], offset), ()) for file, offset in pieces]
        return [_gather_alike(source, places, pieces) for pieces in zip(*of_pieces, strict=True)]


def _own_label(side: str, name: str) -> str:
    return f"{side} also has a label {name} of its own, so that two would have this name; rename one of them"


def _names_of(label: RankLabel) -> tuple[_Name, ...]:
    """Return the names under which a label may be planned: names of rows do not always count."""
    return (label.key, label.key.label) if _has_rows(label) else (label.key,)


def _has_rows(label: RankLabel) -> bool:
    return label.rows is not None and features_of(label) is not None


def _name_in(key: LabelKey, source: Source) -> _Name:
    """Return the name under which a label was planned that has such a tensor."""
    return key if source.places is None else key.label


def _gather_alike(source: Source, places: RowPlaces, pieces: Sequence[Source]) -> Source:
    """Return the tensor that is gathered from other pieces just as `source`, whose places are given."""
    paths = {path: number for number, path in enumerate(dict.fromkeys(each.path for each in pieces))}
    others = replace(
        places,
        paths=tuple(paths),
        file=np.array([paths[each.path] for each in pieces], np.int32),
        offset=np.array([each.offset for each in pieces], np.int64),
        checksum=np.array([each.checksum or 0 for each in pieces], np.uint64),
    )
    return replace(source, path=pieces[0].path, offset=pieces[0].offset, places=others)


def _rename(label: RankLabel, name: str) -> RankLabel:
    return replace(label, key=label.key._replace(label=name), record=replace(label.record, data_id=name))


def _mismatch(plan: LabelPlan, reason: str) -> LabelPlan:
    """Return the plan of a label of which nothing can be compared; what failed or is missing stays so."""
    parts = [plan, *(question.unsettled for question in plan.questions)]
    sides = {rank: each for part in parts for rank, each in part.sides.items()}
    gaps = {gap.rank: gap for part in parts for gap in part.gaps if gap.kind is not GapKind.MISMATCH}
    mismatches = {rank: Gap(plan.key, rank, GapKind.MISMATCH, reason) for rank in sides}
    return LabelPlan(plan.key, sides, gaps=tuple((mismatches | gaps)[rank] for rank in sorted(mismatches | gaps)))


def part_sizes(columns: int, partners: Sequence[int], ranks: int, of_partners: int) -> list[int] | None:
    """Return the sizes of parts that make up so many columns, like their partners; None where that is not clear.

    `ranks` are those of this side, `of_partners` those of the other. Each side's largest part is cut for all ranks, or
    whole on each, or else cut for some of them in the only way that fits.
    """
    likely = [(theirs, ours) for theirs in dict.fromkeys((of_partners, 1)) for ours in dict.fromkeys((ranks, 1))]
    for theirs, ours in likely:
        if found := _sizes_with(columns, partners, theirs, ours):
            return found[0]
    others = itertools.product(divisors(of_partners), divisors(ranks))
    distinct = {tuple(sizes) for theirs, ours in others for sizes in _sizes_with(columns, partners, theirs, ours)}
    return list(*distinct) if len(distinct) == 1 else None


def _sizes_with(columns: int, partners: Sequence[int], theirs: int, ours: int) -> list[list[int]]:
    """Return the parts' sizes where the largest is cut in `theirs` slices on the other side and in `ours` on this one.

    The other parts may be cut in fewer slices, of which several ranks hold each: grouped queries may have fewer heads
    of keys and values than there are ranks. Then slices may be of one size though the wholes are not: the first is that
    of the queries.
    """
    factor = Fraction(theirs, ours)
    possible = {Fraction(min(theirs, heads), min(ours, heads)) for heads in range(1, max(theirs, ours) + 1)}
    found = []
    for is_cut in ([size == max(partners) for size in partners], [number == 0 for number in range(len(partners))]):
        rest = sum(size for size, cut in zip(partners, is_cut, strict=True) if not cut)
        of_rest = (columns - factor * (sum(partners) - rest)) / rest if rest else factor
        sizes = [size * (factor if cut else of_rest) for size, cut in zip(partners, is_cut, strict=True)]
        if sum(sizes) == columns and of_rest in possible and all(size.denominator == 1 for size in sizes):
            found.append([int(size) for size in sizes])
    return found


def _why_no_parts(label: RankLabel) -> str:
    """Say why a label cannot be cut; "" if it can."""
    if not label.source.is_whole:
        return f"only the {label.source.capture} was kept, of which no part can be compared; use --capture full;"
    if label.in_blocks:
        return "a tensor in FRACTAL_NZ order cannot be cut"
    if label.rows is not None and (features_of(label) or "?")[0] == ():
        return f"{label.key.label} ({list(label.shape)}) has one value in each of its named rows, which cannot be cut,"
    return ""


def _why_no_sum(labels: Sequence[RankLabel]) -> str:
    """Say why labels of one rank, which are all there, have no sum; "" if they have."""
    if len({(label.dtype, label.shape) for label in labels}) > 1:
        told = " and ".join(f"{label.key.label} ({label.dtype} {list(label.shape)})" for label in labels)
        return f"summands differ in dtype or shape: {told}"
    if not all(label.source.is_whole for label in labels):
        return "only a summary was kept, of which no sum can be compared; use --capture full;"
    if any(label.in_blocks for label in labels):
        return "tensors in FRACTAL_NZ order cannot be added"
    tables = [label.rows if _has_rows(label) else None for label in labels]
    if all(table is tables[0] for table in tables) or len({table and table.numbers.tobytes() for table in tables}) == 1:
        return ""
    return "the rows of its summands have different names"


def _told_parts(label: RankLabel, count: int) -> list[tuple[int, Layout]]:
    """Return the size and layout of each of so many parts of a label, where its layout tells them; else nothing."""
    layout, columns = label.record.layout, label.shape[-1] if label.shape else 0
    placement = layout.placements[0] if layout is not None and len(layout.placements) == 1 else None
    if not isinstance(placement, Shard) or placement.dim not in (-1, len(label.shape) - 1) or _why_no_parts(label):
        return []
    parts = placement.sizes_and_copies
    sizes = [size for size, _ in parts]
    if sum(sizes) != columns:  # those of the whole
        ranks, left = divmod(sum(size * copies for size, copies in parts), columns or 1)
        if left or not ranks or any(size * copies % ranks for size, copies in parts):
            return []
        sizes = [size * copies // ranks for size, copies in parts]
    if len(parts) != count:
        return []
    return [
        (size, Layout((Shard(-1, None if copies == 1 else ((size, copies),), ranks=placement.ranks),)))
        for size, (_, copies) in zip(sizes, parts, strict=True)
    ]


def _layout_of_part(label: RankLabel) -> Layout | None:
    """Return the layout of a label's parts; None where it may say how the last dimension is cut."""
    layout = label.record.layout
    return layout if layout is not None and layout.is_replicate else None
