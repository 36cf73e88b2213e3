"""The rows and channels of NaN, from files to every reader: the first label's, and of what inherits it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aclcmp.orchestrator.core.diagnosis import nonfinite_places
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.verdicts import Status
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.pipeline.diagnose import diagnose
from aclcmp.orchestrator.report.h5.reader import read_h5
from aclcmp.orchestrator.report.h5.writer import write_h5
from aclcmp.orchestrator.report.text.causes import pattern_object, what_it_looks_like
from aclcmp.orchestrator.report.text.explain import explain
from tests.judge.test_hints import World, X
from tests.report.html.test_page import page_of
from tests.report.made_up import report_of

ROWS = "rows 3, 9 hold 4 values that are not finite on one side alone"
CHANNELS = "channels 5-7 hold 4 values that are not finite on one side alone"


def report_on(world: World) -> Report:
    plan = world.plan
    judgement = judge(plan, world.compare(plan.pairs), run_failed=False)
    looks, patterns, hints = diagnose(plan, judgement, world.compare, world.look)
    return replace(report_of([]), judgement=judgement, looks=looks, patterns=patterns, hints=hints)


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """A right label; one with NaN and an infinity in two rows, on rank 1; and one that is all NaN because of it."""
    world = World(tmp_path)
    y = X.copy()
    y[3, 5:8], y[9, 7] = np.nan, np.inf
    world.add(X, [X, X], "a")
    world.add(X, [X, y], "b")
    world.add(X, [X, X * np.float32(np.nan)], "c")
    return report_on(world)


def explained(report: Report, number: int) -> str:
    return "\n".join(explain(report, report.judgement.labels[number], None))


def test_the_pattern_says_where(report: Report) -> None:
    assert [label.status for label in report.judgement.labels] == [Status.MATCH, Status.NONFINITE, Status.NONFINITE]
    (pattern,) = report.patterns
    assert (pattern.key.label, pattern.rows, pattern.channels) == ("b", ROWS, CHANNELS)
    assert report.hints == ()


def test_every_reader_says_where(report: Report, tmp_path: Path) -> None:
    (line,) = what_it_looks_like(report)
    assert line.startswith("  Where: rank 1 alone of 2") and line.endswith(f"; {ROWS}; {CHANNELS}.")
    assert f"  where: {ROWS}\n  where: {CHANNELS}\n" in explained(report, 1)
    found = json.loads(json.dumps(pattern_object(report.patterns[0])))
    assert (found["rows"], found["channels"]) == (ROWS, CHANNELS)
    page = page_of(report, tmp_path)
    assert ROWS in page.said and CHANNELS in page.said
    assert [ROWS, [], None] in page.part("details")["findings"]["1"]


def test_a_report_that_was_read_again_says_where(report: Report, tmp_path: Path) -> None:
    write_h5(report, tmp_path / "report.h5")
    again = read_h5(tmp_path / "report.h5", None)
    assert explained(again, 1) == explained(report, 1) and explained(again, 2) == explained(report, 2)


def test_what_is_inherited_is_explained_from_its_look(report: Report) -> None:
    told = explained(report, 2)
    assert "  inherited from b" in told
    assert "where      rows 0-63 hold 8,192 values that are not finite on one side alone" in told
    assert "where      channels 0-127 hold 8,192 values that are not finite" in told
    assert "    where  " not in explained(report, 1)  # its pattern says so


def test_figures_of_nothing_are_not_told(report: Report) -> None:
    told = explained(report, 2)
    assert "nan" not in told and "inf " not in told and "flat index -1" not in told
    assert "errors  " not in told and "range  " not in told and "not finite NaN 0 / 8,192" in told
    assert "SNR inf dB (of the 8,188 finite pairs)" in explained(report, 1)


def test_one_value_is_one(tmp_path: Path) -> None:
    world = World(tmp_path)
    y = X.copy()
    y[3, 5] = np.nan
    world.add(X, [y], "a")
    (pattern,) = report_on(world).patterns
    assert pattern.rows == "row 3 holds 1 value that is not finite on one side alone"
    assert pattern.channels == "channel 5 holds 1 value that is not finite on one side alone"


def test_what_is_nan_on_both_sides_has_no_place(tmp_path: Path) -> None:
    world = World(tmp_path)
    x, y = X.copy(), X.copy()
    x[1, 2] = y[1, 2] = np.nan
    world.add(x, [y], "same")
    y = y.copy()
    y[20, 30] = -np.inf
    world.add(x, [y], "one more")
    report = report_on(world)
    assert report.judgement.labels[0].status is Status.MATCH
    (pattern,) = report.patterns
    assert pattern.rows.startswith("row 20 holds 1 value") and pattern.channels.startswith("channel 30 holds 1 value")


def test_a_mask_of_the_lowest_values_is_right(tmp_path: Path) -> None:
    world = World(tmp_path)
    x = np.where(np.tri(64, 128) > 0, X, -np.inf).astype(np.float32)
    world.add(x, [np.maximum(x, np.finfo(np.float32).min)], "mask")
    report = report_on(world)
    assert report.judgement.labels[0].status is Status.MATCH and report.patterns == ()


def test_places_add_up_over_ranks_and_many_are_folded(tmp_path: Path) -> None:
    world = World(tmp_path)
    halves = [X[:, :64].copy(), X[:, 64:].copy()]
    halves[0][::8, 1] = np.nan
    halves[1][::16, 2] = np.nan
    world.add(X, halves, "sliced")
    report = report_on(world)
    (pattern,) = report.patterns
    assert pattern.rows == "rows 0, 8, 16, 24 ... (8 of them) hold 12 values that are not finite on one side alone"
    assert pattern.channels == "channels 1, 66 hold 12 values that are not finite on one side alone"
    assert nonfinite_places([]) == ["", ""]
