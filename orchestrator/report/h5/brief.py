"""A report.h5 in brief, for `aclcmp diff`: status, origin and relative L2 of each (label, rank), from its index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import h5py
import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.compact import empty_table, from_table
from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.metrics import Metrics
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.verdicts import (
    LabelVerdict,
    Origin,
    RankVerdict,
    Status,
    StatusGroup,
    verdicts_from,
    worst,
)
from aclcmp.orchestrator.report.h5.labels import Grid
from aclcmp.orchestrator.report.h5.primitives import own_dataset, own_group

_STATUSES = {status.number: status for status in Status}
_ORIGINS: list[Origin | None] = [None, Origin.OWN, Origin.INHERITED]
_IN_ORDER = [status.number for status in Status if status.group in (StatusGroup.GOOD, StatusGroup.WARNING)]


def worth_telling(grid: Grid, other: Grid) -> list[int]:
    """Return the numbers of the labels in `grid` that are not in order on the same ranks in both."""
    mine, others = _in_order(grid), _in_order(other)
    same_ranks = grid.ranks == other.ranks
    return [n for n, key in enumerate(grid.keys) if not (same_ranks and key in mine and mine[key] == others.get(key))]


def _in_order(grid: Grid) -> dict[LabelKey, bytes]:
    """Labels that match or drift wherever they are, and packed on which ranks they are."""
    there = grid.status != 0
    in_order = np.flatnonzero((np.isin(grid.status, _IN_ORDER) | ~there).all(axis=1))
    return {grid.keys[number]: np.packbits(there[number]).tobytes() for number in in_order.tolist()}


def brief_labels(file: h5py.File, grid: Grid, wanted: Iterable[int]) -> Iterator[LabelVerdict]:
    """Yield labels by their numbers, of their verdicts only what the index holds."""
    if not grid.keys:
        return
    errors = own_dataset(own_group(own_group(file, "plots"), "by_rank"), "rel_l2")[:]
    for number in wanted:
        at = np.flatnonzero(grid.status[number])
        verdicts = _verdicts(grid, number, at, errors[number, at])
        level = Level(layer=grid.layers[number])
        status = worst([each.status for each in verdicts] or [Status.MATCH])
        yield LabelVerdict(grid.keys[number], status, tuple(verdicts), level)


def _verdicts(grid: Grid, number: int, at: npt.NDArray[np.int64], errors: npt.NDArray[np.float64]) -> list[RankVerdict]:
    figures = empty_table(Metrics, len(at))
    figures["rel_l2"] = errors
    metrics = [
        None if error != error else each for error, each in zip(errors, from_table(Metrics, figures), strict=True)
    ]
    absent: dict[str, object] = {
        **{name: None for name in ("golden", "actual", "stats", "gap", "limits", "margin", "own")},
        **{name: "" for name in ("layout", "gap_reason", "uncovered", "worst_row_name", "reason")},
        **{name: () for name in ("summed", "floors")},
        "dtypes": ("", ""),
        "ties": 0,
        "bitwise": False,
        "ignored": False,
    }
    return verdicts_from(
        len(at),
        {
            **{name: [value] * len(at) for name, value in absent.items()},
            "rank": [grid.ranks[place] for place in at.tolist()],
            "metrics": metrics,
            "status": [_STATUSES[code] for code in grid.status[number, at].tolist()],
            "origin": [_ORIGINS[code] for code in grid.origin[number, at].tolist()],
            "excused": ["excused" if each else "" for each in grid.excused[number, at].tolist()],
        },
    )
