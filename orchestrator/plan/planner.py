"""From the ranks' indices to a plan."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from aclcmp.labeling.shard.dtypes import DTYPES
from aclcmp.labeling.shard.reader import ShardIndex
from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.orchestrator.plan.model import Gap, GapKind, Plan, SideFacts, Sides
from aclcmp.orchestrator.plan.order import golden_order
from aclcmp.orchestrator.plan.placing import Local, Placer, PlacingError
from aclcmp.orchestrator.plan.regions import LabelKey, Pair, Source

Seen = dict[LabelKey, dict[int, dict[str, tuple[LabelRecord, str]]]]
"""label -> rank -> side -> (record, file)."""


def plan_run(indices: Iterable[ShardIndex], world_size: int) -> Plan:
    """Pair the two sides of every label on every rank that saw it. Linear in the number of labels."""
    by_rank: dict[int, list[ShardIndex]] = defaultdict(list)
    for index in indices:
        by_rank[index.header.rank].append(index)
    notes = [note for rank in sorted(by_rank) for index in by_rank[rank] for note in index.notes]
    seen: Seen = {}
    chains = []
    for rank in sorted(by_rank):
        records = merged_processes(by_rank[rank])
        for record, path in records:
            key = LabelKey(record.task, record.data_id, record.occurrence)
            sides_here = seen.setdefault(key, {}).setdefault(rank, {})
            if record.side not in sides_here or not sides_here[record.side][0].error:  # a failure is never hidden
                sides_here[record.side] = (record, path)
        chains.append(_golden_chain([record for record, _ in records]))
    pairs: list[Pair] = []
    gaps: list[Gap] = []
    sides: dict[tuple[LabelKey, int], Sides] = {}
    for key in (keys := golden_order(chains)):
        goldens, actuals = ({r: s[side] for r, s in seen[key].items() if side in s} for side in ("pta", "acl"))
        golden_locals, actual_locals = ({r: _local(s[0]) for r, s in group.items()} for group in (goldens, actuals))
        placer = Placer(golden_locals, actual_locals, world_size)
        for rank in sorted(seen[key]):
            golden, actual = goldens.get(rank), actuals.get(rank)
            sides[key, rank] = Sides(_facts(golden), _facts(actual))
            gap = _gap(key, rank, seen[key])
            if gap is None and golden is not None and actual is not None:
                try:
                    placing = placer.place(rank)
                except PlacingError as error:
                    gap = Gap(key, rank, GapKind.MISMATCH, str(error))
                else:
                    pairs.append(
                        Pair(
                            key=key,
                            rank=rank,
                            golden=_source(*golden),
                            golden_region=placing.golden_region,
                            actual=_source(*actual),
                            actual_region=placing.actual_region,
                            whole_shape=placing.whole_shape,
                            region=placing.region,
                            layout=placing.layout,
                        )
                    )
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
    return Plan(tuple(keys), tuple(pairs), tuple(gaps), sides, silent, damaged, tuple(notes))


def merged_processes(indices: Sequence[ShardIndex]) -> list[tuple[LabelRecord, str]]:
    """One rank's labels over all its processes, the earlier started first: occurrences and seq count on.

    A process that labelled both sides of an id starts them at the same number, so that its own two sides pair, whatever
    an earlier process left half done.
    """
    merged: list[tuple[LabelRecord, str]] = []
    next_free: dict[tuple[int, str, str], int] = defaultdict(int)
    for index in sorted(indices, key=lambda i: (i.header.started, i.header.process)):
        here: dict[tuple[int, str], set[str]] = defaultdict(set)
        for record in index.records:
            here[record.task, record.data_id].add(record.side)
        base = {
            (*name, side): max(next_free[(*name, each)] for each in sides)
            for name, sides in here.items()
            for side in sides
        }
        first_seq = len(merged)
        for record in index.records:
            name = (record.task, record.data_id, record.side)
            occurrence = record.occurrence + base[name]
            next_free[name] = max(next_free[name], occurrence + 1)
            merged.append((replace(record, occurrence=occurrence, seq=first_seq + record.seq), str(index.path(record))))
    return merged


def _golden_chain(records: Sequence[LabelRecord]) -> list[tuple[LabelKey, float]]:
    """A rank's labels in golden order; one that has no golden side goes behind the label before it."""
    golden = {(r.task, r.data_id, r.occurrence) for r in records if r.side == "pta"}
    chain: dict[LabelKey, float] = {}
    orphans: dict[LabelKey | None, list[tuple[LabelKey, float]]] = defaultdict(list)
    before: LabelKey | None = None
    for record in records:
        key = LabelKey(record.task, record.data_id, record.occurrence)
        if record.side == "pta":
            chain[key] = record.time
        elif (record.task, record.data_id, record.occurrence) not in golden:
            orphans[before].append((key, record.time))
            continue
        before = key
    ordered = orphans.pop(None, [])
    for key, time in chain.items():
        ordered.append((key, time))
        ordered.extend((orphan, time) for orphan, _ in orphans.get(key, ()))
    return list(dict(ordered).items())


def _local(record: LabelRecord) -> Local:
    return Local(record.shape, record.layout)


def _source(record: LabelRecord, path: str) -> Source:
    return Source(path, record.offset or 0, record.dtype, record.shape)


def _facts(side: tuple[LabelRecord, str] | None) -> SideFacts | None:
    if side is None:
        return None
    record, path = side
    return SideFacts(path, record.dtype, record.shape, record.device, record.call_site, record.seq, record.time)


def _gap(key: LabelKey, rank: int, ranks: dict[int, dict[str, tuple[LabelRecord, str]]]) -> Gap | None:
    """Say why a label cannot be compared on a rank, before any shape is looked at; None when nothing speaks against."""
    own = {side: record for side, (record, _) in ranks[rank].items()}
    failed = [f"{side or 'label'}: {record.error}" for side, record in own.items() if record.error]
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
    if own["acl"].tensor_path:
        path = own["acl"].tensor_path
        return Gap(key, rank, GapKind.MISSING_ACTUAL, f"dumped file {path} is not read by this version")
    golden, actual = (DTYPES[own[side].dtype].kind for side in ("pta", "acl"))
    if golden is not actual:
        reason = f"golden is {own['pta'].dtype}, actual {own['acl'].dtype}: values of different kinds"
        return Gap(key, rank, GapKind.MISMATCH, reason)
    return None
