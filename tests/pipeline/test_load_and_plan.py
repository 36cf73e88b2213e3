"""A shard that cannot be read, or is another's: its rank's labels fail, all others are compared."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from aclcmp.labeling.layout import Layout, Shard
from aclcmp.labeling.rows import Rows
from aclcmp.labeling.shard.recovery import recover
from aclcmp.labeling.shard.weight_table import WeightTable
from aclcmp.orchestrator.core.plan import GapKind, Plan
from aclcmp.orchestrator.core.regions import LabelKey
from aclcmp.orchestrator.core.verdicts import WRONG
from aclcmp.orchestrator.errors import ExitCode, UsageError
from aclcmp.orchestrator.judge.judge import judge
from aclcmp.orchestrator.pipeline.load_and_plan import ComparedRun, plan_finished_run, plan_local_run, plan_sides
from aclcmp.orchestrator.pipeline.resolve_layouts import compare_and_resolve
from aclcmp.orchestrator.plan.layouts.corrections import LayoutRules
from aclcmp.orchestrator.run.directory import RunDir
from aclcmp.orchestrator.run.record_file import load_record, open_run
from aclcmp.orchestrator.run.sources import open_source
from aclcmp.orchestrator.terminal.screen import Screen
from tests.live.growing import Rank
from tests.models.comparing import compare_pairs
from tests.recorded import record_run, recorder_of, write_run


def test_an_unreadable_shard_after_a_run(tmp_path: Path) -> None:
    run, screen = RunDir(tmp_path, "run"), Screen(Console(quiet=True))
    run.shards.mkdir(parents=True)
    for number in range(2):
        rank = Rank(run.shards, number, 2)
        for side in ("pta", "acl"):
            rank.label(side, "x", np.ones(4, np.float32))
        rank.writer.close()
    record_run(run, "model.py", 2)
    record = load_record(run.record)
    whole = plan_finished_run(ComparedRun(run, record), {}, screen).plan
    assert whole.pairs == plan_local_run(run, record, screen, LayoutRules()).plan.pairs
    assert whole.unreadable == 0 and {pair.rank for pair in whole.pairs} == {0, 1}
    for path in run.shards.glob("rank00001*"):
        path.write_bytes(b"damaged" * 100)
    planned = plan_finished_run(ComparedRun(run, record), {}, screen).plan
    assert planned.unreadable == 1 and "rank00001" in planned.notes[-1]
    assert {pair.rank for pair in planned.pairs} == {0}
    assert plan_local_run(run, record, screen, LayoutRules()).plan.gaps == planned.gaps
    shutil.rmtree(run.shards)
    run.shards.mkdir()
    (run.shards / "rank00000.h5").write_bytes(b"damaged")
    with pytest.raises(UsageError, match=r"rank00000.*not HDF5"):
        plan_local_run(run, record, screen, LayoutRules())


QUIET = Screen(Console(quiet=True))
WHOLE = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
NAMES = ("x", "y")


def four_ranks(folder: Path, *, golden: bool = True, run_id: str = "run") -> RunDir:
    """Write a run with slices on four ranks; rank 1 alone has z."""
    ranks = [
        [
            *[("pta", name, WHOLE) for name in NAMES if golden],
            *[("acl", name, part) for name in (*NAMES, *["z"] * (rank == 1))],
        ]
        for rank, part in enumerate(np.split(WHOLE, 4, 1))
    ]
    return write_run(folder, ranks, run_id=run_id)


def planned_alone(run: RunDir) -> Plan:
    return plan_local_run(*open_run(run.root), QUIET, LayoutRules()).plan


def truncated(run: RunDir, other: RunDir) -> str:
    path = run.shards / "rank00001.h5"
    path.write_bytes(path.read_bytes()[:-100])
    return "aclcmp recover"


def without_journal(run: RunDir, other: RunDir) -> str:
    truncated(run, other)
    (run.shards / "rank00001.journal").unlink()
    return "copy both again"


def of_another_rank(run: RunDir, other: RunDir) -> str:
    shutil.copy(run.shards / "rank00000.h5", run.shards / "rank00001.h5")
    return "rank00001.h5 was written by rank 0 of run"


def of_another_rank_with_journal(run: RunDir, other: RunDir) -> str:
    for ending in ("h5", "journal"):
        shutil.copy(run.shards / f"rank00000.{ending}", run.shards / f"rank00001.{ending}")
    return "was written by rank 0"


def of_another_run(run: RunDir, other: RunDir) -> str:
    shutil.copy(other.shards / "rank00001.h5", run.shards / "rank00001.h5")
    return "rank00001.h5 was written by rank 1 of run another"


def of_another_run_with_journal(run: RunDir, other: RunDir) -> str:
    for ending in ("h5", "journal"):
        shutil.copy(other.shards / f"rank00001.{ending}", run.shards / f"rank00001.{ending}")
    return "was written by run another"


def journal_of_another_rank(run: RunDir, other: RunDir) -> str:
    shutil.copy(run.shards / "rank00000.journal", run.shards / "rank00001.journal")
    return "rank00001.journal beside it by rank 0"


KNOWS_ITS_LABELS = (truncated, of_another_rank, of_another_run)


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        without_journal,
        of_another_rank,
        of_another_rank_with_journal,
        of_another_run,
        of_another_run_with_journal,
        journal_of_another_rank,
    ],
)
def test_only_the_labels_of_its_rank_fail(tmp_path: Path, damage: Callable[[RunDir, RunDir], str]) -> None:
    run, other = four_ranks(tmp_path / "run"), four_ranks(tmp_path / "other", run_id="another")
    words = damage(run, other)
    plan = planned_alone(run)
    names = [*NAMES, *["z"] * (damage in KNOWS_ITS_LABELS)]
    assert [(gap.key.label, gap.rank, gap.kind) for gap in plan.gaps] == [(name, 1, GapKind.FAILED) for name in names]
    assert all("host here" in gap.reason and str(run.shards) in gap.reason for gap in plan.gaps), plan.gaps
    assert all(words in gap.reason for gap in plan.gaps), plan.gaps
    done = compare_and_resolve(plan, compare_pairs)
    judgement = judge(done.plan, done.outcomes, run_failed=False)
    assert judgement.exit_code is ExitCode.INCOMPLETE and judgement.coverage.compared == 6
    assert not any(verdict.status in WRONG for label in judgement.labels for verdict in label.ranks)


def test_hashes_of_weights_are_no_labels_of_a_damaged_shard(tmp_path: Path) -> None:
    run = RunDir(RunDir.create(tmp_path / "run").root, "run")
    for rank in range(2):
        recorder = recorder_of(run.shards, rank, 2)
        for side in ("pta", "acl"):
            recorder.record_weights(WeightTable(side, ()))
            recorder.record(side, "x", WHOLE, None, None, "", None, "f:1")
        recorder.close()
    record_run(run, "x.py", 2)
    truncated(run, run)
    assert {gap.key.label for gap in planned_alone(run).gaps} == {"x"}


def test_a_recovered_shard_is_compared_again(tmp_path: Path) -> None:
    run = four_ranks(tmp_path / "run")
    truncated(run, run)
    assert planned_alone(run).gaps
    recover(run.shards / "rank00001.h5")
    assert {gap.key.label for gap in planned_alone(run).gaps} == {"z"}, "which has no golden side"


def test_another_process_of_the_rank_fails_with_it(tmp_path: Path) -> None:
    run = four_ranks(tmp_path / "run")
    second = Rank(run.shards, 1, 4, started=2.0)
    second.label("acl", "w", WHOLE)
    second.writer.close()
    assert [(gap.key.label, gap.kind) for gap in planned_alone(run).gaps if gap.key.label == "w"] == [
        ("w", GapKind.MISSING_GOLDEN)
    ]
    truncated(run, run)
    gaps = planned_alone(run).gaps
    assert {(gap.key.label, gap.rank, gap.kind) for gap in gaps} == {(name, 1, GapKind.FAILED) for name in "xyzw"}


def test_forwards_of_an_engine_are_one_label_each(tmp_path: Path) -> None:
    """Of a label whose rows have names, a forward is no label of its own."""
    run = RunDir(RunDir.create(tmp_path / "run").root, "run")
    for rank in range(2):
        recorder = recorder_of(run.shards, rank, 2)
        for forward in range(5):
            for side in ("golden", "actual"):
                x = np.full((1, 4), forward, np.float32)
                rows = Rows(["a"], [forward], [7], None)
                recorder.record(side, "x", x, None, None, "", None, "f.py:1", rows)
        recorder.close()
    record_run(run, "engine.py", 2)
    assert not planned_alone(run).gaps
    truncated(run, run)
    plan = planned_alone(run)
    assert [(gap.key, gap.rank) for gap in plan.gaps] == [(LabelKey(0, "x", 0), 1)]


def two(golden: RunDir, actual: RunDir, scratch: Path) -> Plan:
    sides = [open_source(run.root, side, scratch) for run, side in ((golden, "pta"), (actual, "acl"))]
    return plan_sides(sides[0], sides[1], QUIET, None, LayoutRules()).plan


def test_a_damaged_shard_of_the_actual_run(tmp_path: Path) -> None:
    golden = write_run(tmp_path / "golden", [[("pta", name, WHOLE) for name in NAMES]])
    actual = four_ranks(tmp_path / "actual", golden=False)
    truncated(actual, actual)
    plan = two(golden, actual, tmp_path)
    assert {(gap.key.label, gap.rank, gap.kind) for gap in plan.gaps} == {(name, 1, GapKind.FAILED) for name in NAMES}
    assert any(note.startswith("actual run, rank 1: its shard of host here cannot be read") for note in plan.notes)
    done = compare_and_resolve(plan, compare_pairs)
    judgement = judge(done.plan, done.outcomes, run_failed=False)
    assert judgement.exit_code is ExitCode.INCOMPLETE and judgement.coverage.compared == 6


HALVES = [[("pta", name, part) for name in NAMES] for part in np.split(WHOLE, 2, 1)]


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize(
    ("goldens", "layout", "compared"),
    [
        (HALVES, None, False),
        (HALVES, Layout((Shard(1),)), False),
        (HALVES, Layout((Shard(1, ranks=range(2)),)), True),
        ([[("pta", name, WHOLE) for name in NAMES]] * 2, None, False),
        ([[("pta", name, WHOLE) for name in NAMES]] * 3, None, True),
    ],
    ids=["halves", "halves, told", "halves of these ranks", "one whole is left", "two equal wholes are left"],
)
def test_nothing_diverges_from_the_golden_part_that_is_left(
    tmp_path: Path, ranks: int, goldens: list[list[tuple[str, str, np.ndarray]]], layout: Layout | None, compared: bool
) -> None:
    told = [[("acl" if layout else side, name, part) for side, name, part in rank] for rank in goldens]
    golden = write_run(tmp_path / "golden", told, layout)
    slices = [[("acl", name, part) for name in NAMES] for part in np.split(WHOLE, ranks, 1)]
    actual = write_run(tmp_path / "actual", slices)
    truncated(golden, golden)
    plan = two(golden, actual, tmp_path)
    done = compare_and_resolve(plan, compare_pairs)
    judgement = judge(done.plan, done.outcomes, run_failed=False)
    statuses = {verdict.status for label in judgement.labels for verdict in label.ranks}
    assert not statuses & set(WRONG) and judgement.exit_code is ExitCode.INCOMPLETE, statuses
    assert bool(judgement.coverage.compared + judgement.coverage.uncovered) == compared
    assert all("golden run" in gap.reason for gap in done.plan.gaps)
