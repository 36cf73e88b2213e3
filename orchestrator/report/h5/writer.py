"""report.h5: the facts of report.json as tables and plots that generic HDF5 tools read.

Each group has an attribute `description`.

/                     schema, verdict, exit_code, order, and the producer with its version
/first_divergence     found (0 or 1), task, label, occurrence, ranks, origin, why, call_site, of_weight
/weights              see `weight_tables.py`
/labels, /grid        see `labels.py`
/coverage             counts, silent_ranks
/run                  the fields of run.json that are single values or texts; /run/ranks is a table
/policy               the limits that were used
/replicas             table: one row for each odd rank of what ranks of a side ought to hold alike; rank -1 where none
                      is odd and some could not be compared
/first_by_rank        table: rank, task, label, occurrence
/tokens, ...          see `tokens.py`
/price                see `price.py`
/notes                texts
/plots/by_rank        NXdata: relative L2 error, label x rank
/plots/by_label       NXdata: largest relative L2 error and limit of each label
/plots/layer_by_rank  NXdata: largest relative L2 error of each layer's labels, layer x rank
/plots/by_layer       NXdata: the same over ranks, and the smallest limit
/rows/LABEL ...       NXdata: golden norm and error norm, rank x row, of labels that do not match
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aclcmp import __version__
from aclcmp.orchestrator.core.report import SCHEMA, Report
from aclcmp.orchestrator.core.run_record import RankRecord, RunRecord
from aclcmp.orchestrator.core.verdicts import Judgement
from aclcmp.orchestrator.report.flat import Scalar, list_text
from aclcmp.orchestrator.report.h5.diagnosis_tables import write_looks
from aclcmp.orchestrator.report.h5.labels import write_grid, write_labels
from aclcmp.orchestrator.report.h5.plots import write_plots, write_rows
from aclcmp.orchestrator.report.h5.price import write_price
from aclcmp.orchestrator.report.h5.primitives import DESCRIPTION, Columns, write_attributes, write_table, write_texts
from aclcmp.orchestrator.report.h5.sealed_file import write_sealed_file
from aclcmp.orchestrator.report.h5.tokens import write_tokens
from aclcmp.orchestrator.report.h5.weight_tables import write_weights

_DESCRIPTIONS = {
    "/": "Report of aclcmp on one run or two: verdicts on labels (tensors of two sides), golden and actual",
    "labels": "One row per (label, rank); each column has an attribute of its name that describes it",
    "grid": "Index of /labels: status and origin of each label (row) on each rank (column)",
    "first_divergence": "The first label that is wrong by itself; found is 0 where there is none",
    "first_by_rank": "The first label that is wrong on each rank",
    "coverage": "Number of (label, rank) that were compared, and that could not be",
    "run": "The fields of run.json: what ran, where, and how it ended",
    "run/ranks": "Each rank: where it ran and how it ended",
    "policy": "The limits that were used",
    "paths": "What was compared besides the run's own folder",
    "replicas": "Tensors that ought to be the same on several ranks and are not",
    "price": "What quantisation costs golden's logits: with it against without it, relative L2",
    "price/layers": "What each quantised layer alone costs the logits, the dearest first",
    "notes": "Sentences that belong to the report",
    "plots": "Relative L2 errors of all labels, for viewers that know NeXus",
    "rows": "Norm of the error of each row (token), of labels that do not match: by label",
    "looks": "Second looks at labels that do not match: error energy by channel, errors by size; by label and rank",
    "fits": "Closed forms that explain the error of a second look; look is its number",
    "patterns": "Where the error of a label sits: on which ranks, in which rows and channels",
    "patterns_by_rank": "Share of each rank in the error energy of a pattern",
    "hints": "Causes that a label's error looks like, and how much of the error they explain",
    "tokens": "Tokens that rows of logits choose, golden's against actual's",
    "token_sources": "The labels and ranks that hold the vocabulary, for runs of rows of /tokens",
    "token_shares": "How far each part (label) of the model moved the margin of a token, a row of /tokens",
    "token_texts": "Texts of the tokens",
    "weights": "What ranks hold of golden's weights",
}
"""Object -> what it is for, its attribute `description`."""


def write_h5(report: Report, path: Path) -> None:
    """Write report.h5. Texts are UTF-8; what UTF-8 or HDF5 cannot hold (half surrogates, NUL) is written as escape.

    Raises OSError when the file cannot be written.
    """
    write_sealed_file(path, lambda file: _write(report, file))


def _write(report: Report, file: h5py.File) -> None:
    judgement = report.judgement
    write_attributes(file, {"schema": SCHEMA, "verdict": judgement.verdict, "exit_code": int(judgement.exit_code)})
    write_attributes(file, {"order": report.order})
    write_attributes(file.create_group("paths"), report.paths)
    _first_divergence(file, report)
    write_labels(file, judgement)
    write_grid(file, judgement)
    coverage = judgement.coverage
    counts = {f.name: getattr(coverage, f.name) for f in fields(coverage) if f.name != "silent_ranks"}
    counts["complete"] = coverage.complete
    silent = np.array(coverage.silent_ranks, dtype="i8")
    write_attributes(file.create_group("coverage"), counts | {"silent_ranks": silent})
    _run(file.create_group("run"), report)
    write_attributes(file.create_group("policy"), report.policy)
    write_table(file, "replicas", _replicas(judgement))
    first = sorted(judgement.first_by_rank.items())
    write_table(
        file,
        "first_by_rank",
        {
            "rank": (int, [rank for rank, _ in first]),
            "task": (int, [key.task for _, key in first]),
            "label": (str, [key.label for _, key in first]),
            "occurrence": (int, [key.occurrence for _, key in first]),
        },
    )
    write_tokens(file, judgement.tokens, report.token_texts)
    write_texts(file, "notes", report.notes)
    write_plots(file, judgement)
    write_rows(file, judgement)
    write_looks(file, report.looks, report.patterns, report.hints)
    write_weights(file, judgement.weights)
    write_price(file, report.price)
    write_attributes(file, {"producer": "aclcmp", "producer_version": __version__})
    for name, text in _DESCRIPTIONS.items():
        if name in file:
            write_attributes(file[name], {DESCRIPTION: text})


def _replicas(judgement: Judgement) -> Columns:
    odd = [(replica, rank) for replica in judgement.replicas for rank in replica.odd or (-1,)]
    number = {id(replica): i for i, replica in enumerate(judgement.replicas)}
    return {
        "number": (int, [number[id(replica)] for replica, _ in odd]),
        "task": (int, [replica.key.task for replica, _ in odd]),
        "label": (str, [replica.key.label for replica, _ in odd]),
        "occurrence": (int, [replica.key.occurrence for replica, _ in odd]),
        "side": (str, [replica.side for replica, _ in odd]),
        "rank": (int, [rank for _, rank in odd]),
        "told": (bool, [replica.declared for replica, _ in odd]),
        "rel_l2": (float, [replica.rel_l2 for replica, _ in odd]),
        "reason": (str, [replica.reason for replica, _ in odd]),
        "agreeing": (str, [list_text(replica.agreeing) for replica, _ in odd]),
        "unread": (str, [list_text(replica.unread) for replica, _ in odd]),
        "own_ranks": (bool, [replica.own_ranks for replica, _ in odd]),
    }


def _first_divergence(file: h5py.File, report: Report) -> None:
    group = file.create_group("first_divergence")
    first = report.judgement.first_divergence
    write_attributes(group, {"found": first is not None})
    if first is None:
        return
    key = first.key
    write_attributes(group, {"task": key.task, "label": key.label, "occurrence": key.occurrence})
    write_attributes(group, {"origin": first.origin.value, "why": first.why, "call_site": first.call_site})
    write_attributes(group, {"ranks": np.array(first.ranks, dtype="i8"), "of_weight": first.of_weight})


def _run(group: h5py.Group, report: Report) -> None:
    write_attributes(group, {"run_id": report.run_id})
    if report.run is None:
        return
    record = report.run.model_dump(mode="json", by_alias=True, exclude={"ranks"})
    for name, value in record.items():
        if value is not None:
            write_attributes(group, {name: value if isinstance(value, (str, int, float)) else json.dumps(value)})
    write_table(group, "ranks", _rank_columns(report.run))


def _rank_columns(run: RunRecord) -> Columns:
    def column(kind: type[Scalar], name: str) -> tuple[type[Scalar], list[Any]]:
        return kind, [getattr(rank, name) for rank in run.ranks]

    def exit_code(rank: RankRecord) -> int:
        return -1 if rank.exit_code is None else rank.exit_code

    return {
        "rank": column(int, "rank"),
        "local_rank": column(int, "local_rank"),
        "host": column(str, "host"),
        "ip": column(str, "ip"),
        "node_id": column(str, "node_id"),
        "devices": (str, [",".join(rank.devices) for rank in run.ranks]),
        "state": (str, [rank.state.value for rank in run.ranks]),
        "exit_code": (int, [exit_code(rank) for rank in run.ranks]),
        "started": column(float, "started"),
        "finished": column(float, "finished"),
    }
