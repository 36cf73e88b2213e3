"""The plan of a report that exists, made again while the tensors still lie on this host."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from aclcmp.orchestrator.core.plan import LabelPlan
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import RunRecord
from aclcmp.orchestrator.core.verdicts import LabelVerdict
from aclcmp.orchestrator.inputs.id_map_file import read_map
from aclcmp.orchestrator.inputs.layout_file import read_layouts
from aclcmp.orchestrator.pipeline.load_and_plan import (
    ComparisonPlan,
    plan_local_run,
    plan_on_golden_values,
    plan_sides,
)
from aclcmp.orchestrator.plan.layouts.corrections import NO_RULES
from aclcmp.orchestrator.plan.layouts.interpretations import PROVED, UNPROVED
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.golden_run import find_run_on_golden_values, open_golden_run
from aclcmp.orchestrator.run.record_file import load_record
from aclcmp.orchestrator.run.sources import open_source
from aclcmp.orchestrator.terminal.screen import Screen


def plan_of_report(run: RunDir, report: Report, scratch: Path, screen: Screen) -> ComparisonPlan:
    """Plan again what a report is on. Raises AclcmpError where what was compared cannot be read any more."""
    paths = {name: Path(path) for name, path in report.paths.items()}
    rules = read_layouts(paths["layouts"]) if "layouts" in paths else NO_RULES
    if "golden" in paths:
        golden, actual = (
            open_source(paths[name], side, scratch) for name, side in (("golden", "pta"), ("actual", "acl"))
        )
        return plan_sides(golden, actual, screen, read_map(paths["map"]) if "map" in paths else None, rules)
    if report.run is not None:
        run = RunDir(run.root, report.run.run_id)  # the folder may be called otherwise
    on_golden = None if report.run is None else find_run_on_golden_values(run, report.run)
    if on_golden is not None:
        golden_run = open_golden_run(Path(on_golden[1].golden), on_golden[1].inject)
        return plan_on_golden_values(golden_run, on_golden, screen, rules)
    return plan_local_run(run, report.run, screen, rules)


def is_on_golden_values(run: RunDir, report: Report) -> bool:
    """Tell whether the actual side of a report was computed from golden's values throughout (`--local`)."""
    if "actual" in report.paths:
        record = RunDir.at(Path(report.paths["actual"])).record
        return record.exists() and _is_local(load_record(record))
    on_golden = None if report.run is None else find_run_on_golden_values(run, report.run)
    return on_golden is not None and _is_local(on_golden[1])


def _is_local(record: RunRecord) -> bool:
    return bool(record.golden) and not record.inject


def settle_as_in_report(plan: LabelPlan, verdict: LabelVerdict) -> LabelPlan:
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
