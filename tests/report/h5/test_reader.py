"""report.h5 read back is the report that was written; what is no report is refused."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from aclcmp.orchestrator.core.evidence import Evidence, LabelEvidence, ReplicaVerdict
from aclcmp.orchestrator.core.floors import Floor, FloorSource
from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.plan import GapKind
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import Judgement, Origin, Status
from aclcmp.orchestrator.errors import UsageError
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.report.as_json import write_json
from aclcmp.orchestrator.report.h5.reader import read_h5
from aclcmp.orchestrator.report.h5.writer import write_h5
from tests.report.made_up import decoder_labels, label, record_of, report_of, verdict


def again(report: Report, folder: Path) -> Report:
    write_h5(report, folder / "report.h5")
    return read_h5(folder / "report.h5", report.run)


def as_json(report: Report, folder: Path) -> object:
    write_json(report, folder / "report.json")
    return json.loads((folder / "report.json").read_text())


def odd_report() -> Report:
    """Every status and origin, and every fact that a verdict may have."""
    made = [(status, origin) for status in Status for origin in [None, *Origin]]
    labels = [label(f"{status.value}, {origin}", [verdict(0, status, origin)]) for status, origin in made]
    base = verdict(0, Status.DIVERGED, Origin.OWN)
    assert base.golden is not None
    floors = (Floor(FloorSource.REFERENCE, 1e-4, 2e-3), Floor(FloorSource.PROFILE, 0.0, 0.0))
    odd = [
        replace(base, excused="known: TF32", ignored=True, floors=floors, dtypes=("float32", "bfloat16")),
        replace(base, rank=1, summed=(1, 3), uncovered="[0:2, :] is on no golden rank"),
        replace(base, rank=2, golden=replace(base.golden, inputs=("a, b", 'c"d'), shape=())),
        replace(verdict(3, Status.MISSING), gap=GapKind.MISSING_ACTUAL, gap_reason="nobody labelled it"),
        replace(base, rank=4, golden=replace(base.golden, shape=(5,))),
    ]
    named = label("üñ<script>", odd)
    root, parent = LabelKey(0, "match", 0), LabelKey(0, "drift", 0)
    labels.append(replace(named, root=root, level=Level("op", True, "3", parent)))
    report = report_of(labels, run=record_of(5), silent=(7, 9), notes=("first", "zweitens: ü"))
    replicas = (
        ReplicaVerdict(LabelKey(0, "match", 0), "golden", True, (1, 2), (0, 3), 0.5, "differs", (4,), False),
        ReplicaVerdict(LabelKey(0, "match", 0), "actual", False, (), (), 0.0, "unread", (4,)),
    )
    return replace(report, judgement=replace(report.judgement, replicas=replicas))


@pytest.mark.parametrize("report", [odd_report(), report_of([]), report_of(decoder_labels(4, 8, ("x", 1)))])
def test_it_comes_back_whole(report: Report, tmp_path: Path) -> None:
    assert as_json(again(report, tmp_path), tmp_path) == as_json(report, tmp_path)


def test_sums_by_row_come_back_where_they_were_kept(tmp_path: Path) -> None:
    report = report_of([label("bad", [verdict(0, Status.DIVERGED, Origin.OWN), verdict(1)])])
    found = again(report, tmp_path).judgement.labels[0].ranks[0].stats
    written = report.judgement.labels[0].ranks[0].stats
    assert found is not None and written is not None
    np.testing.assert_allclose(found.rows.sum_dd, written.rows.sum_dd)
    assert found.rows.index.tolist() == written.rows.index.tolist()


def evidence_in(judgement: Judgement) -> Evidence:
    labels = tuple(LabelEvidence(each.key, each.level, each.ranks) for each in judgement.labels)
    return Evidence(labels, judgement.replicas)


def test_it_is_judged_again_as_before(tmp_path: Path) -> None:
    labels = decoder_labels(4, 8, ("layers.2.mlp.down.local", 5))
    labels = [
        replace(each, ranks=tuple(replace(v, dtypes=("float32", "float32")) for v in each.ranks)) for each in labels
    ]
    report = report_of(labels, run=record_of(8))
    before, after = (
        judge_evidence(evidence_in(report.judgement)),
        judge_evidence(evidence_in(again(report, tmp_path).judgement)),
    )
    assert [each.status for each in before.labels] == [each.status for each in after.labels]
    assert before.first_divergence == after.first_divergence is not None


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report.h5"
    with pytest.raises(UsageError, match="nothing was compared there yet"):
        read_h5(path, None)
    path.write_bytes(b"not HDF5")
    with pytest.raises(UsageError, match="cannot be read: Unable to"):
        read_h5(path, None)
    path.unlink()
    write_h5(report_of([label("a", [verdict(0)])]), path)
    with h5py.File(path, "a") as file:
        file.attrs["schema"] = 99
    with pytest.raises(UsageError, match="schema 99"):
        read_h5(path, None)
    with h5py.File(path, "w") as file:
        file.attrs["schema"] = 1
    with pytest.raises(UsageError, match=r"report\.h5 is no report of aclcmp"):
        read_h5(path, None)


def test_damaged_bytes_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "report.h5"
    write_h5(report_of([label("a", [verdict(0)])]), path)
    whole, chance = path.read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(40):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        with suppress(UsageError):  # it may well be read, or be refused: nothing else
            read_h5(path, None)


@pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/labels"), h5py.SoftLink("/replicas")])
def test_links_are_refused(link: object, tmp_path: Path) -> None:
    path = tmp_path / "report.h5"
    write_h5(report_of([label("a", [verdict(0)])]), path)
    with h5py.File(path, "a") as file:
        del file["labels"]
        file["labels"] = link
    with pytest.raises(UsageError, match="labels is a link"):
        read_h5(path, None)
