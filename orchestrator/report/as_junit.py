"""report.xml: the report as JUnit test results, as GitLab, Jenkins and the test reporters of GitHub read them.

A test suite per task, a test case per label; before them one for weights, where they were hashed. The first, "run", has
one test case, which holds the facts of the run and is an error where what went wrong has no label: a rank that failed
or was silent, or nothing to compare at all. What was not compared is never green; only what a policy lets pass is
skipped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import TextIOWrapper
from pathlib import Path

from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.text import count, of_ranks, visible
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, RankVerdict, Status, StatusGroup, worst
from aclcmp.orchestrator.core.weights import WeightReport
from aclcmp.orchestrator.errors import ExitCode, FailOn
from aclcmp.orchestrator.report.text.gaps import gap_lines, interruption_lines
from aclcmp.orchestrator.report.text.sentences import failure_lines, replica_lines
from aclcmp.orchestrator.report.text.weights import finding_line
from aclcmp.orchestrator.terminal.cells import shorten

_MOST_RANKS = 16
"""Ranks told of one label. With it 10,000 labels wrong on 64 ranks stay below the 30 MB that GitLab reads."""
_LONGEST_NAME = 80
_LONGEST_LINE = 500


@dataclass(frozen=True, slots=True)
class _TestCase:
    """One test case. `tag` is "failure", "error", "skipped", or "" where it passes."""

    classname: str
    name: str
    tag: str = ""
    kind: str = ""
    message: str = ""
    detail: tuple[str, ...] = ()
    """Lines of its system-out."""


def write_junit(report: Report, path: Path) -> None:
    """Write report.xml as UTF-8. What XML cannot hold (control characters, half surrogates) is written as escape."""
    tasks: dict[int, list[LabelVerdict]] = {}
    for label in report.judgement.labels:
        tasks.setdefault(label.key.task, []).append(label)
    suites = {"run": [_run_case(report)]}
    if report.judgement.weights is not None:
        suites["weights"] = _weight_cases(report.judgement.weights)
    fail_on = FailOn(report.policy.get("fail_on", FailOn.ANY))
    suites |= {f"task {task}": [_case(label, fail_on) for label in labels] for task, labels in tasks.items()}
    with path.open("w", encoding="utf-8", newline="\n") as out:
        xml = _Xml(out)
        with xml.element("testsuites", {"name": "aclcmp", **_counts([c for cases in suites.values() for c in cases])}):
            for name, cases in suites.items():
                times = _times(report) if name == "run" else {"time": "0"}
                with xml.element("testsuite", {"name": name, **times, **_counts(cases)}):
                    if name == "run":
                        _write_properties(xml, report)
                    for case in cases:
                        _write_case(xml, case)


class _Xml:
    """Writes elements as they come, one a line; every text is made harmless on the way."""

    def __init__(self, out: TextIOWrapper) -> None:
        self._out = out
        out.write('<?xml version="1.0" encoding="utf-8"?>\n')

    @contextmanager
    def element(self, tag: str, attributes: Mapping[str, str]) -> Iterator[None]:
        """Write an element around what is written within."""
        self._out.write(f"<{tag}{_attributes_text(attributes)}>\n")
        yield
        self._out.write(f"</{tag}>\n")

    def leaf(self, tag: str, attributes: Mapping[str, str], lines: Sequence[str] = ()) -> None:
        """Write an element that holds nothing but lines of text."""
        text = escape("\n".join(map(visible, lines)), quote=False)
        end = f">{text}</{tag}>" if text else "/>"
        self._out.write(f"<{tag}{_attributes_text(attributes)}{end}\n")


def _attributes_text(attributes: Mapping[str, str]) -> str:
    return "".join(f' {name}="{escape(visible(value))}"' for name, value in attributes.items())


def _write_case(xml: _Xml, case: _TestCase) -> None:
    # Some readers take a test case without a time for a broken one.
    named = {"classname": case.classname, "name": case.name, "time": "0"}
    if not case.tag and not case.detail:
        xml.leaf("testcase", named)
        return
    with xml.element("testcase", named):
        if case.tag == "skipped":
            xml.leaf("skipped", {"message": case.message})
        elif case.tag:
            # GitLab shows the text, Jenkins the message.
            xml.leaf(case.tag, {"message": case.message, "type": case.kind}, [case.message])
        if case.detail:
            xml.leaf("system-out", {}, case.detail)


def _write_properties(xml: _Xml, report: Report) -> None:
    judgement, run = report.judgement, report.run
    facts = {
        "run_id": report.run_id,
        "verdict": judgement.verdict,
        "exit_code": str(int(judgement.exit_code)),
        "compared": str(judgement.coverage.compared),
    }
    if judgement.first_divergence is not None:
        facts["first_divergence"] = judgement.first_divergence.key.label
    if run is not None:
        facts |= {
            "command": " ".join(run.command),
            "ranks": str(len(run.ranks)),
            "hosts": str(len({rank.host for rank in run.ranks})),
            "device": run.device,
            "launcher": run.launcher,
            "cluster": run.cluster,
            **{f"version.{name}": version for name, version in run.versions.items()},
        }
    facts["policy"] = str(report.policy.get("name", ""))
    with xml.element("properties", {}):
        for name, value in facts.items():
            xml.leaf("property", {"name": name, "value": value})


def _times(report: Report) -> dict[str, str]:
    if report.run is None:
        return {"time": "0"}
    began = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(report.run.started))
    return {"timestamp": began, "time": f"{report.run.finished - report.run.started:.3f}"}


def _counts(cases: Sequence[_TestCase]) -> dict[str, str]:
    tags = Counter(case.tag for case in cases)
    return {
        "tests": str(len(cases)),
        "failures": str(tags["failure"]),
        "errors": str(tags["error"]),
        "skipped": str(tags["skipped"]),
    }


def _run_case(report: Report) -> _TestCase:
    judgement = report.judgement
    wrong = judgement.exit_code is not ExitCode.MATCH
    if not wrong or (judgement.exit_code is ExitCode.DIVERGED and judgement.coverage.complete):
        return _TestCase("run", "run")
    reasons = [
        *failure_lines(report.run),
        *interruption_lines(report),
        *gap_lines(report),
        *replica_lines(report),
    ] or [f"the run is {judgement.verdict}"]
    return _TestCase("run", "run", "error", judgement.verdict, _brief(reasons[0]), tuple(map(_brief, reasons)))


def _weight_cases(weights: WeightReport) -> list[_TestCase]:
    """Return a test case for each weight that is wrong, or one that passes; its detail tells what is not known."""
    told = tuple(_brief(finding_line(each)) for each in weights.findings if not each.wrong)
    wrong = [
        _TestCase("weights", each.parameter, "failure", each.kind.value, _brief(finding_line(each)))
        for each in weights.wrong
    ]
    return wrong or [_TestCase("weights", "weights", detail=told)]


def _case(label: LabelVerdict, fail_on: FailOn) -> _TestCase:
    level = label.level
    place = f"layer {level.layer}" if level.layer else level.granularity or f"{level.words} level"
    # GitLab keeps one test case of each class name and name: the same label of another task must not hide this one.
    classname = f"task {label.key.task}.{place}"
    detail = _detail([verdict for verdict in label.ranks if verdict.status is not Status.MATCH])
    tags = {verdict.rank: _tag(verdict, fail_on) for verdict in label.ranks}
    counted = [verdict for verdict in label.ranks if tags[verdict.rank] in ("failure", "error")]
    passed_over = [verdict for verdict in label.ranks if tags[verdict.rank] == "skipped"]
    if counted:
        gravest = worst(verdict.status for verdict in counted)
        own = [verdict for verdict in counted if verdict.origin is Origin.OWN]
        blamed = [*own, *(verdict for verdict in counted if verdict.status is gravest)][0]
        reason = _reason(blamed, label.root)
        return _TestCase(classname, _name(label.key), tags[blamed.rank], blamed.status.value, reason, detail)
    if passed_over:
        reason = _brief(passed_over[0].excused) or _reason(passed_over[0], label.root)
        return _TestCase(classname, _name(label.key), "skipped", "", reason, detail)
    return _TestCase(classname, _name(label.key), detail=detail)


def _tag(verdict: RankVerdict, fail_on: FailOn) -> str:
    """Return the tag of a verdict's test case, as the verdict counts for the exit code."""
    group = verdict.status.group
    if group is StatusGroup.GOOD or (group is StatusGroup.WARNING and fail_on is not FailOn.DRIFT):
        return ""
    if verdict.excused or (fail_on is FailOn.OWN and verdict.origin is Origin.INHERITED):
        return "skipped"
    return "error" if group is StatusGroup.GAP else "failure"


def _reason(verdict: RankVerdict, root: LabelKey | None) -> str:
    if root is not None and verdict.origin is Origin.INHERITED:
        return f"inherited from {shorten(visible(_name(root)), _LONGEST_NAME, '...')}"
    return _brief(verdict.reason)


def _name(key: LabelKey) -> str:
    return key.label if key.occurrence == 0 else f"{key.label} #{key.occurrence}"


def _brief(text: str) -> str:
    return shorten(visible(text), _LONGEST_LINE, "...")


def _detail(verdicts: Sequence[RankVerdict]) -> tuple[str, ...]:
    lines = [_line(verdict) for verdict in verdicts[:_MOST_RANKS]]
    left = verdicts[_MOST_RANKS:]
    return (*lines, f"and {count(len(left), 'rank')} more: {of_ranks(v.rank for v in left)}") if left else (*lines,)


def _line(verdict: RankVerdict) -> str:
    side = verdict.actual or verdict.golden
    what = f"{verdict.status.value} {verdict.origin.value}" if verdict.origin else verdict.status.value
    # Where an inherited error was labelled helps nobody, and there are many of them.
    by_itself = verdict.origin is not Origin.INHERITED
    site = f", labelled at {side.call_site}" if by_itself and side and side.call_site else ""
    excused = f" (excused: {verdict.excused})" if verdict.excused else ""
    return _brief(f"rank {verdict.rank}: {what}: {verdict.reason}{excused}{site}")
