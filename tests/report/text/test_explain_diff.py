"""`explain` and `diff`: what people read about a label, and about two runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest

from aclcmp.orchestrator.core.floors import Floor, FloorSource
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import LabelVerdict, Origin, Status
from aclcmp.orchestrator.errors import ExitCode, UsageError
from aclcmp.orchestrator.inputs.policy_file import read_policy
from aclcmp.orchestrator.judge.judge import judge_evidence
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.pipeline.stored_reports import evidence_of_report
from aclcmp.orchestrator.report.text.diff import changes, diff_lines, worse
from aclcmp.orchestrator.report.text.explain import choose_labels, explain
from tests.judge.series import judge_on, with_error
from tests.judge.test_policy import evidence
from tests.report.made_up import label, report_of, side, verdict


def report(errors: dict[str, float], policy: Policy | None = None) -> Report:
    found = judge_evidence(evidence(errors), policy or Policy())
    return replace(report_of([]), judgement=found)


def text(found: Report, name: str, rank: int | None = None) -> str:
    return "\n".join(line for each in choose_labels(found, name, None) for line in explain(found, each, rank))


def pasted(told: str, path: Path) -> Policy:
    """Return the policy of the first rule in an explanation, written to a file as a user would."""
    lines = [line.strip() for line in told.splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("[["))
    rule = [lines[start], *takewhile(lambda line: line.startswith(("pattern", "up_to")), lines[start + 1 :])]
    path.write_text("\n".join(rule), encoding="ascii")
    return read_policy(path)


def test_the_rule_that_it_gives_lets_the_label_pass(tmp_path: Path) -> None:
    found = report({"layers.0.mlp[0]": 1e-6, "layers.1.mlp[0]": 0.2})
    told = text(found, "layers.1.mlp[0]")
    assert "rank 0: diverged, own" in told and "times its limit; in a policy:" in told
    assert "layers     1.0e-06 2.0e-01" in told
    again = judge_evidence(evidence_of_report(found), pasted(told, tmp_path / "policy.toml"))
    assert [bool(each.ranks[0].excused) for each in again.labels] == [False, True]
    assert again.exit_code is ExitCode.MATCH


@pytest.mark.parametrize(("before", "error"), [(1e-6, 0.2), (1e-6, 5e-5), (1e-6, 1.3)])
def test_the_rule_also_holds_where_the_error_jumps(before: float, error: float, tmp_path: Path) -> None:
    """Beyond its limit or below, and with rows that differ: that of the whole tensor is what is held against it."""
    golden = np.random.default_rng(6).standard_normal((16, 64)) * np.geomspace(1, 100, 16)[:, None]
    made = {f"layers.{n}": (golden, with_error(golden, error if n == 8 else before, n)) for n in range(9)}
    jumping = {name: (one.astype(np.float32), other.astype(np.float32)) for name, (one, other) in made.items()}
    jumping["layers.8"][1][15] += np.float32(error * 40)
    found = replace(report_of([]), judgement=judge_on(jumping))
    assert found.judgement.exit_code is ExitCode.DIVERGED
    policy = pasted(text(found, "layers.8"), tmp_path / "policy.toml")
    again = judge_evidence(evidence_of_report(found), policy)
    assert again.exit_code is ExitCode.MATCH
    assert "[[" not in text(replace(found, judgement=again), "layers.8"), "nothing is left to let pass"


def test_the_rule_holds_for_all_tasks_and_for_errors_that_are_infinite(tmp_path: Path) -> None:
    found = report({"a": 0.2})
    (one,) = found.judgement.labels
    (worse,) = report({"a": 0.4}).judgement.labels
    two = replace(found.judgement, labels=(one, replace(worse, key=worse.key._replace(task=1))))
    found = replace(found, judgement=two)
    told = "\n".join(explain(found, one, None))
    again = judge_evidence(evidence_of_report(found), pasted(told, tmp_path / "policy.toml"))
    assert again.exit_code is ExitCode.MATCH
    zeros = np.zeros((4, 4), np.float32)
    found = replace(found, judgement=judge_on({"a": (zeros, zeros + 1)}))
    policy = pasted(text(found, "a"), tmp_path / "policy.toml")
    assert judge_evidence(evidence_of_report(found), policy).exit_code is ExitCode.MATCH


@pytest.mark.parametrize("name", ["a\U0001f600b", "ü.[x]*", 'quo"te\\', "new\nline\x7f", "ids?"])
def test_the_rule_that_it_gives_is_toml_whatever_the_name(name: str, tmp_path: Path) -> None:
    found = report({name: 0.2})
    again = judge_evidence(evidence_of_report(found), pasted(text(found, name), tmp_path / "policy.toml"))
    assert [bool(each.ranks[0].excused) for each in again.labels] == [True]
    assert again.exit_code is ExitCode.MATCH


def test_what_was_not_recorded_has_no_type_and_no_shape() -> None:
    failed = verdict(0, Status.FAILED)
    failed = replace(failed, actual=replace(side("a"), dtype="", shape=(), device=""))
    assert "actual     not recorded, number 0, labelled at" in text(report_of([label("a", [failed])]), "a")


def test_a_dumped_tensor_is_on_no_device_of_that_name() -> None:
    dumped = replace(verdict(0), actual=replace(side("a"), device="dumped by the library"))
    assert "actual     float32 (6, 4) dumped by the library, number 0" in text(report_of([label("a", [dumped])]), "a")


def test_what_matches_has_room_and_what_drifts_is_told_both_ways() -> None:
    found = report({"a": 1e-6, "b": 1e-4})
    assert "to fail    fail would have to be below" in text(found, "a")
    assert "to match   warn would have to be" in text(found, "b")


def test_ranks_floors_inputs_and_roots() -> None:
    wrong = replace(verdict(1, Status.DIVERGED, Origin.OWN), floors=(Floor(FloorSource.REFERENCE, 1e-3, 2e-3),))
    assert wrong.actual is not None
    wrong = replace(wrong, actual=replace(wrong.actual, inputs=("x",)), excused="known")
    one = replace(label("a", [verdict(0), wrong, verdict(2), verdict(3)]), root=LabelKey(0, "x", 0))
    found = report_of([one])
    told = text(found, "a")
    assert "inherited from x" in told and "computed from x" in told and "excused    known" in told
    assert "floor      reference: relative L2 1.0e-03, worst row 2.0e-03" in told
    assert "ranks 0, 2-3: match: made up as match" in told
    assert "rank 2: match" in text(found, "a", 2)
    with pytest.raises(UsageError, match="a is not on rank 9, but on ranks 0-3"):
        text(found, "a", 9)


@pytest.mark.parametrize("status", list(Status))
def test_every_status_is_explained(status: Status) -> None:
    assert status.value in text(report_of([label("x", [verdict(0, status)])]), "x")


def test_names_that_are_not_there() -> None:
    found = report({f"layers.{i}.mlp": 1e-6 for i in range(12)})
    with pytest.raises(UsageError, match=r"no label is called layers\.3\.mpl; did you mean layers\.3\.mlp"):
        choose_labels(found, "layers.3.mpl", None)
    with pytest.raises(UsageError, match="means 12 labels"):
        choose_labels(found, "**", None)
    with pytest.raises(UsageError, match="no label has task 7"):
        choose_labels(found, "layers.3.mlp", 7)
    with pytest.raises(UsageError, match="no label is called x in task 0; there are e"):
        choose_labels(found, "x", 0)
    with pytest.raises(UsageError, match="the report has no labels"):
        choose_labels(report_of([]), "x", None)
    assert len(choose_labels(found, "layers.1?.mlp", None)) == 2


def made(status: Status, origin: Origin | None = None) -> list[LabelVerdict]:
    return [label("a", [verdict(0)]), label("b", [verdict(0), verdict(1, status, origin)])]


GOOD, BAD = report_of(made(Status.MATCH)), report_of(made(Status.DIVERGED, Origin.OWN))


@pytest.mark.parametrize(
    ("before", "after", "kinds", "is_worse"),
    [
        (GOOD, GOOD, [], False),
        (GOOD, BAD, ["new"], True),
        (BAD, GOOD, ["mended"], False),
        (BAD, BAD, ["still"], False),
        (GOOD, report_of(made(Status.MISSING)), ["no longer compared"], True),
        (report_of(made(Status.MISSING)), GOOD, ["compared now"], False),
        (GOOD, report_of(made(Status.MATCH)[:1]), ["gone"], True),
        (report_of(made(Status.MATCH)[:1]), BAD, ["new", "added"], True),
        (GOOD, report_of(made(Status.DRIFT)), [], False),
    ],
)
def test_diff(before: Report, after: Report, kinds: list[str], is_worse: bool) -> None:
    found = changes(before.judgement, after.judgement)
    assert ([change.kind for change in found], worse(before.judgement, after.judgement, found)) == (kinds, is_worse)
    told = diff_lines(before, after, found)
    assert told[0].startswith("Wrong labels: ") and all(any(kind in line for line in told) for kind in kinds)


def test_a_run_that_failed_is_worse_though_its_labels_match() -> None:
    crashed = replace(GOOD, judgement=replace(GOOD.judgement, verdict="failed", exit_code=ExitCode.FAILED))
    assert worse(GOOD.judgement, crashed.judgement, []) and not worse(crashed.judgement, GOOD.judgement, [])
    assert "Verdict: match -> failed" in diff_lines(GOOD, crashed, [])
    partial = replace(GOOD.judgement, verdict="incomplete", exit_code=ExitCode.INCOMPLETE)
    assert worse(GOOD.judgement, partial, []) and not worse(BAD.judgement, partial, [])


def test_what_is_gone_inherits_nothing() -> None:
    tail = label("c", [verdict(0, Status.DIVERGED, Origin.INHERITED)])
    before, after = report_of([*made(Status.MATCH), tail]), report_of(made(Status.MATCH)[:1])
    told = diff_lines(before, after, changes(before.judgement, after.judgement))
    assert any(line.startswith("  c, task 0") for line in told) and not any("inherit" in line for line in told)


def test_inherited_ones_are_counted_not_listed() -> None:
    tail = [label(f"c{i}", [verdict(0, Status.DIVERGED, Origin.INHERITED)]) for i in range(5)]
    good_tail = [label(f"c{i}", [verdict(0)]) for i in range(5)]
    before = report_of(made(Status.MATCH) + good_tail)
    after = report_of(made(Status.DIVERGED, Origin.OWN) + tail)
    told = diff_lines(before, after, changes(before.judgement, after.judgement))
    assert told[0] == "Wrong labels: 0 -> 6 (6 new)"
    assert "  and 5 labels that inherit from such" in told and not any("c0" in line for line in told)


def on_ranks(ranks: int, wrong: int | None = None, names: tuple[str, ...] = ("x", "y")) -> Report:
    """Return a report in which the first label is on rank 0 alone."""
    status = {wrong: Status.DIVERGED}
    return report_of(
        [
            label(name, [verdict(r, status.get(r, Status.MATCH)) for r in range(1 if name == "x" else ranks)])
            for name in names
        ]
    )


@pytest.mark.parametrize(
    ("before", "after", "told", "is_worse"),
    [
        (on_ranks(1), on_ranks(4), ["Ranks: 1 -> 4: ranks 1-3 are not in the first report"], False),
        (on_ranks(4), on_ranks(3), ["Ranks: 4 -> 3: rank 3 is not in the second report"], True),
        (on_ranks(2), on_ranks(2), [], False),
        (
            on_ranks(1),
            on_ranks(4, wrong=2),
            [
                "Ranks: 1 -> 4: ranks 1-3 are not in the first report",
                "new: wrong now, and was not (1 label)",
                "  y, task 0, rank 2: absent -> diverged 4.2e-01",
            ],
            True,
        ),
        (
            on_ranks(2, names=("x", "y")),
            on_ranks(4, names=("x", "z")),
            [
                "Ranks: 2 -> 4: ranks 2-3 are not in the first report",
                "gone: not in the second report (1 label)",
                "  y, task 0, ranks 0-1: match 4.0e-07 -> absent",
                "added: not in the first report (1 label)",
                "  z, task 0, ranks 0-3: absent -> match 4.0e-07",
            ],
            True,
        ),
    ],
)
def test_runs_on_other_numbers_of_ranks(before: Report, after: Report, told: list[str], is_worse: bool) -> None:
    found = changes(before.judgement, after.judgement)
    assert diff_lines(before, after, found)[2:] == told
    assert worse(before.judgement, after.judgement, found) is is_worse
