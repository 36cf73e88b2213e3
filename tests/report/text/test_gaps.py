"""What is said of labels that were not compared: nothing that is not so, and what to do about it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from aclcmp.orchestrator.core.diagnosis import Pattern
from aclcmp.orchestrator.core.plan import GapKind
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import Failure, RankState
from aclcmp.orchestrator.core.verdicts import Coverage, LabelVerdict, Origin, RankVerdict, Status
from aclcmp.orchestrator.report.text.terminal import print_report
from tests.report.made_up import label, record_of, report_of, side, verdict
from tests.report.text.test_terminal import printed


def in_part(rank: int, status: Status = Status.MISSING, origin: Origin | None = None) -> RankVerdict:
    """Return a verdict on some of the rows of a label."""
    words = "golden has no row for 3 rows"
    whole = verdict(rank, Status.MATCH if status is Status.MISSING else status, origin)
    return replace(whole, status=status, uncovered=words, reason=f"{words}; the rest: equal bit by bit")


def none_whole(labels: list[LabelVerdict]) -> Report:
    """Return a report in whose coverage nothing was compared as a whole."""
    report = report_of(labels)
    coverage = Coverage(0, 0, 0, 0, 0, len(labels), 0, 0, ())
    return replace(report, judgement=replace(report.judgement, coverage=coverage))


def test_what_was_compared_in_part_was_compared() -> None:
    text = printed(none_whole([label("a", [in_part(0)]), label("b", [in_part(0)])]), 200)
    assert "Nothing was compared" not in text and "set_task_id" not in text
    assert text.startswith("  label       0  rel L2   worst row\n")
    assert "Compared in part only for a, b on rank 0: a, rank 0: golden has no row for 3 rows; the rest: " in text
    wrong = printed(none_whole([label("a", [in_part(0, Status.DIVERGED, Origin.OWN)])]), 200)
    assert "First divergence: a" in wrong and "Nothing was compared" not in wrong


def one_sided(name: str, rank: int, task: int, of: str) -> LabelVerdict:
    gap = replace(verdict(rank, Status.MISSING), gap=GapKind.MISSING_ACTUAL)
    if of == "actual":
        gap = replace(gap, gap=GapKind.MISSING_GOLDEN, golden=None, actual=side(name))
    return label(name, [gap], task)


def test_tasks_are_blamed_only_where_they_differ() -> None:
    tasks = printed(report_of([one_sided("a", 0, 0, "golden"), one_sided("a", 0, 1, "actual")]), 300)
    assert (
        "golden's labels are those of task 0, actual's of task 1, under the same data ids. Call set_task_id()" in tasks
    )
    ranks = printed(report_of([one_sided("a", 0, 0, "golden"), one_sided("a", 1, 0, "actual")]), 300)
    assert "set_task_id" not in ranks
    assert "but on other ranks or in another number; e.g. a is golden on rank 0, actual on rank 1." in ranks


def test_a_task_too_many_is_no_matter_of_names() -> None:
    both = [label("a", [verdict(0)], task) for task in (0, 1)]
    text = printed(report_of([*both, one_sided("a", 0, 2, "actual"), one_sided("b", 0, 2, "actual")]), 300)
    assert (
        "No golden side (pta) for a on rank 0: golden has 2 tasks, actual 3: `- -> task:0` in the file of --map "
        "leaves one out." in text
    )
    assert "No golden side (pta) for b on rank 0: the golden side holds no label of this name; --suggest-map" in text
    text = printed(report_of([*both, one_sided("a", 0, 2, "golden")]), 300)
    assert "golden has 3 tasks, actual 2: `task:0 -> -` in the file of --map leaves one out." in text
    once_more = replace(one_sided("a", 0, 0, "actual"), key=both[0].key._replace(occurrence=1))
    text = printed(report_of([both[0], once_more]), 300)
    assert "the golden side has this name, but not as often, or on other ranks." in text and "--map" not in text


def test_rows_that_pair_with_none_are_no_matter_of_a_library() -> None:
    words = "golden has no row for 13 rows"
    alone = replace(verdict(0, Status.MISSING), actual=side("acl"), gap=GapKind.MISSING_GOLDEN, reason=words)
    assert printed(report_of([label("a", [alone])], run=record_of(1)), 300) == (
        f"Nothing was compared. Nothing of golden to compare with for a on rank 0: {words}.\n"
    )
    beside = printed(report_of([label("a", [alone]), label("b", [verdict(0)])], run=record_of(1)), 300)
    assert f"Nothing of golden to compare with for a on rank 0: {words}." in beside and "library" not in beside
    undumped = replace(alone, gap=GapKind.MISSING_ACTUAL)
    assert "Not dumped by the library for a on rank 0" in printed(report_of([label("a", [undumped])]), 300)


def test_each_reason_why_sides_do_not_fit_is_that_of_its_labels() -> None:
    reasons = {"a": "x: no layout fits both", "b": "values of different kinds", "c": "values of different kinds"}
    wrong = [label(name, [replace(verdict(0, Status.MISMATCH), reason=why)]) for name, why in reasons.items()]
    for labels, head in (([label("d", [verdict(0)]), *wrong], ""), (wrong, "Nothing was compared. ")):
        text = printed(report_of(labels), 400).replace("\n", " ")
        assert head in text
        assert (
            "The sides do not fit for a on rank 0: x: no layout fits both. Tell it by layout= in set_label, or correct "
            "it now: aclcmp compare ... --layouts FILE. The sides do not fit for b, c on rank 0: b, rank 0: values of "
            "different kinds. " in text
        )
    text = printed(report_of([label("d", [verdict(0)]), *wrong[1:]]), 400)
    assert "The sides do not fit for b, c on rank 0" in text and "layout" not in text
    some = verdict(0).stats
    shapes = "golden [4, 8], actual [4, 2]: 6 columns fewer; columns 0-1"
    layers = [
        label(n, [replace(verdict(0, Status.MISMATCH), stats=some, gap_reason=shapes, reason=f"{shapes} {words}")])
        for n, words in (("e", "differ: relative L2 0.1"), ("f", "differ: relative L2 0.2"), ("g", "agree"))
    ]
    text = printed(report_of([label("d", [verdict(0)]), *layers]), 400)
    assert f"The sides do not fit for e, f on rank 0: e, rank 0: {shapes} differ: relative L2 0.1." in text
    assert f"The sides do not fit for g on rank 0: {shapes} agree." in text
    many = [label(f"x{n}", [replace(verdict(0, Status.MISMATCH), reason=f"shape {n}")]) for n in range(9)]
    assert "5 more reasons why sides do not fit: see report.csv." in printed(report_of(many), 400)


def test_a_rank_that_finished_and_has_no_shard() -> None:
    absent = replace(verdict(1, Status.MISSING), golden=None, actual=None)
    labels, run = [label("a", [verdict(0), absent])], record_of(2)
    text = printed(report_of(labels, run=run, silent=(1,)), 300)
    assert (
        "No label at all from rank 1: see logs/rank00001.log. Rank 1 finished, but no label of it is there: "
        "shards/rank00001.h5 was removed since, or the script set none." in text
    )
    assert "not reached there" not in text
    killed = tuple(rank.model_copy(update={"state": RankState.FAILED}) for rank in run.ranks)
    text = printed(report_of(labels, run=run.model_copy(update={"ranks": killed}), silent=(1,)), 300)
    assert "not reached there" in text and "removed since" not in text


def test_one_piece_and_several_that_cannot_be_read() -> None:
    for number, words in ((1, "1 shard or journal line"), (2, "2 shards or journal lines")):
        for labels in ([], [label("a", [verdict(0)])]):
            found = report_of(labels)
            coverage = replace(found.judgement.coverage, unreadable=number)
            text = printed(replace(found, judgement=replace(found.judgement, coverage=coverage, verdict="x")), 300)
            assert f"{words} could not be read, as noted below" in text


def test_paths_begin_with_the_folder_of_the_run() -> None:
    out = io.StringIO()
    failed = record_of(2, Failure(rank=1, what="rank 1 exited", last_lines=("x",)))
    report = report_of([label("a", [verdict(0)])], run=failed, silent=(1,))
    print_report(report, Console(file=out, width=300, highlight=False), Path.cwd() / "runs" / "x")
    assert "  whole log: runs/x/logs/rank00001.log\n" in out.getvalue()
    assert "see runs/x/logs/rank00001.log. Rank 1 finished" in out.getvalue()
    assert ": runs/x/shards/rank00001.h5 was removed" in out.getvalue()


def test_a_question_ends_a_sentence() -> None:
    wrong = label("a", [verdict(0, Status.DIVERGED, Origin.OWN)])
    found = replace(report_of([wrong]), patterns=(Pattern(wrong.key, {0: 1.0}, "ranks 0, 2, or 2 apart?", "", ""),))
    assert "  Where: ranks 0, 2, or 2 apart?\n" in printed(found, 300)


def test_all_shards_are_gone() -> None:
    text = printed(report_of([], run=record_of(2), silent=(0, 1)), 400)
    assert text.startswith(
        "Nothing was compared. Ranks 0-1 finished, but no label of them is there: shards/rank00000.h5 and others were "
        "removed since, or the script set none. If so, call set_label("
    )
    assert "the script made no label" not in text
