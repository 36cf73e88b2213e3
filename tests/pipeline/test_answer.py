"""The report of a comparison: what it says of labels that nobody looked at again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from aclcmp.labeling.layout import Layout, Partial
from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.core.diagnosis import Looks, Suspect
from aclcmp.orchestrator.judge.policy import Policy
from aclcmp.orchestrator.pipeline.answer import answer
from aclcmp.orchestrator.pipeline.judging_options import JudgingOptions
from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun, plan_local_run
from aclcmp.orchestrator.plan.layouts.corrections import NO_RULES
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.terminal.screen import Screen
from tests.recorded import write_run

X = np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32)


class Comparer(LocalComparer):
    """Looks again as it is told."""

    def __init__(self, look: Callable[[Sequence[Suspect]], Looks] | None = None) -> None:
        super().__init__(1)
        self._look = look

    def look_again(self, suspects: Sequence[Suspect], seconds: float, advance: Callable[[int], None]) -> Looks:
        return super().look_again(suspects, seconds, advance) if self._look is None else self._look(suspects)


def notes_on_second_look(run: RunDir, comparer: Comparer) -> list[str]:
    screen = Screen(Console(quiet=True))
    planned = plan_local_run(run, None, screen, NO_RULES)
    report = answer(ComparedRun(run), planned, comparer, screen, JudgingOptions(Policy()))
    return [note for note in report.notes if note.startswith("second look")]


def ctrl_c(suspects: Sequence[Suspect]) -> Looks:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("look", "why"),
    [
        (lambda suspects: {each.name: "the file is gone" for each in suspects}, "the file is gone"),
        (ctrl_c, "interrupted"),
    ],
)
def test_the_reason_why_nobody_looked_again(
    tmp_path: Path, look: Callable[[Sequence[Suspect]], Looks], why: str
) -> None:
    run = write_run(tmp_path / "run", [[("pta", "x", X), ("acl", "x", -X)]])
    assert notes_on_second_look(run, Comparer(look)) == [
        f"second look: 0 of 1 pairs that do not match; not looked at: 1 ({why}; `aclcmp explain RUN LABEL` looks at "
        "one label)"
    ]


def test_a_sum_is_looked_at_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [[("pta", "x", X), ("acl", "x", X)]] * 2, Layout((Partial(),)))
    assert notes_on_second_look(run, Comparer()) == []
