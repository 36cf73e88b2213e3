"""report.h5: tables for pandas, plots for viewers, the same facts as report.json."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from aclcmp import __version__
from aclcmp.orchestrator.core.levels import level_of
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import Failure
from aclcmp.orchestrator.core.stats import RowSums
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, Status
from aclcmp.orchestrator.report.as_json import write_json
from aclcmp.orchestrator.report.h5.reader import read_h5
from aclcmp.orchestrator.report.h5.writer import write_h5
from tests.report.made_up import decoder_labels, label, record_of, report_of, verdict

CULPRIT = ("layers.2.mlp.down.local", 5)


def table(path: Path, name: str) -> pd.DataFrame:
    with h5py.File(path) as file:
        frame = pd.DataFrame(file[name][:])
    for column in frame.select_dtypes(object):
        frame[column] = frame[column].str.decode("utf-8")
    return frame


@pytest.fixture
def report() -> Report:
    return report_of(decoder_labels(4, 8, CULPRIT), run=record_of(8), notes=("first", "zweitens: ü"))


def test_labels_is_a_table_for_pandas(report: Report, tmp_path: Path) -> None:
    write_h5(report, tmp_path / "report.h5")
    labels = table(tmp_path / "report.h5", "labels")
    assert len(labels) == 39 * 8
    own = labels[labels.origin == "own"]
    assert own[["task", "label", "rank", "status"]].values.tolist() == [[0, CULPRIT[0], 5, "diverged"]]
    assert own.rel_l2.iloc[0] > 0.1
    assert labels.bitwise.dtype == bool
    assert table(tmp_path / "report.h5", "run/ranks").host.unique().tolist() == ["a"]
    assert table(tmp_path / "report.h5", "first_by_rank").label[5] == CULPRIT[0]


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _same(json_value: Any, h5_value: Any, absent: Any) -> bool:
    if json_value is None:
        return h5_value == absent or (isinstance(h5_value, float) and np.isnan(h5_value))
    if isinstance(json_value, list):
        return h5_value in (str(tuple(json_value)), json.dumps(json_value) if json_value else "")
    return h5_value == (float(json_value) if json_value in ("inf", "-inf") else json_value)


def test_it_agrees_with_json(tmp_path: Path) -> None:
    labels = [label(status.value, [verdict(1, status, Origin.OWN), verdict(0)]) for status in Status]
    failure = Failure(rank=0, what="rank 0 exited with code 1")
    report = report_of(labels, run=record_of(2, failure), silent=(4, 5))
    write_h5(report, tmp_path / "report.h5")
    write_json(report, tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    flat = table(tmp_path / "report.h5", "labels").to_dict("records")
    held = [(one, rank, facts) for one in content["labels"] for rank, facts in one["ranks"].items()]
    for (one, rank, facts), row in zip(held, flat, strict=True):
        assert (one["task"], one["label"], one["occurrence"], int(rank), one["status"]) == (
            *(row["task"], row["label"], row["occurrence"], row["rank"], row["label_status"]),
        )
        simple = ("status", "origin", "reason", "bitwise", "layout", "margin")
        assert all(_same(facts[name], row[name], "") for name in simple)
        for group, prefix in {
            "metrics": "",
            "limits": "limit_",
            "golden": "golden_",
            "actual": "actual_",
            "stats": "stats_",
        }.items():
            for name, value in (facts[group] or {}).items():
                assert _same(value, row[prefix + name], -1), (one["label"], name)
            if facts[group] is None:
                first = next(name for name in row if name.startswith(prefix or "rel_l2"))
                assert _same(None, row[first], "" if isinstance(row[first], str) else -1)
    with h5py.File(tmp_path / "report.h5") as file:
        assert {n: _plain(file.attrs[n]) for n in ("schema", "verdict", "exit_code")} == {
            n: content[n] for n in ("schema", "verdict", "exit_code")
        }
        first = dict(file["first_divergence"].attrs)
        del first["description"]
        assert first.pop("found")
        assert {n: v.tolist() if n == "ranks" else _plain(v) for n, v in first.items()} == content["first_divergence"]
        coverage = {n: v.tolist() for n, v in file["coverage"].attrs.items() if n != "description"}
        assert coverage == content["coverage"]
        assert {n: _plain(v) for n, v in file["policy"].attrs.items() if n != "description"} == content["policy"]
        assert _plain(file["run"].attrs["run_id"]) == content["run"]["run_id"]
        assert json.loads(file["run"].attrs["failure"]) == content["run"]["failure"]


def test_plots_name_their_signal_and_axes(report: Report, tmp_path: Path) -> None:
    labels = [replace(each, level=level_of(each.key.label, "", "")) for each in report.judgement.labels]
    report = replace(report, judgement=replace(report.judgement, labels=tuple(labels)))
    write_h5(report, tmp_path / "report.h5")
    drawn = []

    def check(name: str, group: Any) -> None:
        if group.attrs.get("NX_class") != b"NXdata":
            return
        signal = group[group.attrs["signal"]]
        assert signal.shape == tuple(len(group[axis]) for axis in group.attrs["axes"])
        assert all(group[other].shape == signal.shape for other in group.attrs.get("auxiliary_signals", []))
        drawn.append(name)

    with h5py.File(tmp_path / "report.h5") as file:
        file.visititems(check)
        default = file[file.attrs["default"]]
        assert default[default.attrs["default"]].attrs["NX_class"] == b"NXdata"
        matrix = file["plots/by_rank/rel_l2"][:]
        names = file["plots/by_rank/label"].asstr()[:].tolist()
        layers, there = (file[f"plots/layer_by_rank/{name}"][:] for name in ("rel_l2", "layer"))
        against = file["plots/by_layer/worst_rel_l2"][:]
    assert drawn[:4] == [f"plots/{name}" for name in ("by_label", "by_layer", "by_rank", "layer_by_rank")]
    assert there.tolist() == [0, 1, 2, 3]
    assert [(row > 0.1).any() for row in layers] == [False, False, True, True], "layer 3 inherits"
    assert against.tolist() == layers.max(axis=1).tolist()
    assert matrix.shape == (39, 8)
    assert (matrix[names.index(CULPRIT[0])] > 0.1).tolist() == [rank == 5 for rank in range(8)]


def test_rows_of_what_does_not_match(tmp_path: Path) -> None:
    """Ranks that hold different rows of the whole share one axis; own errors come before inherited ones."""
    upper, lower = (verdict(rank, Status.DIVERGED, Origin.OWN) for rank in (0, 1))
    assert lower.stats is not None
    sums = lower.stats.rows
    moved = RowSums(sums.group, sums.index + 6, sums.sum_xx, sums.sum_dd)
    lower = replace(lower, stats=replace(lower.stats, rows=moved))
    labels = [
        label("drifts", [verdict(0, Status.DRIFT)]),
        label("matches", [verdict(0)]),
        label("own", [upper, lower]),
    ]
    write_h5(report_of(labels), tmp_path / "report.h5")
    with h5py.File(tmp_path / "report.h5") as file:
        assert [group.attrs["label"] for group in file["rows"].values()] == [b"own", b"drifts"]
        assert file["rows"].attrs["left_out"] == 0
        own = file["rows/own"]
        assert own["row_group"][:].tolist() == list(range(12))
        error, golden = own["error_norm"][:], own["golden_norm"][:]
    assert np.isnan(error).tolist() == [[False] * 6 + [True] * 6, [True] * 6 + [False] * 6]
    assert upper.stats
    assert np.nansum(error**2, axis=1) == pytest.approx([upper.stats.sum_dd] * 2)
    assert np.nansum(golden**2, axis=1) == pytest.approx([upper.stats.sum_xx] * 2)


def test_a_reader_needs_no_other_page(tmp_path: Path) -> None:
    """Each group, table and column says what it is; codes are enums; the producer is named."""
    write_h5(report_of(decoder_labels(2, 2, CULPRIT), run=record_of(2)), tmp_path / "report.h5")
    undescribed = []

    def check(name: str, found: Any) -> None:
        inside = name.count("/") and name.split("/")[0] in ("plots", "rows", "looks", "grid", "weights")
        if not inside and name != "notes" and "description" not in found.attrs:
            undescribed.append(name)

    with h5py.File(tmp_path / "report.h5") as file:
        file.visititems(check)
        assert undescribed == []
        assert _plain(file.attrs["producer"]) == "aclcmp" and _plain(file.attrs["producer_version"]) == __version__
        labels = file["labels"]
        assert all(len(_plain(labels.attrs[name])) > 10 for name in labels.dtype.names)
        status = h5py.check_enum_dtype(file["grid/status"].dtype)
        assert status == {"absent": 0, **{each.value: each.number for each in Status}}
        assert h5py.check_enum_dtype(file["grid/origin"].dtype) == {"none": 0, "own": 1, "inherited": 2}


@pytest.mark.parametrize("name", ["a/b", ".", "..", "", "%2F", "new\nline", "nul\0", "\ud800", "ü", "a, task 1"])
def test_groups_are_called_as_labels_as_far_as_hdf5_allows(name: str, tmp_path: Path) -> None:
    wrong = [verdict(0, Status.DIVERGED, Origin.OWN)]
    labels = [label(name, wrong), label(name, wrong, 1), label("a", wrong, 1), label("a, task 1", wrong, 2)]
    write_h5(report_of(labels), tmp_path / "report.h5")
    with h5py.File(tmp_path / "report.h5") as file:
        found = [(group.attrs["task"], _plain(group.attrs["label"])) for group in file["rows"].values()]
    assert [task for task, _ in found] == [0, 1, 1, 2], "the order in which they were written"
    assert {text for _, text in found[2:]} == {"a", "a, task 1"}
    assert len(read_h5(tmp_path / "report.h5", None).judgement.labels) == 4


def test_rows_are_bounded(tmp_path: Path) -> None:
    labels = [label(f"l{i}", [verdict(0, Status.DIVERGED, Origin.INHERITED)]) for i in range(300)]
    write_h5(report_of(labels), tmp_path / "report.h5")
    with h5py.File(tmp_path / "report.h5") as file:
        assert (len(file["rows"]), file["rows"].attrs["left_out"]) == (256, 44)


def test_nothing_at_all(tmp_path: Path) -> None:
    write_h5(report_of([]), tmp_path / "report.h5")
    assert len(table(tmp_path / "report.h5", "labels")) == 0
    with h5py.File(tmp_path / "report.h5") as file:
        assert not file["first_divergence"].attrs["found"]
        assert file["notes"].shape == (0,)


def test_labels_that_no_rank_has(tmp_path: Path) -> None:
    labels = [LabelVerdict(LabelKey(0, name, 0), Status.MATCH, ()) for name in "ab"]
    write_h5(report_of(labels), tmp_path / "report.h5")
    with h5py.File(tmp_path / "report.h5") as file:
        assert "plots" not in file and len(file["labels"]) == 0


def test_a_very_long_text(tmp_path: Path) -> None:
    reason = "why " * 2000
    held = [replace(verdict(0), reason=reason), verdict(1)]
    write_h5(report_of([label("x", held)]), tmp_path / "report.h5")
    assert table(tmp_path / "report.h5", "labels").reason.tolist() == [reason, "made up as match"]
