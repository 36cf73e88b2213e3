"""The plan of one label: on each rank the pairs that compare it, or why it cannot be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from aclcmp.labeling.foreign.dumped import NotDumped
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.orchestrator.plan.fractal import column_blocks, plain_shape
from aclcmp.orchestrator.plan.held import Held
from aclcmp.orchestrator.plan.model import Gap, GapKind, Sides
from aclcmp.orchestrator.plan.placing import Placer, Placing
from aclcmp.orchestrator.plan.readings import Local, PlacingError
from aclcmp.orchestrator.plan.regions import LabelKey, Pair, Region

Ranks = dict[int, dict[str, Held]]
"""rank -> side -> what it holds of one label."""

_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class LabelPlan:
    """What becomes of one label."""

    key: LabelKey
    pairs: list[Pair] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    sides: dict[int, Sides] = field(default_factory=dict)
    uncovered: dict[int, str] = field(default_factory=dict)
    """Ranks of which a part is compared, and in words the part for which there is no golden tensor."""

    @staticmethod
    def of(key: LabelKey, ranks: Ranks, world_size: int, *, one_run: bool) -> LabelPlan:
        """Plan a label that `ranks` hold; without `one_run` golden and actual ranks do not correspond."""
        plan = LabelPlan(key)
        goldens, actuals = ({r: s[side] for r, s in ranks.items() if side in s} for side in ("pta", "acl"))
        usable = {rank: held for rank, held in goldens.items() if not held.record.error}
        ready = {rank: held for rank, held in actuals.items() if not held.record.error and not _undumped(held)}
        placer = Placer(
            {rank: _local(held, None, one_run) for rank, held in usable.items()},
            {rank: _local(held, usable.get(rank), one_run) for rank, held in ready.items()},
            world_size if one_run else 0,
        )
        used: set[int] = set()
        lost = sorted((set(goldens) - set(usable)) | (set(actuals) - set(ready)))
        for rank in sorted(ranks):
            golden, actual = goldens.get(rank), actuals.get(rank)
            plan.sides[rank] = Sides(golden.facts if golden else None, actual.facts if actual else None)
            gap = _failed(key, rank, ranks[rank])
            if gap is None and rank in ready and usable:
                gap = plan._place(rank, usable, ready, placer, used, lost)
            elif gap is None and actual is not None:
                gap = Gap(key, rank, GapKind.MISSING_GOLDEN, _elsewhere("golden (pta)", goldens))
            if gap is not None:
                plan.gaps.append(gap)
        for rank in sorted(set(goldens) - set(actuals)):
            # in one run each rank has its own two sides; between two a golden tensor may serve any rank
            if not goldens[rank].record.error and rank not in used and (one_run or not actuals):
                plan.gaps.append(Gap(key, rank, GapKind.MISSING_ACTUAL, _elsewhere("actual (acl)", actuals)))
        plan._slices_that_nobody_labelled(placer, ranks)
        if not one_run and actuals:
            for rank in set(goldens) - set(actuals):
                if rank in plan.sides and not any(gap.rank == rank for gap in plan.gaps):
                    del plan.sides[rank]
        return plan

    def _place(
        self,
        rank: int,
        goldens: dict[int, Held],
        actuals: dict[int, Held],
        placer: Placer,
        used: set[int],
        lost: Sequence[int],
    ) -> Gap | None:
        """Add the pairs of one rank; return why there are none. `lost` are ranks whose tensor of a side failed."""
        try:
            parts, left = placer.place(rank)
            if not parts and not left:
                return None
            if not parts:
                reason = _elsewhere("golden (pta)", goldens)
                if rank in goldens:
                    reason = f"no golden tensor holds {', '.join(map(_box, left))} of the whole"
                return Gap(self.key, rank, GapKind.MISSING_GOLDEN, reason)
            if lost and any(part.golden_summands or part.actual_summands for part in parts):
                raise PlacingError(f"the summand of rank {lost[0]} is missing, so the sum is not known")
            for golden in {part.golden_rank: goldens[part.golden_rank] for part in parts}.values():
                _check_kinds(golden, actuals[rank])
            pairs = [pair for part in parts for pair in self._pairs(rank, goldens, actuals, part, placer.layout)]
        except PlacingError as error:
            return Gap(self.key, rank, GapKind.MISMATCH, str(error))
        self.pairs.extend(pairs)
        used.update(r for part in parts for r in (part.golden_rank, *part.golden_summands))
        if self.sides[rank].golden is None:
            self.sides[rank] = replace(self.sides[rank], golden=goldens[parts[0].golden_rank].facts)
        if left:
            self.uncovered[rank] = f"no golden tensor for {', '.join(map(_box, left[:_MOST_NAMED]))} of the whole"
        return None

    def _pairs(
        self, rank: int, goldens: dict[int, Held], actuals: dict[int, Held], placing: Placing, layout: str
    ) -> list[Pair]:
        """The pairs of one part of the label on one rank: one, or one for each column block. Raises PlacingError."""
        golden, actual = goldens[placing.golden_rank], actuals[rank]
        pair = Pair(
            key=self.key,
            rank=rank,
            golden=golden.source,
            golden_region=placing.golden_region,
            actual=actual.source,
            actual_region=placing.actual_region,
            whole_shape=placing.whole_shape,
            region=placing.region,
            layout=layout,
            more_golden=tuple(goldens[each].source for each in placing.golden_summands),
            more_actual=tuple(actuals[each].source for each in placing.actual_summands),
        )
        blocks = column_blocks(actual.source, pair.actual_region.shape) if actual.in_blocks else None
        added = pair.more_golden or pair.more_actual
        cut = pair.golden_region.shape != golden.shape or pair.actual_region.shape != actual.shape
        kept = next((source.capture for source in pair.sources if not source.is_whole), "")
        if kept and (blocks is not None or added or cut):
            raise PlacingError(
                f"only the {kept} of a side was kept, of which no slice or sum can be compared; use --capture full"
            )
        if added and len({(source.dtype, source.shape) for source in pair.sources[len(pair.more_golden) + 1 :]}) > 1:
            raise PlacingError("the summands of the actual side have different dtypes or shapes")
        if added and len({(source.dtype, source.shape) for source in pair.sources[: len(pair.more_golden) + 1]}) > 1:
            raise PlacingError("the summands of the golden side have different dtypes or shapes")
        if blocks is None:
            return [pair]
        if added:
            raise PlacingError("summands in FRACTAL_NZ order cannot be added")
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

    def _slices_that_nobody_labelled(self, placer: Placer, ranks: Ranks) -> None:
        if not self.pairs:
            return
        for rank, of_actual in sorted(placer.missing().items()):
            if rank not in ranks:
                self.sides[rank] = Sides(None, None)
                kind = GapKind.MISSING_ACTUAL if of_actual else GapKind.MISSING_GOLDEN
                self.gaps.append(Gap(self.key, rank, kind, "this rank did not label its slice of the whole"))


def _local(held: Held, golden: Held | None, one_run: bool) -> Local:
    """One side's tensor as it lies in the whole, with the plain shape of what is stored in blocks."""
    shape = plain_shape(held.source, golden.shape) if held.in_blocks and golden is not None else None
    host = held.host if one_run else ""
    return Local(held.shape if shape is None else shape, held.record.layout, host, held.content)


def _failed(key: LabelKey, rank: int, own: dict[str, Held]) -> Gap | None:
    """Say what failed on a rank: a label, or the file that it names."""
    failed = [f"{side or 'label'}: {held.record.error}" for side, held in own.items() if held.record.error]
    if failed:
        return Gap(key, rank, GapKind.FAILED, "; ".join(failed))
    dump = own["acl"].dump if "acl" in own else None
    if isinstance(dump, NotDumped):
        return Gap(key, rank, GapKind.FAILED if dump.unreadable else GapKind.MISSING_ACTUAL, dump.reason)
    return None


def _undumped(held: Held) -> bool:
    return isinstance(held.dump, NotDumped)


def _check_kinds(golden: Held, actual: Held) -> None:
    if DTYPES[golden.dtype].kind is not DTYPES[actual.dtype].kind:
        raise PlacingError(f"golden is {golden.dtype}, actual {actual.dtype}: values of different kinds")


def _elsewhere(side: str, ranks: dict[int, Held]) -> str:
    where = f"; other ranks have it: {', '.join(map(str, sorted(ranks)[:_MOST_NAMED]))}" if ranks else ""
    return f"no {side} side on this rank{where}"


def _box(region: Region) -> str:
    """A region as slices: [0:4, 8:16]."""
    spans: Sequence[str] = [f"{s}:{s + n}" for s, n in zip(region.start, region.shape, strict=True)]
    return f"[{', '.join(spans)}]"
