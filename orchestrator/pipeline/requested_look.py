"""A second look at labels that a user asks for, while the tensors still lie on this host."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.core.diagnosis import Looks, Suspect, first_problem
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.pipeline.diagnose import NO_DIAGNOSIS, NOT_WHOLE, diagnose
from aclcmp.orchestrator.pipeline.plan_of_report import plan_of_report, settle_as_in_report
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.terminal.screen import Screen


def look_on_request(run: RunDir, report: Report, asked: Sequence[LabelKey], screen: Screen) -> tuple[Report, str]:
    """Return the report with looks, patterns and hints of these labels, and why there are no looks at some of them.

    Raises AclcmpError where what was compared cannot be read any more.
    """
    comparer = LocalComparer()

    def compare(pairs: Sequence[Pair]) -> Outcomes:
        return comparer.compare_pairs(pairs, lambda pairs, nbytes: None)

    problem = "its tensors are not here"

    def look(suspects: Sequence[Suspect]) -> Looks:
        nonlocal problem
        looks = comparer.look_again(suspects, inf, lambda looks: None)
        problem = "interrupted" if len(looks) < len(suspects) else first_problem(looks) or problem
        return looks

    with TemporaryDirectory(prefix="aclcmp-") as scratch:
        plan = plan_of_report(run, report, Path(scratch), screen).plan
        labels = tuple(label for label in plan.labels if label.key in asked)
        if not labels:
            return report, problem
        load_library()
        verdicts = {label.key: label for label in report.judgement.labels}
        labels = tuple(settle_as_in_report(label, verdicts[label.key]) for label in labels)
        if any(label.questions for label in labels):
            labels = compare_and_resolve(replace(plan, labels=labels), compare).plan.labels
        reasons = (gap.reason for label in labels for gap in label.gaps)
        problem = NOT_WHOLE if any(label.pairs for label in labels) else next(reasons, problem)
        of_asked = {label.key: label for label in labels}
        plan = replace(plan, labels=tuple(of_asked.get(label.key, label) for label in plan.labels))
        found = diagnose(
            plan,
            report.judgement,
            compare,
            look,
            report.run.hosts if report.run else {},
            most_looks=sys.maxsize,
            asked=of_asked,
        )
    whole = replace(
        report,
        looks={**report.looks, **found.looks},
        patterns=(*(each for each in report.patterns if each.key not in of_asked), *found.patterns),
        hints=(*(each for each in report.hints if each.key not in of_asked), *found.hints),
    )
    return whole, "interrupted" if found is NO_DIAGNOSIS else problem
