"""What reports tell of weights."""

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import FirstDivergence, Origin
from aclcmp.orchestrator.core.weights import HeldRows, WeightFault, WeightFinding, WeightReport
from aclcmp.orchestrator.errors import ExitCode
from aclcmp.orchestrator.report.as_json import schema, write_json
from aclcmp.orchestrator.report.as_junit import write_junit
from aclcmp.orchestrator.report.h5.reader import read_h5
from aclcmp.orchestrator.report.h5.writer import write_h5
from aclcmp.orchestrator.report.html.page import write_html
from aclcmp.orchestrator.report.text.sentences import first_divergence_lines
from aclcmp.orchestrator.report.text.weights import weight_lines
from tests.report.made_up import label, report_of, verdict

QKV = "layers.1.qkv_proj.weight"
SWAPPED = WeightFinding(
    WeightFault.ORDER, QKV, ("layers.2.qkv_proj.weight",), (1,), "holds q_proj, **v_proj**", ("layers.1.q",), True
)
PACKED = WeightFinding(WeightFault.UNCHECKED, "head.weight", (), (0, 1), "it is empty", (), False)
HELD = (HeldRows("layers.{0,3}.qkv_proj.weight", (0,), "q_proj[0:4], k_proj[0:2] <b>"),)


def report_with(*findings: WeightFinding) -> Report:
    report = report_of([label("a", [verdict(0), verdict(1)])])
    weights = WeightReport(9, 9 - len(findings), (0, 1), findings, HELD)
    judgement = replace(report.judgement, weights=weights)
    if weights.wrong:
        first = FirstDivergence(LabelKey(0, QKV, 0), (1,), Origin.OWN, SWAPPED.words, "", of_weight=True)
        judgement = replace(judgement, first_divergence=first, exit_code=ExitCode.DIVERGED, verdict="diverged")
    return replace(report, judgement=judgement)


REPORTS = [report_with(), report_with(PACKED), report_with(SWAPPED, PACKED)]


@pytest.mark.parametrize("report", REPORTS)
def test_report_h5_keeps_them(report: Report, tmp_path: Path) -> None:
    write_h5(report, tmp_path / "report.h5")
    back = read_h5(tmp_path / "report.h5", report.run)
    assert back.judgement.weights == report.judgement.weights
    assert back.judgement.first_divergence == report.judgement.first_divergence


@pytest.mark.parametrize("report", REPORTS)
def test_report_json_has_them_as_the_schema_says(report: Report, tmp_path: Path) -> None:
    write_json(report, tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(content, schema())
    weights = report.judgement.weights
    assert weights is not None and len(content["weights"]["findings"]) == len(weights.findings)
    content["weights"]["findings"] = [{}]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, schema())


def test_one_line_where_all_are_golden_s() -> None:
    assert weight_lines(REPORTS[0]) == ["weights: 9 parameters on 2 ranks are golden's"]
    assert weight_lines(report_of([label("a", [verdict(0)])])) == []


def test_lines_of_what_is_wrong_and_of_what_was_not_checked() -> None:
    assert weight_lines(REPORTS[2]) == [
        "weights: 7 of 9 parameters on 2 ranks are golden's",
        f"  rank 1: {QKV} (and likewise 1 other) holds q_proj, **v_proj**",
        "  not checked: head.weight, ranks 0-1: it is empty",
    ]
    doubtful = report_with(replace(SWAPPED, wrong=False))
    assert weight_lines(doubtful)[1].startswith("  not golden's, perhaps on purpose: rank 1: ")


def test_the_headline_names_the_weight() -> None:
    head, why, *_ = first_divergence_lines(REPORTS[2])
    assert head.startswith(f"First divergence: weight {QKV}, rank 1") and head.endswith(", as it was loaded")
    assert why == "  It holds q_proj, **v_proj**."


def test_the_page_shows_them_and_opens(tmp_path: Path) -> None:
    write_html(REPORTS[2], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert '<h2 id="weights-title">Weights</h2>' in text and f"<h1 class=name>{QKV}</h1>" in text
    assert '<span class="chip">weight</span>' in text and "task 0" not in text.partition("<main>")[0]
    assert "k_proj[0:2] &lt;b&gt;" in text and "k_proj[0:2] <b>" not in text


def test_junit_has_a_failing_case_for_a_wrong_weight_alone(tmp_path: Path) -> None:
    for report, tags in ((REPORTS[2], ["failure"]), (REPORTS[1], ["system-out"]), (REPORTS[0], [])):
        write_junit(report, tmp_path / "report.xml")
        (suite,) = [
            each for each in ElementTree.parse(tmp_path / "report.xml").getroot() if each.get("name") == "weights"
        ]
        (case,) = suite.findall("testcase")
        assert [child.tag for child in case] == tags
