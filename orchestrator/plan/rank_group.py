"""The plan of one label on ranks that are planned together: the pairs of each rank, or why it cannot be compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from aclcmp.labeling.shard.dumped_tensor import NotDumped
from aclcmp.orchestrator.core.plan import Gap, GapKind, LabelPlan, Question, Sides, Way
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region
from aclcmp.orchestrator.plan.label_pairs import check_dtypes, differs_only_in_size, make_pairs
from aclcmp.orchestrator.plan.label_sides import LabelsByRank, LabelSides, RankSets, equal_golden_ranks
from aclcmp.orchestrator.plan.layouts.alignment import AlignedRegion, Alignment, ambiguity, other_alignments
from aclcmp.orchestrator.plan.layouts.interpretations import INFERRED, PROVED, AlignmentError
from aclcmp.orchestrator.plan.layouts.views import View, Views, transposed_slices
from aclcmp.orchestrator.plan.rank_labels import RankLabel, see_label
from aclcmp.orchestrator.plan.replicas import replicas_of_one_side, replicas_of_sides, unused_goldens
from aclcmp.orchestrator.plan.sizes import common_pair, describe_sizes

_MOST_NAMED = 8
_SLICE = "this rank did not label its slice of the whole"


class RankGroup:
    """One label on the ranks that are planned together."""

    def __init__(self, key: LabelKey, sides: LabelSides, one_run: bool, usual_golden_sets: RankSets) -> None:
        """Take both sides; `usual_golden_sets` are the ranks that hold the same golden tensors of other labels."""
        self.key = key
        self.one_run = one_run
        self.goldens, self.actuals, self._nameless = sides.goldens, sides.actuals, sides.nameless
        self.readable_goldens, self.readable_actuals = (
            {rank: label for rank, label in side.items() if not label.problem} for side in (self.goldens, self.actuals)
        )
        self.unreadable_ranks = sorted(
            (set(self.goldens) - set(self.readable_goldens)) | (set(self.actuals) - set(self.readable_actuals))
        )
        self.sides = {rank: Sides(self.goldens.get(rank), self.actuals.get(rank)) for rank in sorted(sides.ranks)}
        readable = (self.readable_goldens, self.readable_actuals)
        self.dtypes = {label.dtype for side in readable for label in side.values()}
        self._golden_sets: RankSets = ()
        if one_run and len(self.goldens) > 1:
            self._golden_sets = equal_golden_ranks(self.goldens) or usual_golden_sets

    def plan(
        self,
        find_alignments: Callable[[LabelsByRank, LabelsByRank], list[Alignment]],
        find_views: Callable[[LabelsByRank, LabelsByRank], tuple[list[Views], list[Views]]],
    ) -> LabelPlan:
        """Return the plan of these ranks.

        `find_alignments` raises AlignmentError where the sides do not fit as they are stored; then `find_views` says
        under which views they do.
        """
        gaps = self._gaps_of_failures()
        if not self.readable_goldens or not self.readable_actuals:
            return self._plan_one_side(gaps)
        try:
            alignments = find_alignments(self.readable_goldens, self.readable_actuals)
        except AlignmentError as error:
            views, others = find_views(self.readable_goldens, self.readable_actuals)
            if views:
                return self._plan_views(gaps, views, others, str(error))
            return self._plan_common_part(gaps, str(error))
        alignments = [each for each in alignments if self._keeps_golden_sets(each)] or alignments
        if len(alignments) > 1:
            return self._plan_question(gaps, alignments)
        (alignment,) = alignments
        if alignment.padded:
            plan = replace(self._plan_with_alignment(alignment, gaps, _proved_layout(alignment.layout)), padded=True)
            reason = f"{alignment.words}: not told, and the values do not prove it"
            return LabelPlan(self.key, questions=(Question((plan,), self._plan_common_part(gaps, reason)),))
        plan = self._plan_with_alignment(alignment, gaps, alignment.layout)
        if alignment.guessed and plan.pairs:

            def second_look() -> tuple[LabelPlan, ...]:
                others = other_alignments(alignment)
                return tuple(self._plan_with_alignment(other, gaps, _proved_layout(other.layout)) for other in others)

            plan = replace(plan, second_look=second_look)
        return plan

    def reported_sides(self, gaps: Mapping[int, Gap], sides: dict[int, Sides]) -> dict[int, Sides]:
        """Return the sides of the ranks of the report; between two runs those of golden ranks alone are not in it."""
        if self.one_run or not self.actuals:
            return sides
        return {rank: each for rank, each in sides.items() if rank in gaps or rank in self.actuals}

    def missing_golden(self) -> str:
        """Say that a rank has no golden side, and which have it."""
        return _missing_side("golden (pta)", self.goldens)

    def missing_actual(self) -> str:
        """Say that a rank has no actual side, and which have it."""
        return _missing_side("actual (acl)", self.actuals)

    def _keeps_golden_sets(self, alignment: Alignment) -> bool:
        """Tell whether ranks that share an actual tensor have the same golden one, as far as is known."""
        set_of = {rank: number for number, ranks in enumerate(self._golden_sets) for rank in ranks}
        shared = ({set_of[rank] for rank in whole.ranks if rank in set_of} for whole in alignment.actual.wholes)
        return all(len(sets) <= 1 for sets in shared)

    def _gaps_of_failures(self) -> dict[int, Gap]:
        if not self.unreadable_ranks and not self._nameless:
            return {}
        return {rank: gap for rank in self.sides if (gap := self._gap_of_failure(rank)) is not None}

    def _gap_of_failure(self, rank: int) -> Gap | None:
        """Say what failed on a rank: a label, or the file that it names."""
        by_side = (("pta", self.goldens), ("acl", self.actuals), ("label", self._nameless))
        errors = [
            f"{side}: {labels[rank].record.error}"
            for side, labels in by_side
            if rank in labels and labels[rank].record.error
        ]
        if errors:
            return Gap(self.key, rank, GapKind.FAILED, "; ".join(errors))
        for labels, missing in ((self.goldens, GapKind.MISSING_GOLDEN), (self.actuals, GapKind.MISSING_ACTUAL)):
            dump = labels[rank].dump if rank in labels else None
            if isinstance(dump, NotDumped):
                return Gap(self.key, rank, GapKind.FAILED if dump.unreadable else missing, dump.reason)
        return None

    def _plan_one_side(self, failures: Mapping[int, Gap]) -> LabelPlan:
        """Plan a label of which no rank has both sides to compare."""
        gaps = dict(failures)
        for rank in self.sides:
            if rank not in gaps and rank in self.actuals:
                gaps[rank] = Gap(self.key, rank, GapKind.MISSING_GOLDEN, self.missing_golden())
            elif rank not in gaps and (self.one_run or not self.actuals):
                gaps[rank] = Gap(self.key, rank, GapKind.MISSING_ACTUAL, self.missing_actual())
        replicas = [
            each
            for side, labels in (("golden", self.readable_goldens), ("actual", self.readable_actuals))
            if len(labels) > 1
            for each in replicas_of_one_side(self.key, side, labels)
        ]
        sides = self.reported_sides(gaps, self.sides)
        return LabelPlan(self.key, sides, (), _by_rank(gaps), {}, tuple(replicas))

    def _plan_question(self, gaps: Mapping[int, Gap], alignments: Sequence[Alignment]) -> LabelPlan:
        """Plan a label that can lie in several ways: values must tell which one counts."""
        plans = tuple(
            replace(self._plan_with_alignment(each, gaps, _proved_layout(each.layout)), padded=each.padded)
            for each in alignments
        )
        ways = tuple(Way(each.words, each.lines(self.key.label)) for each in alignments)
        question = Question(plans, self._plan_mismatch(gaps, ambiguity(alignments)), ways)
        return LabelPlan(self.key, questions=(question,))

    def _plan_views(
        self, gaps: Mapping[int, Gap], found: Sequence[Views], others: Sequence[Views], reason: str
    ) -> LabelPlan:
        """Plan a label whose sides fit in another shape: under the only view, or as a question to the values."""
        found = [each for each in found if self._keeps_golden_sets(each.alignment)] or found
        golden, actual = (min(side.items())[1].shape for side in (self.readable_goldens, self.readable_actuals))
        if len(found) == 1 and found[0].certain and not found[0].alignment.padded:
            (views,) = found
            plan = self._plan_with_views(views, gaps, views.words(golden, actual))

            def second_look() -> tuple[LabelPlan, ...]:
                more = [replace(views, alignment=other) for other in other_alignments(views.alignment)]
                return tuple(
                    self._plan_with_views(each, gaps, _proved_layout(each.words(golden, actual)))
                    for each in (*(more if views.alignment.guessed else ()), *others)
                )

            can_differ = plan.pairs and (others or views.alignment.guessed)
            return replace(plan, second_look=second_look) if can_differ else plan
        certain = all(each.certain for each in found)
        options = [*found, *(others if not certain else ())]
        plans = tuple(
            replace(
                self._plan_with_views(each, gaps, _proved_layout(each.words(golden, actual))),
                padded=each.alignment.padded,
                needs_proof=not each.certain,
            )
            for each in options
        )
        words = [each.words(golden, actual) for each in options]
        unproved = f"{reason}; the values do not prove {' or '.join(dict.fromkeys(words[:_MOST_NAMED]))}"
        ways = (
            Way(said, views.lines(self.key.label, golden, actual)) for said, views in zip(words, options, strict=True)
        )
        question = Question(plans, self._plan_common_part(gaps, unproved), tuple(ways) if certain else ())
        return LabelPlan(self.key, questions=(question,))

    def _plan_with_views(self, views: Views, gaps: Mapping[int, Gap], layout: str) -> LabelPlan:
        """Plan the label under one view of each side."""
        try:
            goldens = _see_labels(self.readable_goldens, views.golden)
            actuals = _see_labels(self.readable_actuals, views.actual)
            sides = LabelSides({**self.goldens, **goldens}, {**self.actuals, **actuals}, self._nameless)
            group = RankGroup(self.key, sides, self.one_run, self._golden_sets)
            plan = group._plan_with_alignment(views.alignment, gaps, layout)
            if not views.actual.exchanged:
                return plan
            return replace(plan, pairs=tuple(each for pair in plan.pairs for each in transposed_slices(pair)))
        except AlignmentError as error:
            return self._plan_mismatch(gaps, str(error))

    def _plan_mismatch(self, failures: Mapping[int, Gap], reason: str) -> LabelPlan:
        """Plan a label of which both sides are there, and cannot be compared."""
        gaps = dict(failures)
        for rank in self.sides:
            if rank not in gaps and (rank in self.readable_actuals or self.one_run):
                gaps[rank] = Gap(self.key, rank, GapKind.MISMATCH, reason)
        return LabelPlan(self.key, self.reported_sides(gaps, self.sides), (), _by_rank(gaps))

    def _plan_common_part(self, failures: Mapping[int, Gap], reason: str) -> LabelPlan:
        """Plan a mismatch; where only sizes along one dimension differ, compare what both sides have, and say so."""
        plan = self._plan_mismatch(failures, reason)
        pairs: list[Pair] = []
        words: dict[int, str] = {}
        for gap in plan.gaps:
            golden = self.readable_goldens.get(gap.rank) or next(iter(self.readable_goldens.values()))
            actual = self.readable_actuals.get(gap.rank)
            if gap.rank in failures or actual is None or not differs_only_in_size(golden, actual):
                continue
            sizes = describe_sizes(golden.shape, actual.shape)
            if sizes is not None:
                words[gap.rank] = sizes
                pairs.append(common_pair(self.key, gap.rank, golden.source, actual.source))
        if not pairs:
            return plan
        gaps = tuple(gap for gap in plan.gaps if gap.rank not in words)
        return replace(plan, pairs=tuple(pairs), gaps=gaps, unlike=words)

    def _plan_with_alignment(self, alignment: Alignment, gaps: Mapping[int, Gap], layout: str) -> LabelPlan:
        """Plan the label under one alignment; `layout` is its name in the report."""
        return _AlignedPlan(self, alignment, gaps, layout).build()


class _AlignedPlan:
    """The plan of a group under one alignment, made rank by rank."""

    def __init__(self, group: RankGroup, alignment: Alignment, failures: Mapping[int, Gap], layout: str) -> None:
        self._group = group
        self._alignment = alignment
        self._layout = layout
        self._gaps = dict(failures)
        self._sides = dict(group.sides)
        self._pairs: list[Pair] = []
        self._uncovered: dict[int, str] = {}
        self._used_goldens: set[int] = set()

    def build(self) -> LabelPlan:
        """Return the plan."""
        group = self._group
        for rank in group.sides:
            if rank not in self._gaps and rank in group.readable_actuals:
                self._align(rank)
        self._add_unused_goldens()
        self._sides = group.reported_sides(self._gaps, self._sides)
        if self._pairs:
            self._add_missing_slices()
        key, goldens = group.key, group.readable_goldens
        replicas = [*replicas_of_sides(key, goldens, group.readable_actuals, self._alignment)]
        if self._pairs and not group.one_run:
            replicas += unused_goldens(key, goldens, self._used_goldens, self._alignment)
        gaps = _by_rank(self._gaps)
        return LabelPlan(key, self._sides, tuple(self._pairs), gaps, self._uncovered, tuple(replicas))

    def _align(self, rank: int) -> None:
        """Add the pairs of a rank, or the gap that says why there are none."""
        try:
            regions, left = self._alignment.place(rank)
            if regions:
                self._pairs += self._pairs_of(rank, regions)
        except AlignmentError as error:
            self._add_gap(rank, GapKind.MISMATCH, str(error))
            return
        if regions:
            self._add_coverage(rank, regions, left)
        elif left:
            in_golden = rank in self._group.goldens
            reason = (
                f"no golden tensor holds {_boxes(left)} of the whole" if in_golden else self._group.missing_golden()
            )
            self._add_gap(rank, GapKind.MISSING_GOLDEN, reason)
        elif not self._alignment.is_summand(rank):
            shape = list(self._group.readable_actuals[rank].shape)
            what = f"all of its {shape} is padding by the layout {self._alignment.layout}"
            self._add_gap(rank, GapKind.MISMATCH, f"{what}: nothing was compared")

    def _pairs_of(self, rank: int, regions: Sequence[AlignedRegion]) -> list[Pair]:
        """Return the pairs of a rank's regions. Raises AlignmentError where one cannot be compared."""
        group = self._group
        if group.unreadable_ranks and any(region.golden_summands or region.actual_summands for region in regions):
            raise AlignmentError(f"the summand of rank {group.unreadable_ranks[0]} is missing, so the sum is not known")
        if len(group.dtypes) > 1:
            goldens = {group.goldens[region.golden_rank].dtype for region in regions}
            check_dtypes(goldens, group.readable_actuals[rank].dtype)
        return [
            pair
            for region in regions
            for pair in make_pairs(group.key, rank, region, group.goldens, group.actuals, self._layout)
        ]

    def _add_coverage(self, rank: int, regions: Sequence[AlignedRegion], left: Sequence[Region]) -> None:
        """Note which golden tensors a rank is compared with, and the parts for which there is none."""
        for region in regions:
            self._used_goldens.add(region.golden_rank)
            self._used_goldens.update(region.golden_summands)
        if self._sides[rank].golden is None:
            self._sides[rank] = Sides(self._group.goldens[regions[0].golden_rank], self._sides[rank].actual)
        if left:
            self._uncovered[rank] = f"no golden tensor for {_boxes(left)} of the whole"

    def _add_unused_goldens(self) -> None:
        """Add a gap for golden tensors of one run with which nothing is compared.

        In one run each rank has its own two sides; between two runs a golden tensor may serve any rank.
        """
        group = self._group
        if not group.one_run:
            return
        for rank in group.sides:
            if rank not in self._gaps and rank not in group.actuals and rank not in self._used_goldens:
                self._add_gap(rank, GapKind.MISSING_ACTUAL, group.missing_actual())

    def _add_missing_slices(self) -> None:
        """Tell the parts of the whole that nobody labelled."""
        group = self._group
        actual_is_missing = False
        for rank, of_actual in sorted(self._alignment.missing.items()):
            if of_actual and rank not in group.actuals:
                self._sides[rank] = Sides(group.goldens.get(rank) if group.one_run else None, None)
                self._add_gap(rank, GapKind.MISSING_ACTUAL, _SLICE)
            elif not of_actual and rank not in group.sides and group.one_run:
                self._sides[rank] = Sides(None, None)
                self._add_gap(rank, GapKind.MISSING_GOLDEN, _SLICE)
            actual_is_missing = actual_is_missing or (of_actual and rank in self._gaps)
        for rank, left in self._alignment.holes.items() if not actual_is_missing else ():
            if rank in self._sides and rank not in self._gaps:
                before = f"{self._uncovered[rank]}; " if rank in self._uncovered else ""
                self._uncovered[rank] = f"{before}no rank labelled {_boxes(left)} of the whole"

    def _add_gap(self, rank: int, kind: GapKind, reason: str) -> None:
        self._gaps[rank] = Gap(self._group.key, rank, kind, reason)


def _by_rank(gaps: Mapping[int, Gap]) -> tuple[Gap, ...]:
    return tuple(gaps[rank] for rank in sorted(gaps))


def _proved_layout(layout: str) -> str:
    return layout.replace(INFERRED, "") + PROVED


def _see_labels(labels: LabelsByRank, view: View) -> dict[int, RankLabel]:
    """Return labels under a view. Raises AlignmentError where only summaries of other rows were kept."""
    if view == View():
        return dict(labels)
    found = {}
    for rank, label in labels.items():
        shape = view.shape(label.shape)
        if not label.source.is_whole and (view.exchanged or shape[-1:] != label.shape[-1:]):
            raise AlignmentError(
                f"only the {label.source.capture} of a side was kept, which cannot be seen as {list(shape)}; "
                "use --capture full"
            )
        found[rank] = see_label(label, shape, view.layout(label.record.layout, label.shape))
    return found


def _missing_side(side: str, ranks: LabelsByRank) -> str:
    others = f"; other ranks have it: {', '.join(map(str, sorted(ranks)[:_MOST_NAMED]))}" if ranks else ""
    return f"no {side} side on this rank{others}"


def _boxes(regions: Sequence[Region]) -> str:
    """Return regions as slices: [0:4, 8:16]."""
    return ", ".join(
        f"[{', '.join(f'{s}:{s + n}' for s, n in zip(region.start, region.shape, strict=True))}]"
        for region in regions[:_MOST_NAMED]
    )
