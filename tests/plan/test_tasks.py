"""Tasks of two runs: by order, by rules, and left out."""

from dataclasses import replace
from pathlib import Path

from aclcmp.labeling.shard.record import LabelRecord
from aclcmp.orchestrator.inputs.id_map_file import read_map
from aclcmp.orchestrator.plan.id_rules import IdMap, TaskRule
from aclcmp.orchestrator.plan.planner import plan_two
from aclcmp.orchestrator.plan.two_runs import as_golden
from tests.plan.test_planner import index, label


def in_task(task: int, side: str, seq: int) -> LabelRecord:
    return replace(label("x", side, seq), task=task)


def pairs(golden: tuple[int, ...], actual: tuple[int, ...], *rules: TaskRule) -> tuple[set[tuple[int, int]], list[int]]:
    """Return the pairs (golden task, actual task) of the plan, and the tasks of which a side is missing."""
    goldens = [index(0, *(in_task(task, "pta", n) for n, task in enumerate(golden)))]
    actuals = [index(0, *(in_task(task, "acl", n) for n, task in enumerate(actual)))]
    plan = plan_two(goldens, actuals, 1, IdMap(rules))
    seq_of = {("g", n): task for n, task in enumerate(golden)} | {("a", n): task for n, task in enumerate(actual)}
    found = set()
    for each in plan.labels:
        sides = each.sides[0]
        if each.pairs and sides.golden is not None and sides.actual is not None:
            found.add((seq_of["g", sides.golden.facts.seq], seq_of["a", sides.actual.facts.seq]))
    return found, sorted(gap.key.task for gap in plan.gaps)


def test_tasks_pair_by_order() -> None:
    assert pairs((5, 7), (0, 1)) == ({(5, 0), (7, 1)}, [])
    assert pairs((0, 1), (0, 1, 2)) == ({(0, 0), (1, 1)}, [2])


def test_a_golden_task_without_a_counterpart_keeps_its_number_where_that_is_free() -> None:
    assert pairs((0, 1, 2), (0, 1)) == ({(0, 0), (1, 1)}, [2])
    assert pairs((0, 1, 2, 3), (0, 2)) == ({(0, 0), (1, 2)}, [3, 4])
    assert pairs((0, 1, 2), (1, 2), TaskRule(1, 1), TaskRule(2, 2)) == ({(1, 1), (2, 2)}, [0])


def test_rules_pair_and_drop_tasks() -> None:
    """A dummy forward comes first on one side; then another order."""
    assert pairs((0, 1), (0, 1, 2), TaskRule(None, 0)) == ({(0, 1), (1, 2)}, [])
    assert pairs((0, 1, 2), (0, 1), TaskRule(1, None)) == ({(0, 0), (2, 1)}, [])
    assert pairs((0, 1, 2), (0, 1, 2), TaskRule(0, 2), TaskRule(2, 0)) == ({(0, 2), (1, 1), (2, 0)}, [])
    assert pairs((0, 1), (0, 1), TaskRule(0, 1))[0] == {(0, 1), (1, 0)}


def test_a_rule_for_a_task_that_is_not_there_is_told() -> None:
    goldens, actuals = [index(0, label("x", "pta", 0))], [index(0, label("x", "acl", 0))]
    plan = plan_two(goldens, actuals, 1, IdMap([TaskRule(0, 8, 4), TaskRule(9, None, 6)]))
    assert "no label follows these rules of the map: line 4, line 6" in plan.notes
    assert not plan.pairs and plan.gaps, "task 0 waits for task 8, and is not compared with another one"


def test_references_are_in_the_tasks_of_their_golden_labels() -> None:
    golden = [index(0, *(in_task(task, side, n) for task in (4, 5) for n, side in enumerate(("ref", "pta"))))]
    actual = [index(0, *(in_task(task, "acl", task) for task in (0, 1, 2)))]
    (moved,) = as_golden(golden, actual, IdMap([TaskRule(None, 0)]))
    assert [(record.side, record.task) for record in moved.records] == [("ref", 1), ("pta", 1), ("ref", 2), ("pta", 2)]


def test_the_file_of_rules(tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text('task:0 -> task:1\n- -> task:0 # a warm-up\ntask:3 -> -\n"task:7" -> x\n')
    ids = read_map(tmp_path / "map.txt")
    assert ids.tasks == (TaskRule(0, 1, 1), TaskRule(None, 0, 2), TaskRule(3, None, 3))
    assert ids.golden_name_of("x") == "task:7"
