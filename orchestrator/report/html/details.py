"""Details that a click opens: everything about labels that do not match, and the two sides of all others.

A run may hold a million verdicts that do not match. The page has room for the 20,000 that tell most.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from aclcmp.labeling.shard.shard_files import dataset_name
from aclcmp.orchestrator.core.diagnosis import HISTOGRAM_LOWEST, ChannelSums, Look, WorstRow
from aclcmp.orchestrator.core.metrics import METRICS
from aclcmp.orchestrator.core.plan import SideFacts
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.stats import Basis, PairStats, RowSums
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, RankVerdict, Status
from aclcmp.orchestrator.report.html.grid import face_number
from aclcmp.orchestrator.report.html.overview import side_words
from aclcmp.orchestrator.report.html.packed import printable, printable_in, round_figure

MOST_DETAILS = 20_000
_MOST_STRIPS = 2_000
"""Of rows, and of channels; each is up to 240 figures."""
_MOST_FITS = 3
_LEAST_EXPLAINED = 0.3

Held = list[tuple[int, RankVerdict]]
MOST_BINS = 240


def details(report: Report) -> dict[str, Any]:
    """Return the page's second part: `verdicts` in full, `rows`, `channels`, `datasets`, `left_out`.

    Labels are numbers in the judgement's order. Own divergences come first, then what else does not match, then the
    worst rank of each label that is wrong by inheritance, then its other ranks.
    """
    labels = report.judgement.labels
    ordered = list(_by_interest(labels))
    shown = ordered[:MOST_DETAILS]
    return _details(report, shown, [label.key for label in labels]) | {"left_out": len(ordered) - len(shown)}


def label_details(report: Report, number: int) -> dict[str, Any]:
    """Return the same of the only label of a report, on all its ranks, with `number` as that of the label."""
    (label,) = report.judgement.labels
    return _details(report, [(number, verdict) for verdict in label.ranks], {number: label.key})


def _details(report: Report, shown: Held, keys: Sequence[LabelKey] | Mapping[int, LabelKey]) -> dict[str, Any]:
    looks = {(n, v.rank): look for n, v in shown if (look := report.looks.get((keys[n], v.rank)))}
    rows = {(n, v.rank): v.stats.rows for n, v in shown if v.stats is not None and v.stats.rows.index.size}
    channels = {at: look.channels for at, look in looks.items() if look.channels.index.size}
    number = {keys[n]: n for n in (keys if isinstance(keys, Mapping) else range(len(keys)))}
    return {
        "metrics": [{"name": name, "words": info.words, "help": info.help} for name, info in METRICS.items()],
        "verdicts": [_detail(n, verdict, looks.get((n, verdict.rank))) for n, verdict in shown],
        "rows": _strips(rows),
        "channels": _strips(channels),
        "findings": printable_in(_findings(report, number)),
        "datasets": {n: printable(_dataset(keys[n])) for n, _ in shown},
    }


def _by_interest(labels: Sequence[LabelVerdict]) -> Iterator[tuple[int, RankVerdict]]:
    others: list[Held] = [[], [], []]
    for number, label in enumerate(labels):
        if label.status is Status.MATCH:
            continue
        inherited = [v for v in label.ranks if v.origin is Origin.INHERITED]
        largest = max(inherited, key=lambda v: (face_number(v), v.margin or 0.0), default=None)
        for verdict in label.ranks:
            if verdict.origin is Origin.OWN and not verdict.excused:
                yield number, verdict
            elif verdict.status is not Status.MATCH:
                kind = 1 if verdict is largest else 0 if verdict.origin is None else 2
                others[kind].append((number, verdict))
    for group in others:
        yield from group


def _dataset(key: LabelKey) -> str:
    """Return the group of a label in the shard that holds it."""
    return dataset_name(key.task, key.label, key.occurrence, "").rstrip("/")


def _detail(number: int, verdict: RankVerdict, look: Look | None) -> dict[str, Any]:
    limits, stats = verdict.limits, verdict.stats
    sides = [side for side in (verdict.golden, verdict.actual) if side is not None]
    fits = (
        [[fit.words, round_figure(fit.explained)] for fit in look.fits if fit.explained >= _LEAST_EXPLAINED]
        if look
        else []
    )
    texts = {
        "reason": verdict.reason,
        "excused": verdict.excused,
        "layout": verdict.layout,
        "golden": _side(verdict.golden),
        "actual": _side(verdict.actual),
        "limits": limits
        and [round_figure(limits.warn), round_figure(limits.fail), limits.source, round_figure(limits.rows)],
        "inputs": list(dict.fromkeys(name for side in sides for name in side.inputs)),
        "fits": fits[:_MOST_FITS],
    }
    detail: dict[str, Any] = {
        "label": number,
        "rank": verdict.rank,
        "face": face_number(verdict),
        **{name: printable_in(value) for name, value in texts.items()},
        "margin": round_figure(verdict.margin),
        "floors": [
            [floor.source.value, round_figure(floor.rel_l2), round_figure(floor.worst_row)] for floor in verdict.floors
        ],
        "metrics": verdict.metrics and [_figure(getattr(verdict.metrics, name)) for name in METRICS],
        "stats": stats and _stats(stats),
        "histogram": look and histogram(look),
        "own": verdict.own and [round_figure(verdict.own.rel_l2), round_figure(verdict.own.worst_row)],
        "worst_row": look and look.worst_row and _worst_row(look.worst_row),
        "named_rows": True if verdict.worst_row_name else None,
    }
    return {name: value for name, value in detail.items() if value not in (None, "", [])}


def _figure(value: float | int) -> float | int | str | None:
    return value if isinstance(value, int) else round_figure(value)


def _side(side: SideFacts | None) -> list[Any] | None:
    return None if side is None else [*side_words(side), side.path, side.capture, side.seq]


def _worst_row(row: WorstRow) -> dict[str, Any]:
    """Return the values of a worst row: where it is in the whole tensor, and both sides."""
    values = {side: [round_figure(value, 5) for value in getattr(row, side).tolist()] for side in ("golden", "actual")}
    return {"shape": list(row.whole_shape), "row": list(row.row), "start": row.start, **values}


def _stats(stats: PairStats) -> dict[str, Any]:
    """Return what single elements tell: how many there are, which is worst, how many are not finite."""
    facts: dict[str, Any] = {"n": stats.n, "rows_per_group": stats.rows.group}
    if stats.max_abs_d_index >= 0 and stats.max_abs_d > 0:
        facts["worst"] = [stats.max_abs_d_index, round_figure(stats.max_abs_d_x, 6), round_figure(stats.max_abs_d_y, 6)]
    nonfinite = [
        [stats.nan_x, stats.posinf_x + stats.neginf_x],
        [stats.nan_y, stats.posinf_y + stats.neginf_y],
    ]
    if any(count > 0 for side in nonfinite for count in side):  # -1: not known
        facts["nonfinite"] = nonfinite
    if stats.basis is not Basis.VALUES:
        facts["basis"] = stats.basis.value
    return facts


def _strips(by_place: Mapping[tuple[int, int], RowSums | ChannelSums]) -> list[dict[str, Any]]:
    """Return the strips of so many labels as the page has room for, of each all its ranks that have details."""
    by_label: dict[int, dict[int, RowSums | ChannelSums]] = defaultdict(dict)
    # Strips of one row say what the figures say.
    for (number, rank), sums in islice(by_place.items(), _MOST_STRIPS):
        if sums.index.size > 1:
            by_label[number][rank] = sums
    return [{"label": number, **strips(dict(sorted(ranks.items())))} for number, ranks in by_label.items()]


def _findings(report: Report, number: Mapping[LabelKey, int]) -> dict[str, Any]:
    """Return hints and patterns by the label's number."""
    found: dict[str, list[Any]] = defaultdict(list)
    for hint in report.hints:
        if hint.key in number:
            found[str(number[hint.key])].append([hint.words, list(hint.ranks), round_figure(hint.explained)])
    for pattern in report.patterns:
        if pattern.key in number:
            words = filter(None, (pattern.ranks, pattern.rows, pattern.channels))
            found[str(number[pattern.key])] += [[text, [], None] for text in words]
    return found


def relative_errors(sums: RowSums | ChannelSums) -> npt.NDArray[np.float64]:
    """Return sqrt(sum d^2 / sum x^2) by row or channel group, with the denominator of `Metrics.worst_row`."""
    nonzero = sums.sum_xx[sums.sum_xx > 0]
    floor = np.median(nonzero) if nonzero.size else 0.0
    with np.errstate(all="ignore"):
        relative = np.sqrt(sums.sum_dd / np.maximum(sums.sum_xx, floor))
    relative[sums.sum_dd == 0] = 0.0
    return np.asarray(relative, np.float64)


def strips(by_rank: Mapping[int, RowSums | ChannelSums]) -> dict[str, Any]:
    """Return the relative errors of each rank in bins of equal width, the largest of each bin; None where it has none.

    `start`, `step` and `count` are in rows (or channels) of the whole tensor. At least one rank has one.
    """
    low = min(int(sums.index[0]) for sums in by_rank.values())
    high = max(int(sums.index[-1]) for sums in by_rank.values())
    group = max(next(iter(by_rank.values())).group, 1)
    width = -(-(high - low + 1) // MOST_BINS)
    bins = (high - low) // width + 1
    errors = []
    for sums in by_rank.values():
        largest = np.full(bins, -1.0)
        np.maximum.at(largest, (sums.index - low) // width, np.nan_to_num(relative_errors(sums), posinf=np.inf))
        errors.append([None if value < 0 else round_figure(value, 2) for value in largest.tolist()])
    rows = (high + 1) * group
    return {"start": low * group, "step": width * group, "count": rows, "ranks": list(by_rank), "errors": errors}


def histogram(look: Look) -> dict[str, Any] | None:
    """Return the counts by power of two of |d| / rms(x) from the first bin that holds something to the last."""
    filled = np.flatnonzero(look.histogram)
    if not filled.size:
        return None
    first, last = int(filled[0]), int(filled[-1])
    return {"log2": HISTOGRAM_LOWEST + first, "counts": look.histogram[first : last + 1].tolist()}
