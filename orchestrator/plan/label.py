"""The plan of one label: on each rank the pairs that compare it, or why it cannot be compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from aclcmp.labeling.layout import Layout
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.dumped_tensor import NotDumped
from aclcmp.orchestrator.core.plan import Gap, GapKind, LabelPlan, Question, Sides, Way
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region
from aclcmp.orchestrator.plan.layouts.alignment import (
    AlignedRegion,
    Alignment,
    LabelSide,
    ambiguity,
    find_alignments,
    other_alignments,
)
from aclcmp.orchestrator.plan.layouts.fractal_nz import column_blocks, plain_shape
from aclcmp.orchestrator.plan.layouts.interpretations import INFERRED, PROVED, AlignmentError, LocalTensor, Shape
from aclcmp.orchestrator.plan.rank_labels import RankLabel
from aclcmp.orchestrator.plan.replicas import replicas_of_one_side, replicas_of_sides, unused_goldens
from aclcmp.orchestrator.plan.sizes import common_pair, describe_sizes

Ranks = Mapping[int, RankLabel]
Groups = tuple[frozenset[int], ...]
"""Sets of ranks that hold the same."""

_MOST_NAMED = 8
_SLICE = "this rank did not label its slice of the whole"


@dataclass(slots=True)
class LabelSides:
    """What all ranks hold of one label."""

    goldens: dict[int, RankLabel] = field(default_factory=dict)
    actuals: dict[int, RankLabel] = field(default_factory=dict)
    nameless: dict[int, RankLabel] = field(default_factory=dict)
    """Failed labels that named no valid side."""

    def add(self, rank: int, held: RankLabel) -> None:
        """Take one side on one rank; a failure is never hidden by another record."""
        side = held.record.side
        ranks = self.goldens if side == "pta" else self.actuals if side == "acl" else self.nameless
        if rank not in ranks or not ranks[rank].record.error:
            ranks[rank] = held

    def held(self) -> Iterator[RankLabel]:
        """All that is held of it."""
        return chain(self.goldens.values(), self.actuals.values(), self.nameless.values())

    @property
    def ranks(self) -> set[int]:
        """All ranks that have something of it."""
        return {*self.goldens, *self.actuals, *self.nameless}


class Planner:
    """Plans labels one by one; those that lie alike are solved once."""

    def __init__(self, golden_ranks: int, actual_ranks: int, *, one_run: bool) -> None:
        """`one_run`: golden and actual ranks correspond. `golden_ranks`, `actual_ranks`: how many the jobs had."""
        self._sizes = golden_ranks, actual_ranks
        self._one_run = one_run
        self._groups: Groups = ()
        self._solved: dict[object, list[Alignment] | AlignmentError] = {}

    def know(self, labels: Iterable[LabelSides]) -> None:
        """Take from all labels of a run which ranks hold the same golden tensors: the groups that most of them show."""
        found = Counter(groups for seen in labels if (groups := golden_groups(seen.goldens))) if self._one_run else None
        self._groups = found.most_common(1)[0][0] if found else ()

    def plan(self, key: LabelKey, seen: LabelSides) -> LabelPlan:
        """Plan one label."""
        islands = self._islands(seen)
        plan = _RankGroup(key, islands[0], self._one_run, self._groups).planned(self._solve)
        for island in islands[1:]:
            plan = plan.with_part(_RankGroup(key, island, self._one_run, self._groups).planned(self._solve))
        return plan

    def _islands(self, seen: LabelSides) -> list[LabelSides]:
        """Cut a label of one run into the groups of ranks that its layouts tell, each with tensors of its own."""
        if not self._one_run or seen.nameless:
            return [seen]
        layouts = [h.record.layout for side in (seen.actuals, seen.goldens) for h in side.values() if h.record.layout]
        groups = {placement.ranks for layout in layouts for placement in layout.placements}
        if len(groups) < 2 or None in groups:
            return [seen]
        sets: list[set[int]] = []
        for group in groups:
            members = set(group or ())
            linked = [each for each in sets if each & members]
            sets = [each for each in sets if not each & members] + [members.union(*linked)]
        present = [each & seen.ranks for each in sorted(sets, key=min) if each & seen.ranks]
        whole = all(any(rank in side for rank in each) for each in present for side in (seen.goldens, seen.actuals))
        if len(present) < 2 or not whole or set().union(*present) != seen.ranks:
            return [seen]
        return [
            LabelSides(*({r: h for r, h in side.items() if r in each} for side in (seen.goldens, seen.actuals)))
            for each in present
        ]

    def _solve(self, goldens: Ranks, actuals: Ranks) -> list[Alignment]:
        """Solve how two sides lie. Raises AlignmentError."""
        alike = _alike(goldens), _alike(actuals)
        signature = (alike, self._signature(goldens, {}), self._signature(actuals, goldens))
        if signature not in self._solved:
            golden, actual = (
                LabelSide({rank: LocalTensor(shape, layout, host) for rank, shape, layout, host in side}, size, same)
                for side, size, same in zip(signature[1:], self._sizes, alike, strict=True)
            )
            try:
                self._solved[signature] = find_alignments(golden, actual, one_run=self._one_run)
            except AlignmentError as error:
                self._solved[signature] = error
        found = self._solved[signature]
        if isinstance(found, AlignmentError):
            raise found
        return found

    def _signature(self, held: Ranks, goldens: Ranks) -> tuple[tuple[int, Shape, Layout | None, str], ...]:
        """What of one side decides how it lies: a thousand labels of 256 ranks have few of them."""
        return tuple(
            [
                (rank, plain(each, goldens.get(rank)), each.record.layout, each.host if self._one_run else "")
                for rank, each in held.items()
            ]
        )


def _alike(held: Ranks) -> bool:
    """Whether all ranks surely hold the same; of slices the second already tells."""
    each = iter(held.values())
    first = next(each).content
    return len(held) == 1 or (first is not None and all(other.content == first for other in each))


def plain(held: RankLabel, golden: RankLabel | None) -> Shape:
    """The shape of a tensor as it lies in the whole, also of one that is stored in blocks."""
    shape = plain_shape(held.source, golden.shape) if held.in_blocks and golden is not None else None
    return held.shape if shape is None else shape


def golden_groups(held: Ranks) -> Groups:
    """Return the sets of ranks whose golden tensors are the same; none where that tells nothing.

    It does not where all are the same, or where each is another: a rank that has it twice may round otherwise.
    """
    alike: dict[object, list[int]] = defaultdict(list)
    for rank, each in held.items():
        if each.record.error or each.content is None:
            return ()
        alike[each.content].append(rank)
    return tuple(map(frozenset, alike.values())) if 1 < len(alike) < len(held) else ()


class _RankGroup:
    """The ranks of one label that are planned together."""

    def __init__(self, key: LabelKey, seen: LabelSides, one_run: bool, groups: Groups) -> None:
        self._key = key
        self._one_run = one_run
        self._groups = (golden_groups(seen.goldens) or groups) if one_run and len(seen.goldens) > 1 else ()
        self._goldens, self._actuals, self._nameless = seen.goldens, seen.actuals, seen.nameless
        self._usable = {rank: held for rank, held in self._goldens.items() if not held.record.error}
        self._ready = {r: h for r, h in self._actuals.items() if not (h.record.error or isinstance(h.dump, NotDumped))}
        self._lost = sorted((set(self._goldens) - set(self._usable)) | (set(self._actuals) - set(self._ready)))
        self._sides = {rank: Sides(self._goldens.get(rank), self._actuals.get(rank)) for rank in sorted(seen.ranks)}
        self._dtypes = {held.dtype for side in (self._usable, self._ready) for held in side.values()}

    def planned(self, solver: Callable[[Ranks, Ranks], list[Alignment]]) -> LabelPlan:
        """Return the plan of these ranks."""
        sound = not self._lost and not self._nameless
        gaps = {} if sound else {rank: gap for rank in self._sides if (gap := self._failed(rank)) is not None}
        if not self._usable or not self._ready:
            return self._one_sided(gaps)
        try:
            options = solver(self._usable, self._ready)
        except AlignmentError as error:
            return self._unlike(gaps, str(error))
        options = [option for option in options if self._keeps_groups(option)] or options
        if len(options) == 1 and options[0].padded:
            plan = replace(self._with(options[0], gaps, _as_proved(options[0].layout)), padded=True)
            reason = f"{options[0].words}: not told, and the values do not prove it"
            return LabelPlan(self._key, questions=(Question((plan,), self._unlike(gaps, reason)),))
        if len(options) == 1:
            plan = self._with(options[0], gaps, options[0].layout)
            if options[0].guessed and plan.pairs:
                look = options[0]

                def second_look() -> tuple[LabelPlan, ...]:
                    return tuple(
                        self._with(option, gaps, _as_proved(option.layout)) for option in other_alignments(look)
                    )

                plan = replace(plan, second_look=second_look)
            return plan
        plans = tuple(
            replace(self._with(option, gaps, _as_proved(option.layout)), padded=option.padded) for option in options
        )
        ways = tuple(Way(option.words, option.lines(self._key.label)) for option in options)
        question = Question(plans, self._unplaced(gaps, ambiguity(options)), ways)
        return LabelPlan(self._key, questions=(question,))

    def _keeps_groups(self, option: Alignment) -> bool:
        """Whether ranks that share an actual tensor have the same golden one, as far as is known."""
        known = {rank: number for number, group in enumerate(self._groups) for rank in group}
        shared = ({known[rank] for rank in whole.ranks if rank in known} for whole in option.actual.wholes)
        return all(len(groups) <= 1 for groups in shared)

    def _failed(self, rank: int) -> Gap | None:
        """Say what failed on a rank: a label, or the file that it names."""
        own = [(side, ranks[rank]) for side, ranks in self._by_side() if rank in ranks]
        failed = [f"{side or 'label'}: {held.record.error}" for side, held in own if held.record.error]
        if failed:
            return Gap(self._key, rank, GapKind.FAILED, "; ".join(failed))
        dump = self._actuals[rank].dump if rank in self._actuals else None
        if isinstance(dump, NotDumped):
            kind = GapKind.FAILED if dump.unreadable else GapKind.MISSING_ACTUAL
            return Gap(self._key, rank, kind, dump.reason)
        return None

    def _by_side(self) -> list[tuple[str, Ranks]]:
        return [("pta", self._goldens), ("acl", self._actuals), ("", self._nameless)]

    def _one_sided(self, gaps: Mapping[int, Gap]) -> LabelPlan:
        """No rank has both sides to compare."""
        found = dict(gaps)
        for rank in self._sides:
            if rank not in found and rank in self._actuals:
                reason = _elsewhere("golden (pta)", self._goldens)
                found[rank] = Gap(self._key, rank, GapKind.MISSING_GOLDEN, reason)
            elif rank not in found and (self._one_run or not self._actuals):
                reason = _elsewhere("actual (acl)", self._actuals)
                found[rank] = Gap(self._key, rank, GapKind.MISSING_ACTUAL, reason)
        replicas = [
            each
            for side, held in (("golden", self._usable), ("actual", self._ready))
            if len(held) > 1
            for each in replicas_of_one_side(self._key, side, held)
        ]
        return LabelPlan(self._key, self._told_sides(found, self._sides), (), _by_rank(found), {}, tuple(replicas))

    def _unplaced(self, gaps: Mapping[int, Gap], reason: str) -> LabelPlan:
        """Both sides are there, and cannot be laid beside each other."""
        found = dict(gaps)
        for rank in self._sides:
            if rank not in found and (rank in self._ready or self._one_run):
                found[rank] = Gap(self._key, rank, GapKind.MISMATCH, reason)
        return LabelPlan(self._key, self._told_sides(found, self._sides), (), _by_rank(found))

    def _unlike(self, gaps: Mapping[int, Gap], reason: str) -> LabelPlan:
        """Both sides are there and have other sizes along one dimension: compare what both have, and say so."""
        plan = self._unplaced(gaps, reason)
        pairs: list[Pair] = []
        words: dict[int, str] = {}
        for gap in plan.gaps:
            golden = self._usable.get(gap.rank) or next(iter(self._usable.values()))
            actual = self._ready.get(gap.rank)
            if gap.rank in gaps or actual is None or not _only_sizes_differ(golden, actual):
                continue
            told = describe_sizes(golden.shape, actual.shape)
            if told is not None:
                words[gap.rank] = told
                pairs.append(common_pair(self._key, gap.rank, golden.source, actual.source))
        if not pairs:
            return plan
        return replace(
            plan, pairs=tuple(pairs), gaps=tuple(gap for gap in plan.gaps if gap.rank not in words), unlike=words
        )

    def _told_sides(self, found: Mapping[int, Gap], sides: dict[int, Sides]) -> dict[int, Sides]:
        """The sides of the ranks that the report tells: between two runs golden ranks are none of the actual one's."""
        if self._one_run or not self._actuals:
            return sides
        return {rank: each for rank, each in sides.items() if rank in found or rank in self._actuals}

    def _with(self, option: Alignment, gaps: Mapping[int, Gap], layout: str) -> LabelPlan:
        """Plan the label as one reading has it."""
        found = dict(gaps)
        sides = dict(self._sides)
        pairs: list[Pair] = []
        uncovered: dict[int, str] = {}
        used: set[int] = set()
        for rank in self._sides:
            if rank in found or rank not in self._ready:
                continue
            try:
                parts, left = option.place(rank)
                if parts:
                    self._check(rank, parts)
                    pairs += [pair for part in parts for pair in self._pairs(rank, part, layout)]
            except AlignmentError as error:
                found[rank] = Gap(self._key, rank, GapKind.MISMATCH, str(error))
                continue
            if not parts and not left and not option.is_summand(rank):
                what = f"all of its {list(self._ready[rank].shape)} is padding by the layout {option.layout}"
                found[rank] = Gap(self._key, rank, GapKind.MISMATCH, f"{what}: nothing was compared")
            if not parts and left:
                reason = _elsewhere("golden (pta)", self._goldens)
                if rank in self._goldens:
                    reason = f"no golden tensor holds {_boxes(left)} of the whole"
                found[rank] = Gap(self._key, rank, GapKind.MISSING_GOLDEN, reason)
            elif parts:
                for part in parts:
                    used.add(part.golden_rank)
                    used.update(part.golden_summands)
                if sides[rank].golden is None:
                    sides[rank] = Sides(self._goldens[parts[0].golden_rank], sides[rank].actual)
                if left:
                    uncovered[rank] = f"no golden tensor for {_boxes(left)} of the whole"
        for rank in self._sides:
            # in one run each rank has its own two sides; between two a golden tensor may serve any rank
            if rank not in found and rank not in self._actuals and rank not in used and self._one_run:
                reason = _elsewhere("actual (acl)", self._actuals)
                found[rank] = Gap(self._key, rank, GapKind.MISSING_ACTUAL, reason)
        told = self._told_sides(found, sides)
        if pairs:
            self._absent(option, found, told, uncovered)
        replicas = [*replicas_of_sides(self._key, self._usable, self._ready, option)]
        if pairs and not self._one_run:
            replicas += unused_goldens(self._key, self._usable, used)
        return LabelPlan(self._key, told, tuple(pairs), _by_rank(found), uncovered, tuple(replicas))

    def _absent(
        self, option: Alignment, found: dict[int, Gap], sides: dict[int, Sides], uncovered: dict[int, str]
    ) -> None:
        """Tell the parts of the whole that nobody labelled."""
        absent = False
        for rank, of_actual in sorted(option.missing.items()):
            if of_actual and rank not in self._actuals:
                sides[rank] = Sides(self._goldens.get(rank) if self._one_run else None, None)
                found[rank] = Gap(self._key, rank, GapKind.MISSING_ACTUAL, _SLICE)
            elif not of_actual and rank not in self._sides and self._one_run:
                sides[rank] = Sides(None, None)
                found[rank] = Gap(self._key, rank, GapKind.MISSING_GOLDEN, _SLICE)
            absent = absent or (of_actual and rank in found)
        for rank, left in option.holes.items() if not absent else ():
            if rank in sides and rank not in found:
                also = f"{uncovered[rank]}; " if rank in uncovered else ""
                uncovered[rank] = f"{also}no rank labelled {_boxes(left)} of the whole"

    def _check(self, rank: int, parts: Sequence[AlignedRegion]) -> None:
        """Raise AlignmentError where what was placed cannot be compared."""
        if self._lost and any(part.golden_summands or part.actual_summands for part in parts):
            raise AlignmentError(f"the summand of rank {self._lost[0]} is missing, so the sum is not known")
        if len(self._dtypes) == 1:
            return
        actual = self._ready[rank].dtype
        goldens = {self._goldens[part.golden_rank].dtype for part in parts}
        if len(goldens) > 1:
            raise AlignmentError(f"its golden parts are of several types: {', '.join(sorted(goldens))}")
        for golden in goldens:
            if DTYPES[golden].kind is not DTYPES[actual].kind:
                raise AlignmentError(f"golden is {golden}, actual {actual}: values of different kinds")

    def _pairs(self, rank: int, placing: AlignedRegion, layout: str) -> list[Pair]:
        """The pairs of one part of the label on one rank: one, or one for each column block. Raises AlignmentError."""
        golden, actual = self._goldens[placing.golden_rank], self._actuals[rank]
        source, other = golden.source, actual.source
        pair = Pair(
            self._key,
            rank,
            source,
            placing.golden_region,
            other,
            placing.actual_region,
            placing.whole_shape,
            placing.region,
            layout,
            tuple([self._goldens[each].source for each in placing.golden_summands]),
            tuple([self._actuals[each].source for each in placing.actual_summands]),
        )
        added = pair.more_golden or pair.more_actual
        if not added and source.is_whole and other.is_whole and not actual.in_blocks:
            return [pair]
        blocks = column_blocks(other, pair.actual_region.shape) if actual.in_blocks else None
        _check_summaries(pair, golden, actual, in_blocks=blocks is not None)
        if added:
            _check_summands(pair)
        if blocks is None:
            return [pair]
        if added:
            raise AlignmentError("summands in FRACTAL_NZ order cannot be added")
        return [
            replace(
                pair,
                golden_region=part.moved(pair.golden_region.start),
                actual=source,
                actual_region=inner,
                region=part.moved(pair.region.start),
            )
            for source, inner, part in blocks
        ]


def _only_sizes_differ(golden: RankLabel, actual: RankLabel) -> bool:
    """Whether parts of two tensors can be compared as they lie: whole, of one kind, and no layout tells otherwise."""
    plain = all(held.source.is_whole and not held.in_blocks and not held.record.layout for held in (golden, actual))
    return plain and DTYPES[golden.dtype].kind is DTYPES[actual.dtype].kind


def _check_summaries(pair: Pair, golden: RankLabel, actual: RankLabel, *, in_blocks: bool) -> None:
    kept = next((source.capture for source in pair.sources if not source.is_whole), "")
    cut = pair.golden_region.shape != golden.shape or pair.actual_region.shape != actual.shape
    if kept and (in_blocks or pair.more_golden or pair.more_actual or cut):
        raise AlignmentError(
            f"only the {kept} of a side was kept, of which no slice or sum can be compared; use --capture full"
        )


def _check_summands(pair: Pair) -> None:
    for side, sources in (
        ("golden", (pair.golden, *pair.more_golden)),
        ("actual", (pair.actual, *pair.more_actual)),
    ):
        if len({(source.dtype, source.shape) for source in sources}) > 1:
            raise AlignmentError(f"the summands of the {side} side have different dtypes or shapes")


def _by_rank(gaps: Mapping[int, Gap]) -> tuple[Gap, ...]:
    return tuple(gaps[rank] for rank in sorted(gaps))


def _as_proved(layout: str) -> str:
    return layout.replace(INFERRED, "") + PROVED


def _elsewhere(side: str, ranks: Ranks) -> str:
    where = f"; other ranks have it: {', '.join(map(str, sorted(ranks)[:_MOST_NAMED]))}" if ranks else ""
    return f"no {side} side on this rank{where}"


def _boxes(regions: Sequence[Region]) -> str:
    """Regions as slices: [0:4, 8:16]."""
    return ", ".join(
        f"[{', '.join(f'{s}:{s + n}' for s, n in zip(region.start, region.shape, strict=True))}]"
        for region in regions[:_MOST_NAMED]
    )
