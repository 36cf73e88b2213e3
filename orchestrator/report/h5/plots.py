"""The plots of report.h5, with the NXdata attributes (signal, axes) by which generic HDF5 viewers draw them."""

from __future__ import annotations

from math import nan

import h5py
import numpy as np
import numpy.typing as npt

from aclcmp.orchestrator.core.verdicts import Judgement, LabelVerdict, Origin, RankVerdict, Status
from aclcmp.orchestrator.report.h5.primitives import link_name, write_attributes, write_nxdata, write_texts

_MOST_ROW_LABELS = 256
_MOST_ROW_BYTES = 64 << 20

Floats = npt.NDArray[np.float64]


def write_plots(file: h5py.File, judgement: Judgement) -> None:
    """Write /plots: the relative L2 error by label and rank, and by label against its limit, in golden order."""
    labels = judgement.labels
    ranks = sorted({verdict.rank for label in labels for verdict in label.ranks})
    if not ranks:
        return
    column = {rank: i for i, rank in enumerate(ranks)}
    errors, fail, warn = (np.full((len(labels), len(ranks)), nan) for _ in range(3))
    for i, label in enumerate(labels):
        for verdict in label.ranks:
            at = i, column[verdict.rank]
            if verdict.metrics is not None:
                errors[at] = verdict.metrics.rel_l2
            if verdict.limits is not None:
                fail[at], warn[at] = verdict.limits.fail, verdict.limits.warn
    order = np.arange(len(labels))
    names = [label.key.label for label in labels]
    plots = file.create_group("plots")
    write_attributes(plots, {"NX_class": "NXentry", "default": "by_rank"})
    write_attributes(file, {"NX_class": "NXroot", "default": "plots"})
    by_rank = write_nxdata(
        plots, "by_rank", "Relative L2 error", {"rel_l2": errors}, {"label_number": order, "rank": np.array(ranks)}
    )
    write_texts(by_rank, "label", names)
    # fmax and fmin pass over nan, and give nan where a label has nothing else (nanmax would warn there).
    signals = {
        "worst_rel_l2": np.fmax.reduce(errors, axis=1),
        "limit_fail": np.fmin.reduce(fail, axis=1),
        "limit_warn": np.fmin.reduce(warn, axis=1),
    }
    by_label = write_nxdata(plots, "by_label", "Relative L2 error of the worst rank", signals, {"label_number": order})
    write_texts(by_label, "label", names)
    layers = np.array([int(label.level.layer) if label.level.layer.isdecimal() else -1 for label in labels])
    if (layers >= 0).any():
        _write_layers(plots, layers, np.array(ranks), errors, fail)


def _write_layers(
    plots: h5py.Group, layers: npt.NDArray[np.int64], ranks: npt.NDArray[np.int64], errors: Floats, fail: Floats
) -> None:
    """The worst label of each layer: by rank as a map, and over ranks against the smallest limit, in all tasks."""
    there = np.unique(layers[layers >= 0])
    worst = np.array([np.fmax.reduce(errors[layers == layer], axis=0) for layer in there])
    limit = np.array([np.fmin.reduce(fail[layers == layer], axis=None) for layer in there])
    title = "Largest relative L2 error of a layer"
    write_nxdata(plots, "layer_by_rank", title, {"rel_l2": worst}, {"layer": there, "rank": ranks})
    signals = {"worst_rel_l2": np.fmax.reduce(worst, axis=1), "limit_fail": limit}
    write_nxdata(plots, "by_layer", f"{title}, of the worst rank", signals, {"layer": there})


def write_rows(file: h5py.File, judgement: Judgement) -> None:
    """Write /rows: norms by row of the labels that do not match, for plots of the error by token.

    A row group's number is its place in the whole tensor; a rank that does not hold it has nan. Errors of their own
    come first, then golden order, up to 256 labels and 64 MiB; /rows has the attribute `left_out`.
    """
    group = file.create_group("rows", track_order=True)
    found = [(label, verdicts) for label in judgement.labels if (verdicts := [v for v in label.ranks if _has_rows(v)])]
    found.sort(key=lambda item: all(v.origin is not Origin.OWN for v in item[1]))  # stable: golden order within
    written = size = 0
    for label, verdicts in found:
        index = np.unique(np.concatenate([v.stats.rows.index for v in verdicts if v.stats]))
        size += 2 * 8 * len(index) * len(verdicts)
        if written == _MOST_ROW_LABELS or size > _MOST_ROW_BYTES:
            break
        _write_label_rows(group, label, verdicts, index)
        written += 1
    write_attributes(group, {"left_out": len(found) - written})


def _has_rows(verdict: RankVerdict) -> bool:
    return verdict.status is not Status.MATCH and verdict.stats is not None and len(verdict.stats.rows.index) > 0


def _write_label_rows(
    group: h5py.Group, label: LabelVerdict, verdicts: list[RankVerdict], index: npt.NDArray[np.int64]
) -> None:
    golden, error = (np.full((len(verdicts), len(index)), nan) for _ in range(2))
    row_group = 1
    for i, verdict in enumerate(verdicts):
        assert verdict.stats is not None
        sums = verdict.stats.rows
        row_group = sums.group
        at = np.searchsorted(index, sums.index)
        golden[i, at], error[i, at] = np.sqrt(sums.sum_xx), np.sqrt(sums.sum_dd)
    ranks = np.array([verdict.rank for verdict in verdicts])
    title = f"Error norm by row: {label.key.label}, task {label.key.task}"
    data = write_nxdata(
        group,
        link_name(group, label.key),
        title,
        {"error_norm": error, "golden_norm": golden},
        {"rank": ranks, "row_group": index},
    )
    key = label.key
    write_attributes(data, {"task": key.task, "label": key.label, "occurrence": key.occurrence})
    write_attributes(data, {"rows_per_group": row_group})
