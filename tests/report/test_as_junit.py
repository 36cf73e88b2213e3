"""report.xml: what CI systems read says what the judgement says; nothing that was not compared is green."""

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aclcmp.orchestrator.core.levels import Level
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import Failure
from aclcmp.orchestrator.core.text import visible
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, Status
from aclcmp.orchestrator.errors import ExitCode, FailOn
from aclcmp.orchestrator.report.as_junit import write_junit
from tests.report.made_up import decoder_labels, label, record_of, report_of, verdict
from tests.report.test_any_name import NAMES, NASTY

Element = ElementTree.Element


def written(report: Report) -> Element:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.xml"
        write_junit(report, path)
        return ElementTree.parse(path).getroot()


def cases(root: Element) -> dict[str, Element]:
    """The test cases of labels, by name."""
    return {case.get("name", ""): case for case in root.iter("testcase") if case.get("classname") != "run"}


def told(case: Element) -> tuple[str, str, str]:
    """Tag, type and message of what is wrong with a test case."""
    found = [child for child in case if child.tag != "system-out"]
    return (found[0].tag, found[0].get("type", ""), found[0].get("message", "")) if found else ("", "", "")


def check_counts(root: Element) -> None:
    """The numbers that are told are those of the test cases, in every suite and over all."""
    for suite in [root, *root.iter("testsuite")]:
        tags = Counter(told(case)[0] for case in suite.iter("testcase"))
        told_counts = {name: int(suite.get(name, "-1")) for name in ("tests", "failures", "errors", "skipped")}
        assert told_counts == {
            "tests": tags.total(),
            "failures": tags["failure"],
            "errors": tags["error"],
            "skipped": tags["skipped"],
        }


def red(root: Element) -> int:
    return int(root.get("failures", "0")) + int(root.get("errors", "0"))


def test_a_suite_per_task_and_a_case_per_label() -> None:
    labels = [one for task in (0, 3) for one in decoder_labels(2, 2, task=task)]
    root = written(report_of(labels, run=record_of(2)))
    assert [suite.get("name") for suite in root] == ["run", "task 0", "task 3"]
    assert [case.get("name") for case in root[1]] == [one.key.label for one in labels if one.key.task == 0]
    assert red(root) == 0
    assert len({(case.get("classname"), case.get("name")) for case in root.iter("testcase")}) == len(labels) + 1
    facts = {each.get("name"): each.get("value") for each in root.iter("property")}
    assert facts["verdict"] == "match"
    assert (facts["command"], facts["ranks"], facts["device"]) == ("python run.py --prompt hello", "2", "npu")
    assert root[0].get("time") == "60.500"
    check_counts(root)


def with_root(labels: list[LabelVerdict], root: LabelKey) -> list[LabelVerdict]:
    """What is inherited comes from `root`, as a judge says."""
    inherited = [all(verdict.origin is Origin.INHERITED for verdict in one.ranks) for one in labels]
    return [replace(one, root=root) if each else one for one, each in zip(labels, inherited, strict=True)]


def test_own_and_inherited() -> None:
    labels = with_root(decoder_labels(3, 4, ("layers.1.attn.k", 2)), LabelKey(0, "layers.1.attn.k", 1))
    root = written(report_of(labels))
    found = cases(root)
    assert told(found["layers.1.attn.q"]) == ("", "", "")
    assert told(found["layers.1.attn.k"]) == ("failure", "diverged", "made up as diverged")
    assert told(found["layers.1.attn.v"]) == ("failure", "diverged", "inherited from layers.1.attn.k #1")
    out = found["layers.1.attn.k"].findtext("system-out")
    assert out == "rank 2: diverged own: made up as diverged, labelled at modeling.py:212"
    check_counts(root)


def test_an_own_rank_speaks_before_an_inherited_one() -> None:
    ranks = [verdict(0, Status.NONFINITE, Origin.INHERITED), verdict(1, Status.DIVERGED, Origin.OWN)]
    found = cases(written(report_of([label("x", [ranks[0], replace(ranks[1], reason="its own")])])))
    assert told(found["x"]) == ("failure", "diverged", "its own")


@pytest.mark.parametrize(
    ("fail_on", "tags"),
    [
        (FailOn.ANY, ("", "failure", "failure")),
        (FailOn.OWN, ("", "failure", "skipped")),
        (FailOn.DRIFT, ("failure", "failure", "failure")),
    ],
)
def test_what_fails_is_what_the_policy_counts(fail_on: FailOn, tags: tuple[str, str, str]) -> None:
    kinds = {
        "drift": verdict(0, Status.DRIFT),
        "own": verdict(0, Status.DIVERGED, Origin.OWN),
        "inherited": verdict(0, Status.DIVERGED, Origin.INHERITED),
    }
    labels = with_root([label(name, [one]) for name, one in kinds.items()], LabelKey(0, "own", 0))
    report = report_of(labels)
    found = cases(written(replace(report, policy={**report.policy, "fail_on": fail_on.value})))
    assert tuple(told(case)[0] for case in found.values()) == tags
    assert told(found["inherited"])[2] == "inherited from own"


def test_what_was_not_compared_is_an_error() -> None:
    labels = [label(status.value, [verdict(0), verdict(1, status)]) for status in Status]
    found = cases(written(report_of(labels)))
    assert {name: told(case)[0] for name, case in found.items()} == {
        "match": "",
        "drift": "",
        "diverged": "failure",
        "nonfinite": "failure",
        "mismatch": "error",
        "missing": "error",
        "failed": "error",
    }
    assert found["drift"].findtext("system-out", "").startswith("rank 1: drift: made up as drift")
    assert found["match"].find("system-out") is None


def test_only_the_excused_is_skipped() -> None:
    excused = replace(verdict(0, Status.DIVERGED, Origin.OWN), excused="policy allows layers.* up to 0.5")
    wrong = verdict(1, Status.DIVERGED, Origin.OWN)
    found = cases(written(report_of([label("all", [excused, verdict(1)]), label("one", [excused, wrong])])))
    assert told(found["all"]) == ("skipped", "", "policy allows layers.* up to 0.5")
    assert told(found["one"])[0] == "failure"
    assert "(excused: policy allows" in found["one"].findtext("system-out", "")


def test_what_has_no_label_is_told_by_the_run() -> None:
    failed = record_of(2, Failure(rank=1, what="rank 1 (host a) exited with code 1", last_lines=("boom \x1b[2J",)))
    judged = report_of([label("x", [verdict(0)])], run=failed)
    failed_report = replace(judged, judgement=replace(judged.judgement, verdict="failed", exit_code=ExitCode.FAILED))
    for report, message in (
        (report_of([]), "Nothing was compared: neither side holds a label."),
        (report_of([label("x", [verdict(0)])], silent=(1,)), "No label at all from rank 1"),
        (failed_report, "Run failed: rank 1 (host a) exited with code 1"),
    ):
        root = written(report)
        (case,) = root[0].iter("testcase")
        assert told(case)[0] == "error"
        assert told(case)[2].startswith(message)
        check_counts(root)


def test_classes() -> None:
    levels = {
        "a": Level("op", False, "12"),
        "b": Level("model"),
        "c": Level("", True),
        "d": Level(),
    }
    labels = [replace(label(name, [verdict(0)]), level=level) for name, level in levels.items()]
    again = label("a", [verdict(0)], task=1, occurrence=2)
    root = written(report_of([*labels, again]))
    assert [(case.get("classname"), case.get("name")) for case in root.iter("testcase")][1:] == [
        ("task 0.layer 12", "a"),
        ("task 0.model", "b"),
        ("task 0.low level", "c"),
        ("task 0.high level", "d"),
        ("task 1.high level", "a #2"),
    ]


@given(NAMES, st.sampled_from(Status))
@example(NASTY, Status.DIVERGED)
@example(["\ufffe", "\x7f", "]]>", "&amp;", "<script>alert(1)</script>", '"', "\t"], Status.MISSING)
@settings(max_examples=40)
def test_any_name(names: list[str], status: Status) -> None:
    origin = Origin.OWN if status in (Status.DIVERGED, Status.NONFINITE) else None
    labels = [label(name, [replace(verdict(0, status, origin), reason=name)]) for name in names]
    report = report_of(labels, notes=tuple(names))
    root = written(report)
    assert [case.get("name") for case in root.iter("testcase")][1:] == [visible(name) for name in names]
    assert {element.tag for element in root.iter()} <= {
        *("testsuites", "testsuite", "testcase", "properties", "property"),
        *("failure", "error", "skipped", "system-out"),
    }
    assert bool(red(root)) == (report.judgement.exit_code is not ExitCode.MATCH)
    check_counts(root)


def wide(labels: int, ranks: int) -> list[LabelVerdict]:
    """All labels wrong on all ranks, all but the first by inheritance."""
    reason = "relative L2 0.42, worst row 0.62 (row 123456); limit 0.001 (float32 table)"
    held = [replace(verdict(rank, Status.DIVERGED, Origin.INHERITED), reason=reason) for rank in range(ranks)]
    own = [replace(verdict, origin=Origin.OWN) for verdict in held]
    one = label("model.layers.0.self_attn.o_proj", own)
    return [one, *(label(f"model.layers.{i}.mlp.down_proj", held) for i in range(1, labels))]


def test_its_size_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    write_junit(report_of(wide(1_000, 64)), path)
    assert path.stat().st_size < 2_700_000  # of 10,000 labels: below the 30 MB that GitLab reads
    out = cases(ElementTree.parse(path).getroot())["model.layers.7.mlp.down_proj"].findtext("system-out", "")
    assert len(out.splitlines()) == 17
    assert out.endswith("and 48 ranks more: ranks 16-63")
