"""Blocks of a KV cache that hold the rows of another request, or of other positions. Pure but for `compare`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.diagnosis import Hint
from aclcmp.orchestrator.core.plan import LabelPlan, Plan, RowNames
from aclcmp.orchestrator.core.regions import LabelKey, Pair, Region, Source
from aclcmp.orchestrator.core.stats import PairStats
from aclcmp.orchestrator.core.verdicts import LabelVerdict, RankVerdict, Status
from aclcmp.orchestrator.judge.hints import EXPLAINS
from aclcmp.orchestrator.pipeline.missing_reductions import explained_share
from aclcmp.orchestrator.pipeline.resolve_layouts import Compare

WRONG_BLOCKS = "wrong blocks"
"""Kind of the hints that say where an error is, not what it looks like."""
_MOST_LABELS = 4
_MOST_RANKS = 16
_MOST_BLOCKS = 8
"""Most blocks of a label and rank that are looked for elsewhere; those with the largest errors."""
_MOST_ROWS = 1 << 16
"""Most rows that are compared at once: of more the sums by row are of several together."""
_WRONG = 0.01
"""Share of its energy by which a row is wrong, at least, and by which one that it may be instead is off at most."""
_LEAST = 0.25
"""Share of the error that blocks must explain which are found elsewhere: behind their rows nothing may be written."""
_MOST_TRIED = 4
_MOST_NAMED = 3

_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Block:
    """The wrong rows of one block."""

    number: int
    request: int
    rows: _Rows
    """Their numbers in the label, by position."""
    worst: int
    """Number of the row with the largest error."""
    energy: float


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the rows of a block are golden's: each is that of `request`, so many positions later."""

    request: int
    later: int


def exchanged_block_hints(
    plan: Plan, labels: Sequence[LabelVerdict], compare: Compare
) -> dict[LabelKey, tuple[Hint, ...]]:
    """Return hints for labels of which blocks of a cache hold golden's rows of another request or position.

    The wrong rows of each block are named in any case, where they are few.
    """
    planned = {label.key: label for label in plan.labels if label.rows is not None and label.rows.blocks is not None}
    found = {}
    for label in labels[:_MOST_LABELS]:
        if (here := planned.get(label.key)) is not None:
            found[label.key] = tuple(_hints_of(here, label, compare))
    return found


def _hints_of(here: LabelPlan, label: LabelVerdict, compare: Compare) -> Iterator[Hint]:
    told: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    assert here.rows is not None
    wrong = [each for each in label.ranks if each.status is Status.DIVERGED and each.stats is not None]
    for verdict in wrong[:_MOST_RANKS]:
        pairs = [pair for pair in here.pairs if pair.rank == verdict.rank]
        blocks = _wrong_blocks(here.rows, verdict) if len(pairs) == 1 and _is_simple(pairs[0], here.rows) else []
        if not blocks:
            continue
        assert verdict.stats is not None
        moved = _find_blocks(pairs[0], here.rows, blocks, verdict, compare)
        share = sum(block.energy for block, _ in moved) / verdict.stats.sum_dd
        if share >= _LEAST:
            told["moved blocks", _block_words(here.rows, moved)][verdict.rank] = min(share, 1.0)
        elif len(blocks) <= _MOST_NAMED and sum(each.energy for each in blocks) >= EXPLAINS * verdict.stats.sum_dd:
            told[WRONG_BLOCKS, _words_on_wrong(here.rows, blocks)][verdict.rank] = 1.0
    for (kind, words), ranks in told.items():
        yield Hint(label.key, tuple(ranks), kind, words, min(ranks.values()))


def _is_simple(pair: Pair, names: RowNames) -> bool:
    """Tell whether a pair has all rows of the label, from places in stored tensors."""
    rows = len(names.table)
    regions = (pair.region, pair.golden_region, pair.actual_region)
    return (
        pair.is_whole
        and not (pair.more_golden or pair.more_actual)
        and all(source.places is not None and len(source.places.row) == rows for source in (pair.golden, pair.actual))
        and all(region.start[0] == 0 and region.shape[0] == rows for region in regions)
        and names.each == 1
    )


def _wrong_blocks(names: RowNames, verdict: RankVerdict) -> list[_Block]:
    """Return the blocks with wrong rows, those with the largest errors first."""
    assert verdict.stats is not None and names.blocks is not None
    sums = verdict.stats.rows
    if sums.group != 1 or not sums.index.size:
        return []
    wrong = sums.index[sums.sum_dd > _WRONG * sums.sum_xx]
    energies = np.zeros(len(names.table))
    energies[sums.index] = sums.sum_dd
    by_block: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in wrong.tolist():
        by_block[int(names.blocks[row]), int(names.table[row, 0])].append(row)
    blocks = []
    for (number, request), rows in by_block.items():
        ordered = np.array(sorted(rows, key=lambda row: int(names.table[row, 1])))
        worst = rows[int(np.argmax(energies[rows]))]
        blocks.append(_Block(number, request, ordered, worst, float(energies[rows].sum())))
    return sorted(blocks, key=lambda block: -block.energy)


def _find_blocks(
    pair: Pair, names: RowNames, blocks: Sequence[_Block], verdict: RankVerdict, compare: Compare
) -> list[tuple[_Block, _Place]]:
    """Return the blocks that are golden's rows elsewhere, in the order of requests and positions, each proven."""
    numbers = {(request, at): row for row, (request, at, _) in reversed(list(enumerate(names.table.tolist())))}
    everywhere = np.array(sorted(numbers.values()))
    found = []
    for block in blocks[:_MOST_BLOCKS]:
        likely = [
            _place(names, golden, sample)
            for sample in dict.fromkeys((int(block.rows[0]), block.worst))
            for golden in _nearest(pair, everywhere, np.full(len(everywhere), sample), compare)[:_MOST_TRIED]
        ]
        tried = [
            (held, place)
            for place in dict.fromkeys(likely)
            if (held := _prove(pair, names, numbers, block, place, verdict, compare)) is not None
        ]
        if tried:
            found.append(max(tried, key=lambda each: len(each[0].rows)))
    return sorted(found, key=lambda each: (each[0].request, int(names.table[each[0].rows[0], 1])))


def _nearest(pair: Pair, golden: _Rows, actual: _Rows, compare: Compare) -> list[int]:
    """Return which of golden's rows are nearly actual's that stand beside them, the nearest first."""
    found: list[tuple[float, int]] = []
    for begin in range(0, len(golden), _MOST_ROWS):
        part = slice(begin, begin + _MOST_ROWS)
        outcome = compare([_beside(pair, golden[part], actual[part])]).get((pair.key, pair.rank))
        if isinstance(outcome, PairStats):
            sums = outcome.rows
            near = (sums.sum_dd <= _WRONG * sums.sum_xx) & (sums.sum_xx > 0.0)
            found += zip(sums.sum_dd[near].tolist(), golden[part][sums.index[near]].tolist(), strict=True)
    return [row for _, row in sorted(found)]


def _place(names: RowNames, golden: int, actual: int) -> _Place:
    request, at, _ = names.table[golden].tolist()
    return _Place(request, at - int(names.table[actual, 1]))


def _prove(
    pair: Pair,
    names: RowNames,
    numbers: Mapping[tuple[int, int], int],
    block: _Block,
    place: _Place,
    verdict: RankVerdict,
    compare: Compare,
) -> _Block | None:
    """Return a block with those of its rows that are golden's at a place; None unless half of those are that it has."""
    positions = names.table[block.rows, 1].tolist()
    beside = [
        (row, numbers.get((place.request, at + place.later))) for row, at in zip(block.rows, positions, strict=True)
    ]
    there = [(int(row), golden) for row, golden in beside if golden is not None]
    rows, golden = np.array([row for row, _ in there]), np.array([each for _, each in there])
    same = np.isin(golden, _nearest(pair, golden, rows, compare))
    if not len(rows) or 2 * same.sum() < len(rows):
        return None
    rows, golden = rows[same], golden[same]
    if explained_share(compare([_beside(pair, golden, rows)]).get((pair.key, pair.rank)), [verdict]) <= 0.0:
        return None
    assert verdict.stats is not None
    sums = verdict.stats.rows
    return replace(block, rows=rows, energy=float(sums.sum_dd[np.isin(sums.index, rows)].sum()))


def _beside(pair: Pair, golden: _Rows, actual: _Rows) -> Pair:
    """Return a pair of some of golden's rows and as many of actual's, by their numbers in the label."""
    count = len(golden)

    def region(whole: Region) -> Region:
        return Region(whole.start, (count, *whole.shape[1:]))

    return replace(
        pair,
        golden=_take(pair.golden, golden),
        golden_region=region(pair.golden_region),
        actual=_take(pair.actual, actual),
        actual_region=region(pair.actual_region),
        whole_shape=(count, *pair.whole_shape[1:]),
        region=region(pair.region),
    )


def _take(source: Source, rows: _Rows) -> Source:
    places = source.places
    assert places is not None
    taken = replace(places, piece=places.piece[rows], row=places.row[rows])
    return replace(source, shape=(len(rows), *source.shape[1:]), places=taken)


def _block_words(names: RowNames, moved: Sequence[tuple[_Block, _Place]]) -> str:
    """Say which blocks hold what: "block 3 holds positions 48-63 of request 2 (expected: positions 32-47 of ...)"."""
    words = []
    for block, place in moved[:_MOST_NAMED]:
        first, last = (int(names.table[row, 1]) for row in (block.rows[0], block.rows[-1]))
        held = _positions(names, place.request, first + place.later, last + place.later)
        words.append(f"block {block.number} holds {held} (expected: {_positions(names, block.request, first, last)})")
    more = f" and {len(moved) - _MOST_NAMED} more" if len(moved) > _MOST_NAMED else ""
    return f"{', '.join(words)}{more}: a table of blocks, or blocks that were copied or given away too early?"


def _words_on_wrong(names: RowNames, blocks: Sequence[_Block]) -> str:
    words = []
    for block in blocks:
        first, last = (int(names.table[row, 1]) for row in (block.rows[0], block.rows[-1]))
        words.append(f"block {block.number} ({_positions(names, block.request, first, last)})")
    return f"all of it is in {', '.join(words)}: slots of the cache lost, overwritten or unwritten?"


def _positions(names: RowNames, request: int, first: int, last: int) -> str:
    of = f" of request {names.requests[request]}" if names.requests[request] else ""
    return (f"position {first}" if first == last else f"positions {first}-{last}") + of
