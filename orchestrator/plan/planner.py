"""From the ranks' indices to a plan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from aclcmp.labeling.foreign.dumped import DumpedTensor, NotDumped
from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.reader import ShardIndex
from aclcmp.orchestrator.plan.fractal import column_blocks, plain_shape
from aclcmp.orchestrator.plan.held import Held, golden_chain, merged_processes
from aclcmp.orchestrator.plan.levels import Level, level_of, with_parents
from aclcmp.orchestrator.plan.model import Gap, GapKind, Plan, Sides
from aclcmp.orchestrator.plan.order import golden_order
from aclcmp.orchestrator.plan.placing import Local, Placer, Placing, PlacingError
from aclcmp.orchestrator.plan.regions import LabelKey, Pair

_MOST_WARNINGS = 3

Ranks = dict[int, dict[str, Held]]
"""rank -> side -> what it holds of one label."""


def plan_run(indices: Iterable[ShardIndex], world_size: int) -> Plan:
    """Pair the two sides of every label on every rank that saw it. Linear in the number of labels."""
    by_rank: dict[int, list[ShardIndex]] = defaultdict(list)
    for index in indices:
        by_rank[index.header.rank].append(index)
    notes = [note for rank in sorted(by_rank) for index in by_rank[rank] for note in index.notes]
    seen: dict[LabelKey, Ranks] = {}
    chains = []
    for rank in sorted(by_rank):
        labels = merged_processes(by_rank[rank])
        for held in labels:
            here = seen.setdefault(held.key, {}).setdefault(rank, {})
            if held.record.side not in here or not here[held.record.side].record.error:  # a failure is never hidden
                here[held.record.side] = held
        chains.append(golden_chain(labels))
    pairs: list[Pair] = []
    gaps: list[Gap] = []
    sides: dict[tuple[LabelKey, int], Sides] = {}
    for key in (keys := golden_order(chains)):
        goldens, actuals = ({r: s[side] for r, s in seen[key].items() if side in s} for side in ("pta", "acl"))
        golden_locals = {rank: _local(held, None) for rank, held in goldens.items()}
        actual_locals = {rank: _local(held, goldens.get(rank)) for rank, held in actuals.items()}
        placer = Placer(golden_locals, actual_locals, world_size)
        for rank in sorted(seen[key]):
            golden, actual = goldens.get(rank), actuals.get(rank)
            sides[key, rank] = Sides(golden.facts if golden else None, actual.facts if actual else None)
            gap = _gap(key, rank, seen[key])
            if gap is None and golden is not None and actual is not None:
                try:
                    pairs += _pairs(key, rank, golden, actual, placer.place(rank))
                except PlacingError as error:
                    gap = Gap(key, rank, GapKind.MISMATCH, str(error))
            if gap is not None:
                gaps.append(gap)
        for rank in sorted(set(placer.uncovered) - set(seen[key])):
            sides[key, rank] = Sides(None, None)
            kind = GapKind.MISSING_ACTUAL if placer.uncovered[rank] else GapKind.MISSING_GOLDEN
            gaps.append(Gap(key, rank, kind, "this rank did not label its slice of the whole"))
    silent = tuple(
        rank for rank in range(world_size) if not by_rank.get(rank) or not any(i.records for i in by_rank[rank])
    )
    damaged = sum(index.damaged for group in by_rank.values() for index in group)
    notes += _warnings(seen)
    levels = with_parents({key: _level(seen[key]) for key in keys}, keys)
    return Plan(tuple(keys), tuple(pairs), tuple(gaps), sides, levels, silent, damaged, tuple(notes))


def _local(held: Held, golden: Held | None) -> Local:
    """One side's tensor as it lies in the whole, with the plain shape of what is stored in blocks."""
    shape = plain_shape(held.source, golden.shape) if held.in_blocks and golden is not None else None
    return Local(held.shape if shape is None else shape, held.record.layout)


def _pairs(key: LabelKey, rank: int, golden: Held, actual: Held, placing: Placing) -> list[Pair]:
    """The pairs of one label on one rank: one, or one for each column block. Raises PlacingError."""
    pair = Pair(
        key=key,
        rank=rank,
        golden=golden.source,
        golden_region=placing.golden_region,
        actual=actual.source,
        actual_region=placing.actual_region,
        whole_shape=placing.whole_shape,
        region=placing.region,
        layout=placing.layout,
    )
    blocks = column_blocks(actual.source, pair.actual_region.shape) if actual.in_blocks else None
    sliced = blocks is not None or pair.golden_region.shape != golden.shape or pair.actual_region.shape != actual.shape
    kept = next((source.capture for source in (pair.golden, pair.actual) if not source.is_whole), "")
    if sliced and kept:
        raise PlacingError(f"only the {kept} of a side was kept, of which no slice can be compared; use --capture full")
    if blocks is None:
        return [pair]
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


def _level(ranks: Ranks) -> Level:
    """The level of a label, as the first rank says that says most."""
    records = [held.record for sides in ranks.values() for held in sides.values()]
    path = next((record.tensor_path for record in records if record.tensor_path), "")
    return level_of(records[0].data_id, path, next((record.level for record in records if record.level), ""))


def _warnings(seen: Mapping[LabelKey, Ranks]) -> list[str]:
    """What people should know of how dumps were read and how tensors were kept, each once."""
    told: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for ranks in seen.values():
        for sides in ranks.values():
            for held in sides.values():
                kept[held.record.capture] += 1
                if isinstance(held.dump, DumpedTensor):
                    told.update(held.dump.warnings)
    notes = [warning + (f" ({count:,} times)" if count > 1 else "") for warning, count in told.most_common()]
    if len(notes) > _MOST_WARNINGS:
        notes = [*notes[:_MOST_WARNINGS], f"{len(notes) - _MOST_WARNINGS:,} more warnings about dumped files"]
    for capture, what in (("fingerprint", "fingerprints"), ("stats", "statistics")):
        if kept[capture]:
            notes.append(f"of {kept[capture]:,} of {kept.total():,} tensors only {what} were kept")
    return notes


def _gap(key: LabelKey, rank: int, ranks: Ranks) -> Gap | None:
    """Say why a label cannot be compared on a rank, before any shape is looked at; None when nothing speaks against."""
    own = ranks[rank]
    failed = [f"{side or 'label'}: {held.record.error}" for side, held in own.items() if held.record.error]
    if failed:
        return Gap(key, rank, GapKind.FAILED, "; ".join(failed))
    for side, kind, words in (
        ("pta", GapKind.MISSING_GOLDEN, "golden (pta)"),
        ("acl", GapKind.MISSING_ACTUAL, "actual (acl)"),
    ):
        if side not in own:
            elsewhere = sorted(r for r, sides in ranks.items() if side in sides)
            where = f"; other ranks have it: {', '.join(map(str, elsewhere[:8]))}" if elsewhere else ""
            return Gap(key, rank, kind, f"no {words} side on this rank{where}")
    dump = own["acl"].dump
    if isinstance(dump, NotDumped):
        return Gap(key, rank, GapKind.FAILED if dump.unreadable else GapKind.MISSING_ACTUAL, dump.reason)
    golden, actual = (DTYPES[own[side].dtype].kind for side in ("pta", "acl"))
    if golden is not actual:
        reason = f"golden is {own['pta'].dtype}, actual {own['acl'].dtype}: values of different kinds"
        return Gap(key, rank, GapKind.MISMATCH, reason)
    return None
