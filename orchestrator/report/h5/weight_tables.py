"""Weights in report.h5, written and read again.

/weights              group, absent where a side hashed none: parameters, known, ranks
/weights/findings     table: kind, parameter, others and ranks and labels as JSON, words, wrong, by_labels
/weights/held         table: parameter, ranks as JSON, words
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import h5py
import numpy as np

from aclcmp.orchestrator.core.weights import HeldRows, WeightFault, WeightFinding, WeightReport
from aclcmp.orchestrator.report.h5.primitives import own_group, read_table, write_attributes, write_table


def write_weights(file: h5py.File, weights: WeightReport | None) -> None:
    """Write what ranks hold of golden's weights."""
    if weights is None:
        return
    group = file.create_group("weights")
    ranks = np.array(weights.ranks, dtype="i8")
    write_attributes(group, {"parameters": weights.parameters, "known": weights.known, "ranks": ranks})
    found, held = weights.findings, weights.held
    write_table(
        group,
        "findings",
        {
            "kind": (str, [each.kind.value for each in found]),
            "parameter": (str, [each.parameter for each in found]),
            "others": (str, [json.dumps(each.others) for each in found]),
            "ranks": (str, [json.dumps(each.ranks) for each in found]),
            "words": (str, [each.words for each in found]),
            "labels": (str, [json.dumps(each.labels) for each in found]),
            "wrong": (bool, [each.wrong for each in found]),
            "by_labels": (bool, [each.by_labels for each in found]),
        },
    )
    write_table(
        group,
        "held",
        {
            "parameter": (str, [each.parameter for each in held]),
            "ranks": (str, [json.dumps(each.ranks) for each in held]),
            "words": (str, [each.words for each in held]),
        },
    )


def read_weights(file: h5py.File) -> WeightReport | None:
    """Read what `write_weights` wrote; None where there is nothing.

    Raises KeyError, TypeError or ValueError for a file that is not as it was written.
    """
    if "weights" not in file:
        return None
    group = own_group(file, "weights")
    findings = tuple(
        WeightFinding(
            WeightFault(row["kind"]),
            row["parameter"],
            tuple(map(str, json.loads(row["others"]))),
            _numbers(row["ranks"]),
            row["words"],
            tuple(map(str, json.loads(row["labels"]))),
            bool(row["wrong"]),
            bool(row["by_labels"]),
        )
        for row in read_table(group, "findings")
    )
    held = tuple(HeldRows(row["parameter"], _numbers(row["ranks"]), row["words"]) for row in read_table(group, "held"))
    parameters, known = (int(group.attrs[name]) for name in ("parameters", "known"))
    return WeightReport(parameters, known, _integers(group.attrs["ranks"]), findings, held)


def _numbers(text: str) -> tuple[int, ...]:
    return _integers(json.loads(text))


def _integers(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
