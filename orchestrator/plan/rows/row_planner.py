"""Plans labels that are sets of rows: rows pair by request and position, wherever, whenever and in whatever batch."""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.capture import Capture
from aclcmp.labeling.layout import Layout, Placement, Shard
from aclcmp.labeling.shard.row_summaries import row_size
from aclcmp.labeling.shard.row_table import RowTable
from aclcmp.orchestrator.core.plan import Gap, GapKind, LabelPlan, Question, RowNames, Sides
from aclcmp.orchestrator.core.regions import LabelKey, Pair, RowPlaces
from aclcmp.orchestrator.core.text import count
from aclcmp.orchestrator.plan.label_planner import Planner
from aclcmp.orchestrator.plan.label_sides import LabelSides
from aclcmp.orchestrator.plan.rank_labels import RankLabel
from aclcmp.orchestrator.plan.rows.requests import SideRequests, pair_requests
from aclcmp.orchestrator.plan.rows.row_sets import RecordedRows, RowSet, RowSets, share_forwards
from aclcmp.orchestrator.plan.rows.told_rows import ToldRows

_MOST_NAMED = 3
_MOST_NOTES = 6
_Int32 = npt.NDArray[np.int32]


@dataclass(slots=True)
class LabelRows:
    """All records of one label that have rows, by side and rank."""

    goldens: dict[int, RecordedRows] = field(default_factory=dict)
    actuals: dict[int, RecordedRows] = field(default_factory=dict)


_Series = dict[tuple[int, bool, str], RecordedRows]
"""Records by rank, whether they are golden, and their label's name, in the order in which they were first set."""


def gather_rows(ranks: Sequence[tuple[int, list[RankLabel]]]) -> tuple[dict[LabelKey, LabelRows], list[str]]:
    """Take all records of a label with rows together; return them by the key under which it is planned, and notes.

    The key is the first occurrence in the first task that has no label without rows. In the lists, which are changed,
    only the first record of each label, side and rank is left, with that key. Rows that fit no shape do not count, nor
    those of a dump where the other side of the label has none: its labels pair by task and occurrence.
    """
    series = _series(ranks)
    unfit = [
        label
        for records in series.values()
        if None in records.forwards.features
        for label, features in zip(records.labels, records.forwards.features, strict=True)
        if features is None
    ]
    series = _without(ranks, series, unfit)
    series = _without(ranks, series, _one_sided(ranks, series))
    if not series:
        return {}, _notes_on_unfit(unfit)
    plain = {label.key for _, labels in ranks for label in labels if label.rows is None}
    keys: dict[str, LabelKey] = {}
    found: dict[LabelKey, LabelRows] = {}
    left: dict[int, RankLabel] = {}
    for (rank, is_golden, name), records in series.items():
        first = records.labels[0]
        if name not in keys:
            free = (LabelKey(first.key.task, name, occurrence) for occurrence in itertools.count())
            keys[name] = next(each for each in free if each not in plain)
        label = found.setdefault(keys[name], LabelRows())
        (label.goldens if is_golden else label.actuals)[rank] = records
        left[id(first)] = replace(first, key=keys[name])
    for _, labels in ranks:
        labels[:] = [
            each for label in labels if (each := label if label.rows is None else left.get(id(label))) is not None
        ]
    return found, _notes_on_unfit(unfit)


def _series(ranks: Sequence[tuple[int, list[RankLabel]]]) -> _Series:
    series: dict[tuple[int, bool, str], list[RankLabel]] = defaultdict(list)
    for rank, labels in ranks:
        for label in labels:
            if label.rows is not None:
                series[rank, label.record.side == "pta", label.key.label].append(label)
    return share_forwards(series)


def _without(ranks: Sequence[tuple[int, list[RankLabel]]], series: _Series, plain: Sequence[RankLabel]) -> _Series:
    """Take the rows away from some labels, also in the lists; return the series without these."""
    if not plain:
        return series
    chosen = set(map(id, plain))
    for _, labels in ranks:
        labels[:] = [replace(label, rows=None) if id(label) in chosen else label for label in labels]
    return _series(ranks)


def _notes_on_unfit(labels: Sequence[RankLabel]) -> list[str]:
    """Say which labels were made where rows have names, but have no dimension for these."""
    if not labels:
        return []
    first, names = labels[0], {label.key.label for label in labels}
    size = 0 if first.rows is None else first.rows.numbers.size // 3
    others = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    return [
        f"{first.key.label} ({list(first.shape)}) has no dimension for the {size:,} rows that were named: it{others} "
        "paired as a tensor without names"
    ]


def _one_sided(ranks: Sequence[tuple[int, list[RankLabel]]], series: _Series) -> list[RankLabel]:
    """Return the labels of dumps with rows of which the other side has labels, but no rows."""
    dumped = [label for records in series.values() for label in records.labels if label.dump is not None]
    sides: dict[str, set[tuple[str, bool]]] = defaultdict(set)
    for _, labels in ranks if dumped else ():
        for label in labels:
            sides[label.key.label].add((label.record.side, label.rows is not None))
    return [
        label
        for label in dumped
        if {with_rows for side, with_rows in sides[label.key.label] if side != label.record.side} == {False}
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Ranks that hold the same rows of a label: they share the features, or all have them all."""

    records: dict[int, RecordedRows]
    """By rank: those that hold them, all as tensors or all as summaries."""
    rows: RowSet


@dataclass(frozen=True, slots=True, eq=False)
class _PickedRows:
    """Some rows of a row set. The arrays have one length."""

    records: list[int]
    """Which of a rank's records hold them."""
    piece: _Int32
    """Which of `records` holds the row."""
    row: _Int32
    """Number of the row in that record."""


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Rows that a golden and an actual group of ranks both hold, by request; labels with these rows share it."""

    golden: _PickedRows
    actual: _PickedRows
    names: _Int32
    """Shape (n, 3): number of the actual request, position, token."""
    blocks: _Int32
    """Shape (n,): the block of actual's cache that held the row, -1 for rows from no cache."""


_Shared = tuple[list[tuple[int, _Block]], int]
"""The rows of an actual group as blocks, each with the number of the golden group; how many rows are in no block."""


class RowPlanner:
    """Plans labels with rows, one by one."""

    def __init__(self, labels: Mapping[LabelKey, LabelRows], planner: Planner) -> None:
        """Find out which requests of the two sides are the same text; `planner` lays out the features."""
        self._planner = planner
        self._golden = SideRequests(_tables(label.goldens for label in labels.values()))
        self._actual = SideRequests(_tables(label.actuals for label in labels.values()))
        self._pairs = pair_requests(self._golden, self._actual)
        self._requests = tuple(map(self._name_of, range(len(self._actual.requests))))
        goldens = {number: self._golden.requests[pair.golden].name for number, pair in self._pairs.items()}
        self._goldens = tuple(goldens.get(number, "") for number in range(len(self._requests)))
        self._sets = RowSets(self._golden.number_of), RowSets(self._actual.number_of)
        self._shared: dict[tuple[tuple[RowSet, ...], RowSet], _Shared] = {}
        self._names: dict[tuple[_Block, ...], RowNames] = {}

    def _name_of(self, number: int) -> str:
        """Return the name of an actual request, with golden's where that is another."""
        name, pair = self._actual.requests[number].name, self._pairs.get(number)
        golden = self._golden.requests[pair.golden].name if pair is not None else ""
        if golden in ("", name):
            return name
        return f"{name} (golden {golden})" if name else f"{golden} of golden"

    def plan(self, key: LabelKey, label: LabelRows) -> LabelPlan:
        """Plan one label: as a label of its own each block of rows that a golden and an actual group of ranks share."""
        goldens, actuals = _groups(label.goldens, self._sets[0]), _groups(label.actuals, self._sets[1])
        sets = tuple(golden.rows for golden in goldens)
        parts: list[tuple[LabelPlan, _Block]] = []
        without: dict[int, int] = {}
        used: list[tuple[int, _Block]] = []
        for actual in actuals:
            shared = self._shared.get((sets, actual.rows))
            if shared is None:
                shared = self._shared[sets, actual.rows] = self._share_rows(sets, actual.rows)
            blocks, left = shared
            used += blocks
            parts += [(self._plan_block(key, goldens[at], actual, block), block) for at, block in blocks]
            if left:
                without |= {rank: without.get(rank, 0) + left for rank in actual.records}
        plan = self._add_rows_without_partner(self._join(key, parts), label, without)
        sides = (*label.goldens.values(), *label.actuals.values())
        told = any(isinstance(each, ToldRows) for rows in sides for each in rows.forwards.tables)
        unused = sum(len(rows.row) for rows in sets) - _count_rows(used) if told and parts else 0
        if not unused:
            return plan
        words = f"actual has no row for {count(unused, 'row')} of golden"
        unpaired = {rank: "; ".join(filter(None, (plan.unpaired.get(rank), words))) for rank in label.actuals}
        return replace(plan, unpaired=unpaired)

    def notes(self) -> list[str]:
        """Say which requests were not found on the other side, and where texts part."""
        notes = []
        requests, pairs = self._actual.requests, self._pairs
        lost = [each for number, each in enumerate(requests) if number not in pairs]
        golden_told = any(each.told for each in self._golden.requests)
        if told := [each.name for each in lost if each.told and golden_told]:
            notes.append(
                f"golden has no request with the tokens of {_request_names(told)}: their rows are not compared"
            )
        if untold := [each.name for each in lost if not (each.told and golden_told)]:
            side = "actual" if golden_told else "golden"
            notes.append(
                f"{_request_names(untold)} could be paired neither by tokens, which {side} did not tell, nor by name: "
                "their rows are not compared; give token_ids= to rows on both sides, or the same names"
            )
        for number, pair in pairs.items():
            if pair.tokens is not None:
                golden, actual = pair.tokens
                notes.append(
                    f"{self._words_of(number)} has another token at position {pair.end}: golden "
                    f"{golden}, actual {actual}; what follows is another text and is not compared"
                )
        used = {pair.golden for pair in pairs.values()}
        if unused := [each.name for number, each in enumerate(self._golden.requests) if number not in used]:
            notes.append(f"no actual request was paired with {_request_names(unused)} of golden")
        for number in pairs:
            if begin := self._actual.computed_from[number]:
                notes.append(
                    f"{self._words_of(number)}: positions 0 to {begin - 1} were taken from a cache, "
                    "or not labelled: they are not compared"
                )
        if len(notes) <= _MOST_NOTES:
            return notes
        return [*notes[: _MOST_NOTES - 1], f"{len(notes) - _MOST_NOTES + 1:,} more notes about requests"]

    def _words_of(self, number: int) -> str:
        """Name an actual request in a note, with golden's name where that is another."""
        name = self._actual.requests[number].name
        beside = self._requests[number].removeprefix(name)
        return f"request {name!r}{beside}" if name else f"the request{beside and f' {beside}'}"

    def _share_rows(self, goldens: Sequence[RowSet], actual: RowSet) -> _Shared:
        """Find each actual row in the first golden set that has it."""
        blocks = []
        is_open = np.ones(len(actual.row), np.bool_)
        for number, golden in enumerate(goldens):
            if not is_open.any():
                break
            partners, rows = self._common_rows(golden, actual)
            chosen = is_open[rows]
            partners, rows = partners[chosen], rows[chosen]
            if rows.size:
                is_open[rows] = False
                tokens = np.maximum(actual.token[rows], golden.token[partners])
                names = np.stack([actual.request[rows], actual.position[rows], tokens], axis=1)
                picked = _pick_rows(golden, partners), _pick_rows(actual, rows)
                blocks.append((number, _Block(*picked, names, actual.block[rows])))
        return blocks, int(is_open.sum())

    def _common_rows(self, golden: RowSet, actual: RowSet) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return indices of the rows that both sets have, into each of them, by request."""
        requests, end = np.full(len(self._actual.requests) + 1, -1), np.zeros(len(self._actual.requests) + 1, np.int64)
        for number, pair in self._pairs.items():
            requests[number], end[number] = pair.golden, pair.end
        request = requests[actual.request]
        candidates = np.flatnonzero((request >= 0) & (actual.position < end[actual.request]))
        wanted = request[candidates].astype(np.int64) << 32 | actual.position[candidates]
        order = np.argsort(golden.names, kind="stable")
        names = golden.names[order]
        at = np.searchsorted(names, wanted)
        found = np.flatnonzero(at < len(names))
        found = found[names[at[found]] == wanted[found]]
        rows, partners = candidates[found], order[at[found]]
        by_name = np.argsort(actual.names[rows], kind="stable")
        return partners[by_name], rows[by_name]

    def _plan_block(self, key: LabelKey, golden: _Group, actual: _Group, block: _Block) -> LabelPlan:
        """Plan the rows of a block as a label of its own, [rows, features] on each rank."""
        sides = LabelSides()
        for group, rows in ((golden, block.golden), (actual, block.actual)):
            for rank, records in group.records.items():
                sides.add(rank, _gather(records, rows))
        return self._planner.plan(key, sides)

    def _join(self, key: LabelKey, parts: Sequence[tuple[LabelPlan, _Block]]) -> LabelPlan:
        """Return the plans of blocks as one plan, in which the blocks' rows follow each other."""
        blocks = tuple(block for _, block in parts)
        whole = self._names.get(blocks)
        if whole is None:
            table = np.concatenate([block.names for block in blocks] or [np.empty((0, 3), np.int32)])
            prompts, following = tuple(self._actual.prompts), self._actual.following(table)
            cached = np.concatenate([block.blocks for block in blocks]) if blocks else None
            whole = self._names[blocks] = RowNames(
                self._requests, table, self._goldens, prompts, following, blocks=_if_any(cached)
            )
        joined = LabelPlan(key, rows=whole)
        begin = 0
        for plan, block in parts:
            # values settle the layout of a label, not of each block: with several blocks it must be told
            settled = plan if len(parts) == 1 else _unsettled(plan)
            joined = joined.with_part(_move_block(settled, begin, whole))
            begin += len(block.names)
        return joined

    def _add_rows_without_partner(self, plan: LabelPlan, label: LabelRows, without: Mapping[int, int]) -> LabelPlan:
        """Say which ranks hold rows that golden has not; a rank of which nothing is compared gets a gap."""
        unpaired, gaps = dict[int, str](), list(plan.gaps)
        told = {gap.rank for gap in plan.gaps}
        compared = {pair.rank for pair in plan.pairs} | {
            pair.rank for question in plan.questions for option in question.options for pair in option.pairs
        }
        for rank, rows in without.items():
            words = f"golden has no row for {count(rows, 'row')}"
            if rank in compared:
                unpaired[rank] = words
            elif rank not in told:
                gaps.append(Gap(plan.key, rank, GapKind.MISSING_GOLDEN, words))
        if not label.actuals:
            gaps += [Gap(plan.key, rank, GapKind.MISSING_ACTUAL, "no actual (acl) side") for rank in label.goldens]
        goldens, actuals = (
            {rank: records.labels[0] for rank, records in side.items()} for side in (label.goldens, label.actuals)
        )
        some_golden = next(iter(goldens.values()), None)  # its rows serve the rows of any rank
        here = {gap.rank: Sides(goldens.get(gap.rank, some_golden), actuals.get(gap.rank)) for gap in gaps}
        return replace(plan, unpaired=unpaired, gaps=tuple(gaps), sides=here | plan.sides)


def _groups(side: Mapping[int, RecordedRows], sets: RowSets) -> list[_Group]:
    """Return the groups of ranks whose labels have the same rows, the lowest rank first.

    A rank whose disk ran short has tensors first and summaries then: they are in groups of their own.
    """
    alike: dict[tuple[RowSet, str], dict[int, RecordedRows]] = defaultdict(dict)
    for rank in sorted(side):
        for kept, records in _by_kept(side[rank]):
            alike[sets.of(rank, records), kept][rank] = records
    return [_Group(records, rows) for (rows, _), records in alike.items()]


def _by_kept(records: RecordedRows) -> Iterable[tuple[str, RecordedRows]]:
    """Return the records of which the same part was kept (a value of `Capture`)."""
    by_kept: dict[str, list[RankLabel]] = defaultdict(list)
    for label in records.labels:
        by_kept[label.record.capture].append(label)
    return share_forwards(by_kept).items() if len(by_kept) > 1 else [(kept, records) for kept in by_kept]


def _count_rows(blocks: Iterable[tuple[int, _Block]]) -> int:
    """Return how many golden rows of so many groups are in blocks, each row once."""
    used: dict[tuple[int, int], list[_Int32]] = defaultdict(list)
    for group, block in blocks:
        for piece, record in enumerate(block.golden.records):
            used[group, record].append(block.golden.row[block.golden.piece == piece])
    return sum(np.unique(np.concatenate(rows)).size for rows in used.values())


def _if_any(cached: _Int32 | None) -> _Int32 | None:
    """Return the blocks of rows, None where none of these comes from a cache."""
    return cached if cached is not None and (cached >= 0).any() else None


def _pick_rows(rows: RowSet, index: npt.NDArray[np.intp]) -> _PickedRows:
    used, piece = np.unique(rows.piece[index], return_inverse=True)
    return _PickedRows(used.tolist(), piece.astype(np.int32), rows.row[index])


def _gather(records: RecordedRows, rows: _PickedRows) -> RankLabel:
    """Return some of a rank's rows of a label as one label of the shape [rows, features]."""
    pieces = [records.labels[number] for number in rows.records]
    stored = [records.stored[number] for number in rows.records]
    features = [each[0] for number in rows.records if (each := records.forwards.features[number]) is not None]
    first = pieces[0]
    shape = (len(rows.row), *features[0])
    layout = _layout_of_rows(first.record.layout, len(first.shape), shape)
    record = replace(first.record, dtype=first.dtype, shape=shape, layout=layout, offset=stored[0].offset or 0)
    captures = [label.record.capture for label in pieces]
    kinds = list(zip(features, [each.dtype for each in stored], captures, strict=True))
    if kinds.count(kinds[0]) < len(kinds):
        unlike = next(label for label, kind in zip(pieces, kinds, strict=True) if kind != kinds[0])
        record = replace(
            record, offset=None, error=f"it is {_words(first)} in one forward and {_words(unlike)} in another"
        )
    elif first.record.capture != "full":
        size = 8 * row_size(first.record.capture == Capture.FINGERPRINT.value)
        sizes = [label.record.nbytes for label in pieces]
        record = replace(record, nbytes=size * len(rows.row))
        if sizes != (size * records.forwards.rows[rows.records]).tolist():
            record = replace(record, offset=None, error="its summaries tell nothing of its rows: label it again")
    paths = [label.path for label in pieces]
    files = {path: number for number, path in enumerate(dict.fromkeys(paths))}
    places = RowPlaces(
        paths=tuple(files),
        file=np.array([files[path] for path in paths], np.int32),
        offset=np.array([each.offset or 0 for each in stored], np.int64),
        rows=records.forwards.rows[rows.records],
        checksum=np.array([label.record.checksum for label in pieces], np.uint64),
        piece=rows.piece,
        row=rows.row,
    )
    return replace(first, record=record, dump=None, places=places)


def _layout_of_rows(layout: Layout | None, dimensions: int, shape: tuple[int, ...]) -> Layout | None:
    """Return a label's layout for the same features in [rows, features]; None where its rows are what was split."""
    if layout is None:
        return None
    lost = dimensions - len(shape) + 1
    placements: list[Placement] = []
    for placement in layout.placements:
        if isinstance(placement, Shard):
            dim = placement.dim + (dimensions if placement.dim < 0 else 0)
            if dim < lost:
                return None
            placement = replace(placement, dim=dim - lost + 1)
        placements.append(placement)
    if layout.whole_shape is None or layout.spans is None:
        return Layout(tuple(placements))
    if any(spans != ((0, size),) for spans, size in zip(layout.spans[:lost], layout.whole_shape, strict=False)):
        return None
    rows = shape[0]
    return Layout(tuple(placements), (rows, *layout.whole_shape[lost:]), (((0, rows),), *layout.spans[lost:]))


def _words(label: RankLabel) -> str:
    kept = "" if label.source.is_whole else f"the {label.source.capture} of "
    return f"{kept}{label.dtype} {list(label.shape)}"


def _move_block(plan: LabelPlan, begin: int, whole: RowNames) -> LabelPlan:
    """Return a block's plan in the whole, of which the block is the rows from `begin` on."""
    rows = len(whole.table)

    def move(pair: Pair) -> Pair:
        offset = (begin,) + (0,) * (len(pair.whole_shape) - 1)
        return replace(pair, whole_shape=(rows, *pair.whole_shape[1:]), region=pair.region.translate(offset))

    def cuts_rows(option: LabelPlan) -> bool:
        """Tell whether ranks would hold different rows, which have the same names."""
        return any(pair.whole_shape[0] != rows for pair in option.pairs)

    def move_question(question: Question) -> Question:
        kept = [not cuts_rows(option) for option in question.options]
        options = (_move_block(option, begin, whole) for option in itertools.compress(question.options, kept))
        unsettled = _move_block(question.unsettled, begin, whole)
        return Question(tuple(options), unsettled, tuple(itertools.compress(question.ways, kept)))

    look = plan.second_look

    def second_look() -> tuple[LabelPlan, ...]:
        others = look() if look is not None else ()
        return tuple(_move_block(other, begin, whole) for other in others if not cuts_rows(other))

    return replace(
        plan,
        pairs=tuple(map(move, plan.pairs)),
        questions=tuple(map(move_question, plan.questions)),
        second_look=None if look is None else second_look,
        rows=whole,
    )


def _unsettled(plan: LabelPlan) -> LabelPlan:
    """Return a plan whose questions stay open, with no other layout to be tried."""
    alone = replace(plan, questions=(), second_look=None)
    return functools.reduce(LabelPlan.with_part, (question.unsettled for question in plan.questions), alone)


def _tables(sides: Iterable[Mapping[int, RecordedRows]]) -> Iterable[tuple[int, RowTable]]:
    """Return (rank, table) of all forwards of a side, each once, in order."""
    forwards = dict.fromkeys((rank, records.forwards) for side in sides for rank, records in side.items())
    return dict.fromkeys((rank, table) for rank, each in forwards for table in each.tables)


def _request_names(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return f"request{'s' * (len(names) > 1)} {shown}{more}"
