"""A second look at labels that a user asks for, while the tensors still lie on this host."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.core.diagnosis import Looks, Suspect, first_problem
from aclcmp.orchestrator.core.plan import LabelPlan, Plan
from aclcmp.orchestrator.core.regions import LabelKey, Pair
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.stats import Outcomes
from aclcmp.orchestrator.core.verdicts import LabelVerdict
from aclcmp.orchestrator.inputs.id_map_file import read_map
from aclcmp.orchestrator.inputs.layout_file import read_layouts
from aclcmp.orchestrator.pipeline.diagnose import NO_DIAGNOSIS, NOT_WHOLE, diagnose
from aclcmp.orchestrator.pipeline.load_and_plan import plan_local_run, plan_sides
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.layouts.corrections import NO_RULES
from aclcmp.orchestrator.plan.layouts.interpretations import PROVED, UNPROVED
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.sources import open_source
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
        plan = _plan(run, report, Path(scratch), screen)
        labels = tuple(label for label in plan.labels if label.key in asked)
        if not labels:
            return report, problem
        load_library()
        verdicts = {label.key: label for label in report.judgement.labels}
        labels = tuple(_settle_as_in_report(label, verdicts[label.key]) for label in labels)
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


def _settle_as_in_report(plan: LabelPlan, verdict: LabelVerdict) -> LabelPlan:
    """Return a label's plan under the layout that the report names; a question is left where several have that name.

    The values of one label need not tell it: in the report those of all labels of its kind do.
    """
    names = {each.rank: each.layout.replace(UNPROVED, PROVED) for each in verdict.ranks}

    def is_reported(option: LabelPlan) -> bool:
        return bool(option.pairs) and all(pair.layout == names.get(pair.rank) for pair in option.pairs)

    alone = replace(plan, questions=(), second_look=None)
    if plan.second_look is not None and not plan.questions:
        return next(filter(is_reported, (alone, *plan.second_look())), alone)
    parts = [alone]
    for question in plan.questions:
        options = tuple(filter(is_reported, question.options))
        if len(options) > 1:
            parts.append(LabelPlan(plan.key, questions=(replace(question, options=options),)))
        else:
            parts += options or (question.unsettled,)
    return functools.reduce(LabelPlan.with_part, parts)


def _plan(run: RunDir, report: Report, scratch: Path, screen: Screen) -> Plan:
    """Plan again what the report is on."""
    paths = {name: Path(path) for name, path in report.paths.items()}
    rules = read_layouts(paths["layouts"]) if "layouts" in paths else NO_RULES
    if "golden" not in paths:
        return plan_local_run(run, report.run, screen, rules).plan
    golden, actual = (open_source(paths[name], side, scratch) for name, side in (("golden", "pta"), ("actual", "acl")))
    return plan_sides(golden, actual, screen, read_map(paths["map"]) if "map" in paths else None, rules).plan
