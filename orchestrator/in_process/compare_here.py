"""Comparisons inside the user's process: of what it recorded, of tensors that it has, and of folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aclcmp.labeling.recorder import Recorder
from aclcmp.orchestrator.compare.kernels.load_library import load_library
from aclcmp.orchestrator.compare.local_comparer import LocalComparer
from aclcmp.orchestrator.core.report import Report
from aclcmp.orchestrator.core.run_record import RunRecord
from aclcmp.orchestrator.in_process.options import Options
from aclcmp.orchestrator.pipeline.answer import answer, answer_two
from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun, plan_shards, plan_sides
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.shards import read_some_indices
from aclcmp.orchestrator.run.sources import LabelSource, open_source
from aclcmp.orchestrator.terminal.screen import QuietScreen


def compare_run(run: RunDir, record: RunRecord | None, options: Options, *, independent: bool = False) -> Report:
    """Compare the labels of one run; they are `independent` where none was computed from another.

    Raises UsageError where its shards cannot be read, or two labels get one id.
    """
    screen, found = QuietScreen(), read_some_indices(run)
    indices = [replace(index, torn=False) for index in found.indices]  # in order: the process has not ended
    if options.ids is None:
        plan = plan_shards(replace(found, indices=indices), record, screen, options.layouts)
    else:
        side = LabelSource(run.root, tuple(indices), 1, "1 rank")
        plan = plan_sides(side, side, screen, options.ids, options.layouts)
    load_library()
    plan = replace(plan, plan=replace(plan.plan, independent=independent))
    report = answer(ComparedRun(run, record), plan, LocalComparer(), screen, options.judging, in_part=False)
    return replace(report, paths=options.paths, order="none" if independent else "calls")


def compare_values(golden: Mapping[str, Any], actual: Mapping[str, Any], call_site: str, options: Options) -> Report:
    """Compare tensors by their names, each by itself; they are copied into a temporary folder."""
    with TemporaryDirectory(prefix="aclcmp-") as scratch:
        run = RunDir.at(Path(scratch))
        run.shards.mkdir()
        recorder = Recorder.of_this_process(run.shards)
        for side, tensors in (("pta", golden), ("acl", actual)):
            for name, value in tensors.items():
                recorder.record(side, name, value, None, None, "", None, call_site)
        recorder.close(seal=False)  # which would lay out a file for other tools, and write it to the disk
        return compare_run(run, None, options, independent=True)


def compare_folders(golden: Path, actual: Path, options: Options) -> Report:
    """Compare two runs or dumps on this host, as `aclcmp compare GOLDEN ACTUAL` does. Raises UsageError for others."""
    screen = QuietScreen()
    with TemporaryDirectory(prefix="aclcmp-") as scratch:
        copies = Path(scratch)
        first, second = open_source(golden, "pta", copies), open_source(actual, "acl", copies)
        plan = plan_sides(first, second, screen, options.ids, options.layouts)
        load_library()
        run = ComparedRun(RunDir(copies, actual.name))
        report = answer_two(first, second, run, plan, LocalComparer(), screen, options.judging, in_part=False)
    paths = {"golden": str(golden.absolute()), "actual": str(actual.absolute())}
    return replace(report, paths={**paths, **options.paths})
