"""Ranks that hold something else than others of their side, in all forms of the report."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import h5py
from jsonschema import Draft202012Validator

from aclcmp.orchestrator.core.evidence import ReplicaVerdict
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.report.as_json import schema, write_json
from aclcmp.orchestrator.report.h5.writer import write_h5
from aclcmp.orchestrator.report.text.terminal import print_report
from aclcmp.orchestrator.terminal.console import report_console
from tests.report.made_up import decoder_labels, report_of

REASON = "the actual replica differs from that of ranks 0, 1: relative L2 up to 0.5"


def test_replicas_are_told(tmp_path: Path) -> None:
    odd = tuple(
        ReplicaVerdict(LabelKey(0, f"layers.{n}.norm", 0), "actual", True, (2, 5), (0, 1), 0.5, REASON)
        for n in range(6)
    )
    report = report_of(decoder_labels(2, 8))
    report = replace(report, judgement=replace(report.judgement, replicas=odd))
    write_json(report, tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    Draft202012Validator(schema()).validate(content)
    first = content["replicas"][0]
    assert (first["label"], first["odd"], first["agreeing"], first["rel_l2"]) == ("layers.0.norm", [2, 5], [0, 1], 0.5)
    write_h5(report, tmp_path / "report.h5")
    with h5py.File(tmp_path / "report.h5") as file:
        rows = [(row["label"].decode(), row["rank"], row["side"].decode()) for row in file["replicas"][:]]
    assert rows == [(f"layers.{n}.norm", rank, "actual") for n in range(6) for rank in (2, 5)]
    out = StringIO()
    print_report(report, report_console(out))
    assert f"Replicas differ: layers.0.norm, task 0, ranks 2, 5: {REASON}.\n" in out.getvalue()
    assert "Likewise: layers.1.norm (ranks 2, 5), layers.2.norm (ranks 2, 5), " in out.getvalue()
